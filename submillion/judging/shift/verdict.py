"""The estimate to go by, and when not to: how far the methods were off when the truth was known, and how far this is.

The constants were fixed on one half of the shifts of `benchmarks/shift.py`, 28 of them; docs/shift.md has them, what
the other half said, and which of them a second training changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy

from submillion.judging.comparison import LEVEL, p_value
from submillion.judging.metrics import Z_95, Score
from submillion.judging.shift.estimates import Estimates
from submillion.judging.shift.texts import Drift
from submillion.text import interval, plural

_Z_90 = 1.6448536269514722  # the normal distribution's 95 % point: the stated interval was made to hold in 90 %
HELD = "held the truth in 36 of 39 known shifts"
"""What is known about the stated interval, from the shifts it was judged on (docs/shift.md); no level is promised."""
# How far the log-odds of an error may be from ATC's: a difference of texts of 1 makes them this much higher, up to a
# bound, or this much lower.
_HIGHER, _MOST_HIGHER, _LOWER = 1.5, 1.0, 0.4
DOUBT_FROM = 0.45  # difference of texts; from there ATC was up to 35 points too high on the half that this is fixed on
_FEW_ROWS = 100
_APART = 0.1  # total variation between BBSE's shares and EM's


@dataclass(frozen=True)
class StatedAccuracy:
    """The estimate to go by.

    accuracy: with an interval that counts the method's own errors, and was made to hold in 90 % · difference: of texts,
    0 to 1, None if training texts are gone · cautions: sentences on what speaks against the estimate · is_trusted:
    False if the texts differ too much, or it is not known how much.
    """

    accuracy: Score
    difference: float | None
    cautions: tuple[str, ...]
    is_trusted: bool


def difference(drift: Drift) -> float:
    """Return how much texts differ from training's, 0 to 1: by words (2 AUC - 1) or by length, the larger."""
    by_words = 0.0 if drift.auc is None else 2 * drift.auc.value - 1
    return max(by_words, drift.length_distance, 0.0)


def judge(estimates: Estimates, drift: Drift | None, n_trained_on: int | None = None) -> StatedAccuracy:
    """Return the stated accuracy and what speaks against it.

    drift: None if the training texts are gone · n_trained_on: rows that the run was trained on, None if not noted.

    The value is ATC's: no combination that was tried was nearer to the truth on all kinds of shifts. Its interval adds,
    in log-odds of an error, chance and the method's own error, as independent errors.
    """
    how_far = None if drift is None else difference(drift)
    doubts = _doubts(how_far, drift)
    cautions = (
        *doubts,
        *_few(estimates),
        *_shares(estimates),
        *_changed(estimates, how_far),
        *_seen(estimates, n_trained_on),
    )
    return StatedAccuracy(_stated(estimates, 1.0 if how_far is None else how_far), how_far, cautions, not doubts)


def _stated(estimates: Estimates, how_far: float) -> Score:
    middle = _log_odds(estimates.atc.value, estimates.n)
    # A bootstrap of validation rows with few mistakes knows of no others; their accuracy's own interval does, and the
    # counts that ATC compares.
    candidates = (
        _to_90(estimates.atc, estimates.n),
        _to_90(estimates.validation, estimates.n_validation),
        _of_counts(estimates),
    )
    chance = [max(ends) for ends in zip(*candidates, strict=True)]
    worst = middle + math.hypot(chance[0], min(_HIGHER * how_far, _MOST_HIGHER))
    best = middle - math.hypot(chance[1], _LOWER * how_far)
    if _has_other_shares(estimates, how_far):
        by_class, (below, above) = (
            _log_odds(estimates.by_class.value, estimates.n),
            _to_90(estimates.by_class, estimates.n),
        )
        worst, best = max(worst, by_class + below), min(best, by_class - above)
    value = estimates.atc.value
    return Score(value, min(1 / (1 + math.exp(worst)), value), max(1 / (1 + math.exp(best)), value), estimates.n)


