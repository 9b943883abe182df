"""False winners and power of `submillion compare`, by simulation with known truth.

`python -m benchmarks.comparison` writes benchmarks/results/comparison.json and prints what docs/comparison.md shows.
One core, two to four minutes, seeded. A run's checkpoint is the best of 12 on the very rows that are then compared.

The truth at accuracy 0.914: every run has 80 % of the rows right and 2 % wrong; 18 % are open. An open row is right
if a sum is positive: normal variables of all runs, of one setting, of one run and of one checkpoint, and the run's
level, which makes its true accuracy 0.914 plus the setting's and the seed's points. Two runs then disagree on
about 5 % (of one setting) and 6 % (of two) of all rows. At other accuracies the shares scale with the errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.results import keep, table
from submillion.judging.comparison import holm, mcnemar
from submillion.judging.comparison.bootstrap import Resampled, borrowing, difference, spread_of, weights

SIZES = (640, 1000, 6350, 7000)
ACCURACY, LEVEL = 0.914, 0.05
N_CHECKPOINTS = 12
OPEN, WRONG = 0.18 / 0.086, 0.02 / 0.086  # shares of rows, for each wrong row of a run
OF_SETTING, OF_RUN, OF_CHECKPOINT = 0.12, 0.25, 0.1  # variances on open rows; what all runs share has the rest of 1


@dataclass(frozen=True)
class Truth:
    """Two settings: rows, seeds, the first's advantage and both standard deviations of seeds in points of accuracy,
    and the checkpoints of each."""

    n_rows: int = 0
    n_seeds: int = 1
    advantage: float = 0.0
    seed_sds: tuple[float, float] = (0.0, 0.0)
    n_checkpoints: tuple[int, int] = (N_CHECKPOINTS, N_CHECKPOINTS)
    accuracy: float = ACCURACY


CASES = {
    "tied, seeds alike": Truth(),
    "tied, seeds vary by 0.3 points": Truth(seed_sds=(0.3, 0.3)),
    "tied, seeds vary by 0.6 points": Truth(seed_sds=(0.6, 0.6)),
    "tied, seeds vary by 1.0 and 0.2 points": Truth(seed_sds=(1.0, 0.2)),
    "tied, seeds alike, accuracy 0.98": Truth(accuracy=0.98),
    "tied, seeds alike, 12 checkpoints against 1": Truth(n_checkpoints=(12, 1)),
    **{
        f"{points} points apart, seeds vary by 0.3": Truth(seed_sds=(0.3, 0.3), advantage=points)
        for points in (0.5, 1.0, 2.0)
    },
}
MANY, MANY_ROWS = (3, 5, 20), (2000, 7000)
MANY_CASES = {
    "tied, seeds vary by 0.3 points": Truth(n_seeds=3, seed_sds=(0.3, 0.3)),
    "tied, seeds vary by 1.0 and 0.2 points": Truth(n_seeds=3, seed_sds=(1.0, 0.2)),
    "one better by 1.0 points, seeds vary by 0.3": Truth(n_seeds=3, seed_sds=(0.3, 0.3), advantage=1.0),
}


def draw(truth: Truth, rng: np.random.Generator, n_settings: int = 2) -> list[np.ndarray]:
    """Return which rows the chosen checkpoint of each run has right, bool [S, open rows], for each setting.

    The other rows tell no two runs apart.
    """
    n_open = rng.binomial(truth.n_rows, OPEN * (1 - truth.accuracy))

    def normal(variance: float, *shape: int) -> np.ndarray:
        return np.float32(math.sqrt(variance)) * rng.standard_normal((*shape, n_open), dtype=np.float32)

    shared = normal(1 - OF_SETTING - OF_RUN - OF_CHECKPOINT)
    settings = []
    for setting in range(n_settings):
        of_setting = shared + normal(OF_SETTING)
        n_checkpoints, sd = truth.n_checkpoints[setting % 2], truth.seed_sds[setting % 2]
        points = rng.normal(0, sd, truth.n_seeds) + (truth.advantage if setting == 0 else 0.0)
        right = [
            of_setting + normal(OF_RUN) + level + normal(OF_CHECKPOINT, n_checkpoints) > 0
            for level in levels(truth, points)
        ]
        settings.append(np.array([checkpoints[checkpoints.sum(axis=1).argmax()] for checkpoints in right]))
    return settings


def levels(truth: Truth, points: np.ndarray) -> np.ndarray:
    """Return what runs add on open rows to have the truth's accuracy plus their points."""
    sure = 1 - (OPEN + WRONG) * (1 - truth.accuracy)
    share = (truth.accuracy + points / 100 - sure) / (OPEN * (1 - truth.accuracy))
    return stats.norm.ppf(np.clip(share, 0.001, 0.999)).astype(np.float32)


