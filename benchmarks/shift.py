"""How far estimates without labels are from the truth: `SUBMILLION_AGNEWS=… python -m benchmarks.shift OUT`.

Trains all-MiniLM-L6-v2 on four sentiment domains and on AG News in run folders under OUT, predicts each shift of
`shifts`, keeps the predictions there, and writes results/shift.json: the truth, and what `submillion shift` says
without it. AG News' test file is not opened. Started again, it resumes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.material import MINILM
from benchmarks.results import keep
from benchmarks.shifts import DOMAINS, Shift, between_domains, made, of_own_rows

AGNEWS = Path(os.environ.get("SUBMILLION_AGNEWS", ".")) / "train.parquet"


def command(source: str, out: str) -> list[str]:
    """Return the command that trains the run of a source."""
    own = ["data.validation=0.2", "data.test=0.2", "model.max_length=64"]
    if source == "agnews":
        own = ["data.text=[title,description]", "data.validation=3000", "data.train_rows=8000"]
    sets = [part for one in (f"name={source}", f"model.name={MINILM}", *own) for part in ("--set", one)]
    rows = str(AGNEWS) if source == "agnews" else f"packaged:{source}"
    return [sys.executable, "-m", "submillion", "train", "--data", rows, *sets, "--out", out, "--json"]


def trained(source: str, out: str) -> Path:
    """Return the folder of a source's run, trained now if it was not."""
    done = subprocess.run(command(source, out), stdout=subprocess.PIPE, check=True)
    return Path(json.loads(done.stdout)["run"])


def shifts_of(source: str, run: Any) -> list[Shift]:
    """Return the shifts of a run; for AG News, made from the rows that neither training nor validation has."""
    from submillion import data

    settings = run.config().data
    splits = data.read(settings)
    if source != "agnews":
        pairs = [shift for shift in between_domains() if shift.source == source]
        return pairs + of_own_rows(source, splits.test)
    used = {one.id for one in (*splits.train, *splits.validation)}
    rows = data.read_rows(AGNEWS, settings, splits.labels)
    return made([one for one in rows if one.id not in used], AGNEWS)


def probs_of(run: Any, shift: Shift) -> np.ndarray:
    """Return the run's probabilities of a shift's rows, float64 [N, C], from the file that they are kept in."""
    from submillion import prediction
    from submillion.data import cache

    texts = [one.text for one in shift.rows]
    kept = run.path.parent / "predictions" / f"{run.name}-{cache.key_of(*texts)}.npy"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, prediction.predict(run, texts).probs)
    return np.load(kept)


def measured(run: Any, shift: Shift) -> dict[str, Any]:
    """Return a row of the results: the truth, and the estimates without it."""
    from submillion import data
    from submillion.judging.shift import drift, estimate, judge

    splits, probs = data.read(run.config().data), probs_of(run, shift)
    labels = np.array([splits.labels.index(str(one.label)) for one in shift.rows])
    shares = np.bincount(labels, minlength=len(splits.labels)) / len(labels)
    estimates = estimate(run.load_predictions("validation"), probs)
    texts = drift(*([one.text for one in rows] for rows in (splits.train, splits.validation, shift.rows)))
    verdict = judge(estimates, texts)
    return {
        "shift": shift.name,
        "source": shift.source,
        "group": "pair" if "→" in shift.name else "made",
        "half": shift.half,
        "n": len(labels),
        "truth": float((probs.argmax(axis=1) == labels).mean()),
        "corrected": corrected_accuracy(run, probs, labels),
        "stated": vars(verdict.accuracy),
        "is_trusted": verdict.is_trusted,
        "difference": verdict.difference,
        "validation": estimates.validation.value,
        "atc": vars(estimates.atc),
        "doc": vars(estimates.doc),
        "auc": None if texts.auc is None else texts.auc.value,
        "length_distance": texts.length_distance,
        "shares": {
            name: {"off": _apart([one.value for one in scores], shares), "held": _held(scores, shares)}
            for name, scores in (("bbse", estimates.bbse), ("em", estimates.em))
        },
    }


def corrected_accuracy(run: Any, probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the accuracy of what `--correct-priors` would write."""
    from submillion.judging.shift import class_shares, corrected

    adjusted = corrected(*class_shares(run.load_predictions("validation"), probs))
    return float((adjusted.argmax(axis=1) == labels).mean())


def _apart(estimated: list[float], truth: np.ndarray) -> float:
    """Total variation."""
    return float(np.abs(np.array(estimated) - truth).sum() / 2)


def _held(scores: Any, truth: np.ndarray) -> float:
    """The share of classes whose interval holds the truth."""
    return float(np.mean([one.low <= share <= one.high for one, share in zip(scores, truth, strict=True)]))


def main() -> None:
    """Train and predict what is not there yet, estimate, write the results."""
    from submillion import runs

    out, rows = sys.argv[1], []
    for source in ("agnews", *reversed(DOMAINS)):
        run = runs.load(trained(source, out))
        for shift in shifts_of(source, run):
            rows.append(measured(run, shift))
            keep("shift", {"rows": rows})
            print(f"{source}: {shift.name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
