"""How often a race drops the trial that would have ended best, and what it costs, by simulation with known truth.

`python -m benchmarks.racing` writes benchmarks/results/racing.json and prints what docs/comparison.md shows. One core,
about ten minutes, seeded. `python -m benchmarks.racing FOLDER` races the finished runs of a folder instead.

A trial has a level at each share of its steps: the mean loss over infinitely many rows. A row's loss there follows from
how hard it is for all trials, for this trial, and for this checkpoint. Losses are of four classes, bounded as
`deciding_losses` are, and as uneven: some rows cost ten times the mean. Levels are of one of three families:

- rates: one task, learning rates within a factor of 30, other settings that matter less. Chance at first; a fall whose
  time depends on the rate; a slow decline, a power of the steps; noise that grows with the rate, and so a last drop
  under a linear decay. Some rates diverge, some tasks overfit, some studies vary warm-ups and schedules.
- shapes: each trial has a course and an end of its own, so that courses cross more than real ones do.
- slow starters win: the same, and the slowest of all trials ends best.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import special

from benchmarks.results import keep, kept, table
from submillion import runs
from submillion.judging.comparison import RUNGS, SHARES, Course, dropped
from submillion.runs import Run, unpacked_losses
from submillion.sweeps.racing import course

Family = Literal["rates", "shapes", "slow starters win"]
FAMILIES: tuple[Family, ...] = ("rates", "shapes", "slow starters win")
TRIALS, ROWS = {2: 100, 8: 60, 32: 20}, (300, 1000, 5000)  # trials: how many races of them are drawn
N_CLASSES, CHANCE = 4, math.log(4)
MOST = math.log(N_CLASSES / 0.01)
_AT = np.array([*SHARES, 1.0])
_SHARED, _OF_TRIAL, _OF_CHECKPOINT = 0.55, 0.33, 0.12  # variances of what makes a row hard
_SKILLS = np.linspace(0, 3, 301)


def losses_of(skill: np.ndarray, hardness: np.ndarray) -> np.ndarray:
    """Return rows' losses: at skill 0 all are at chance, with more the mean falls and the tail grows."""
    logit = -math.log(N_CLASSES - 1) + 3.6 * skill + 2.5 * np.minimum(skill, 1) * hardness
    return -np.log(0.99 * special.expit(logit) + 0.01 / N_CLASSES)


def _levels_of_skills() -> np.ndarray:
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    return losses_of(_SKILLS[:, None], points) @ (weights / weights.sum())


_LEVELS = _levels_of_skills()


@dataclass(frozen=True)
class Schedules:
    """Warm-ups [K], and at each share the learning rate and its sum so far, as shares of the peak, [K, S]."""

    warmups: np.ndarray
    rates: np.ndarray
    sums: np.ndarray


def schedules(n_trials: int, rng: np.random.Generator) -> Schedules:
    """Draw schedules: one warm-up and a linear decay for all in most studies, several in some."""
    warmups = rng.choice([0.0, 0.06, 0.1, 0.3], n_trials) if rng.random() < 0.3 else np.full(n_trials, 0.06)
    is_linear = rng.random((n_trials, 1)) < (0.5 if rng.random() < 0.2 else 1.0)
    warmup = warmups[:, None]
    after = np.maximum(_AT - warmup, 0)
    rates = np.where(warmup > _AT, _AT / np.maximum(warmup, 1e-9), np.where(is_linear, 1 - after / (1 - warmup), 1.0))
    rising = np.minimum(_AT, warmup) ** 2 / np.maximum(2 * warmup, 1e-9)
    return Schedules(warmups, rates, rising + np.where(is_linear, after - after**2 / (2 * (1 - warmup)), after))


