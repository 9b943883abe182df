"""The table of synonyms, made from WordNet 3.0, and the little inflection it needs.

Owns reading the table and putting a synonym into the form of the word it replaces. scripts/build_synonyms.py and
docs/decisions/010-synonyms.md say how the table is made, `words` which words may be replaced.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal, cast

PartOfSpeech = Literal["n", "v", "a", "r"]  # noun, verb, adjective, adverb, as in WordNet
Ending = Literal["s", "ed", "ing"]
TABLE = "synonyms.txt.gz"

_ENDINGS: dict[PartOfSpeech, tuple[Ending, ...]] = {"n": ("s",), "v": ("s", "ed", "ing"), "a": (), "r": ()}
_POSSESSIVES = ("'s", "’s")
# The words of a corpus repeat, and most of them are in no table: an inflected form is looked up a dozen times.
_REMEMBERED_WORDS = 100_000


@dataclass(frozen=True)
class Entry:
    """A word of the table: its part of speech, whether its forms are regular, and its synonyms' entries by name."""

    part: PartOfSpeech
    is_regular: bool
    synonyms: frozenset[str]

    def has(self, ending: Ending) -> bool:
        """Return whether the word's form with this ending can be made; a verb's -s is always regular."""
        return ending in _ENDINGS[self.part] and (self.is_regular or (self.part == "v" and ending == "s"))


@lru_cache(maxsize=_REMEMBERED_WORDS)
def synonyms(word: str) -> tuple[str, ...]:
    """Return the synonyms of a word in lower case, in its own form, sorted; none if there are none.

    A plural or possessive noun and the -s, -ed and -ing of a verb have their synonyms' regular forms.

    >>> synonyms("automobile"), synonyms("automobiles"), synonyms("the")
    (('auto', 'car', 'motorcar'), ('cars', 'motorcars'), ())
    """
    table = read_table()
    if word in table:
        return tuple(sorted(table[word].synonyms))
    for possessive in _POSSESSIVES:
        noun = word.removesuffix(possessive)
        if noun != word and noun in table and table[noun].part == "n":
            return tuple(synonym + possessive for synonym in synonyms(noun))
    for ending in ("s", "ed", "ing"):
        for base in _bases(word, ending):
            if base in table and table[base].has(ending):
                candidates = (synonym for synonym in table[base].synonyms if table[synonym].has(ending))
                return tuple(sorted(inflected(synonym, ending) for synonym in candidates))
    return ()


@cache
def read_table() -> dict[str, Entry]:
    """Return the table, read once: each word's entry.

    A line of the file is a part of speech and words of one meaning; a word that ends in * has irregular forms.
    """
    packed = resources.files("submillion.data.augmentation").joinpath(TABLE).read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table: dict[str, Entry] = {}
    for part, *group in (line.split() for line in lines if not line.startswith("#")):
        names = frozenset(word.rstrip("*") for word in group)
        for word in group:
            name = word.rstrip("*")
            known = table[name].synonyms if name in table else frozenset()
            table[name] = Entry(cast("PartOfSpeech", part), name == word, (known | names) - {name})
    return table


def inflected(word: str, ending: Ending) -> str:
    """Return the regular form of a noun or verb.

    >>> inflected("study", "s"), inflected("box", "s"), inflected("hope", "ed"), inflected("hope", "ing")
    ('studies', 'boxes', 'hoped', 'hoping')
    """
    changes_y = re.search("[^aeiou]y$", word) is not None
    match ending:
        case "s":
            return f"{word[:-1]}ies" if changes_y else word + ("es" if re.search("([sxz]|[cs]h)$", word) else "s")
        case "ed":
            return f"{word[:-1]}ied" if changes_y else word + ("d" if word.endswith("e") else "ed")
        case "ing":
            return (word[:-1] if re.search("[^eoy]e$", word) else word) + "ing"


def _bases(word: str, ending: Ending) -> list[str]:
    """Return the words of which this could be the regular form."""
    stem = word.removesuffix(ending)
    return [base for base in (stem, f"{stem}e", f"{word[:-3]}y", word[:-2]) if inflected(base, ending) == word]
