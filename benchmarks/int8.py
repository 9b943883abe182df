"""What int8 products cost in accuracy: training and predicting in int8 against the faster here of bf16 and float32.

`SUBMILLION_AGNEWS=… python -m benchmarks.int8 OUT [ENCODER]` trains on AG News' training file, three seeds per
precision or, for larger encoders, five, in run folders under OUT; the test file is not opened. Pairs of one seed are
judged on the same validation rows at a margin of 0.3 points, as exports are; and a run without int8 predicts again in
int8 and in float32. Started again, it resumes. The result goes to results/int8.json, by encoder, once three seeds are
there, and again after each further one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.material import MINILM
from benchmarks.results import keep, kept, measured
from submillion import data, runs
from submillion.data.long_texts import Reading
from submillion.judging.metrics import Z_95
from submillion.model import precisions
from submillion.model.batching import tokenize
from submillion.model.classifier import Classifier
from submillion.training import evaluation

MARGIN = 0.003
# Steps, rows per batch, validation rows, seeds: as many as an interval of the margin's width needs. After 100 steps of
# all-mpnet-base-v2 the way of rounding alone moved a run by 0.2 points: hence more steps and seeds.
LENGTHS = {MINILM: (120, 32, 10_000, 3)}
_OF_LARGE = (200, 16, 6_000, 5)
_LEAST_SEEDS = 3


def trained(encoder: str, precision: str, seed: int, out: str) -> runs.Run:
    """Return a run, trained now or before."""
    steps, batch, n_rows, _ = LENGTHS.get(encoder, _OF_LARGE)
    values = {
        "model.name": encoder,
        "model.head": "bottleneck",
        "data.text": "[title,description]",
        "data.validation": n_rows,
        "train.steps": steps,
        "train.batch_size": batch,
        "train.learning_rate": 1e-3,
        "train.seed": seed,
        "train.precision": precision,
        "train.evaluate_every": "null",
    }
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    file = str(Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet")
    command = [sys.executable, "-m", "submillion", "train", "--data", file, *sets, "--out", out, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return runs.load(json.loads(done.stdout)["run"])


def agreement(run: runs.Run, precisions: tuple[Any, ...]) -> dict[str, float]:
    """Return the accuracy of a run's validation rows in each precision, and how far from the last one's its logits are:
    the mean distance, and the share of rows with the same label."""
    logits, right = {}, None
    for precision in precisions:
        model = Classifier.load(run, "cpu", precision)
        config = run.config()
        rows = data.read(config.data).validation
        split = tokenize(rows, model.tokenizer, model.labels, Reading.of(config.model))
        logits[precision] = evaluation.logits(model, split, 128)
        right = split.label_ids
    exact = logits[precisions[-1]]
    values: dict[str, float] = {}
    for precision, each in logits.items():
        values[f"{precision} accuracy"] = float((each.argmax(1) == right).mean())
        values[f"{precision} same label"] = float((each.argmax(1) == exact.argmax(1)).mean())
        values[f"{precision} mean distance"] = float(np.abs(each - exact).mean())
    return values


def judged(rights: dict[str, list[np.ndarray]], usual: str) -> dict[str, Any]:
    """Return int8 minus `usual`, each row averaged over seeds, since all seeds have the same rows."""
    own = np.mean([np.subtract(*pair, dtype=float) for pair in zip(rights["int8"], rights[usual], strict=True)], axis=0)
    half = Z_95 * float(own.std(ddof=1)) / len(own) ** 0.5
    value = float(own.mean())
    return {
        "accuracy": {
            precision: [float(each.mean()) for each in of_precision] for precision, of_precision in rights.items()
        },
        "difference": {"value": value, "low": value - half, "high": value + half, "n": len(own)},
        "margin": MARGIN,
        "is_not_worse": value - half > -MARGIN,
    }


def main() -> None:
    """Train what is not trained yet, judge, and predict again."""
    out, encoder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else MINILM
    usual, _ = precisions.choose_precision(None, torch.device("cpu"))
    rights: dict[str, list[np.ndarray]] = {usual: [], "int8": []}
    first, again = None, None  # the first run without int8, and what it says in other precisions
    for seed in range(LENGTHS.get(encoder, _OF_LARGE)[-1]):
        for precision, of_precision in rights.items():
            run = trained(encoder, precision, seed, out)
            of_precision.append(run.load_predictions("validation").right)
            print(f"{precision}, seed {seed}: {of_precision[-1].mean():.4f}", file=sys.stderr, flush=True)
            first = first or run
        if first is not None and seed + 1 >= _LEAST_SEEDS:
            again = again or agreement(first, (*sorted({usual, "int8"} - {"fp32"}), "fp32"))
            result = {**judged(rights, usual), "again": again}
            keep("int8", {**kept("int8"), Path(encoder).name: measured(result)})
            print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