def _of_counts(estimates: Estimates) -> tuple[float, float]:
    """Return how far the 90 % interval that two counts give is from ATC's value, in log-odds: below and above.

    Of n validation rows some are wrong, and by ATC as many have a score below its threshold: without a shift both are
    Poisson variables of one mean. The possible errors are those whose count could as well be the lower, or the higher,
    of the two in 5 % of samples (Skellam 1946).
    """
    n, middle = estimates.n_validation, _log_odds(estimates.atc.value, estimates.n)
    seen = n * (1 - estimates.atc.value)
    ends = (_mean_with(seen, 0.95), _mean_with(seen, 0.05))
    below, above = (
        abs(_log_odds(1 - min(end / n, 1.0), estimates.n) - middle) if end is not None else 0.0 for end in ends
    )
    return below, above


def _mean_with(seen: float, chance: float) -> float | None:
    """Return the mean of a Poisson variable that a second one, of mean `seen`, does not exceed with this chance; 0 if
    it is likelier without any, None if there is no such mean."""
    if seen <= 0 or math.exp(-seen) >= chance:
        return 0.0 if seen > 0 and chance < 0.5 else None
    highest = seen + 10 * math.sqrt(seen) + 20

    def excess(mean: float) -> float:
        return float(scipy.stats.skellam.cdf(0, seen, mean)) - chance

    return float(scipy.optimize.root_scalar(excess, bracket=(1e-9, highest), xtol=1e-6).root)


def _has_other_shares(estimates: Estimates, how_far: float) -> bool:
    """Say whether class shares have changed, but texts not so much that their estimates mean nothing."""
    is_known = estimates.by_class.high - estimates.by_class.low < 1
    return estimates.test.p <= LEVEL and is_known and how_far < DOUBT_FROM


def _to_90(score: Score, n: int) -> list[float]:
    """Return how far a 95 % interval's ends, made one of 90 %, are from its value in log-odds."""
    return [_Z_90 / Z_95 * abs(_log_odds(end, n) - _log_odds(score.value, n)) for end in (score.low, score.high)]


def _log_odds(accuracy: float, n: int) -> float:
    """Return the log-odds of an error, at least half a row away from never and always."""
    error = min(max(1 - accuracy, 0.5 / n), 1 - 0.5 / n)
    return math.log(error / (1 - error))


def _doubts(how_far: float | None, drift: Drift | None) -> tuple[str, ...]:
    if how_far is None or drift is None:
        return ("Whether these texts are like training's is unknown: the interval is as wide as if they were not.",)
    if how_far < DOUBT_FROM:
        return ()
    reasons = []
    if drift.auc is not None and 2 * drift.auc.value - 1 >= DOUBT_FROM:
        reasons.append(f"a classifier of words tells them apart with AUC {drift.auc.value:.2f}")
    if drift.length_distance >= DOUBT_FROM:
        reasons.append(f"their lengths differ by {drift.length_distance:.2f} (0 alike, 1 apart)")
    return (
        f"These texts are unlike training's: {', and '.join(reasons)}. In known shifts with texts this different, "
        "the estimate was right on some and up to 35 points too high on others; nothing told which. `submillion ask` "
        "says which rows to label.",
    )


def _few(estimates: Estimates) -> tuple[str, ...]:
    counts = ((estimates.n, "rows"), (estimates.n_validation, "validation rows"))
    few = " and ".join(f"{n:,} {what}" for n, what in counts if n < _FEW_ROWS)
    return (f"There are only {few}: chance alone makes the intervals wide.",) if few else ()


def _shares(estimates: Estimates) -> tuple[str, ...]:
    if estimates.apart < _APART:
        return ()
    return (
        f"BBSE and EM give class shares that differ by {100 * estimates.apart:.0f} % of rows: use neither, and do "
        "not correct predictions by them.",
    )


def _changed(estimates: Estimates, how_far: float | None) -> tuple[str, ...]:
    if how_far is None or not _has_other_shares(estimates, how_far):
        return ()
    return (
        f"Predicted class shares differ from those on validation (p {p_value(estimates.test.p)}). If nothing else has "
        f"changed, the accuracy is {interval(estimates.by_class)}, by each class's recall: the stated interval "
        "holds both.",
    )


def _seen(estimates: Estimates, n_trained_on: int | None) -> tuple[str, ...]:
    if not n_trained_on:
        return ()
    return (
        f"{n_trained_on:,} of {estimates.n:,} rows {plural(n_trained_on, 'was', 'were')} trained on: the model may "
        "know their labels by heart, and the estimate is too high for new rows.",
    )
