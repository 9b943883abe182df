"""Four ways to change a text: synonyms, deletion, swap, insertion (Wei and Zou 2019, EMNLP, section 2).

A text of n words gets max(1, round(rate x n)) replacements, insertions or swaps, as far as it has words that may
change; deletion takes each of those with probability `rate`. The paper leaves stop words out where it replaces and
inserts: they are not in the table. Blanks and punctuation stay where they are, but for a deleted word's own.
"""

from __future__ import annotations

import re
from random import Random

from submillion.augmentation.synonyms import synonyms
from submillion.augmentation.words import Word, changeable
from submillion.config import AugmentationKind

_TOKENS = re.compile(r"(\S+)(\s*)")

Tokens = list[tuple[str, str]]  # each with the blanks that follow it


def changed(text: str, kind: AugmentationKind, rate: float, rng: Random) -> str:
    """Return the text, changed; the same text if no word of it may change, or none was drawn for deletion.

    rate: the share of the text's words that change, between 0 and 1. Never empty, if the text is not.
    """
    tokens: Tokens = _TOKENS.findall(text)
    words = {place: word for place, (token, _) in enumerate(tokens) if (word := changeable(token)) is not None}
    n_changes = max(1, round(rate * len(tokens)))
    match kind:
        case "synonyms":
            tokens = _replaced(tokens, words, n_changes, rng)
        case "insertion":
            tokens = _inserted(tokens, words, n_changes, rng)
        case "swap":
            tokens = _swapped(tokens, words, n_changes, rng)
        case "deletion":
            tokens = _deleted(tokens, words, rate, rng)
    return "".join(token + blanks for token, blanks in tokens).rstrip()


def _replaced(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    choices = {place: found for place, word in words.items() if (found := synonyms(word.core))}
    places = rng.sample(sorted(choices), min(n_changes, len(choices)))
    new = {place: words[place].replaced(rng.choice(choices[place])) for place in places}
    return [(new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)]


def _inserted(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    """Synonyms of words of the text, at places anywhere in it."""
    choices = [found for word in words.values() if (found := synonyms(word.core))]
    if not choices:
        return tokens
    tokens = [*tokens[:-1], (tokens[-1][0], " ")]
    for _ in range(n_changes):
        tokens.insert(rng.randint(0, len(tokens)), (rng.choice(rng.choice(choices)), " "))
    return tokens


def _swapped(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    """Pairs of words change places, one pair after the other; punctuation does not."""
    places = sorted(words)
    if len(places) < 2:
        return tokens
    cores = {place: words[place].core for place in places}
    for _ in range(n_changes):
        left, right = rng.sample(places, 2)
        cores[left], cores[right] = cores[right], cores[left]
    new = {place: words[place].replaced(core) for place, core in cores.items()}
    return [(new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)]


def _deleted(tokens: Tokens, words: dict[int, Word], rate: float, rng: Random) -> Tokens:
    kept = [pair for place, pair in enumerate(tokens) if place not in words or rng.random() >= rate]
    return kept or [rng.choice(tokens)] if tokens else []
