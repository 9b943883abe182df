"""The errors a user can cause, and the shape of their messages.

Every message says what was found, what is allowed and what to do. Problems found together are
reported together. The command line turns these into exit code 1; anything else is our bug. What was found may be of
any size and hold anything: messages are bounded, and show neither passwords nor control characters.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import reprlib
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires
from pathlib import Path

MAX_PROBLEMS = 20
MAX_CHARACTERS = 2000  # of one problem
_END_CHARACTERS = 500  # of a longer one's end, where the advice stands
_COMPARED_CHARACTERS = 200  # of a name that is looked for among others
_MOST_COMPARED = 1000  # names that it is looked for among
_MOST_NAMES = 40  # that are listed
_SHORTEST_SECRET = 8
_PACKAGE = Path(__file__).resolve().parent
_USER_OF_URL = re.compile(r"(:/{1,2})(?:[^\s/@:]*:\S*|[^\s/@]+)(?=@)")  # of a path that was a URL too
_GIVEN_IN_URL = re.compile(r"([?&][^\s=&]*(?:token|key|secret|password|sig)[^\s=&]*=)[^\s&]+", re.IGNORECASE)
_TOKEN_OF_HUB = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_NAME_OF_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)
# What acts on a terminal, but for tab and new line: control characters, turns of direction. And halves of characters.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
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


class ExportError(SubmillionError):
    """An export that could not be written or uploaded, or that is not worth what its run is."""


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


def is_checkout() -> bool:
    """Say whether this is Submillion in its checkout, which can be installed again, rather than from a wheel."""
    return (_PACKAGE.parent / "pyproject.toml").is_file()


def install_line(extra: str | None = None) -> str:
    """Return the command that installs an extra's packages, or this checkout again, into this environment.

    Submillion is on no package index: it is installed from its checkout, which is named where it is not the current
    folder, as is pip where the shell would take another's. A wheel knows no checkout, but its extras' packages: from
    one, ask with an extra only.
    """
    python = Path(sys.executable)
    pip = "pip" if shutil.which("pip") == str(python.with_name("pip")) else f"{shlex.quote(str(python))} -m pip"
    if extra and not is_checkout():
        marker = f'; extra == "{extra}"'
        packages = [each.removesuffix(marker) for each in requires("submillion") or () if each.endswith(marker)]
        return f"{pip} install {shlex.join(packages)}"
    is_here = os.path.exists(_PACKAGE.name) and os.path.samefile(_PACKAGE.name, _PACKAGE)
    checkout = str(_PACKAGE.parent) if is_checkout() and not is_here else "."
    return f"{pip} install -e {shlex.quote(checkout + (f'[{extra}]' if extra else ''))}"


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with `***` for passwords and tokens: in URLs, of the Hub, and those that variables hold.

    >>> without_secrets("postgresql://me:word@host/db and hf_abcdefgh in $X_KEY, 12345678", {"X_KEY": "12345678"})
    'postgresql://***@host/db and *** in $X_KEY, ***'
    """
    text = _GIVEN_IN_URL.sub(r"\1***", _USER_OF_URL.sub(r"\1***", text))
    text = _TOKEN_OF_HUB.sub("***", text)
    held = (value for name, value in environment.items() if _NAME_OF_SECRET.search(name))
    for secret in sorted((value for value in held if len(value) >= _SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def shown(value: object) -> str:
    """Return a value as messages show it: its repr, cut where it is long, deep or has many parts.

    >>> shown("tpu"), shown([["x"] * 1000])[:20], len(shown("x" * 10**6)) < 250
    ("'tpu'", "[['x', 'x', 'x', 'x'", True)
    """
    try:
        return _REPR.repr(value)
    except ValueError:  # Python refuses to write whole numbers of more than 4,300 digits
        return f"a {type(value).__name__} too large to show"


def _bounded_repr() -> reprlib.Repr:
    found = reprlib.Repr()
    found.maxlevel = 2
    found.maxlist = found.maxtuple = found.maxdict = found.maxset = 10
    found.maxstring = found.maxother = found.maxlong = 200
    return found


_REPR = _bounded_repr()


def visible(text: str) -> str:
    """Return the text with control characters written out, which would act on a terminal.

    >>> visible("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _presentable(problem: str) -> str:
    text = visible(without_secrets(problem))
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[: MAX_CHARACTERS - _END_CHARACTERS]} ... {text[-_END_CHARACTERS:]}"


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


def closest(found: object, allowed: Sequence[str]) -> str | None:
    """Return the allowed name that an unknown one is nearest to; None where none is near.

    >>> closest("qurey", ["query", "value"])
    'query'
    """
    names = difflib.get_close_matches(str(found)[:_COMPARED_CHARACTERS], allowed[:_MOST_COMPARED], n=1)
    return names[0] if names else None


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """Return the hint to append to a message about an unknown name: the closest, or all allowed.

    >>> did_you_mean("qurey", ["query", "value"])
    "did you mean 'query'?"
    >>> did_you_mean("zzz", ["query", "value"])
    'allowed: query, value'
    """
    names = list(allowed)
    if (name := closest(found, names)) is not None:
        return f"did you mean {name!r}?"
    more = "" if len(names) <= _MOST_NAMES else f" and {len(names) - _MOST_NAMES} more"
    return f"allowed: {', '.join(names[:_MOST_NAMES])}{more}"
