"""Texts that are the same, or nearly.

Exact means equal after normalising (Unicode compatibility form, case, white space). Near means that
the sets of terms (`words`) share at least 0.8 of their union; such rows are found by MinHash (Broder 1997) in
bands, then checked. What follows is left to `checking`, `repeats` and `splitting`.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from itertools import chain

import numpy as np

from submillion.data.reading import Example
from submillion.words import terms

NEAR_SHARE = 0.8
# A pair that shares 0.9 of its words meets in at least one band with probability 0.995, one that shares 0.8
# with 0.91, one that shares 0.2 with 0.002.
_N_BANDS, _BAND_ROWS = 6, 5
_MIX = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], dtype=np.uint64)


def key_of(example: Example) -> str:
    """Return what two examples share when they are the same text."""
    key = normalized(example.text)
    return key if example.text_pair is None else f"{key}\x1f{normalized(example.text_pair)}"


def normalized(text: str) -> str:
    r"""Return the text in Unicode's compatibility form, without case, white space as single blanks.

    >>> normalized("  The\tCAFE\u0301 \ufb01ne") == normalized("the caf\u00e9 fine")
    True
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())


def near_groups(keys: Sequence[str]) -> np.ndarray:
    """Return a group number for each normalised text, int64 [N]: equal for texts that are the same or nearly.

    Groups are chains: their ends may share less. Time grows with the number of words, about 1 s for 60,000
    news items.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    words, offsets = _words(list(distinct))
    pairs = _pairs(words, offsets)
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(distinct),) * 2)
    _, group = connected_components(graph, directed=False)
    return group[[distinct[key] for key in keys]].astype(np.int64)


def _words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Each text's words, as hashes in one array uint64 [W], and where each text's begin, int64 [N + 1]."""
    rows = list(map(terms, texts))
    flat = list(chain.from_iterable(rows))
    hashes = {word: zlib.crc32(word.encode()) for word in set(flat)}
    return np.array(list(map(hashes.__getitem__, flat)), dtype=np.uint64), np.cumsum([0, *map(len, rows)])


def _pairs(words: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Pairs of texts that are near each other, int64 [P, 2]; texts without a word are near none."""
    with_words = np.flatnonzero(np.diff(offsets))
    if len(with_words) < 2:
        return np.empty((0, 2), dtype=np.int64)
    candidates: set[tuple[int, int]] = set()
    for seeds in (_MIX[0] * np.arange(1, _N_BANDS * _BAND_ROWS + 1, dtype=np.uint64)).reshape(_N_BANDS, _BAND_ROWS):
        signature = np.zeros(len(with_words), dtype=np.uint64)
        for seed in seeds:
            signature = _mixed(signature + np.minimum.reduceat(_mixed(words + seed), offsets[with_words]))
        order = np.argsort(signature, kind="stable")
        same = np.flatnonzero(signature[order][1:] == signature[order][:-1])
        candidates.update(zip(with_words[order[same]].tolist(), with_words[order[same + 1]].tolist(), strict=True))
    near = [pair for pair in candidates if _share(*(words[offsets[i] : offsets[i + 1]] for i in pair)) >= NEAR_SHARE]
    return np.array(near, dtype=np.int64).reshape(-1, 2)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit depends on every bit (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[1]
    values = (values ^ (values >> np.uint64(27))) * _MIX[2]
    return values ^ (values >> np.uint64(31))


def _share(left: np.ndarray, right: np.ndarray) -> float:
    """Jaccard's index of two sets of words."""
    ours, theirs = set(left.tolist()), set(right.tolist())
    return len(ours & theirs) / len(ours | theirs)
