"""Ways to change a text: words (synonyms, deletion, swap, insertion), typing mistakes, case, punctuation, length.

The first four are those of Wei and Zou (2019, EMNLP, section 2): a text of n words gets max(1, round(rate x n))
replacements, insertions or swaps, as far as it has words that may change; deletion takes each of those with probability
`rate`. The paper leaves stop words out where it replaces and inserts: they are not in the table. The others change what
stays there: a capital, a comma, the end. docs/robustness.md says what each does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

from submillion.config import AugmentationKind
from submillion.data.augmentation.synonyms import synonyms
from submillion.data.augmentation.typos import mistyped
from submillion.data.augmentation.words import Word, changeable

STRENGTHS: dict[AugmentationKind, tuple[float, float, float]] = {
    "typos": (0.1, 0.2, 0.4),
    "lower": (0.25, 0.5, 1.0),
    "upper": (0.25, 0.5, 1.0),
    "punctuation": (0.25, 0.5, 1.0),
    "truncation": (0.25, 0.5, 0.75),
    "first-column": (0.25, 0.5, 1.0),
    "synonyms": (0.1, 0.2, 0.4),
    "insertion": (0.1, 0.2, 0.4),
    "swap": (0.1, 0.2, 0.4),
    "deletion": (0.1, 0.2, 0.4),
}
"""The rates at which robustness is measured: mild, moderate, strong."""

_TOKENS = re.compile(r"(\S+)(\s*)")
_MARKS = ".,;:!?…\"'‘’“”«»()[]{}*"
_DASHES = "-–—"

WordKind = Literal["synonyms", "insertion", "swap", "deletion", "typos"]  # names, digits and negations stay
Tokens = list[tuple[str, str]]  # each with the blanks that follow it


def changed(text: str, kind: AugmentationKind, rate: float, rng: Random) -> str:
    """Return the text, changed; the same text at rate 0, or if nothing of it may change or was drawn.

    rate: between 0 and 1, the share of the text's words that change (one at least) · typos: words with a mistake ·
    truncation: words cut from the end · lower, upper, punctuation: of the words that have any of it. `first-column`
    changes no text by itself. Never empty, if the text is not. With equal generators, a higher rate of typos, lower,
    upper, punctuation or truncation changes the same words and more.
    """
    if rate == 0:
        return text
    tokens: Tokens = _TOKENS.findall(text)
    match kind:
        case "first-column":
            return text
        case "truncation":
            tokens = tokens[: max(1, len(tokens) - _n_changes(tokens, rate))]
        case "lower":
            tokens = _rewritten(tokens, str.lower, rate, rng)
        case "upper":
            tokens = _rewritten(tokens, str.upper, rate, rng)
        case "punctuation":
            tokens = _rewritten(tokens, _unmarked, rate, rng)
        case _:
            tokens = _with_changed_words(tokens, kind, rate, rng)
    return "".join(token + blanks for token, blanks in tokens).rstrip()


def _n_changes(tokens: Sequence[object], rate: float) -> int:
    return max(1, round(rate * len(tokens)))


def _with_changed_words(tokens: Tokens, kind: WordKind, rate: float, rng: Random) -> Tokens:
    """Only words that may change do."""
    words = {place: word for place, (token, _) in enumerate(tokens) if (word := changeable(token)) is not None}
    n_changes = _n_changes(tokens, rate)
    match kind:
        case "synonyms":
            return _replaced(tokens, words, n_changes, rng)
        case "insertion":
            return _inserted(tokens, words, n_changes, rng)
        case "swap":
            return _swapped(tokens, words, n_changes, rng)
        case "deletion":
            return _deleted(tokens, words, rate, rng)
        case "typos":
            return _mistyped(tokens, words, n_changes, rng)


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


def _mistyped(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    places, new = sorted(words), dict[int, str]()
    rng.shuffle(places)
    for place in places:
        if len(new) == n_changes:
            break
        core = mistyped(words[place].core, rng)
        if core != words[place].core:
            new[place] = words[place].replaced(core)
    return [(new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)]


def _rewritten(tokens: Tokens, rewrite: Callable[[str], str], rate: float, rng: Random) -> Tokens:
    """A share of the tokens that the function changes; those that become empty go."""
    new = {place: after for place, (token, _) in enumerate(tokens) if (after := rewrite(token)) != token}
    places = sorted(new)
    rng.shuffle(places)
    kept = set(places[_n_changes(places, rate) :])
    found = [
        (token if place in kept else new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)
    ]
    return [(token, blanks) for token, blanks in found if token] or tokens


def _unmarked(token: str) -> str:
    """The token without the punctuation around it, "" if it is nothing else; marks inside stay (don't, 3.5, a@b.c)."""
    core = token.strip(_MARKS)
    return core if core.strip(_DASHES) else ""
