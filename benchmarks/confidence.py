"""Whether a stated error is kept: `python -m benchmarks.confidence RUN`, a finished run with a test split.

Simulates validation samples with known errors, one checkpoint and the best of twelve; then draws validation samples
from all predictions that the run saved, of validation and test, and checks on the other rows. Compared with the
threshold without a proof: the lowest above which no more validation rows are wrong. Writes results/confidence.json.
Nothing is chosen by it, and no row is read or predicted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import keep, measured
from submillion import runs
from submillion.judging import confidence
from submillion.judging.metrics import Predictions
from submillion.runs import Run

N_DRAWS = 1000
MAX_ERRORS = (0.01, 0.02, 0.05)


def plugged_in(predictions: Predictions, max_error: float) -> float | None:
    """Return the lowest threshold above which no more of these very rows are wrong; None if there is none."""
    sure = predictions.probs.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    good = np.flatnonzero(np.cumsum(~predictions.right[order]) / np.arange(1, len(order) + 1) <= max_error)
    return float(sure[order][good[-1]]) if len(good) else None


def simulated(n_rows: int, n_checkpoints: int, max_error: float) -> dict[str, float]:
    """Return how often a stated error is exceeded if the error among rows surer than quantile u is 0.1 (1 - u)^4.

    Checkpoints are equally good, and decide three rows in ten anew, each in its own way; validation's best is taken.
    """
    rng, n_exceeded, shares = np.random.default_rng(0), np.zeros(2), []
    for _ in range(N_DRAWS):
        quantiles = np.tile(rng.random(n_rows), (n_checkpoints, 1))
        is_wrong = rng.random((1, n_rows)) < 0.5 * (1 - quantiles) ** 4
        anew = rng.random(quantiles.shape) < 0.3
        others = rng.random(quantiles.shape)
        is_wrong = np.where(anew, rng.random(quantiles.shape) < 0.5 * (1 - others) ** 4, is_wrong)
        quantiles = np.where(anew, others, quantiles)
        best = int(is_wrong.sum(axis=1).argmin())
        sure = 0.5 + quantiles[best] / 2
        rows = Predictions([*map(str, range(n_rows))], is_wrong[best].astype(np.int64), np.stack([sure, 1 - sure], 1))
        n_choices = confidence.n_choices(~is_wrong)
        thresholds = [confidence.selection(rows, max_error, n_choices).threshold, plugged_in(rows, max_error)]
        n_exceeded += [each is not None and 0.1 * (2 - 2 * max(each, 0.5)) ** 4 > max_error for each in thresholds]
        shares.append(0.0 if thresholds[0] is None else 2 - 2 * max(thresholds[0], 0.5))
    exceeded, naive = (n_exceeded / N_DRAWS).tolist()
    return {"exceeded": exceeded, "plugged in": naive, "answered": float(np.mean(shares))}


def pool_of(run: Run) -> Predictions:
    """Return a run's saved predictions of its validation and its test rows, all in one."""
    first, second = run.load_predictions("validation"), run.load_predictions("test")
    return Predictions(
        [*(f"validation {each}" for each in first.ids), *(f"test {each}" for each in second.ids)],
        np.concatenate([first.label_ids, second.label_ids]),
        np.concatenate([first.probs, second.probs]),
    )


def drawn(pool: Predictions, n_rows: int, max_error: float) -> dict[str, float]:
    """Return the same for validation samples of real predictions; the other rows say what is true."""
    rng, n_exceeded, shares, errors = np.random.default_rng(0), np.zeros(2), [], []
    sure, right = pool.probs.max(axis=1), pool.right
    for _ in range(N_DRAWS):
        order = rng.permutation(len(sure))
        rows, new = pool.rows(order[:n_rows]), order[n_rows:]
        for number, threshold in enumerate(
            (confidence.selection(rows, max_error).threshold, plugged_in(rows, max_error))
        ):
            answered = sure[new] >= (np.inf if threshold is None else threshold)
            error = float((answered & ~right[new]).sum() / max(answered.sum(), 1))
            n_exceeded[number] += error > max_error
            if number == 0:
                shares.append(float(answered.mean()))
                errors += [error] if answered.any() else []
    exceeded, naive = (n_exceeded / N_DRAWS).tolist()
    return {
        "exceeded": exceeded,
        "plugged in": naive,
        "answered": float(np.mean(shares)),
        "error": float(np.mean(errors)) if errors else 0.0,
        "samples answered": len(errors) / N_DRAWS,
    }


def covered(pool: Predictions, n_rows: int, coverage: float) -> dict[str, float]:
    """Return the coverage and the mean size of sets of labels, by validation samples of real predictions."""
    rng, held, sizes = np.random.default_rng(0), [], []
    for _ in range(N_DRAWS):
        order = rng.permutation(len(pool.ids))
        rows, new = pool.rows(order[:n_rows]), pool.rows(order[n_rows:])
        members = confidence.label_sets(rows, coverage).members(new.probs)
        held.append(float(members[np.arange(len(members)), new.label_ids].mean()))
        sizes.append(float(members.sum(axis=1).mean()))
    return {"held": float(np.mean(held)), "labels": float(np.mean(sizes))}


def main() -> None:
    """Simulate, draw; print each line, and keep them."""
    results: dict[str, Any] = {}

    def note(key: str, values: dict[str, float]) -> None:
        results[key] = values
        print(key, {name: round(value, 4) for name, value in values.items()}, flush=True)

    for n_checkpoints in (1, 12):
        for n_rows, max_error in ((400, 0.05), (2000, 0.05), (2000, 0.01)):
            key = f"simulated, {n_checkpoints} checkpoints, {n_rows} rows, {max_error}"
            note(key, simulated(n_rows, n_checkpoints, max_error))
    run = runs.load(sys.argv[1])
    pool, config = pool_of(run), run.config()
    note("run", {"rows": len(pool.ids), "accuracy": float(pool.right.mean())})
    for n_rows in (500, 2000):
        for max_error in MAX_ERRORS:
            note(f"drawn, {n_rows} rows, {max_error}", drawn(pool, n_rows, max_error))
    note("drawn, 500 rows, sets of 0.95", covered(pool, 500, 0.95))
    for name, test in (("validation", run.load_predictions("validation")), ("test", run.load_predictions("test"))):
        for max_error in MAX_ERRORS:
            validation = run.load_predictions("validation")
            selected = confidence.selection(validation, max_error, run.n_choices(validation))
            if selected.threshold is not None:
                scores = confidence.answering_scores(selected, test)
                error = float("nan") if scores.error is None else scores.error.value
                note(f"as it is, {name}, {max_error}", {"answered": scores.answered.value, "error": error})
    keep("confidence", measured(results, data=Path(config.data.source).name, model=Path(config.model.name).name))


if __name__ == "__main__":
    main()