def resampled(settings: list[np.ndarray], n_rows: int) -> list[Resampled]:
    """Return the accuracies as in `compare`, without the rows that all runs have right: they add the same to every
    run, and cancel in differences."""
    runs = np.concatenate(settings)
    varied = runs[:, runs.any(axis=0) & ~runs.all(axis=0)]
    counts = weights(n_rows)[:, : varied.shape[1]].astype(np.float32)
    accuracy = varied.astype(np.float32) @ counts.T / n_rows
    return [Resampled(part[:, 0], part[:, 1:]) for part in np.split(accuracy.astype(np.float64), len(settings))]


def percentile_rejects(first: Resampled, second: Resampled, rng: np.random.Generator) -> bool:
    """Say whether the plain two-way bootstrap finds a difference: each draw of rows takes S seeds with replacement."""

    def means(setting: Resampled) -> np.ndarray:
        chosen = rng.integers(0, len(setting.values), setting.draws.shape)
        return np.take_along_axis(setting.draws, chosen, axis=0).mean(axis=0)

    low, high = np.quantile(means(first) - means(second), (0.025, 0.975))
    return bool(low > 0 or high < 0)


def welch_rejects(first: Resampled, second: Resampled, n_rows: int) -> bool:
    """Say whether a difference is found with Welch's degrees of freedom: each setting's seeds count apart."""
    both, parts = spread_of(n_rows, first, second), [spread_of(n_rows, each) for each in (first, second)]
    of_seeds = sum((part.own + part.seeds) ** 2 / (len(first.values) - 1) for part in parts)
    dof = both.error**4 / (both.rows**2 / (n_rows - 1) + of_seeds)
    return bool(abs(first.values.mean() - second.values.mean()) > stats.t.ppf(0.975, dof) * both.error)


def rate(values: list[bool]) -> dict[str, float]:
    """Return the share of true values in percent, its standard error and the number of simulations."""
    share = float(np.mean(values))
    return {
        "percent": round(100 * share, 1),
        "standard_error": round(100 * math.sqrt(share * (1 - share) / len(values)), 1),
        "n": len(values),
    }


def two_runs(truth: Truth, n: int, seed: int) -> dict[str, float]:
    """Return how often two single runs are said to differ."""
    rng = np.random.default_rng(seed)
    rejected = []
    for _ in range(n):
        first, second = draw(truth, rng)
        rejected.append(mcnemar(first[0], second[0]).p <= LEVEL)  # n, its only other input, moves only the interval
    return rate(rejected)


