"""Find how much of a long text decides its first or last tokens: to read 64, megabytes need not be tokenised.

A tokenizer normalises characters and their neighbours, splits the text into pieces (words, runs of digits, marks), and
tokenises each piece alone. So the pieces of a text's beginning are the whole text's, except the last ones. If that does
not hold, or a piece has no end in sight, more is taken, in the end all.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any

_CHARACTERS_PER_TOKEN = 16  # the first try; words have 4 to 6
_SHORTEST = 4096  # characters: cutting less saves nothing
_GROWTH = 4
_OPEN_PIECES = 3  # at the end: a word, white space and a mark may each be cut in two
_MARGIN = 16  # characters other than white space that are not trusted, besides the longest added token
_PART = 50_000  # characters whose tokens are counted at once
_BLANK = re.compile(r"(?<=[A-Za-z0-9]) (?=[A-Za-z0-9])")
_HAN = ("\u4e00", "\u9fff")
_STARTING = ("Lu", "Ll", "Nd", "Zs", "Po")  # kinds of characters that never join the one before
# Each looks at characters and their neighbours, or splits at characters of some kind.
_LOCAL_NORMALIZERS = {
    *("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled"),
    *("Strip", "Prepend", "Sequence", "Replace"),
}
_LOCAL_SPLITTERS = {
    *("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "ByteLevel", "Metaspace"),
    "Sequence",
}
_REPLACED = ({"Regex": " {2,}"}, {"Regex": r"\s+"})


def cut(text: str, tokenizer: Any, n_tokens: int) -> str:
    """Return the text, or a beginning of it whose first `n_tokens` tokens are the text's, and that has more.

    tokenizer: a `tokenizers.Tokenizer`, left without truncation and padding. Special tokens do not count.
    """
    n_characters = max(_SHORTEST, _CHARACTERS_PER_TOKEN * n_tokens)
    if len(text) <= n_characters or (longest := _longest_added(tokenizer)) is None:
        return text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    while n_characters < len(text):
        beginning = text[: _boundary(text, n_characters)]
        if _n_settled(beginning, tokenizer, longest + _MARGIN) > n_tokens:
            return beginning
        n_characters *= _GROWTH
    return text


def cut_pair(texts: tuple[str, str], tokenizer: Any, n_tokens: int) -> tuple[str, str]:
    """Return two texts, each cut as by `cut`, so that truncating the longest first to `n_tokens` gives the same tokens.

    If both are longer than that, the longer one gets the odd token: which one it is must not change.
    """
    short = (cut(texts[0], tokenizer, n_tokens), cut(texts[1], tokenizer, n_tokens))
    whole = [new for new, old in zip(short, texts, strict=True) if len(new) == len(old)]
    if n_tokens % 2 == 0 or len(whole) == len(texts):
        return short
    is_decided = len(whole) == 1 and len(tokenizer.encode(whole[0], add_special_tokens=False)) <= n_tokens
    return short if is_decided else texts


def ends(text: str, tokenizer: Any, n_first: int, n_last: int) -> tuple[str, str]:
    """Return a beginning and an end of the text whose `n_first` first and `n_last` last tokens are the text's.

    Both are the whole text, unless they are shorter together and the text has more tokens than these. tokenizer and
    special tokens: as in `cut`.
    """
    first, last = cut(text, tokenizer, n_first), _end(text, tokenizer, n_last)
    return (first, last) if len(first) + len(last) < len(text) else (text, text)


def _end(text: str, tokenizer: Any, n_tokens: int) -> str:
    """Return the text, or an end of it that begins between pieces and has `n_tokens` tokens after its first word."""
    n_characters = max(_SHORTEST, _CHARACTERS_PER_TOKEN * n_tokens)
    if len(text) <= n_characters or _longest_added(tokenizer) is None or _has_added_blank(tokenizer):
        return text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    while n_characters < len(text):
        start = len(text) - n_characters
        blank = _BLANK.search(text, start, start + n_characters // 2)
        if blank is not None:
            end = text[blank.start() :]
            words = tokenizer.encode(end, add_special_tokens=False).word_ids
            if sum(word != words[0] for word in words) >= n_tokens:  # some tokenizers treat a text's first word apart
                return end
        n_characters *= _GROWTH
    return text


def count(text: str, tokenizer: Any) -> int:
    """Return the number of a text's tokens, without special ones; a long one is counted in parts, to save memory.

    It is split at blanks between ASCII letters or digits, where pieces end.
    """
    if len(text) <= _PART or _longest_added(tokenizer) is None or _has_added_blank(tokenizer):
        return len(tokenizer.encode(text, add_special_tokens=False))
    n_tokens, start = 0, 0
    while start < len(text):
        blank = _BLANK.search(text, start + _PART)
        end = len(text) if blank is None else blank.start()
        n_tokens += len(tokenizer.encode(text[start:end], add_special_tokens=False))
        start = end
    return n_tokens


def _has_added_blank(tokenizer: Any) -> bool:
    return any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())


def _boundary(text: str, end: int) -> int:
    """Return the last place up to `end` before which no character is changed by the next; `end` if none is near."""
    for place in range(end, end - _SHORTEST // 2, -1):
        character = text[place]
        if character.isascii() or _HAN[0] <= character <= _HAN[1] or unicodedata.category(character) in _STARTING:
            return place
    return end


def _n_settled(beginning: str, tokenizer: Any, margin: int) -> int:
    """Return how many of the first tokens are the whole text's, whatever follows."""
    encoding = tokenizer.encode(beginning, add_special_tokens=False)
    words = encoding.word_ids
    if not words or words[-1] is None:
        return 0
    end, n_left = len(beginning), 0
    while end and n_left < margin:
        end -= 1
        n_left += not beginning[end].isspace()
    last = words[-1] - _OPEN_PIECES
    settled = [w is not None and w <= last and o[1] <= end for w, o in zip(words, encoding.offsets, strict=True)]
    return settled.index(False) if False in settled else len(settled)


def _longest_added(tokenizer: Any) -> int | None:
    """Return the length of the longest added token, in characters; None if the tokenizer is not local."""
    added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    if not _is_local(json.dumps(_parts(tokenizer), sort_keys=True)):
        return None
    return max(map(len, added), default=0)


def _parts(tokenizer: Any) -> list[Any]:
    """The tokenizer's normaliser and splitter, as JSON has them."""
    return [
        None if part is None else json.loads(part.__getstate__())
        for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)
    ]


@lru_cache(maxsize=8)
def _is_local(parts: str) -> bool:
    normalizer, splitter = json.loads(parts)
    if splitter is None:
        return False
    return _all_in(normalizer, _LOCAL_NORMALIZERS) and _all_in(splitter, _LOCAL_SPLITTERS)


def _all_in(part: Any, known: set[str]) -> bool:
    if part is None:
        return True
    if part["type"] not in known:
        return False
    if part["type"] == "Replace":
        pattern = part["pattern"]
        return pattern in _REPLACED or len(pattern.get("String", "  ")) == 1
    if not (part.get("split", True) and part.get("use_regex", True)):  # Metaspace and ByteLevel that split nothing
        return False
    return all(_all_in(inner, known) for inner in part.get("normalizers", part.get("pretokenizers", ())))
