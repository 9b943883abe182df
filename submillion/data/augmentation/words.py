"""Which words of a text may change, and one typing mistake in a word.

A word is a token of `words` without the punctuation around it. Only plain words in lower case may change: a capital
may be a name's, and digits, negations, handles, links and entities carry too much.

A mistake is a neighbouring key, two letters in the wrong order, or a letter left out. Only letters inside a word of at
least four characters change, as in Pruthi, Dhingra and Lipton (2019, ACL): people seldom miss the first and the last.
Keys are those of the American keyboard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from random import Random

import regex

from submillion.words import characters

NEGATIONS = frozenset(
    "aint arent barely cannot cant couldnt didnt doesnt dont hadnt hardly hasnt havent isnt lack lacks nay "
    "neither never no nobody non none nope nor not nothing nowhere scarcely shouldnt wasnt werent without wont "
    "wouldnt".split()
)
OTHER_MARKS = "。，、！？；：「」『』（）【】《》｡､।॥؟،؛"  # of scripts other than Latin
_OPENING, _CLOSING = rf"[\"'(\[‘“*{OTHER_MARKS}]*", rf"[\"')\].,;:!?’”…*{OTHER_MARKS}]*"
_LETTERS = r"(?:[^\W\d_][\u200c\u200d]*)+"  # regex counts vowel signs; the joiners are inside words of some scripts
_PLAIN = regex.compile(rf"({_OPENING})({_LETTERS}(?:['’-]{_LETTERS})*)({_CLOSING})")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ROW_SHIFTS = (0.0, 0.25, 0.75)  # how far each row of keys is shifted to the right, in keys
_SHORTEST = 4


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
    """Return the parts of a token (of `words.tokens`) that may change; None for one that stays.

    >>> changeable("(good),")
    Word(before='(', core='good', after='),')
    >>> [changeable(token) for token in ("Paris", "42nd", "don't", "never", "@bob", "a.b")]
    [None, None, None, None, None, None]
    """
    match = _PLAIN.fullmatch(token)
    if match is None or token != token.lower() or _negates(match[2]):
        return None
    return Word(match[1], match[2], match[3])


def mistyped(word: str, rng: Random) -> str:
    """Return the word with one mistake, each of the three kinds equally likely; a word that is too short, unchanged.

    So is one whose mistake would be a word that carries too much: "nine" does not become "none".

    >>> [mistyped("market", Random(seed)) for seed in range(3, 7)]
    ['maeket', 'maroet', 'maret', 'mrket']
    """
    signs = characters(word)
    if len(signs) < _SHORTEST:
        return word
    letters = {i for i in range(1, len(signs) - 1) if signs[i][0].isalpha()}
    swaps = [i for i in sorted(letters) if i + 1 in letters and signs[i] != signs[i + 1]]
    kinds: tuple[list[tuple[int, int, str]], ...] = (  # each: start, end, and what replaces it
        [(i, i + 1, key) for i in sorted(letters) for key in _NEIGHBOURS.get(signs[i], "")],
        [(i, i + 2, signs[i + 1] + signs[i]) for i in swaps],
        [(i, i + 1, "") for i in sorted(letters)],
    )
    possible = [edits for edits in kinds if edits]
    if not possible:
        return word
    start, end, instead = rng.choice(rng.choice(possible))
    new = "".join([*signs[:start], instead, *signs[end:]])
    return new if changeable(new) is not None else word


def _negates(core: str) -> bool:
    parts = re.split(r"['’-]", core)
    return not NEGATIONS.isdisjoint(parts) or (parts[-1] == "t" and len(parts) > 1)


def _neighbours() -> dict[str, str]:
    places = {
        key: (x + shift, y)
        for y, (keys, shift) in enumerate(zip(_KEYS, _ROW_SHIFTS, strict=True))
        for x, key in enumerate(keys)
    }
    neighbours = dict.fromkeys(places, "")
    for (key, (x, y)), (other, (x_other, y_other)) in product(places.items(), repeat=2):
        if key != other and abs(x - x_other) <= 1 and abs(y - y_other) <= 1:
            neighbours[key] += other
    return neighbours


_NEIGHBOURS = _neighbours()