def of_rates(n_trials: int, schedule: Schedules, rng: np.random.Generator) -> np.ndarray:
    """Return levels [K, S] of the family "rates"."""
    log_rates = rng.uniform(-math.log(30) / 2, math.log(30) / 2, n_trials) + rng.uniform(-1, 1)  # from the best one
    if rng.random() < 0.5:
        log_rates = np.round(log_rates / math.log(3)) * math.log(3)  # few rates, so that other settings decide
    rates, best = np.exp(log_rates)[:, None], rng.uniform(0.15, 0.6)
    too_fast = rng.uniform(0, 0.05) * np.maximum(log_rates, 0) ** 2
    floors = best * (1 + rng.exponential(0.03, n_trials) + too_fast)[:, None]
    started = math.exp(rng.uniform(math.log(1 / 200), math.log(1 / 12)))
    progress = schedule.sums * rates / (started * np.exp(rng.normal(0, 0.25, (n_trials, 1))))
    exponents = rng.uniform(0.3, 1.0) * np.exp(rng.normal(0, 0.1, (n_trials, 1)))
    levels = floors + (CHANCE - floors) / (1 + (progress / 2) ** rng.choice([1.5, 3.0]))
    levels += rng.uniform(0.1, 0.6) * best * (1 + progress) ** -exponents
    levels += rng.uniform(0, 0.08) * np.minimum(rates, 4) * schedule.rates * floors
    noise = rng.uniform(0, 0.03) * np.minimum(rates, 3) * (0.2 + schedule.rates) * floors
    levels += noise * rng.standard_normal(levels.shape)
    levels += (
        (rng.random() < 0.3) * rng.uniform(0, 0.4) * np.minimum(rates, 3) * floors * np.maximum(schedule.sums - 0.25, 0)
    )
    levels[(rng.random(n_trials) < 0.3) & (log_rates > 1.2)] = CHANCE
    return levels


def of_shapes(n_trials: int, schedule: Schedules, rng: np.random.Generator, slow_wins: bool) -> np.ndarray:
    """Return levels [K, S] of the families "shapes" and "slow starters win"."""
    gaps = np.where(rng.random(n_trials) < 0.5, rng.exponential(0.05, n_trials), rng.exponential(0.5, n_trials))
    gaps[0] = 0.0
    ends = np.minimum(rng.uniform(0.15, 0.6) * (1 + gaps), 0.97 * CHANCE)[:, None]
    starts = np.exp(rng.uniform(math.log(1 / 200), math.log(1 / 8), n_trials))
    if slow_wins:
        slowest = starts.argmax()
        starts[[0, slowest]] = starts[[slowest, 0]]
    exponents, sharp = rng.uniform(0.3, 1.2, (n_trials, 1)), rng.choice([1.0, 2.0], (n_trials, 1))
    falls = (1 + (schedule.sums / starts[:, None]) ** sharp) ** (-exponents / sharp)
    falls = (falls - falls[:, -1:]) / (1 - falls[:, -1:])
    levels = ends + (CHANCE - ends) * falls
    levels *= 1 + rng.uniform(0, 0.08, (n_trials, 1)) * schedule.rates
    noise = rng.uniform(0, 0.03, (n_trials, 1)) * (0.2 + schedule.rates) * levels
    return levels + noise * rng.standard_normal(levels.shape)


def drawn(family: Family, n_trials: int, n_rows: int, rng: np.random.Generator) -> tuple[list[Course], np.ndarray]:
    """Return a study: its trials' courses, and the level of each one's best checkpoint, [K]."""
    schedule = schedules(n_trials, rng)
    if family == "rates":
        levels = of_rates(n_trials, schedule, rng)
    else:
        levels = of_shapes(n_trials, schedule, rng, slow_wins=family == "slow starters win")
    levels = np.clip(levels, _LEVELS[-1], CHANCE)
    hardness = (
        math.sqrt(_SHARED) * rng.standard_normal(n_rows)
        + math.sqrt(_OF_TRIAL) * rng.standard_normal((n_trials, 1, n_rows))
        + math.sqrt(_OF_CHECKPOINT) * rng.standard_normal((n_trials, len(_AT), n_rows))
    )
    skills = np.interp(-levels, -_LEVELS, _SKILLS)
    losses = losses_of(skills[:, :, None], hardness).astype(np.float32)
    every = [Course(dict(zip(_AT, each, strict=True)), w) for each, w in zip(losses, schedule.warmups, strict=True)]
    return every, levels.min(axis=1)


def raced(courses: Sequence[Course], most: float) -> tuple[dict[int, float], float]:
    """Return at which rung each trial is dropped, and the share of all steps that is trained."""
    at: dict[int, float] = {}
    for rung in RUNGS:
        left = {number: _until(each, rung) for number, each in enumerate(courses) if number not in at}
        at |= dict.fromkeys(dropped(left, rung, len(courses), most), rung)
    return at, (sum(at.values()) + len(courses) - len(at)) / len(courses)


def _until(course: Course, rung: float) -> Course:
    return Course({share: losses for share, losses in course.losses.items() if share <= rung}, course.warmup)


