"""How far estimates without labels are from the truth: `SUBMILLION_AGNEWS=… python -m benchmarks.shift OUT`.

Trains all-MiniLM-L6-v2 on four sentiment domains and on AG News in run folders under OUT, predicts each shift of
`shifts`, keeps the predictions there, and writes results/shift.json: the truth, and what `submillion shift` says
without it. AG News' test file is not opened. Started again, it goes on where it was.
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
from benchmarks.shifts import Shift, between_domains, made, of_own_rows

RESULTS = Path(__file__).parent / "results" / "shift.json"
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
    """Return the shifts of a run; of AG News, made of the rows that neither training nor validation has."""
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
    from submillion import cache, prediction

    key = cache.key_of(*(one.text for one in shift.rows))
    kept = run.path.parent / "predictions" / f"{run.name}-{key}.npy"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        np.save(kept, prediction.predict(run, [one.text for one in shift.rows]).probs)
    return np.load(kept)
