"""The errors a user can cause, and the shape of their messages.

Every message says what was found, what is allowed and what to do. Problems found together are
reported together. The command line turns these into exit code 1; anything else is our bug.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

MAX_PROBLEMS = 20
_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, XPU, MPS
    "can't allocate memory",  # torch's allocator on Unix
    "not enough memory",  # the same on Windows
    "std::bad_alloc",  # what torch calls, such as oneDNN
    "could not create a primitive",  # oneDNN, which gives no reason; on supported devices there is no other
    "can't start new thread",  # there is no memory for its stack
)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a lack of memory, the machine's or an accelerator's; torch has several kinds of them.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a sentence; its kind where it has none.

    >>> first_line(MemoryError())
    'MemoryError'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def os_problem(error: OSError) -> str:
    """Return what the system has against a file, and what to do, where that is known.

    >>> os_problem(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device: make room; what is finished is kept, and the same command goes on'
    """
    reason = error.strerror or first_line(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"{reason}: make room; what is finished is kept, and the same command goes on"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"{reason}: change its permissions, or give another folder"
    return reason


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
