"""What can be said about rows without labels, from saved predictions and texts: pure functions, no model.

`priors`: class shares, if only they have changed · `estimates`: these and how much is right, by confidence, with
intervals · `labels`: how often each of several labels is predicted · `texts`: whether they look like training's ·
`verdict`: the estimate to go by, and when not to. Where predictions come from, and pages, are left to others.
"""

from submillion.judging.shift.estimates import Estimates, class_shares, estimate
from submillion.judging.shift.labels import LabelRates, label_rates
from submillion.judging.shift.priors import corrected
from submillion.judging.shift.texts import Drift, Lengths, drift
from submillion.judging.shift.verdict import HELD, StatedAccuracy, judge

__all__ = [
    "HELD",
    "Drift",
    "Estimates",
    "LabelRates",
    "Lengths",
    "StatedAccuracy",
    "class_shares",
    "corrected",
    "drift",
    "estimate",
    "judge",
    "label_rates",
]
