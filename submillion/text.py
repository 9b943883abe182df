"""How messages look: values as they are shown, secrets and control characters masked, the name that was meant, numbers
with their intervals, durations.

A value may be of any size and hold anything: what is shown of it is bounded.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

_COMPARED_CHARACTERS = 200  # of an unknown name
_MOST_COMPARED = 1000  # names that it is compared with
_MOST_NAMES = 40  # that are listed
_SHORTEST_SECRET = 8
_USER_OF_URL = re.compile(r"(:/{1,2})(?:[^\s/@:]*:\S*|[^\s/@]+)(?=@)")  # of a path that was a URL too
_GIVEN_IN_URL = re.compile(r"([?&][^\s=&]*(?:token|key|secret|password|sig)[^\s=&]*=)[^\s&]+", re.IGNORECASE)
_TOKEN_OF_HUB = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_NAME_OF_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)
# What acts on a terminal, except tab and new line: control characters, direction marks. And lone surrogates.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Interval(Protocol):
    """A value with its interval, from n rows: a score, or a difference."""

    @property
    def value(self) -> float:
        """Return the value."""
        ...

    @property
    def low(self) -> float:
        """Return the interval's lower end."""
        ...

    @property
    def high(self) -> float:
        """Return the interval's upper end."""
        ...

    @property
    def n(self) -> int:
        """Return the number of rows."""
        ...


def interval(score: Interval | None, digits: int = 4, sign: str = "") -> str:
    """Return a value with its interval; a dash without a value or rows. `sign` is "+" for a difference.

    >>> from submillion.judging.metrics import Score
    >>> interval(Score(0.9, 0.88, 0.92, 500)), interval(Score(0.0, 0.0, 1.0, 0))
    ('0.9000 [0.8800, 0.9200]', '–')
    >>> interval(Score(-0.01, -0.02, 0.0, 500), sign="+")
    '-0.0100 [-0.0200, +0.0000]'
    """
    if score is None or not score.n:
        return "–"
    value, low, high = (f"{number:{sign}.{digits}f}" for number in (score.value, score.low, score.high))
    return f"{value} [{low}, {high}]"


def percent(share: float) -> str:
    """Return a share in percent with one decimal.

    >>> percent(0.8167)
    '81.7 %'
    """
    return f"{100 * share:.1f} %"


def plural(n: float, one: str, several: str | None = None) -> str:
    """Return the form of a word that goes with n things; without `several`, -s is appended for more than one.

    >>> plural(1, "row"), plural(0, "row"), plural(2, "class", "classes"), plural(1, "is", "are")
    ('row', 'rows', 'classes', 'is')
    """
    return one if n == 1 else f"{one}s" if several is None else several


def percents(score: Interval) -> str:
    """Return a score with its interval in percent.

    >>> from submillion.judging.metrics import Score
    >>> percents(Score(0.9, 0.88, 0.925, 500))
    '90.0 % [88.0, 92.5]'
    """
    return f"{percent(score.value)} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def duration(seconds: float, is_rough: bool = False) -> str:
    """Return seconds as people write them; an estimate with no more digits than it supports.

    >>> duration(7.25), duration(201), duration(7380)
    ('7.2 s', '3 min 21 s', '2 h 3 min')
    >>> duration(48, is_rough=True), duration(700, is_rough=True), duration(9000, is_rough=True)
    ('48 s', '12 min', '2.5 h')
    """
    if is_rough:
        if seconds < 120:
            return f"{seconds:.0f} s"
        return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for a sentence; its type if it has none.

    >>> first_line(MemoryError())
    'MemoryError'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with `***` for passwords and tokens: in URLs, of the Hub, and in variables.

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
    """Return a value as messages show it: its repr, cut if it is long, deep or has many parts.

    >>> shown("tpu"), shown([["x"] * 1000])[:20], len(shown("x" * 10**6)) < 250
    ("'tpu'", "[['x', 'x', 'x', 'x'", True)
    """
    try:
        return _REPR.repr(value)
    except ValueError:  # Python refuses to write whole numbers of more than 4,300 digits
        return f"a {type(value).__name__} too large to show"


def a_kind(value: object) -> str:
    """Return the type of a value with its article, and its package if it has one.

    >>> a_kind(3), a_kind(b"x"), a_kind(None), a_kind(re.compile("x"))
    ('an int', 'bytes', 'None', 'a re.Pattern')
    """
    if value is None or isinstance(value, bytes):
        return "None" if value is None else "bytes"
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _bounded_repr() -> reprlib.Repr:
    bounded = reprlib.Repr()
    bounded.maxlevel = 2
    bounded.maxlist = bounded.maxtuple = bounded.maxdict = bounded.maxset = 10
    bounded.maxstring = bounded.maxother = bounded.maxlong = 200
    return bounded


_REPR = _bounded_repr()


def visible(text: str) -> str:
    """Return the text with control characters, which would act on a terminal, written out.

    >>> visible("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def closest(unknown: object, allowed: Sequence[str]) -> str | None:
    """Return the allowed name nearest to an unknown one; None if none is near.

    >>> closest("qurey", ["query", "value"]), closest("LABEL", ["text", "Label"])
    ('query', 'Label')
    """
    names = {name.casefold(): name for name in reversed(allowed[:_MOST_COMPARED])}
    near = difflib.get_close_matches(str(unknown)[:_COMPARED_CHARACTERS].casefold(), names, n=1)
    return names[near[0]] if near else None


def did_you_mean(unknown: object, allowed: Iterable[str]) -> str:
    """Return the hint to append to a message about an unknown name: the closest, or all allowed.

    >>> did_you_mean("qurey", ["query", "value"])
    "did you mean 'query'?"
    >>> did_you_mean("zzz", ["query", "value"])
    'allowed: query, value'
    """
    names = list(allowed)
    if (name := closest(unknown, names)) is not None:
        return f"did you mean {name!r}?"
    more = "" if len(names) <= _MOST_NAMES else f" and {len(names) - _MOST_NAMES} more"
    return f"allowed: {', '.join(names[:_MOST_NAMES])}{more}"