def summed_up(races: Iterable[tuple[Sequence[Course], np.ndarray]], most: float) -> dict[str, Any]:
    """Return how often the best of all was dropped, at which rung, how much worse the best left is, and the cost."""
    lost: list[float] = []
    worse, costs = [], []
    for courses, ends in races:
        at, cost = raced(courses, most)
        lost.append(at.get(int(ends.argmin()), 0.0))
        worse.append(min(end for number, end in enumerate(ends) if number not in at) / ends.min() - 1)
        costs.append(cost)
    percent = 100 * float(np.mean(np.array(lost) > 0))
    return {
        "n": len(costs),
        "best_dropped_percent": round(percent, 1),
        "standard_error": round(math.sqrt(percent * (100 - percent) / len(costs)), 1),
        "by_rung": {f"{rung:g}": lost.count(rung) for rung in RUNGS},
        "over_1_percent_worse": round(100 * float(np.mean(np.array(worse) > 0.01)), 1),
        "cost": round(float(np.mean(costs)), 3),
        "cost_of_nine_in_ten": [round(float(q), 3) for q in np.quantile(costs, (0.05, 0.95))],
    }


def simulate(family: Family) -> dict[str, Any]:
    """Return what a family's races lost and cost, by the number of trials and of rows; for
    unrealistic families eight trials are enough."""
    results: dict[str, Any] = {}
    for n_trials, n in TRIALS.items() if family == "rates" else [(8, 60)]:
        for n_rows in ROWS:
            rng = np.random.default_rng([FAMILIES.index(family), n_trials, n_rows])
            races = (drawn(family, n_trials, n_rows, rng) for _ in range(n))
            results.setdefault(str(n_trials), {})[str(n_rows)] = summed_up(races, MOST)
    return results


def of_runs(folder: Path, n: int = 300) -> dict[str, Any]:
    """Return what races of random subsets of finished runs lost and cost, by data set.

    A race reads a random half of the validation rows; the other half says which run ends best.
    """
    by_data: dict[str, list[tuple[Run, Course]]] = {}
    for run in runs.list_runs(folder):
        if run.is_done and (each := course([run.path], 1.0)) is not None:
            by_data.setdefault(str(run.config().data.source), []).append((run, each))
    results = {}
    for source, of_it in by_data.items():
        courses, ends = [each for _, each in of_it], np.array([_at_best(run) for run, _ in of_it])
        rng = np.random.default_rng(0)
        races = (_half_raced(courses, ends, rng) for _ in range(n))
        most = math.log(100 * len(of_it[0][0].labels()))
        results[Path(source).name] = {"runs": len(of_it), "rows": ends.shape[1], **summed_up(races, most)}
    return results


def _at_best(run: Run) -> np.ndarray:
    """The losses of a run's kept checkpoint, float [B]."""
    return unpacked_losses([each.losses for each in run.evaluations() if each.best and each.losses is not None][-1])


def _half_raced(courses: list[Course], ends: np.ndarray, rng: np.random.Generator) -> tuple[list[Course], np.ndarray]:
    n_trials = rng.integers(2, len(courses) + 1)
    chosen = rng.choice(len(courses), n_trials, replace=False)
    here, there = np.array_split(rng.permutation(ends.shape[1]), 2)
    halves = [
        Course({share: losses[here] for share, losses in courses[number].losses.items()}, courses[number].warmup)
        for number in chosen
    ]
    return halves, ends[chosen][:, there].mean(axis=1)


def tables(results: dict[str, Any]) -> str:
    """Return the rates as docs/comparison.md shows them: the best dropped in percent, and the cost, by family."""
    rows = [
        [family, n_trials, *(_cell(of_rows[str(n_rows)]) for n_rows in ROWS)]
        for family in FAMILIES
        for n_trials, of_rows in results[family].items()
    ]
    simulated = table(f"| courses | trials | {' | '.join(f'{n:,} rows' for n in ROWS)} |", rows)
    real = [[name, str(each["runs"]), f"{each['rows'] // 2:,}", _cell(each)] for name, each in results["runs"].items()]
    return "\n".join([*simulated, "", *table("| data | runs | rows | lost, cost |", real)])


def _cell(summary: dict[str, Any]) -> str:
    low, high = summary["cost_of_nine_in_ten"]
    return (
        f"**{summary['best_dropped_percent']:.1f}**, {100 * summary['cost']:.0f} ({100 * low:.0f} to {100 * high:.0f})"
    )


def main() -> None:
    """Simulate, or race finished runs; write the JSON, print its tables."""
    results = {"runs": {}} | kept("racing")
    if folders := sys.argv[1:]:
        results["runs"] = of_runs(Path(folders[0]))
    for family in FAMILIES if not folders else ():
        results[family] = simulate(family)
        keep("racing", results)  # what is drawn so far is not lost
    keep("racing", results)
    print(tables(results))


if __name__ == "__main__":
    main()
