"""Laws of how much a factor matters: exact where nothing is left to chance, honest where everything is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from submillion.judging.effects import effects

FACTORS = {"rate": ("low", "mid", "high"), "rank": ("2", "8"), "sites": ("few", "all")}
GRID = [dict(zip(FACTORS, values, strict=True)) for values in product(*FACTORS.values())]
ADDED = {"low": 0.0, "mid": 0.03, "high": 0.1, "2": 0.0, "8": 0.02, "few": 0.0, "all": 0.0}


def scores(noise: float, seed: int = 0, kept: slice = slice(None)) -> list[float]:
    rng = np.random.default_rng(seed)
    return [0.5 + sum(ADDED[v] for v in each.values()) + noise * rng.standard_normal() for each in GRID[kept]]


@pytest.mark.parametrize("kept", [slice(None), slice(0, 11)], ids=["balanced", "one is missing"])
def test_an_additive_study_gives_its_differences_back(kept: slice) -> None:
    found = effects(GRID[kept], scores(0.0, kept=kept), rows_error=0.001, ranges={})
    assert [(each.factor, each.best, each.worst) for each in found[:2]] == [("rate", "high", "low"), ("rank", "8", "2")]
    assert [round(each.value, 9) for each in found] == [0.1, 0.02, 0.0]
    assert [each.is_told for each in found] == [True, True, False]


def test_two_choices_have_students_interval() -> None:
    choices = [{"rank": label} for label in "aaabbb"]
    values = [0.50, 0.53, 0.49, 0.60, 0.58, 0.61]
    (found,) = effects(choices, values, rows_error=0.0, ranges={})
    expected = stats.ttest_ind(values[3:], values[:3]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_where_nothing_matters_something_is_found_in_one_study_of_twenty_at_most() -> None:
    rng = np.random.default_rng(1)
    told = [
        any(each.is_told for each in effects(GRID, rng.standard_normal(len(GRID)).tolist(), 0.0, {})[:1])
        for _ in range(300)
    ]
    assert np.mean(told) < 0.15, "three factors, each at 5 %"


def test_a_range_is_a_line_and_what_changes_together_is_not_told_apart() -> None:
    rates = [1e-5, 1e-4, 1e-3, 1e-2]
    line = [{"rate": f"{rate:g}", "twin": f"{i % 2}", "other": f"{i % 2}"} for i, rate in enumerate(rates * 2)]
    found = effects(line, [0.5 + 0.1 * (i % 4) for i in range(8)], 0.001, ranges={"rate": True})
    assert [(each.factor, each.best, each.worst) for each in found] == [("rate", "0.01", "1e-05")]
    assert found[0].value == pytest.approx(0.3)


def test_with_as_many_unknowns_as_runs_there_is_no_interval() -> None:
    assert effects(GRID[:2], scores(0.0, kept=slice(0, 2)), 0.01, {}) == []
