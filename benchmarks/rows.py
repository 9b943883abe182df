"""How scaled log loss decides, against accuracy: `python -m benchmarks.rows OUT`, or `simulate`, for drawn runs.

MiniLM is trained with six settings on each of five data sets (the four packaged ones, and AG News in
$SUBMILLION_AGNEWS), one seed, in run folders under OUT; started again, it resumes. For all pairs of runs on a data set:
how many rows each test needs, and whether both say the same; for evaluations, whether the checkpoint that trainings
choose is better, on rows that did not choose it, than that of the highest accuracy; for rows whose predictions two
runs have swapped at random, so that no difference is true, how often each test finds one. Writes
benchmarks/results/rows.json; the constants of `submillion plan --rows` are its quartiles.

simulate: how often each test says that two runs differ that are equally good, and that are not, if classes are rare,
losses have heavy tails, or each run is the best of twelve checkpoints. Rows are drawn anew for each pair. Seeded,
about half an hour on one core; what the file has already is not drawn again.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from benchmarks.comparison import rate
from benchmarks.material import MINILM
from benchmarks.results import keep, kept, spread
from submillion import config, runs
from submillion.judging.comparison import is_better_checkpoint, mcnemar, rows_needed
from submillion.judging.comparison.bootstrap import difference, resample
from submillion.judging.comparison.rows import Z_POWER
from submillion.judging.metrics import Z_95, Predictions, deciding_losses
from submillion.training import workflow

LEAST_APART = 0.002  # of accuracies: below it a pair says nothing about how many rows it needs
SIZES = (50, 100, 300, 1_000, 2_000)  # rows, of swapped pairs
N_SWAPPED, N_CHOICES, N_CHOOSING = 400, 50, 500
_SHARED: dict[str, Any] = {"model.name": MINILM, "model.head": "linear", "train.steps": 200, "train.evaluate_every": 20}
_SHARED |= {"train.batch_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "rate 1e-4": {"train.learning_rate": 1e-4},
    "rate 3e-4": {"train.learning_rate": 3e-4},
    "rate 1e-3": {"train.learning_rate": 1e-3},
    "rate 3e-3": {"train.learning_rate": 3e-3},
    "rate 1e-3, long warm-up": {"train.learning_rate": 1e-3, "train.warmup": 0.3, "train.schedule": "cosine"},
    "rate 1e-3, rank 4 of queries and values": {
        "train.learning_rate": 1e-3,
        "adapter.sites": ["query", "value"],
        "adapter.rank": 4,
    },
}


@dataclass(frozen=True, eq=False)
class Judged:
    """A run: its validation predictions, and what each evaluation noted of them, right and minus losses [K, B]."""

    predictions: Predictions
    losses: np.ndarray
    rights: np.ndarray
    heights: np.ndarray


def sources() -> dict[str, dict[str, Any]]:
    """Return the data sets by name, as settings; most rows are for validation."""
    packaged = {name: {"data.source": f"packaged:{name}"} for name in ("tweets", "films", "amazon", "news")}
    of_one = {"data.train_rows": 1_000, "data.validation": 2_000}
    news = {"data.source": str(Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet")}
    news |= {"data.text": ["title", "description"], "data.train_rows": 2_000, "data.validation": 4_000}
    return {name: of_one | each for name, each in packaged.items()} | {"ag-news": news}


def judged(out: str) -> dict[str, list[Judged]]:
    """Train what is not trained yet; return the runs of each data set."""
    by_data: dict[str, list[Judged]] = {}
    for name, rows in sources().items():
        for number, (setting, values) in enumerate(SETTINGS.items()):
            sets = _SHARED | rows | values | {"out": out, "name": f"{name}-{number}"}
            run = workflow.train(config.load(overrides=sets), as_trial=True)
            predictions, records = run.load_predictions("validation"), run.evaluations()
            right, heights = (runs.noted(records, len(predictions.ids), key) for key in ("accuracy", "scaled_log_loss"))
            assert right is not None, f"{run.path}: evaluations did not note which rows are right"
            assert heights is not None, f"{run.path}: evaluations noted no losses"
            by_data.setdefault(name, []).append(Judged(predictions, deciding_losses(predictions), right, heights))
            print(f"{name}, {setting}: {predictions.right.mean():.4f}", file=sys.stderr, flush=True)
    return by_data


def of_pair(first: Judged, second: Judged) -> dict[str, float] | None:
    """Return what a pair says: rows by accuracy for each row by log loss, discordant rows for each error, and the
    difference of log loss over one in proportion to errors; None if accuracies are too near each other."""
    right, other = first.predictions.right, second.predictions.right
    apart = float(right.mean() - other.mean())
    if abs(apart) < LEAST_APART:
        return None
    losses = second.losses - first.losses
    discordance, errors = float((right != other).mean()), 1 - float(right.mean() + other.mean()) / 2
    by_loss = ((Z_95 + Z_POWER) * float(losses.std()) / float(losses.mean())) ** 2
    proportion = abs(apart) * float(first.losses.mean() + second.losses.mean()) / 2 / errors
    tested = mcnemar(right, other), difference(*(_resampled(each.predictions) for each in (first, second)), len(right))
    return {
        "ratio": (rows_needed(apart, discordance) or math.inf) / by_loss,
        "discordant_for_each_error": discordance / errors,
        "of_proportion": float(losses.mean()) * math.copysign(1, apart) / proportion,
        "by_accuracy": float(tested[0].p <= 0.05),
        "by_log_loss": float(tested[1].p <= 0.05),
    }


def _resampled(predictions: Predictions) -> Any:
    return resample([predictions])["scaled_log_loss"]


def swapped(first: Judged, second: Judged, n_rows: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return both tests' p on drawn rows, on each of which a coin swaps the two runs' predictions."""
    places = rng.choice(len(first.losses), n_rows, replace=False)
    coins = rng.random(n_rows) < 0.5
    pair = [each.predictions.rows(places) for each in (first, second)]
    mixed = [
        replace(one, probs=np.where(coins[:, None], one.probs, other.probs)) for one, other in (pair, reversed(pair))
    ]
    tested = difference(*map(_resampled, mixed), n_rows)
    return mcnemar(mixed[0].right, mixed[1].right).p, tested.p


