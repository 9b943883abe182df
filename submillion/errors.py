"""The errors a user can cause, and the shape of their messages.

Every message says what was found, what is allowed and what to do. Problems found together are
reported together. The command line turns these into exit code 1; anything else is our bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_PROBLEMS = 20


class SubmillionError(Exception):
    """One or several problems with the user's input; `problems` holds each message."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(listed(problems))

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), self.problems


class ConfigError(SubmillionError):
    """A setting, a recipe, a model or a device that cannot be used as asked."""


class DataError(SubmillionError):
    """Rows, columns, labels or files that cannot be used as asked."""


class BudgetError(SubmillionError):
    """A plan that does not fit its budget, or a built model that does not match its plan."""


class RunError(SubmillionError):
    """A run folder that is missing, incomplete, in use, damaged or written by another version."""


class DivergedError(RunError):
    """A training whose loss is no longer a number."""


class ExportError(SubmillionError):
    """An export that could not be written or uploaded, or that is not worth what its run is."""


def listed(problems: Iterable[str], limit: int = MAX_PROBLEMS) -> str:
    """Return the problems as text: one alone as it is, several as a list of at most `limit`.

    >>> listed(["no such file"])
    'no such file'
    >>> print(listed(["a", "b", "c"], limit=2))
    3 problems:
      - a
      - b
      - and 1 more
    """
    problems = list(problems)
    if len(problems) <= 1:
        return "".join(problems)
    lines = [f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"  - and {len(problems) - limit} more")
    return "\n".join(lines)


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """Return the hint to append to a message about an unknown name: the closest, or all allowed.

    >>> did_you_mean("qurey", ["query", "value"])
    "did you mean 'query'?"
    >>> did_you_mean("zzz", ["query", "value"])
    'allowed: query, value'
    """
    names = list(allowed)
    close = difflib.get_close_matches(str(found), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(names)}"