def two_settings(truth: Truth, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Return how often two settings are said to differ: by `compare`, and in two other ways."""
    rng = np.random.default_rng(seed)
    rejected: dict[str, list[bool]] = {"compare": [], "plain": [], "welch": []}
    for _ in range(n):
        first, second = resampled(draw(truth, rng), truth.n_rows)
        rejected["compare"].append(difference(first, second, truth.n_rows).p <= LEVEL)
        rejected["plain"].append(percentile_rejects(first, second, rng))
        rejected["welch"].append(welch_rejects(first, second, truth.n_rows))
    return {name: rate(each) for name, each in rejected.items()}


def many_settings(truth: Truth, n_settings: int, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Return how often tied settings are not all found tied, or how often the first is told from each of the others,
    with the seeds' own variance and with a borrowed one."""
    rng = np.random.default_rng(seed)
    rejected: dict[str, list[bool]] = {"own": [], "borrowed": []}
    pairs = list(combinations(range(n_settings), 2))
    for _ in range(n):
        own = resampled(draw(truth, rng, n_settings), truth.n_rows)
        borrowed = [each["accuracy"] for each in borrowing([{"accuracy": each} for each in own])]
        for how, each in (("own", own), ("borrowed", borrowed)):
            p = holm(np.array([difference(each[i], each[j], truth.n_rows).p for i, j in pairs]))
            is_told = [bool(p[k] <= LEVEL) for k, (i, _) in enumerate(pairs) if i == 0 or not truth.advantage]
            rejected[how] += is_told if truth.advantage else [any(is_told)]
    return {name: rate(each) for name, each in rejected.items()}


def five_tied(n_checkpoints: int, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Return how often five runs of one accuracy do not all stay in the tie group, for three families of tests."""
    truth = Truth(n_rows=7000, n_checkpoints=(n_checkpoints, n_checkpoints))
    rng = np.random.default_rng(seed)
    rejected: dict[str, list[bool]] = {"uncorrected": [], "holm_with_best": [], "holm_all_pairs": []}
    for _ in range(n):
        runs = [setting[0] for setting in draw(truth, rng, n_settings=5)]
        runs.sort(key=lambda right: -right.sum())
        p = {(i, j): mcnemar(runs[i], runs[j]).p for i in range(5) for j in range(i + 1, 5)}
        with_best = np.array([p[0, j] for j in range(1, 5)])
        rejected["uncorrected"].append(with_best.min() <= LEVEL)
        rejected["holm_with_best"].append(holm(with_best).min() <= LEVEL)
        rejected["holm_all_pairs"].append(holm(np.array(list(p.values())))[:4].min() <= LEVEL)
    return {name: rate(each) for name, each in rejected.items()}


def discordance(seed: int) -> dict[str, float]:
    """Return the shares of rows that one of two runs has right: of one setting, and of two."""
    n_rows = 200_000
    first, second = draw(Truth(n_rows, n_seeds=2), np.random.default_rng(seed))
    pairs = {"one setting": (first[0], first[1]), "two settings": (first[0], second[0])}
    return {name: round(float((a != b).sum() / n_rows), 4) for name, (a, b) in pairs.items()}


def simulate() -> dict[str, Any]:
    """Return every rate of the page."""

    def table(measure: Callable[[Truth, int, int], Any], truth: Truth) -> dict[str, Any]:
        n = 250 if truth.advantage else 1000
        return {str(n_rows): measure(replace(truth, n_rows=n_rows), n, n_rows) for n_rows in SIZES}

    results: dict[str, Any] = {"discordance": discordance(1)}
    for name, truth in CASES.items():
        results[name] = {"1 seed": table(two_runs, truth)} | {
            f"{n_seeds} seeds": table(two_settings, replace(truth, n_seeds=n_seeds)) for n_seeds in (3, 5)
        }
    results["five runs tied"] = {
        f"{n_checkpoints} checkpoints": five_tied(n_checkpoints, 1000, 5) for n_checkpoints in (1, 12)
    }
    results["many settings"] = {
        name: {
            f"{n_settings} settings": {
                str(n_rows): many_settings(replace(truth, n_rows=n_rows), n_settings, 2000 // (5 + n_settings), n_rows)
                for n_rows in MANY_ROWS
            }
            for n_settings in MANY
        }
        for name, truth in MANY_CASES.items()
    }
    return results


def tables(results: dict[str, Any]) -> str:
    """Return the rates as docs/comparison.md shows them, in percent, a line per case."""

    def rates(sort: bool, methods: tuple[str, ...]) -> list[str]:
        rows: list[list[str]] = []
        for name in (name for name in CASES if name.startswith("tied") is sort):
            for seeds, cells in results[name].items():
                by_size = [cells[str(n)] for n in SIZES]
                shown = [_cell([c] if "percent" in c else [c[method] for method in methods]) for c in by_size]
                rows.append([name, seeds.split()[0], *shown])
        return table(f"| truth | seeds | {' | '.join(f'{n:,} rows' for n in SIZES)} |", rows)

    many = [
        [name, str(n), *(_cell([cells[str(rows)][how] for how in ("borrowed", "own")]) for rows in MANY_ROWS)]
        for name, of_case in results["many settings"].items()
        for n, cells in zip(MANY, of_case.values(), strict=True)
    ]
    of_many = table(f"| truth | settings | {' | '.join(f'{n:,} rows' for n in MANY_ROWS)} |", many)
    tied, apart = rates(True, ("compare", "welch", "plain")), rates(False, ("compare",))
    return "\n".join(
        ["Said to differ though tied:", "", *tied, "", "Said to differ, and different:", "", *apart, "", *of_many]
    )


def _cell(rates: list[dict[str, float]]) -> str:
    first, *others = (f"{each['percent']:.1f}" for each in rates)
    return f"**{first}** ({', '.join(others)})" if others else f"**{first}**"


def main() -> None:
    """Simulate, write the JSON, print its tables."""
    began = time.process_time()
    results = simulate()
    keep("comparison", {"cpu_s": round(time.process_time() - began), **results})
    print(tables(results))


if __name__ == "__main__":
    main()
