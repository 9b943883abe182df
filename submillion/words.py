r"""What a word is, in any script: one answer for baselines, near copies, drift, changed texts and occlusion.

If blanks separate words, a word is a run of letters, digits and marks, and a token what is between blanks. Chinese,
Japanese kana, Thai, Khmer and others write words together: there a word is one character with its marks, and a
term two neighbours as well, as in Lucene's CJK analyser. In a text of neither (emoji alone), any character is
a word. Scripts and marks are the Unicode tables of `regex`: `re` has none, and its \w ends at each vowel
sign of Hindi.
"""

from __future__ import annotations

import re
from itertools import pairwise

import regex

# Line_Break=SA is Unicode's list of scripts of South-East Asia that need a dictionary: Thai, Lao, Khmer, Burmese, ...
_JOINED = r"[[\p{Han}\p{Hiragana}\p{Bopomofo}\p{Yi}\p{Line_Break=SA}]--\p{M}]"
_MARKS = r"[\p{M}\u200c\u200d]*"  # with the joiners of Persian and Indic scripts
_CHARACTER = rf"{_JOINED}{_MARKS}"
_ANY_JOINED = regex.compile(_JOINED, regex.V1)
_ANY_WORD = regex.compile(r"\w")
_ASCII_WORDS = re.compile(r"\w+")
_WORDS = regex.compile(rf"{_CHARACTER}|(?:[\w--{_JOINED}][\u200c\u200d]*)+", regex.V1)
_TOKENS = re.compile(r"(\S+)(\s*)")
# A character takes the punctuation around it along, except what opens the next one.
_JOINED_TOKENS = regex.compile(rf"([^\w\s]*{_CHARACTER}[^\w\s\p{{Ps}}\p{{Pi}}]*|[^\s{_JOINED}]+)(\s*)", regex.V1)
_CHARACTERS = regex.compile(r"(\X)(\s*)")


def words(text: str) -> list[str]:
    """Return the words of a text in their order, without blanks and punctuation.

    >>> words("don't, 3.5"), words("我用iPhone。"), words("हिन्दी भाषा")
    (['don', 't', '3', '5'], ['我', '用', 'iPhone'], ['हिन्दी', 'भाषा'])
    """
    if text.isascii():
        return _ASCII_WORDS.findall(text) or _signs(text)
    return _WORDS.findall(text) or _signs(text)


def terms(text: str) -> list[str]:
    """Return what distinguishes texts: their words, and neighbouring characters if words are written together.

    >>> terms("a b"), terms("我用 x")
    (['a', 'b'], ['我', '用', 'x', '我用'])
    """
    if text.isascii() or _ANY_JOINED.search(text) is None:
        return words(text)
    matches = [(match.start(), match.end(), match[0]) for match in _WORDS.finditer(text)]
    pairs = [
        left[2] + right[2]
        for left, right in pairwise(matches)
        if left[1] == right[0] and _ANY_JOINED.match(left[2]) and _ANY_JOINED.match(right[2])
    ]
    return [*(word for _, _, word in matches), *pairs]


def tokens(text: str) -> list[tuple[str, str]]:
    """Return the parts that a text may lose or change, each with the blanks that follow it; joined, they are the text,
    except its leading blanks.

    >>> tokens("Good, really."), tokens("好，“坏”。")
    ([('Good,', ' '), ('really.', '')], [('好，', ''), ('“坏”。', '')])
    """
    if text.isascii() or _ANY_JOINED.search(text) is None:
        parts = _TOKENS.findall(text)
        return parts if text.isascii() or _ANY_WORD.search(text) else _CHARACTERS.findall(text.lstrip())
    return _JOINED_TOKENS.findall(text)


def count(text: str | None) -> int:
    """Return the number of a text's tokens; 0 without a text.

    >>> count("Good, really."), count("好，坏"), count(None)
    (2, 2, 0)
    """
    return 0 if text is None else len(tokens(text))


def characters(word: str) -> list[str]:
    """Return the characters of a word as people count them, each with its marks.

    >>> characters("हिन्दी")[0], len(characters("cafe\u0301"))
    ('हि', 4)
    """
    return list(word) if word.isascii() else regex.findall(r"\X", word)


def _signs(text: str) -> list[str]:
    """The characters of a text without letters, digits and marks."""
    signs = [] if text.isascii() else [sign for sign, _ in _CHARACTERS.findall(text)]
    return [sign for sign in signs if any(part.isprintable() and not part.isspace() for part in sign)]
