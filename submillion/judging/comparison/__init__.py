"""Which run, or which setting, is better, and whether the rows can tell.

`paired` has the exact test of two runs and Holm's correction; `racing` which trials can no longer win; `bootstrap` the
difference of settings, or of two runs, over seeds and rows; `rows` the rows that a difference takes; `choice` the
best score without the luck of its choice; `conclusion` the tie group and what to take; `verdict` is its type. Nothing
is trained or read here.
"""

from submillion.judging.comparison.bootstrap import paired
from submillion.judging.comparison.choice import Noted, corrected, is_better_checkpoint
from submillion.judging.comparison.conclusion import Setting, conclude
from submillion.judging.comparison.paired import (
    LEVEL,
    Difference,
    holm,
    lowest_and_highest,
    mcnemar,
)
from submillion.judging.comparison.racing import (
    EVALUATE_EVERY,
    MIN_ROWS,
    RUNGS,
    SHARES,
    Behind,
    Cost,
    Course,
    dropped,
    expected_cost,
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
    "EVALUATE_EVERY",
    "LEVEL",
    "MIN_ROWS",
    "RUNGS",
    "SHARES",
    "Behind",
    "Cost",
    "Course",
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
    "dropped",
    "expected_cost",
    "holm",
    "is_better_checkpoint",
    "lowest_and_highest",
    "mcnemar",
    "p_value",
    "paired",
    "rows_for_points",
    "rows_needed",
    "values",
]
