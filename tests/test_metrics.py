"""Metrics equal trusted implementations, hold their intervals, and do not care about the rows' order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binom, binomtest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)
from sklearn.metrics import log_loss as reference_log_loss

from submillion.config import Metric
from submillion.errors import DataError
from submillion.judging.metrics import (
    Predictions,
    Score,
    allowed_metrics,
    calibrated,
    calibration,
    chosen,
    class_scores,
    confusion,
    ece,
    leading,
    macro_f1,
    reliability,
    risk_coverage,
    score,
    score_by,
    wilson,
)
from submillion.judging.metrics.chosen import mcc


def drawn(seed: int, n_rows: int, n_classes: int, dtype: type = np.float64, sharpness: float = 2.0) -> Predictions:
    """Calibrated predictions: each row's truth is drawn from its own probabilities."""
    rng = np.random.default_rng(seed)
    probs = np.exp(rng.normal(0, sharpness, (n_rows, n_classes)))
    probs /= probs.sum(axis=1, keepdims=True)
    label_ids = np.minimum((probs.cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1), n_classes - 1)
    return Predictions([str(i) for i in range(n_rows)], label_ids, probs.astype(dtype))


def of_counts(counts: np.ndarray) -> Predictions:
    """Rows of this confusion matrix."""
    true, predicted = np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
    return Predictions([str(i) for i in range(len(true))], true, np.eye(len(counts))[predicted])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_rows", "n_classes"), [(1, 2), (2, 5), (50, 3), (2000, 4), (300, 77)])
def test_values_equal_scikit_learn(n_rows: int, n_classes: int, dtype: type) -> None:
    predictions = drawn(n_rows, n_rows, n_classes, dtype)
    scores, classes = score(predictions), list(range(n_classes))
    truth, predicted = predictions.label_ids, predictions.predicted
    assert scores["accuracy"].value == pytest.approx(accuracy_score(truth, predicted), abs=1e-15)
    reference = f1_score(truth, predicted, average="macro", zero_division=0)
    assert scores["macro_f1"].value == pytest.approx(reference, abs=1e-12)
    reference = reference_log_loss(truth, predictions.probs, labels=classes)
    assert scores["log_loss"].value == pytest.approx(reference, rel=1e-6)
    assert (confusion(predictions, n_classes) == confusion_matrix(truth, predicted, labels=classes)).all()


def test_log_loss_of_certain_errors_equals_scikit_learn() -> None:
    predictions = Predictions(["a", "b"], np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]], dtype=np.float32))
    reference = reference_log_loss([0, 1], predictions.probs, labels=[0, 1])
    assert score(predictions)["log_loss"].value == pytest.approx(reference, rel=1e-6)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    found = wilson(*counts)
    reference = binomtest(*counts).proportion_ci(method="wilson")
    assert found.low == pytest.approx(reference.low, abs=1e-12)
    assert found.high == pytest.approx(reference.high, abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("share", "n"), [(0.5, 40), (0.914, 640), (0.98, 200)])
def test_wilson_holds_the_truth_about_as_often_as_it_says(share: float, n: int) -> None:
    counts = np.arange(n + 1)
    holds = np.array([wilson(int(k), n).low <= share <= wilson(int(k), n).high for k in counts])
    assert 0.93 < binom.pmf(counts, n, share)[holds].sum() < 0.975


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("score_of", [macro_f1, mcc])
def test_intervals_hold_the_truth_where_few_rows_are_wrong(n: int, score_of: Callable[[np.ndarray], Score]) -> None:
    rates = np.full((4, 4), 0.01 / 3 / 4) + np.eye(4) * (0.99 - 0.01 / 3) / 4
    truth = score_of((rates * 12_000_000).round().astype(np.int64)).value
    found = [score_of(each.reshape(4, 4)) for each in np.random.default_rng(0).multinomial(n, rates.ravel(), 60)]
    assert np.mean([score.low <= truth <= score.high for score in found]) >= 0.95
    assert all(score.low < score.high for score in found)


def test_macro_f1_interval_holds_the_truth() -> None:
    rates = np.array([[0.30, 0.02, 0.03], [0.04, 0.25, 0.01], [0.05, 0.05, 0.25]])
    truth = macro_f1((rates * 1_000_000).astype(np.int64)).value
    draws = np.random.default_rng(0).multinomial(300, rates.ravel(), size=60).reshape(-1, 3, 3)
    found = [macro_f1(counts) for counts in draws]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.85


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_ece_interval_holds_the_truth(temperature: float) -> None:
    def distorted(seed: int, n_rows: int) -> Predictions:
        fair = drawn(seed, n_rows, 3)
        probs = fair.probs ** (1 / temperature)
        return Predictions(fair.ids, fair.label_ids, probs / probs.sum(axis=1, keepdims=True))

    truth = ece(distorted(0, 400_000)).value
    found = [ece(distorted(seed, 640)) for seed in range(1, 101)]
    # What is left of the truth at temperature 1 is the noise of the large sample.
    assert np.mean([each.low - 0.002 <= truth <= each.high + 0.002 for each in found]) > 0.85


