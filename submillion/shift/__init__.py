"""What may be said of rows without labels, from saved predictions and texts: pure functions, no model.

`priors`: class shares, if only they have changed · `accuracy`: how much is right, by confidence · `estimates`: both
with their intervals · `texts`: whether they look as those of training · `verdict`: the estimate to go by, and when not
to. Where predictions come from, and pages, are the affair of others.
"""

from submillion.shift.estimates import MIN_ROWS, Estimates, class_shares, estimate
from submillion.shift.priors import corrected
from submillion.shift.texts import Drift, Lengths, Telling, drift
from submillion.shift.verdict import Verdict, judge

__all__ = [
    "MIN_ROWS",
    "Drift",
    "Estimates",
    "Lengths",
    "Telling",
    "Verdict",
    "class_shares",
    "corrected",
    "drift",
    "estimate",
    "judge",
]
