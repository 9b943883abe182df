"""The errors a user can cause, and the shape of their messages.

Every message says what was found, what is allowed and what to do. Problems found together are
reported together. The command line turns these into exit code 1; anything else is our bug. What was found may be of
any size and hold anything: messages are bounded, and show neither passwords nor control characters.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from submillion.text import first_line, visible, without_secrets

MAX_PROBLEMS = 20
MAX_CHARACTERS = 2000  # of one problem
_END_CHARACTERS = 500  # of a longer one's end, where the advice is
_PACKAGE = Path(__file__).resolve().parent
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
        self.problems = tuple(map(_presentable, problems))
        super().__init__(listed(self.problems))

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), self.problems


class ConfigError(SubmillionError):
    """A setting, a recipe, a model or a device that cannot be used as asked."""


class DataError(SubmillionError):
    """Rows, columns, labels or files that cannot be used as asked."""


class HubError(SubmillionError):
    """What the Hugging Face Hub did not give, why, and what to type."""


class BudgetError(SubmillionError):
    """A plan that does not fit its budget, or a built model that does not match its plan."""


class RunError(SubmillionError):
    """A run folder that is missing, incomplete, in use, damaged or written by another version."""


class DivergedError(RunError):
    """A training whose loss is no longer a number."""


class NotFiniteError(RunError):
    """A finished model's output for a text is not a finite number."""


class ExportError(SubmillionError):
    """An export that could not be written or uploaded, or that is worse than its run."""


def command(*words: object, program: str = "submillion") -> str:
    """Return a command as it is typed into a shell: a path with blanks or quotes in it is one word.

    >>> command("runs", "remove", "my runs/run-1a2b3c4d")
    "submillion runs remove 'my runs/run-1a2b3c4d'"
    """
    return shlex.join([program, *map(str, words)])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a lack of memory, the machine's or an accelerator's; torch has several kinds of them.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."))
    True
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def os_problem(error: OSError) -> str:
    """Return why the system refuses a file, and what to do, if that is known.

    >>> os_problem(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device: free some space; finished work is kept, and the same command resumes'
    """
    reason = error.strerror or first_line(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"{reason}: free some space; finished work is kept, and the same command resumes"
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return f"{reason}: change its permissions, or give another folder"
    return reason


def is_checkout() -> bool:
    """Say whether this is Submillion in its checkout, which can be installed again, rather than from a wheel."""
    return (_PACKAGE.parent / "pyproject.toml").is_file()


def install_line(extra: str | None = None) -> str:
    """Return the command that installs an extra's packages, or this checkout again, into this environment.

    Submillion is on no package index: it is installed from its checkout, which is named if it is not the current
    folder, as pip is if the shell would take another's. A wheel knows no checkout, only its extras' packages: from one,
    ask with an extra only.
    """
    python = Path(sys.executable)
    pip = "pip" if shutil.which("pip") == str(python.with_name("pip")) else f"{shlex.quote(str(python))} -m pip"
    if extra and not is_checkout():
        marker = f'; extra == "{extra}"'
        packages = [
            requirement.removesuffix(marker)
            for requirement in requires("submillion") or ()
            if requirement.endswith(marker)
        ]
        return f"{pip} install {shlex.join(packages)}"
    is_here = os.path.exists(_PACKAGE.name) and os.path.samefile(_PACKAGE.name, _PACKAGE)
    checkout = str(_PACKAGE.parent) if is_checkout() and not is_here else "."
    return f"{pip} install -e {shlex.quote(checkout + (f'[{extra}]' if extra else ''))}"


def _presentable(problem: str) -> str:
    text = visible(without_secrets(problem))
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[: MAX_CHARACTERS - _END_CHARACTERS]} ... {text[-_END_CHARACTERS:]}"


def listed(problems: Iterable[str], limit: int = MAX_PROBLEMS) -> str:
    """Return the problems as text: one alone unchanged, several as a list of at most `limit`.

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
