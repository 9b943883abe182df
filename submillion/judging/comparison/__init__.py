"""Which run, or which setting, is better, and whether the rows can tell.

`paired` has the exact test of two runs, Holm's correction, the rows that a difference takes, and the test that may stop
early; `bootstrap` the difference of settings, or of two runs, over seeds and rows; `conclusion` the tie group and what
to take; `verdict` is its type. Nothing is trained or read here.
"""

from submillion.judging.comparison.bootstrap import paired
from submillion.judging.comparison.conclusion import Setting, conclude
from submillion.judging.comparison.paired import (
    LEVEL,
    Difference,
    holm,
    is_ruled_out,
    log_evidence,
    mcnemar,
    rows_needed,
)
from submillion.judging.comparison.verdict import Split, Standing, Tested, Verdict, p_value, values

__all__ = [
    "LEVEL",
    "Difference",
    "Setting",
    "Split",
    "Standing",
    "Tested",
    "Verdict",
    "conclude",
    "holm",
    "is_ruled_out",
    "log_evidence",
    "mcnemar",
    "p_value",
    "paired",
    "rows_needed",
    "values",
]
