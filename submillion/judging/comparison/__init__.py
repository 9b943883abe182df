"""Which run, or which setting, is better, and whether the rows can tell.

`paired` has the exact test of two runs, Holm's correction, and the test that may stop early; `bootstrap` the difference
of settings, or of two runs, over seeds and rows; `rows` the rows that a difference takes; `choice` the best score
without the luck of its choice; `conclusion` the tie group and what to take; `verdict` is its type. Nothing is trained
or read here.
"""

from submillion.judging.comparison.bootstrap import paired
from submillion.judging.comparison.choice import Noted, corrected
from submillion.judging.comparison.conclusion import Setting, conclude
from submillion.judging.comparison.paired import (
    LEVEL,
    Difference,
    holm,
    is_ruled_out,
    log_evidence,
    lowest_and_highest,
    mcnemar,
)
from submillion.judging.comparison.rows import RowsForPoints, rows_for_points, rows_needed
from submillion.judging.comparison.verdict import (
    Needed,
    RowsNeeded,
    Split,
    Standing,
    Tested,
    Verdict,
    p_value,
    values,
)

__all__ = [
    "LEVEL",
    "Difference",
    "Needed",
    "Noted",
    "RowsForPoints",
    "RowsNeeded",
    "Setting",
    "Split",
    "Standing",
    "Tested",
    "Verdict",
    "conclude",
    "corrected",
    "holm",
    "is_ruled_out",
    "log_evidence",
    "lowest_and_highest",
    "mcnemar",
    "p_value",
    "paired",
    "rows_for_points",
    "rows_needed",
    "values",
]
