"""Whether what a study expected, or was published with, holds by what was measured here.

A claim says which choice of a factor wins. It holds where that choice alone is left: every other one is told from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from submillion.judging.metrics import Score, wilson
from submillion.reports.sweep.panels import Choice, Panel
from submillion.reports.sweep.reading import Claim

Judgement = Literal["holds", "told apart against it", "a tie", "not tested here"]


@dataclass(frozen=True)
class Judged:
    """A claim and what was measured: the claimed choice, and the one that it is held against.

    claimed: the accuracies that were claimed, by choice, with Wilson's interval on the claim's own rows; without
    rows there is none, and n is 0 · rival: the best choice here, or where that is the claimed one the best of the
    others · why: it could not be tested.
    """

    claim: Claim
    judgement: Judgement
    claimed: dict[str, Score]
    measured: Choice | None
    rival: Choice | None
    why: str | None = None


def judge(claims: Sequence[Claim], panels: Sequence[Panel]) -> list[Judged]:
    """Return the claims, each judged by its factor's panel."""
    by_factor = {panel.factor: panel for panel in panels}
    return [_judged(claim, by_factor.get(claim.factor)) for claim in claims]


def _judged(claim: Claim, panel: Panel | None) -> Judged:
    claimed = {label: _claimed(share, claim.rows) for label, share in claim.scores.items()}
    if panel is None:
        return Judged(claim, "not tested here", claimed, None, None, "no trial of this factor was begun")
    winner = next((choice for choice in panel.choices if choice.label == claim.winner), None)
    if winner is None or winner.score is None:
        why = "no such choice" if winner is None else winner.why or "not compared yet"
        return Judged(claim, "not tested here", claimed, winner, panel.best, why)
    others = [each for each in panel.scored if each.runs != winner.runs]
    rivals = sorted(others, key=lambda each: (not each.is_tied, -_value(each)))
    if panel.found == "not compared" or not rivals:
        return Judged(claim, "not tested here", claimed, winner, None, "no other choice was compared with it")
    if not winner.is_tied:
        return Judged(claim, "told apart against it", claimed, winner, panel.best)
    return Judged(claim, "a tie" if rivals[0].is_tied else "holds", claimed, winner, rivals[0])


def _claimed(share: float, rows: int | None) -> Score:
    return Score(share, 0.0, 1.0, 0) if rows is None else wilson(round(share * rows), rows)


def _value(choice: Choice) -> float:
    return 0.0 if choice.score is None else choice.score.value
