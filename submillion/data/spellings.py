"""Labels that may be one class in several spellings, and labels that are words for a missing one.

Nothing is changed: each spelling is a class, and a warning names those that may be one. What looks alike follows
Unicode's table of confusable characters (UTS 39), by the package confusable_homoglyphs.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from confusable_homoglyphs import confusables

from submillion.text import plural

MISSING_WORDS = frozenset("nan nat na n/a n.a. null none nil missing undefined <na> #n/a #na - -- ? . (null)".split())
_SHOWN = 5  # groups in a warning
_NUMBER = re.compile(r"[+-]?\d+([.,:/–-]\d+)*%?")  # 18-24 is not 1824, and -1 not 1
_SIGNIFICANT = "+#$%&@*"  # C, C++ and C# are three
_VARIATIONS = re.compile(r"[\ufe00-\ufe0f]")  # how the character before is drawn: as text or as an emoji
_MARKS = re.compile(r"[\u0300-\u036f]")  # accents of Latin, Greek and Cyrillic; vowels of other scripts are no marks


def spelling_warnings(origin: str, counts: Mapping[str, int]) -> list[str]:
    """Return warnings about labels (with their rows) that differ in spelling alone, or are words for a missing one."""
    warnings = []
    groups: dict[str, list[str]] = {}
    for label in counts:
        groups.setdefault(_skeleton(label), []).append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        names = "; ".join(_named(group, counts) for group in alike[:_SHOWN])
        more = f"; and {len(alike) - _SHOWN} more" * (len(alike) > _SHOWN)
        warnings.append(
            f"{origin}: labels that may be one class: {names}{more}: if they are, write them alike "
            "in the file; else leave them"
        )
    if missing := [label for label in counts if label.strip().casefold() in MISSING_WORDS]:
        names = ", ".join(f"{label!r} ({_rows(counts[label])})" for label in missing)
        names += " is a class here" if len(missing) == 1 else " are classes here"
        warnings.append(
            f"{origin}: {names}, but often a word for a missing label: if so, empty these cells, "
            "and data.drop=bad-rows leaves the rows out; else leave them"
        )
    return warnings


def _named(group: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the labels of a group with their rows, and how they differ; labels that print alike are in ASCII."""
    print_alike = any(_printed(one) == _printed(other) for one, other in combinations(group, 2))
    names = [f"{ascii(label) if print_alike else repr(label)} ({_rows(counts[label])})" for label in group]
    return f"{', '.join(names[:-1])} and {names[-1]}, which differ in {_difference(group)}"


def _rows(n: int) -> str:
    return f"{n:,} {plural(n, 'row')}"


def _difference(group: Sequence[str]) -> str:
    if len({_printed(label) for label in group}) == 1:
        if any(html.unescape(label) != label for label in group):
            return "characters that HTML writes as codes"
        is_shown = len({unicodedata.normalize("NFC", _shown(label)) for label in group}) > 1
        return "the width or form of characters" if is_shown else "invisible characters"
    if len({_printed(label).casefold() for label in group}) == 1:
        return "case"
    if len({_without_marks(_printed(label)) for label in group}) == 1:
        return "blanks, punctuation or case"
    if len({_without_accents(_without_marks(_printed(label))) for label in group}) == 1:
        return "accents"
    return "zeros at the beginning" if all(map(str.isdigit, group)) else "characters that look alike"


def _skeleton(label: str) -> str:
    """Return what labels that may be one class have in common."""
    text = _printed(label).casefold()
    if _NUMBER.fullmatch(text):
        return str(int(text)) if text.isdigit() else text
    looks = "".join(map(_looks_like, text))
    return _without_accents(_without_marks(looks)) or text


def _printed(label: str) -> str:
    """Return the label as it prints: composed, compatibility forms, single blanks, no format characters, HTML's codes
    as their characters."""
    return _shown(unicodedata.normalize("NFKC", html.unescape(label)))


def _shown(label: str) -> str:
    """Return the label with single blanks, without format characters."""
    text = _VARIATIONS.sub("", label)
    return " ".join("".join(character for character in text if unicodedata.category(character) != "Cf").split())


def _without_marks(text: str) -> str:
    """Return the text in lower case without blanks, punctuation and symbols, except those that change the name."""
    kept = (c for c in text.casefold() if c in _SIGNIFICANT or unicodedata.category(c)[0] in "LMN")
    return "".join(kept)


def _without_accents(text: str) -> str:
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", text)))


@lru_cache(maxsize=4096)
def _looks_like(character: str) -> str:
    """The ASCII letter or digit that a character of another script looks like; else the character."""
    if character.isascii():
        return character
    matches = confusables.is_confusable(character, greedy=True) or []
    looks = (homoglyph["c"] for match in matches for homoglyph in match["homoglyphs"])
    return next((look.casefold() for look in looks if len(look) == 1 and look.isascii() and look.isalnum()), character)
