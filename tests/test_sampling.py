"""Laws of rows to label: the sample is what it says, its estimate is right, its interval holds; rows to learn from."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ask import population
from submillion.judging import choosing, sampling
from submillion.judging.metrics import wilson
from submillion.judging.sampling import Worth
from submillion.reports.asking import to_know


def answer(confidence: np.ndarray, is_right: np.ndarray, n: int, seed: int, n_labelled: int | None = None):
    design = sampling.design(confidence, n)
    rows = design.draw(seed)[:n_labelled]
    return sampling.accuracy(confidence, design.stratum, rows, is_right[rows])


@pytest.mark.parametrize("n", [1, 7, 60, 199, 200])
def test_a_sample_has_as_many_rows_as_asked_each_once_and_some_of_each_stratum(n: int) -> None:
    confidence, _ = population("right", 0.9, 200, 1)
    design = sampling.design(confidence, n)
    rows = design.draw(3)
    assert len(rows) == len(set(rows.tolist())) == n
    assert (design.n_drawn >= 1).all()
    assert (design.n_drawn <= design.sizes).all()
    assert design.sizes.sum() == 200
    assert np.array_equal(np.bincount(design.stratum[rows], minlength=len(design.n_drawn)), design.n_drawn)
    surest = [confidence[design.stratum == number].min() for number in range(len(design.n_drawn))]
    assert surest == sorted(surest, reverse=True), "strata are consecutive by confidence"


@pytest.mark.parametrize("n_rows", [1, 3, 14, 19])
def test_all_rows_of_a_small_file_may_be_asked_for(n_rows: int) -> None:
    design = sampling.design(np.full(n_rows, 0.8), n_rows)
    assert sorted(design.draw(0).tolist()) == list(range(n_rows))


def test_the_sample_is_a_function_of_the_seed() -> None:
    confidence, _ = population("right", 0.9, 500, 1)
    drawn = [sampling.design(confidence, 60).draw(seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_unsure_rows_are_drawn_more_often_than_sure_ones() -> None:
    confidence, _ = population("right", 0.9, 2000, 1)
    design = sampling.design(confidence, 60)
    shares = design.n_drawn / design.sizes
    assert shares[-1] > 1.5 * shares[0]


@pytest.mark.parametrize("kind", ["right", "too sure", "useless"])
@pytest.mark.parametrize("n_labelled", [None, 35])
def test_the_estimate_is_right_on_average_whatever_the_confidence_is_worth(kind: str, n_labelled: int | None) -> None:
    confidence, is_right = population(kind, 0.9, 1000, 2)
    values = np.array([answer(confidence, is_right, 60, seed, n_labelled).value for seed in range(300)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - is_right.mean()) < 4 * error


@pytest.mark.parametrize(
    ("kind", "accuracy", "n", "least"),
    [("right", 0.9, 30, 0.92), ("right", 0.97, 60, 0.92), ("too sure", 0.9, 60, 0.88), ("useless", 0.97, 150, 0.9)],
)
def test_the_interval_holds_the_accuracy_of_all_rows(kind: str, accuracy: float, n: int, least: float) -> None:
    """docs/ask.md has the shares of more draws; here 200 of them, so that 3 standard errors are allowed."""
    n_held = 0
    for seed in range(200):
        confidence, is_right = population(kind, accuracy, 1000, seed)
        score = answer(confidence, is_right, n, seed)
        n_held += score.low <= is_right.mean() <= score.high
    assert n_held / 200 >= least


def test_rows_that_depend_on_each_other_change_nothing_since_drawing_is_what_is_random() -> None:
    """A hundred texts, each ten times, all right or all wrong: the interval is of this file's rows, not of others."""
    n_held = 0
    for seed in range(200):
        confidence, is_right = (np.repeat(each, 10) for each in population("right", 0.9, 100, seed))
        score = answer(confidence, is_right, 60, seed)
        n_held += score.low <= is_right.mean() <= score.high
    assert n_held / 200 >= 0.92


