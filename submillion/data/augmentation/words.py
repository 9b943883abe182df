"""Which words of a text may change.

A word is what stands between blanks, without the punctuation around it. Only plain words in lower case may
change: a capital may be a name's, and digits, negations, handles, links and entities carry too much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NEGATIONS = frozenset(
    "aint arent barely cannot cant couldnt didnt doesnt dont hadnt hardly hasnt havent isnt lack lacks nay "
    "neither never no nobody non none nope nor not nothing nowhere scarcely shouldnt wasnt werent without wont "
    "wouldnt".split()
)
_OPENING, _CLOSING = r"[\"'(\[‘“*]*", r"[\"')\].,;:!?’”…*]*"
_PLAIN = re.compile(rf"({_OPENING})([^\W\d_]+(?:['’-][^\W\d_]+)*)({_CLOSING})")


@dataclass(frozen=True)
class Word:
    """A word that may change, `core`, with the punctuation around it."""

    before: str
    core: str
    after: str

    def replaced(self, core: str) -> str:
        """Return another core inside the same punctuation."""
        return f"{self.before}{core}{self.after}"


def changeable(token: str) -> Word | None:
    """Return the parts of a token (text between blanks) that may change; None for one that stays.

    >>> changeable("(good),")
    Word(before='(', core='good', after='),')
    >>> [changeable(token) for token in ("Paris", "42nd", "don't", "never", "@bob", "a.b")]
    [None, None, None, None, None, None]
    """
    found = _PLAIN.fullmatch(token)
    if found is None or token != token.lower() or _negates(found[2]):
        return None
    return Word(found[1], found[2], found[3])


def _negates(core: str) -> bool:
    parts = re.split(r"['’-]", core)
    return not NEGATIONS.isdisjoint(parts) or (parts[-1] == "t" and len(parts) > 1)
