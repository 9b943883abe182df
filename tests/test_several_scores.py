"""Scores of rows with several labels equal trusted implementations, their intervals hold the truth as often as they
say, and thresholds never see the rows that they are judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
)

from submillion.errors import DataError
from submillion.judging.comparison import Setting, conclude, paired
from submillion.judging.comparison.bootstrap import resample
from submillion.judging.metrics import (
    Predictions,
    Score,
    calibrated,
    class_scores,
    label_precisions,
    leading,
    reliability,
    score,
    score_by,
    tempered,
    thresholds,
    together,
)
from tests.kit.several import drawn, pair


@pytest.mark.parametrize(("n_rows", "n_labels"), [(1, 2), (40, 3), (1500, 28)])
def test_values_equal_scikit_learn(n_rows: int, n_labels: int) -> None:
    found = drawn(n_rows, n_rows, n_labels)
    scores, truth, predicted = score(found), found.label_ids, found.predicted.astype(int)
    reference = {
        "micro_f1": f1_score(truth, predicted, average="micro", zero_division=0),
        "macro_f1": f1_score(truth, predicted, average="macro", zero_division=np.nan),
        "hamming": 1 - hamming_loss(truth, predicted),
        "subset_accuracy": accuracy_score(truth, predicted),
        "log_loss": log_loss(truth.ravel(), found.probs.ravel(), labels=[0, 1]),
    }
    occurring = truth.any(axis=0)
    if occurring.any():
        precision = average_precision_score(truth[:, occurring], found.probs[:, occurring], average="macro")
        assert scores["average_precision"].value == pytest.approx(precision, abs=1e-12)
    for key, value in reference.items():
        assert scores[key].value == pytest.approx(value, abs=1e-9), key
    assert all(each.n == n_rows for each in scores.values())


def test_each_labels_scores_equal_scikit_learn() -> None:
    found = drawn(3, 400, 5)
    reference: Any = precision_recall_fscore_support(found.label_ids, found.predicted, zero_division=0)
    for i, each in enumerate(class_scores(found)):
        assert (each.precision.value, each.recall.value, each.f1.value) == pytest.approx([r[i] for r in reference[:3]])
        assert each.n_true == found.label_ids[:, i].sum()
        assert each.f1.low <= each.f1.value <= each.f1.high
    own = [average_precision_score(found.label_ids[:, i], found.probs[:, i]) for i in range(5)]
    assert [each.value for each in label_precisions(found)] == pytest.approx(own)


def test_a_label_that_no_row_has_or_gets_is_left_out_of_macro_f1_and_has_no_score() -> None:
    found = drawn(1, 300, 4)
    truth, probs = (np.column_stack([each, np.zeros(300)]) for each in (found.label_ids, found.probs))
    with_empty = Predictions(found.ids, truth.astype(np.int64), probs)
    for key in ("micro_f1", "macro_f1", "average_precision", "subset_accuracy"):
        assert score(with_empty)[key] == score(found)[key], key
    assert label_precisions(with_empty)[4] == Score(0.0, 0.0, 1.0, 300)


def test_rows_without_labels_alone_have_scores_all_the_same() -> None:
    none = Predictions(list("ab"), np.zeros((2, 3), dtype=np.int64), np.full((2, 3), 0.1))
    scores = score(none)
    for key in ("micro_f1", "macro_f1", "average_precision"):
        assert scores[key] == Score(0.0, 0.0, 1.0, 2), key
    assert scores["hamming"].value == scores["subset_accuracy"].value == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.sampled_from([0.0, 1.0, 5.0]))
def test_intervals_hold_their_value_in_any_order_of_rows(seed: int, n: int, n_labels: int, noise: float) -> None:
    found = drawn(seed, n, n_labels, noise)
    found = replace(found, thresholds=thresholds.out_of_fold(found.probs, found.label_ids, found.ids, "one"))
    scores = score_by(found, "hamming")
    assert leading(scores)[0] == "hamming"
    assert all(0 <= each.low <= each.value <= each.high for each in scores.values())
    order = np.random.default_rng(seed).permutation(n)
    assert score_by(found.rows(order), "hamming") == scores
    assert reliability(found.rows(order)) == reliability(found)


def test_what_cannot_be_scored_is_refused() -> None:
    broken = Predictions(["a"], np.array([[1, 0]]), np.array([[np.nan, 0.5]]))
    with pytest.raises(DataError, match="1 of 1 predictions are not numbers"):
        score(broken)
    with pytest.raises(DataError, match="no predictions to score"):
        score(Predictions([], np.zeros((0, 3)), np.zeros((0, 3))))


# ---- intervals, by simulation: of many draws of rows, how many intervals hold what a very large draw shows

_KEYS = ("micro_f1", "macro_f1", "average_precision", "hamming", "subset_accuracy", "log_loss")


def held(n_rows: int, n_draws: int, **how: Any) -> dict[str, float]:
    """The share of intervals that hold the truth, of each score."""
    truth = score(drawn(0, 200_000, **how))
    found = [score(drawn(seed, n_rows, **how)) for seed in range(1, n_draws + 1)]
    return {key: float(np.mean([s[key].low <= truth[key].value <= s[key].high for s in found])) for key in _KEYS}


@pytest.mark.parametrize(
    ("n_rows", "how"), [(300, {"together": 2.0}), (300, {"n_labels": 12, "rarity": 3.0}), (100, {"noise": 0.3})]
)
def test_intervals_hold_the_truth_about_as_often_as_they_say(n_rows: int, how: dict[str, Any]) -> None:
    for key, share in held(n_rows, 100, **how).items():
        assert share >= 0.87, key  # of 100 draws; of 1,000 all are between 0.90 and 0.98


@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_the_calibration_errors_interval_holds_the_truth(heat: float) -> None:
    how: dict[str, Any] = {"noise": 0.0, "heat": heat, "together": 2.0}
    truth = score(drawn(0, 200_000, **how))["ece"].value
    found = [score(drawn(seed, 400, **how))["ece"] for seed in range(1, 101)]
    assert np.mean([each.low - 0.001 <= truth <= each.high + 0.001 for each in found]) >= 0.87


def test_rows_whose_labels_are_right_together_have_wider_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (300, 10))
    alone, whole = (truth ^ (rng.random(shape) < 0.1) for shape in ((300, 10), (300, 1)))
    widths = []
    for predicted in (alone, whole):
        found = score(Predictions([], truth, predicted.astype(float)))["hamming"]
        widths.append(found.high - found.low)
    assert widths[1] > 2.5 * widths[0]  # the root of 10, were all rows all right or all wrong


@pytest.mark.parametrize("key", ["micro_f1", "macro_f1", "hamming", "subset_accuracy"])
def test_where_all_is_right_the_interval_is_not_a_point(key: str) -> None:
    truth = np.random.default_rng(0).integers(0, 2, (30, 4))
    found = score(Predictions([], truth, truth.astype(float)))[key]
    assert found.value == found.high == 1.0
    assert 0.8 < found.low < 0.98


# ---- thresholds


def test_one_threshold_maximises_micro_f1_and_each_its_own() -> None:
    found = drawn(5, 500, 3)
    candidates = np.linspace(0.01, 0.99, 197)

    def f1(at: np.ndarray, average: str) -> float:
        return float(f1_score(found.label_ids, found.probs >= at, average=average, zero_division=0))

    one = thresholds.chosen(found.probs, found.label_ids, "one")
    assert (one == one[0]).all()
    assert f1(one, "micro") >= max(f1(np.full(3, at), "micro") for at in candidates) - 0.01
    each = thresholds.chosen(found.probs, found.label_ids, "each")
    for i in range(3):
        own = [f1_score(found.label_ids[:, i], found.probs[:, i] >= at) for at in candidates]
        assert f1_score(found.label_ids[:, i], found.probs[:, i] >= each[i]) >= max(own) - 0.04
    assert f1(each, "macro") >= f1(one, "macro")


def test_a_threshold_parts_what_can_be_parted() -> None:
    probs, truth = np.array([[0.9], [0.6], [0.2], [0.1]]), np.array([[1], [1], [0], [0]])
    assert 0.2 < thresholds.chosen(probs, truth, "one")[0] <= 0.6
    assert thresholds.chosen(probs, truth, 0.3).tolist() == [0.3]
    assert thresholds.chosen(probs, np.zeros_like(truth), "one").tolist() == [0.5]
    assert thresholds.chosen(probs, np.ones_like(truth), "one")[0] <= 0.1
    assert np.isfinite(thresholds.chosen(np.array([[0.0], [1.0]]), np.array([[0], [1]]), "one")).all()


def test_a_label_with_few_rows_gets_the_threshold_of_all() -> None:
    found = drawn(2, 200, 3)
    truth = found.label_ids.copy()
    truth[:, 2] = 0
    truth[:9, 2] = 1
    assert thresholds.few_positives(truth).tolist() == [2]
    each, one = (thresholds.chosen(found.probs, truth, how) for how in ("each", "one"))
    assert each[2] == one[2]
    assert each[0] != one[0]
    truth[9, 2] = 1
    assert thresholds.few_positives(truth).tolist() == []


@pytest.mark.parametrize("how", ["one", "each"])
def test_no_row_decides_its_own_threshold(how: Any) -> None:
    found = drawn(4, 120, 3)
    before = thresholds.out_of_fold(found.probs, found.label_ids, found.ids, how)
    assert 2 <= len(np.unique(before[:, 0])) <= 5
    for row in (0, 7, 50):
        changed = found.label_ids.copy()
        changed[row] = 1 - changed[row]
        after = thresholds.out_of_fold(found.probs, changed, found.ids, how)
        assert (after[row] == before[row]).all()


def test_a_rows_threshold_depends_neither_on_the_order_nor_on_its_place() -> None:
    found = drawn(4, 120, 3)
    order = np.random.default_rng(0).permutation(120)
    before = thresholds.out_of_fold(found.probs, found.label_ids, found.ids, "one")
    again = found.rows(order)
    assert (thresholds.out_of_fold(again.probs, again.label_ids, again.ids, "one") == before[order]).all()


def test_thresholds_judged_on_their_own_rows_look_better_than_they_are_and_out_of_fold_they_do_not() -> None:
    """A law of the procedure: over many draws the mean out-of-fold score is not above what new rows show."""
    gaps = {"own": [], "out of fold": []}
    for seed in range(1, 41):
        found, new = drawn(seed, 150, 8, noise=3.0), drawn(1000 + seed, 3000, 8, noise=3.0)
        chosen = thresholds.chosen(found.probs, found.label_ids, "each")
        on_new = score(replace(new, thresholds=chosen))["macro_f1"].value
        out = thresholds.out_of_fold(found.probs, found.label_ids, found.ids, "each")
        gaps["own"].append(score(replace(found, thresholds=chosen))["macro_f1"].value - on_new)
        gaps["out of fold"].append(score(replace(found, thresholds=out))["macro_f1"].value - on_new)
    assert np.mean(gaps["own"]) > np.mean(gaps["out of fold"]) + 0.005
    assert abs(np.mean(gaps["out of fold"])) < 0.01


def test_a_few_rows_have_thresholds_too() -> None:
    found = drawn(1, 2, 3)
    assert np.isfinite(thresholds.out_of_fold(found.probs, found.label_ids, found.ids, "each")).all()


# ---- calibration


def test_scaling_mends_a_model_that_is_too_sure_and_leaves_a_calibrated_one() -> None:
    sure, fair = drawn(1, 2000, heat=3.0, noise=0.0), drawn(1, 2000, noise=0.0)
    scaled = calibrated(sure)
    assert np.mean(scaled.temperatures) == pytest.approx(3.0, rel=0.1)
    assert score(scaled.predictions)["ece"].value < 0.3 * score(sure)["ece"].value
    assert score(fair)["ece"].low == 0.0
    assert np.mean(calibrated(fair).temperatures) == pytest.approx(1.0, rel=0.1)


def test_bins_hold_every_decision_once() -> None:
    found = drawn(1, 300, 7)
    bins = reliability(found)
    assert sum(each.accuracy.n for each in bins) == 2100
    assert sum(each.accuracy.value * each.accuracy.n for each in bins) == pytest.approx(found.label_ids.sum())


def test_labels_together_are_counted() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert together(truth).tolist() == [[2, 1, 0], [1, 2, 1], [0, 1, 1]]


# ---- two runs on the same rows


def settings_of(runs: list[Predictions]) -> list[Setting]:
    return [Setting(str(i), (str(i),), (each,), 10 + i, 1.0, 1) for i, each in enumerate(runs)]


def with_thresholds(found: Predictions, how: Any = "one") -> Predictions:
    return replace(found, thresholds=thresholds.out_of_fold(found.probs, found.label_ids, found.ids, how))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_comparison_tests_every_score_and_micro_f1_decides(split: Any) -> None:
    runs = pair(1, 1500, noises=(0.5, 2.0))
    runs = [with_thresholds(each) for each in runs] if split == "validation" else runs
    verdict = conclude(settings_of(runs), split, metric="micro-f1")
    assert verdict.metric == "micro_f1"
    assert verdict.group == ("0",)
    differences = verdict.pairs[0].differences
    assert {*differences} == {"micro_f1", "macro_f1", "hamming", "subset_accuracy", "log_loss", "scaled_log_loss"}
    for key, found in differences.items():
        scaled = [tempered(each).predictions if key == "scaled_log_loss" else each for each in runs]
        values = [score(each)[key.removeprefix("scaled_")].value for each in scaled]
        assert found.value == pytest.approx(values[1] - values[0], abs=1e-12), key
        assert found.p_holm < 0.05, key


@pytest.mark.parametrize("metric", ["micro-f1", "macro-f1"])
def test_rows_of_which_some_draws_have_no_label_can_be_compared(metric: Any) -> None:
    truth, probs = np.zeros((40, 3), dtype=np.int64), np.full((40, 3), 0.1)
    truth[0, 1] = probs[0, 1] = 1
    found = Predictions([str(row) for row in range(40)], truth, probs)
    verdict = conclude(settings_of([found, replace(found, probs=np.full((40, 3), 0.1))]), "test", metric)
    for each in verdict.pairs[0].differences.values():
        assert np.isfinite([each.value, each.low, each.high, each.p]).all()


def test_each_fold_counts_where_thresholds_are_a_source_of_chance() -> None:
    found = drawn(1, 200)
    folds = thresholds.folds_of(found.ids)
    assert set(folds) == set(range(5))
    chosen = np.where(folds == 4, 0.7, 0.4)[:, None] * np.ones(6)  # four folds chose alike
    (by_chance,) = resample([replace(found, thresholds=chosen)], "micro-f1")["micro_f1"].by_chance  # pyright: ignore
    values = [score(replace(found, thresholds=np.full(6, each)))["micro_f1"].value for each in [0.4] * 4 + [0.7]]
    assert by_chance == pytest.approx(4 * np.var(values))


def test_a_tie_says_how_many_rows_would_part_it() -> None:
    verdict = conclude(settings_of(pair(3, 200, noises=(1.0, 1.1))), metric="micro-f1")
    assert set(verdict.group) == {"0", "1"}
    assert {each.basis for each in verdict.rows_needed} >= {"assumed", "largest"}
    seen = [each.by_score for each in verdict.rows_needed if each.basis == "seen"]
    assert all(each is None or each.n_rows > 200 for each in seen)


@pytest.mark.parametrize("metric", ["average-precision", "hamming", "subset-accuracy"])
def test_any_score_may_decide(metric: Any) -> None:
    verdict = conclude(settings_of(pair(1, 800, noises=(0.5, 2.0))), metric=metric)
    assert verdict.group == ("0",)


def false_differences(n_rows: int, n_draws: int, prepare: Callable[[Predictions], Predictions]) -> dict[str, float]:
    """How often two runs that are equally good are told apart, by score."""
    found: list[dict[str, float]] = []
    for seed in range(n_draws):
        runs = [prepare(each) for each in pair(seed, n_rows)]
        differences = conclude(settings_of(runs), metric="micro-f1").pairs[0].differences
        found.append({key: each.p for key, each in differences.items()})
    return {key: float(np.mean([each[key] < 0.05 for each in found])) for key in found[0]}


def test_equal_runs_are_told_apart_as_rarely_as_the_tests_say() -> None:
    for key, share in false_differences(200, 40, with_thresholds).items():
        assert share <= 0.15, key  # of 40 draws; docs/comparison.md has those of 1,000


def test_a_difference_between_two_runs_has_the_sign_and_interval_of_the_rows() -> None:
    better, worse = pair(5, 800, noises=(0.3, 2.0))
    found = paired(better, worse, "micro-f1")
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.001
