"""Laws of estimates without labels: they find a known truth where their assumption holds, and refuse empty input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, special

from submillion.errors import DataError
from submillion.judging.metrics import Predictions, Score, scaled, temperature
from submillion.judging.shift import (
    Drift,
    Lengths,
    class_shares,
    corrected,
    drift,
    estimate,
    estimates,
    judge,
    priors,
    verdict,
)

EVEN = (1 / 3, 1 / 3, 1 / 3)
SKEWED = (0.7, 0.25, 0.05)


def sample(n: int, shares: tuple[float, ...], seed: int, sharpness: float = 1.0) -> Predictions:
    """Rows whose probabilities are the true posteriors under even shares, their logits then times `sharpness`."""
    rng, n_classes = np.random.default_rng(seed), len(shares)
    label_ids = rng.choice(n_classes, n, p=shares)
    points = 1.6 * np.eye(n_classes)[label_ids] + rng.normal(size=(n, n_classes))
    return Predictions([f"r{i}" for i in range(n)], label_ids, special.softmax(1.6 * sharpness * points, axis=1))


@pytest.mark.parametrize("shares", [EVEN, SKEWED, (0.5, 0.5, 0.0)])
@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_class_shares_are_found_where_only_they_have_changed(shares: tuple[float, ...], sharpness: float) -> None:
    validation, found = sample(6000, EVEN, 0, sharpness), sample(6000, shares, 1, sharpness)
    assert priors.bbse(validation, found.predicted) == pytest.approx(shares, abs=0.03)
    assert class_shares(validation, found.probs)[2] == pytest.approx(shares, abs=0.02)


def test_a_bias_of_the_classifier_does_not_pass_for_a_shift() -> None:
    bias = np.array([2.0, 0.0, -1.0])
    validation, found = (
        Predictions(one.ids, one.label_ids, special.softmax(np.log(one.probs) + bias, axis=1))
        for one in (sample(6000, EVEN, 0), sample(6000, SKEWED, 1))
    )
    assert class_shares(validation, found.probs)[2] == pytest.approx(SKEWED, abs=0.02)


def test_em_finds_the_shares_of_largest_likelihood() -> None:
    probs = sample(300, SKEWED, 0).probs
    ratios = probs / np.array(EVEN)

    def loss(logits: np.ndarray) -> float:
        return -float(np.log(ratios @ special.softmax(logits)).sum())

    best = special.softmax(optimize.minimize(loss, np.zeros(3)).x)
    assert priors.em(probs, np.array(EVEN)) == pytest.approx(best, abs=1e-3)


def test_intervals_of_class_shares_hold_the_truth() -> None:
    held = []
    for seed in range(6):
        found = estimate(sample(200, EVEN, seed), sample(200, SKEWED, 100 + seed).probs)
        held += [
            one.low <= share <= one.high
            for scores in (found.bbse, found.em)
            for one, share in zip(scores, SKEWED, strict=True)
        ]
    assert np.mean(held) >= 0.85


def test_atc_is_exact_where_errors_lie_below_a_threshold() -> None:
    rng = np.random.default_rng(0)
    validation, found = rng.uniform(size=2000), rng.beta(1, 3, size=500)
    assert estimates.atc(validation, validation > 0.3, found) == pytest.approx((found > 0.3).mean(), abs=0.005)


@pytest.mark.parametrize("n_right", [0, 5, 10, 17, 20])
def test_where_all_confidences_tie_the_estimate_is_that_of_validation_and_wide(n_right: int) -> None:
    probs = np.tile([0.52, 0.48], (20, 1)) + np.random.default_rng(0).normal(scale=1e-9, size=(20, 1)) * [1, -1]
    label_ids = np.where(np.arange(20) < n_right, 0, 1)
    found = estimate(Predictions([str(i) for i in range(20)], label_ids, probs), np.tile([0.52, 0.48], (500, 1)))
    assert found.atc.value == pytest.approx(n_right / 20)
    if n_right == 10:
        assert found.atc.low < 0.35
        assert found.atc.high > 0.65
        stated = judge(found, None).accuracy
        assert stated.low < 0.35
        assert stated.high > 0.65
    assert n_right in (0, 20) or all((one.low, one.high) == (0.0, 1.0) for one in (*found.bbse, *found.em))


def test_rows_that_tie_at_the_threshold_count_in_validations_proportion() -> None:
    validation = np.array([0.2] * 2 + [0.6] * 8 + [0.9] * 10)
    is_right = np.arange(20) >= 6  # the threshold parts the eight: four of them are below it
    assert estimates.atc(validation, is_right, np.array([0.2, 0.6, 0.6, 0.9])) == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)


@pytest.mark.parametrize("shares", [EVEN, SKEWED])
def test_doc_is_right_where_confidence_stays_calibrated(shares: tuple[float, ...]) -> None:
    """Covariate shift: other rows, labels drawn from the same posteriors."""
    rng = np.random.default_rng(0)
    validation, others = sample(8000, EVEN, 0), sample(8000, shares, 1)
    hard = others.probs.max(axis=1) < 0.9
    probs = np.concatenate([others.probs[hard], others.probs[~hard][:500]])
    truth = np.array([rng.choice(3, p=row / row.sum()) for row in probs])
    is_right = validation.predicted == validation.label_ids
    found = estimates.doc(validation.probs.max(axis=1), is_right, probs.max(axis=1))
    assert found == pytest.approx((probs.argmax(axis=1) == truth).mean(), abs=0.02)


def test_without_a_shift_everything_is_as_on_validation() -> None:
    validation = sample(400, (0.5, 0.3, 0.2), 0)
    found = estimate(validation, validation.probs)
    assert found.atc.value == found.validation.value == pytest.approx(found.doc.value)
    assert [one.value for one in found.bbse] == pytest.approx(np.bincount(validation.label_ids) / 400)
    assert [one.value for one in found.em] == pytest.approx(np.bincount(validation.label_ids) / 400, abs=0.01)
    assert (found.test.p, found.test.distance) == (1.0, 0.0)
    assert found.confidence == pytest.approx(found.confidence_validation)


def test_neither_the_order_of_rows_nor_of_classes_matters() -> None:
    validation, probs = sample(120, EVEN, 0), sample(90, SKEWED, 1).probs
    found = estimate(validation, probs)
    rows, order = np.random.default_rng(0).permutation(120), [2, 0, 1]
    mixed = Predictions([validation.ids[i] for i in rows], validation.label_ids[rows], validation.probs[rows])
    assert estimate(mixed, probs[::-1]) == found
    renamed = Predictions(validation.ids, np.argsort(order)[validation.label_ids], validation.probs[:, order])
    other = estimate(renamed, probs[:, order])
    assert [one.value for one in other.bbse] == pytest.approx([found.bbse[i].value for i in order])
    assert [one.value for one in other.em] == pytest.approx([found.em[i].value for i in order], abs=1e-3)
    assert other.atc.value == found.atc.value


def test_every_interval_holds_its_value_within_zero_and_one() -> None:
    found = estimate(sample(40, (0.98, 0.01, 0.01), 0), sample(12, SKEWED, 1).probs)
    for one in (*found.predicted, *found.bbse, *found.em, found.validation, found.atc, found.doc):
        assert 0 <= one.low <= one.value <= one.high <= 1
    assert sum(one.value for one in found.em) == pytest.approx(1)


def test_a_class_without_validation_rows_is_named() -> None:
    validation = sample(200, (0.6, 0.4, 0.0), 0)
    found = estimate(validation, sample(100, EVEN, 1).probs)
    assert found.missing == (2,)
    assert found.bbse[2].value == 0


def test_the_test_of_shares_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    ps = [priors.shares_test(rng.choice(3, 300, p=SKEWED), rng.choice(3, 200, p=SKEWED), 3).p for _ in range(600)]
    assert 0.02 < np.mean(np.array(ps) < 0.05) < 0.08
    assert priors.shares_test(np.zeros(50, int), np.ones(50, int), 3).p < 1e-9


def test_corrected_probabilities_are_those_of_the_other_shares() -> None:
    rng = np.random.default_rng(0)
    likelihoods, shares = rng.uniform(size=(50, 3)), np.array(SKEWED)
    posteriors = [
        likelihoods * each / (likelihoods * each).sum(axis=1, keepdims=True) for each in (np.array(EVEN), shares)
    ]
    np.testing.assert_allclose(corrected(posteriors[0], np.array(EVEN), shares), posteriors[1])


def test_scaling_undoes_a_temperature() -> None:
    one, sharp = sample(500, EVEN, 0), sample(500, EVEN, 0, sharpness=4.0)
    assert temperature(sharp) == pytest.approx(4 * temperature(one), rel=1e-3)
    np.testing.assert_allclose(scaled(sharp.probs, temperature(sharp)), scaled(one.probs, temperature(one)), atol=1e-3)


@pytest.mark.parametrize(
    ("n_validation", "n", "message"), [(9, 50, "9 rows of validation"), (50, 3, "3 rows to estimate for")]
)
def test_too_few_rows_are_refused(n_validation: int, n: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimate(sample(n_validation, EVEN, 0), sample(n, EVEN, 1).probs)


def test_predictions_that_are_not_numbers_are_refused() -> None:
    probs = sample(30, EVEN, 0).probs.copy()
    probs[3] = np.nan
    with pytest.raises(DataError, match="diverged"):
        estimate(sample(30, EVEN, 1), probs)


def drifted(auc: float, length_distance: float = 0.0) -> Drift:
    usual = Lengths(5.0, 8.0, 11.0)
    unseen = Score(0.1, 0.09, 0.11, 100)
    found = Score(auc, auc, auc, 100)
    return Drift((usual,) * 3, length_distance, 1.0, unseen, unseen, 100, found, ())


def test_the_more_texts_differ_the_wider_is_the_interval_and_the_less_it_is_trusted() -> None:
    found = estimate(sample(300, EVEN, 0), sample(300, EVEN, 1).probs)
    verdicts = [judge(found, drifted(auc)) for auc in (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)]
    scores = [one.accuracy for one in verdicts]
    assert {one.value for one in scores} == {found.atc.value}
    assert [one.low for one in scores] == sorted((one.low for one in scores), reverse=True)
    assert [one.high for one in scores] == sorted(one.high for one in scores)
    assert [one.is_trusted for one in verdicts] == [True, True, True, True, False, False]
    assert judge(found, drifted(0.5, length_distance=0.5)).accuracy == judge(found, drifted(0.75)).accuracy
    assert scores[0].high - scores[0].low < found.atc.high - found.atc.low  # 90 % of chance against 95 %


def test_an_unknown_difference_counts_as_the_largest() -> None:
    found = estimate(sample(300, EVEN, 0), sample(300, EVEN, 1).probs)
    for differing, words, lengths in (
        (drifted(1.0), True, False),
        (drifted(0.5, length_distance=0.5), False, True),
        (drifted(0.9, length_distance=0.6), True, True),
    ):
        (doubt, *_) = judge(found, differing).cautions
        assert ("with AUC" in doubt, "their lengths differ by 0." in doubt) == (words, lengths)
    unknown = judge(found, None)
    assert unknown.accuracy == judge(found, drifted(1.0)).accuracy
    assert (unknown.is_trusted, unknown.difference) == (False, None)


def test_what_speaks_against_an_estimate_is_said() -> None:
    few = estimate(sample(60, EVEN, 0), sample(300, EVEN, 1).probs)
    assert "60 validation rows" in " ".join(judge(few, drifted(0.5)).cautions)
    sure = estimate(sample(500, EVEN, 0), sample(500, EVEN, 1).probs)
    assert judge(sure, drifted(0.5)).cautions == ()
    assert "7 of 500 rows were trained on" in judge(sure, drifted(0.5), n_trained_on=7).cautions[0]
    shares = tuple(Score(share, share, share, 500) for share in SKEWED)
    assert "use neither" in judge(replace(sure, em=shares), drifted(0.5)).cautions[0]


def test_all_right_and_all_wrong_leave_an_interval() -> None:
    sure = Predictions([str(i) for i in range(50)], np.zeros(50, int), np.tile([0.9, 0.1], (50, 1)))
    accuracy_here = judge(estimate(sure, sure.probs), drifted(0.5)).accuracy
    assert accuracy_here.low < accuracy_here.value == 1.0
    wrong = Predictions(sure.ids, np.ones(50, int), sure.probs)
    assert judge(estimate(wrong, sure.probs), drifted(0.9)).accuracy.value == 0.0


def texts(n: int, words: str, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(words.split(), 8))} number {rng.integers(10**6)}" for _ in range(n)]


def test_texts_like_those_of_training_are_not_told_apart() -> None:
    words = "red green blue yellow black white grey pink"
    found = drift(texts(300, words, 0), texts(100, words, 1), texts(200, words, 2))
    assert found.auc is not None
    assert found.auc.low <= 0.5 <= found.auc.high
    assert found.lengths[0] == found.lengths[2]
    assert found.length_p == 1


def test_other_texts_are_told_apart_by_their_words() -> None:
    found = drift(
        texts(300, "red green blue", 0), texts(100, "red green blue", 1), texts(100, "red green sea land sky", 2)
    )
    assert found.auc is not None
    assert found.auc.value > 0.95
    here = [each.word for each in found.telling if each.here > each.in_training]
    assert {"sea", "land", "sky"} == set(here[:3])
    assert "blue" in [each.word for each in found.telling if each.here < each.in_training]
    assert found.unseen.low > found.unseen_validation.high


def test_copies_of_training_texts_do_not_mislead_the_classifier() -> None:
    train = texts(200, "red green blue yellow black white grey pink", 0)
    found = drift(train, train[:50], train)
    assert found.auc is not None
    assert found.auc.value == pytest.approx(0.5, abs=0.02)
    assert found.unseen.value == 0


def test_the_order_of_texts_does_not_matter() -> None:
    train, here = texts(60, "red green blue", 0), texts(40, "red sea", 1)
    assert drift(train[::-1], train[:20], here[::-1]) == drift(train, train[:20], here)


@pytest.mark.parametrize("few", [["a b"], ["?!", "…"] * 20])
def test_texts_too_few_or_without_words_have_no_auc(few: list[str]) -> None:
    assert drift(few, few, few).auc is None


def drawn(rng: np.random.Generator, n: int, shares: tuple[float, ...], apart: float) -> Predictions:
    """Rows of a model that is fitted to 97:3, or even shares, and too sure by 1.5."""
    fitted = (0.97, 0.03) if len(shares) == 2 else (0.25,) * 4
    label_ids = rng.choice(len(shares), n, p=shares)
    points = apart * np.eye(len(shares))[label_ids] + rng.normal(size=(n, len(shares)))
    probs = special.softmax(1.5 * (apart * points + np.log(fitted)), axis=1)
    return Predictions([str(i) for i in range(n)], label_ids, probs)


@pytest.mark.parametrize(
    ("n_validation", "shares", "here", "apart", "old"),
    [(600, (0.97, 0.03), (0.8, 0.2), 1.5, 0.5), (60, (0.25,) * 4, (0.25,) * 4, 4.0, 0.7)],
    ids=["shares of classes changed", "few validation rows, few mistakes"],
)
def test_the_stated_interval_holds_the_truth(
    monkeypatch: pytest.MonkeyPatch,
    n_validation: int,
    shares: tuple[float, ...],
    here: tuple[float, ...],
    apart: float,
    old: float,
) -> None:
    """At least in the 90 % that it was made for; as it was before, without either correction, in fewer than `old`."""
    monkeypatch.setattr(estimates, "_N_DRAWS", 40)
    rng, n, held, before = np.random.default_rng(4), 14, 0, 0
    for _ in range(n):
        validation, rows = (drawn(rng, *how, apart) for how in ((n_validation, shares), (400, here)))
        found, truth = estimate(validation, rows.probs), rows.right.mean()
        stated = judge(found, drifted(0.5)).accuracy
        held += stated.low <= truth <= stated.high
        with monkeypatch.context() as without:
            without.setattr(verdict, "_of_counts", lambda _: (0.0, 0.0))
            without.setattr(verdict, "_has_other_shares", lambda *_: False)
            stated = judge(found, drifted(0.5)).accuracy
        before += stated.low <= truth <= stated.high
    assert held >= 0.9 * n
    assert before < old * n


def test_changed_shares_of_classes_are_told_with_what_they_mean() -> None:
    rng = np.random.default_rng(4)
    validation, rows = drawn(rng, 600, (0.97, 0.03), 2.0), drawn(rng, 400, (0.8, 0.2), 2.0)
    found = judge(estimate(validation, rows.probs), drifted(0.5))
    assert any("class shares differ from those on validation" in each for each in found.cautions)
    other = judge(estimate(validation, rows.probs), drifted(0.5, length_distance=0.9))
    assert not any("class shares differ" in each for each in other.cautions)