@pytest.mark.parametrize("n", [30, 60, 150])
def test_where_confidence_is_right_the_interval_is_narrower_than_a_plain_samples(n: int) -> None:
    widths, plain, expected = [], [], []
    for seed in range(30):
        confidence, is_right = population("right", 0.9, 1000, seed)
        score = answer(confidence, is_right, n, seed)
        widths.append((score.high - score.low) / 2)
        plain.append(sampling.plain_half_width(float(is_right.mean()), n, 1000))
        expected.append(sampling.worth(confidence, n).half_width)
    assert np.mean(widths) < 0.85 * np.mean(plain)
    assert np.mean(widths) == pytest.approx(np.mean(expected), rel=0.15)


def test_where_all_labelled_rows_are_right_the_interval_still_has_a_width() -> None:
    confidence = np.full(1000, 0.999)
    score = answer(confidence, np.full(1000, True), 60, 0)
    assert score.value == pytest.approx(1)
    assert 0.9 < score.low < 0.99
    assert score.high == 1


def test_where_all_rows_are_labelled_the_accuracy_is_known() -> None:
    confidence, is_right = population("too sure", 0.9, 200, 1)
    score = answer(confidence, is_right, 200, 0)
    assert score.value == score.low == score.high == pytest.approx(is_right.mean())


def test_of_rows_that_are_all_alike_the_interval_is_about_a_plain_samples() -> None:
    is_right = np.random.default_rng(0).random(2000) < 0.8
    score = answer(np.full(2000, 0.8), is_right, 100, 0)
    plain = wilson(round(100 * score.value), 100)
    assert score.high - score.low == pytest.approx(plain.high - plain.low, rel=0.1)


def test_as_many_labels_as_a_width_takes_give_it() -> None:
    confidence, _ = population("right", 0.9, 1000, 1)
    n = sampling.labels_for(confidence, 0.04)
    assert sampling.expected_half_width(confidence, n) <= 0.04 < sampling.expected_half_width(confidence, n - 5)


def test_rows_that_were_skipped_for_their_confidence_are_told() -> None:
    confidence = np.random.default_rng(0).random(60)
    assert sampling.skipped_warning(confidence, np.arange(60) < 30) == []
    assert sampling.skipped_warning(np.append(confidence, np.nan), np.arange(61) < 60) == []
    (warning,) = sampling.skipped_warning(confidence, confidence > 0.5)
    assert "surer than those without" in warning


def test_a_wider_interval_than_a_plain_samples_is_explained() -> None:
    why = "can be wider than a plain sample's: its spread is estimated"
    assert why in to_know([Worth(100, 0.05, 0.06), Worth(10, 0.113, 0.106)])[0]
    assert why not in to_know([Worth(100, 0.05, 0.06), Worth(50, 0.08012, 0.08011)])[0], "as shown they are equal"


def test_rows_to_learn_from_are_unsure_and_unlike_each_other() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 5, 400)
    features = 10 * np.eye(8)[kinds] + 0.1 * rng.normal(size=(400, 8))
    margins = np.where(kinds == 0, 0.01, 0.3) * rng.random(400)  # the least sure are all alike
    unsure = choosing.candidates(margins, 5)
    assert len(unsure) == 50
    assert margins[unsure].max() <= np.sort(margins)[49]
    everything = np.arange(400)
    rows = choosing.spread_out(features, margins, 5, seed=0)
    assert sorted(kinds[rows].tolist()) == [0, 1, 2, 3, 4]
    assert rows.tolist() == choosing.spread_out(features, margins, 5, seed=0).tolist()
    assert set(choosing.spread_out(features[:5], margins[:5], 5, seed=0).tolist()) == set(everything[:5].tolist())


def test_of_equal_rows_as_many_are_chosen_as_asked() -> None:
    rows = choosing.spread_out(np.ones((30, 4)), np.linspace(0, 1, 30), 6, seed=0)
    assert len(set(rows.tolist())) == 6


def test_the_margin_is_between_the_two_likeliest() -> None:
    assert choosing.margins(np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])) == pytest.approx([0.2, 0.7])