def test_ece_by_hand() -> None:
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.45, 0.55]])
    predictions = Predictions(list("abcd"), np.array([0, 1, 0, 1]), probs)
    assert ece(predictions).value == pytest.approx((2 * abs(0.95 - 0.5) + 2 * abs(0.55 - 1)) / 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 6), st.sampled_from([0.5, 3.0, 40.0]))
def test_intervals_hold_their_value_in_any_order_of_rows(seed: int, n: int, n_classes: int, sharpness: float) -> None:
    predictions = drawn(seed, n, n_classes, sharpness=sharpness)
    scores = score(predictions)
    for found in scores.values():
        assert found.low <= found.value <= found.high
        assert np.isfinite([found.low, found.value, found.high]).all()
        assert found.n == n
    order = np.random.default_rng(seed).permutation(n)
    assert score(Predictions([predictions.ids[i] for i in order], *_rows(predictions, order))) == scores


def _rows(predictions: Predictions, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return predictions.label_ids[order], predictions.probs[order]


def test_a_class_that_never_occurs_is_left_out_of_macro_f1() -> None:
    probs = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    right = score(Predictions(["a", "b", "c"], np.array([0, 1, 0]), probs))
    assert (right["accuracy"].value, right["macro_f1"].value) == (1, 1)
    predicted_only = score(Predictions(["a", "b", "c"], np.array([0, 0, 0]), probs))["macro_f1"]
    assert predicted_only.value == pytest.approx((0.8 + 0) / 2)
    assert predicted_only.low <= predicted_only.value <= predicted_only.high


METRICS = allowed_metrics(has_several=False)


@pytest.mark.parametrize(("n_rows", "n_classes"), [(40, 2), (300, 4), (500, 30)])
def test_the_scores_that_may_choose_equal_scikit_learn_and_come_first(n_rows: int, n_classes: int) -> None:
    predictions = drawn(7, n_rows, n_classes)
    truth, predicted = predictions.label_ids, predictions.predicted
    classes = np.unique(truth)
    reference = [average_precision_score(truth == c, predictions.probs[:, c]) for c in classes]
    found = {metric: leading(score_by(predictions, metric)) for metric in METRICS}
    assert found["average-precision"][1].value == pytest.approx(np.mean(reference), abs=1e-12)
    assert found["mcc"][1].value == pytest.approx(matthews_corrcoef(truth, predicted), abs=1e-12)
    for metric, (key, value) in found.items():
        assert key == metric.replace("-", "_")
        assert value.low <= value.value <= value.high
        assert value.n == n_rows


@pytest.mark.parametrize("metric", ["mcc", "average-precision"])
def test_their_intervals_hold_the_truth(metric: Metric) -> None:
    truth = leading(score_by(drawn(999, 60_000, 3), metric))[1].value
    found = [leading(score_by(drawn(seed, 300, 3), metric))[1] for seed in range(60)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.87


def test_rows_that_tie_share_a_threshold_and_order_does_not_matter() -> None:
    probs = np.array([[0.5, 0.5]] * 6 + [[0.9, 0.1]] * 2)
    predictions = Predictions([str(i) for i in range(8)], np.array([0, 1, 0, 1, 0, 1, 1, 0]), probs)
    value = leading(score_by(predictions, "average-precision"))[1]
    reference = [average_precision_score(predictions.label_ids == c, probs[:, c]) for c in (0, 1)]
    assert value.value == pytest.approx(np.mean(reference))
    order = np.random.default_rng(0).permutation(8)
    mixed = Predictions([str(i) for i in order], *_rows(predictions, order))
    assert leading(score_by(mixed, "average-precision"))[1] == value


def test_one_class_has_no_correlation() -> None:
    predictions = Predictions(["a", "b"], np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert leading(score_by(predictions, "mcc"))[1].value == 0


def test_of_one_predicted_class_roundoff_is_no_spread() -> None:
    """The shares of all classes, and that of the one predicted, are sums in another order."""
    trues, predicted = np.array([0.3, 0.2, 0.1]), np.array([0.1 + 0.2 + 0.3, 0, 0])
    assert predicted.sum() > trues.sum()
    with np.errstate(all="raise"):
        assert chosen.correlation(np.array([0.3, 0, 0]), trues, predicted) == 0


def test_more_rows_make_narrower_intervals() -> None:
    few, many = (score(drawn(0, n, 3)) for n in (100, 10_000))
    assert all(many[name].high - many[name].low < few[name].high - few[name].low for name in few)


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least one labelled row"):
        score(Predictions([], np.empty(0, np.int64), np.empty((0, 2))))


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 predictions are not numbers"):
        score(Predictions(["a", "b"], np.array([0, 1]), np.array([[np.nan, 1], [0, 1]])))


def test_a_perfect_run_has_the_best_scores() -> None:
    scores = score(Predictions(["a", "b", "c"], np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]]))
    assert scores["accuracy"] == Score(1.0, wilson(3, 3).low, 1.0, 3)
    assert scores["macro_f1"].value == 1
    assert scores["ece"].value == 0
    assert scores["log_loss"].value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_class_scores_equal_scikit_learn_and_lie_in_their_intervals(n_classes: int) -> None:
    found = drawn(0, 300, n_classes)
    reference = precision_recall_fscore_support(
        found.label_ids, found.predicted, labels=range(n_classes), zero_division=0.0
    )
    each = class_scores(found)
    for name, values in zip(("precision", "recall", "f1"), reference, strict=False):
        assert [getattr(one, name).value for one in each] == pytest.approx(list(values))
        assert all(0 <= s.low <= s.value <= s.high <= 1 for s in (getattr(one, name) for one in each))


def test_a_class_that_is_never_there_has_scores_of_no_rows() -> None:
    (_, absent) = class_scores(of_counts(np.array([[5, 0], [0, 0]])))
    assert absent.precision == absent.recall == absent.f1 == Score(0.0, 0.0, 1.0, 0)


def test_f1s_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Wilson indirect, in samples of 60 rows of a known table."""
    cells, rng = np.array([0.3, 0.1, 0.15, 0.45]), np.random.default_rng(0)
    true_f1 = 2 * 0.3 / (2 * 0.3 + 0.1 + 0.15)
    samples = rng.multinomial(60, cells, size=2000).reshape(-1, 2, 2)
    intervals = [class_scores(of_counts(sample))[0].f1 for sample in samples]
    assert 0.93 < np.mean([score.low <= true_f1 <= score.high for score in intervals]) < 0.98


def test_temperature_scaling_finds_the_temperature_that_was_applied() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, 4)) * 2
    honest = softmax(logits, axis=1)
    label_ids = np.array([rng.choice(4, p=row) for row in honest])
    ids = [str(i) for i in range(6000)]
    scaled = calibrated(Predictions(ids, label_ids, softmax(logits * 2.5, axis=1)))
    assert scaled.temperatures == pytest.approx([2.5] * 5, rel=0.1)
    assert scaled.predictions.probs == pytest.approx(honest, abs=0.03)
    assert (scaled.predictions.predicted == honest.argmax(axis=1)).all(), "no prediction changes"


def test_temperature_scaling_does_not_depend_on_the_order_of_rows_and_leaves_few_rows_alone() -> None:
    found, order = drawn(0, 50, 3), np.random.default_rng(1).permutation(50)
    mixed = Predictions([found.ids[i] for i in order], found.label_ids[order], found.probs[order])
    assert calibrated(mixed).predictions.probs == pytest.approx(calibrated(found).predictions.probs[order], abs=1e-6)
    few = Predictions(found.ids[:4], found.label_ids[:4], found.probs[:4])
    assert calibrated(few).predictions is few


def test_a_rows_own_label_does_not_decide_its_temperature() -> None:
    found = drawn(0, 50, 3)
    other = found.label_ids.copy()
    other[0] = (other[0] + 1) % 3
    changed = calibrated(Predictions(found.ids, other, found.probs)).predictions.probs
    assert (changed[0] == calibrated(found).predictions.probs[0]).all()


def test_the_bins_of_the_diagram_give_the_calibration_error() -> None:
    found = drawn(0, 200, 3)
    bins = reliability(found)
    gap = sum(each.accuracy.n * abs(each.confidence - each.accuracy.value) for each in bins) / 200
    assert gap == pytest.approx(ece(found).value)
    assert sum(each.accuracy.n for each in bins) == 200


def test_coverage_ends_at_all_rows_and_takes_equals_together() -> None:
    found = drawn(0, 200, 3)
    points = risk_coverage(found)
    assert points[-1].share == 1.0
    assert points[-1].accuracy == score(found)["accuracy"]
    assert len(points) <= 50
    confidence, right = found.probs.max(axis=1), found.predicted == found.label_ids
    for point in points:
        taken = confidence >= point.threshold
        assert point.accuracy.n == taken.sum()
        assert point.accuracy.value == pytest.approx(right[taken].mean())
    alike = Predictions(found.ids, found.label_ids, np.tile([0.5, 0.3, 0.2], (200, 1)))
    assert [point.share for point in risk_coverage(alike)] == [1.0]


@pytest.mark.parametrize("n_classes", [2, 3, 150])
def test_a_scaled_loss_is_that_of_softmax_to_the_bit(n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    logits = np.log(np.maximum(rng.dirichlet(np.full(n_classes, 0.3), 50), 1e-30))
    label_ids = rng.integers(n_classes, size=50)
    loss = calibration._mixed_loss(logits, label_ids)
    for log_inverse in (-2.5, 0.0, 0.7, 3.0):
        probs = 0.99 * softmax(logits * np.exp(log_inverse), axis=1) + 0.01 * (1 / n_classes)
        assert loss(log_inverse) == float(np.sort(-np.log(probs[np.arange(50), label_ids])).mean())
