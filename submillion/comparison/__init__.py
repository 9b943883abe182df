"""Which run, or which setting, is better, and whether the rows can tell.

`paired` has the exact test of two runs, Holm's correction and the rows that a difference takes; `resampling` the
bootstrap over rows; `seeds` the difference of settings over seeds and rows; `sequential` the test that may stop early;
`conclusion` the tie group and what to take; `wording` says it; `reading` makes it all from run folders. Nothing is
trained here.
"""

from submillion.comparison.conclusion import Comparison, Pair, Setting, conclude
from submillion.comparison.paired import LEVEL, Difference, holm, mcnemar, rows_needed
from submillion.comparison.reading import compare
from submillion.comparison.sequential import is_ruled_out, log_evidence
from submillion.comparison.wording import p_value, sentences, values

__all__ = [
    "LEVEL",
    "Comparison",
    "Difference",
    "Pair",
    "Setting",
    "compare",
    "conclude",
    "holm",
    "is_ruled_out",
    "log_evidence",
    "mcnemar",
    "p_value",
    "rows_needed",
    "sentences",
    "values",
]