def choices(run: Judged, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield by how much the checkpoint that trainings choose, and the one with the lowest scaled log loss, are more
    accurate than the one that accuracy chooses, on rows that chose none of them."""
    n_rows = run.rights.shape[1]
    for _ in range(N_CHOICES):
        order = rng.permutation(n_rows)
        inside, outside = order[:N_CHOOSING], order[N_CHOOSING:]
        on_others = run.rights[:, outside].mean(axis=1)
        rights, heights = run.rights[:, inside] > 0, run.heights[:, inside].mean(axis=1)
        guarded = 0
        for number in range(1, len(heights)):
            if is_better_checkpoint(rights[number], rights[guarded], bool(heights[number] > heights[guarded])):
                guarded = number
        by_accuracy = on_others[rights.mean(axis=1).argmax()]
        yield float(on_others[guarded] - by_accuracy), float(on_others[heights.argmax()] - by_accuracy)


@dataclass(frozen=True)
class Kind:
    """Drawn rows: the classes' shares; how sure runs are, 1 as they should be; the share of wrong labels, about which
    runs are sure; whether the last class has only one row."""

    shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    heat: float = 1.0
    wrong: float = 0.0
    has_lone_row: bool = False


_HALVES = [2.0**-k for k in range(10)]
KINDS = {
    "three classes alike": Kind(),
    "two classes, 99 to 1": Kind((0.99, 0.01)),
    "a class with one row": Kind((0.99, 0.01), has_lone_row=True),
    "ten classes, each half as frequent as the one before": Kind(tuple(share / sum(_HALVES) for share in _HALVES)),
    "heavy tails: 2 % of labels are wrong": Kind(wrong=0.02),
}
QUALITY, BETTER = 2.0, 2.12
_OF_RUN, _OF_CHECKPOINT = 0.14, 0.06  # variances of a row's difficulty; what all runs share has the rest of 1
# Checkpoints of each of two runs, the first one's quality, draws: choosing among twelve costs as much as twelve runs.
CASES = (((1, 1), QUALITY, 200), ((1, 1), BETTER, 100), ((12, 12), QUALITY, 100), ((12, 1), QUALITY, 100))
DRAWN_SIZES = {1: (50, 300, 1_000, 10_000), 12: (50, 300, 1_000)}  # by the most checkpoints


def drawn(
    rng: np.random.Generator,
    n: int,
    quality: float = QUALITY,
    kind: Kind = KINDS["three classes alike"],
    *,
    rows_seed: int = 0,
    n_checkpoints: int = 1,
) -> list[Predictions]:
    """Return a run's checkpoints on the n rows of rows_seed; the higher its quality, the more often it is right."""
    of_rows, n_classes = np.random.default_rng([rows_seed, n]), len(kind.shares)
    label_ids = of_rows.choice(n_classes, n, p=kind.shares)
    if kind.has_lone_row:
        label_ids = np.where(np.arange(n) == of_rows.integers(n), n_classes - 1, 0)
    shared = of_rows.normal(0, math.sqrt(1 - _OF_RUN - _OF_CHECKPOINT), (n, n_classes))
    shared += quality * (label_ids[:, None] == np.arange(n_classes))
    noted = np.where(of_rows.random(n) < kind.wrong, (label_ids + 1) % n_classes, label_ids)
    own = shared + rng.normal(0, math.sqrt(_OF_RUN), (n, n_classes))
    ids, checkpoints = [f"{i:05}" for i in range(n)], []
    for _ in range(n_checkpoints):
        evidence = own + rng.normal(0, math.sqrt(_OF_CHECKPOINT), (n, n_classes))
        # What Bayes' rule says about normal evidence whose mean is the quality in the true class, 0 in the others.
        probs = softmax(kind.heat * (quality * evidence + np.log(kind.shares)), axis=1)
        checkpoints.append(Predictions(ids, noted, probs))
    return checkpoints


def chosen(checkpoints: list[Predictions]) -> Predictions:
    """Return the best by scaled log loss, on the very rows that are then compared."""
    return min(checkpoints, key=lambda run: deciding_losses(run).mean()) if len(checkpoints) > 1 else checkpoints[0]


def simulate() -> None:
    """Measure in percent how often each test tells two drawn runs apart, by kind, checkpoints, truth and rows."""
    rates: dict[str, Any] = kept("rows").get("simulated", {})
    for n_checkpoints, quality, n_draws in CASES:
        for number, (name, kind) in enumerate(KINDS.items()):
            case = f"{name}; {' and '.join(map(str, n_checkpoints))} checkpoints; quality {quality} and {QUALITY}"
            for n_rows in DRAWN_SIZES[max(n_checkpoints)]:
                if str(n_rows) in rates.get(case, {}):
                    continue
                rng = np.random.default_rng([number, n_rows, *n_checkpoints, round(100 * quality)])
                n_here = min(n_draws, 1_000_000 // n_rows)
                ps = [_tested(rng, n_rows, kind, (quality, QUALITY), n_checkpoints) for _ in range(n_here)]
                rates.setdefault(case, {})[str(n_rows)] = {
                    test: rate([p <= 0.05 for p in of_test])
                    for test, of_test in zip(("accuracy", "log_loss"), zip(*ps, strict=True), strict=True)
                }
                print(case, n_rows, rates[case][str(n_rows)], file=sys.stderr, flush=True)
                keep("rows", kept("rows") | {"simulated": rates})  # what is drawn so far is not lost


def _tested(
    rng: np.random.Generator,
    n_rows: int,
    kind: Kind,
    qualities: tuple[float, float],
    n_checkpoints: tuple[int, int],
) -> tuple[float, float]:
    """Both tests' p of a pair of runs on rows of their own."""
    seed = int(rng.integers(2**31))
    pair = [
        chosen(drawn(rng, n_rows, quality, kind, rows_seed=seed, n_checkpoints=n))
        for quality, n in zip(qualities, n_checkpoints, strict=True)
    ]
    return mcnemar(*(run.right for run in pair)).p, difference(*map(_resampled, pair), n_rows).p


def main() -> None:
    """Draw, or train and judge; write and print the results."""
    if sys.argv[1:] == ["simulate"]:
        simulate()
        return
    models = judged(sys.argv[1])
    pairs = [pair for each in models.values() for a, b in combinations(each, 2) if (pair := of_pair(a, b)) is not None]
    rng, sizes = np.random.default_rng(0), {}
    for n_rows in SIZES:
        near = [(a, b) for each in models.values() for a, b in combinations(each, 2) if len(a.losses) >= n_rows]
        of_size = [swapped(*near[int(rng.integers(len(near)))], n_rows, rng) for _ in range(N_SWAPPED)]
        sizes[str(n_rows)] = {
            name: rate([p <= 0.05 for p in ps])
            for name, ps in zip(("accuracy", "log_loss"), zip(*of_size, strict=True), strict=True)
        }
    gains = 100 * np.array([np.mean(list(choices(run, rng)), axis=0) for each in models.values() for run in each])
    halves = Z_95 * gains.std(axis=0, ddof=1) / math.sqrt(len(gains))
    results = {
        "n_data_sets": len(models),
        "n_pairs": len(pairs),
        "n_other_way": sum(pair["of_proportion"] < 0 for pair in pairs),
        "told": {key: sum(int(pair[key]) for pair in pairs) for key in ("by_accuracy", "by_log_loss")},
        "quartiles": {
            key: np.quantile([pair[key] for pair in pairs], (0.25, 0.5, 0.75)).round(2).tolist()
            for key in ("ratio", "discordant_for_each_error", "of_proportion")
        },
        "accuracies": {
            name: [round(float(run.predictions.right.mean()), 4) for run in each] for name, each in models.items()
        },
        "told_apart_though_swapped": sizes,
        "points_gained_by_choosing_checkpoints": {
            how: {"mean": float(of_how.mean()), "half": float(half), **spread(of_how)}
            for how, of_how, half in zip(("as trainings do", "by log loss alone"), gains.T, halves, strict=True)
        },
    }
    keep("rows", kept("rows") | results)
    print(results)


if __name__ == "__main__":
    main()
