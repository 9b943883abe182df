"""Ways to change a text: words (synonyms, deletion, swap, insertion), typing mistakes, case, punctuation, length; and
examples with their changed copies.

The first four are those of Wei and Zou (2019, EMNLP, section 2): a text of n words gets max(1, round(rate x n))
replacements, insertions or swaps, as far as it has words that may change; deletion takes each of those with probability
`rate`. The paper leaves stop words out when it replaces and inserts: they are not in the table. The others change what
these leave: a capital, a comma, the end. docs/robustness.md says what each does.

A copy's text is a function of (seed, the example's id and texts, the copy's number) alone: neither the order of
rows nor the other rows matter, and a resumed run makes the same copies again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Literal

from submillion.config import AugmentationConfig, AugmentationKind
from submillion.data import Example
from submillion.data.augmentation.synonyms import synonyms
from submillion.data.augmentation.words import OTHER_MARKS, Word, changeable, mistyped
from submillion.words import tokens as split

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

_MARKS = ".,;:!?…\"'‘’“”«»()[]{}*" + OTHER_MARKS
_DASHES = "-–—"

WordKind = Literal["synonyms", "insertion", "swap", "deletion", "typos"]  # names, digits and negations stay
Tokens = list[tuple[str, str]]  # each with the blanks that follow it


def changed(text: str, kind: AugmentationKind, rate: float, rng: Random) -> str:
    """Return the text, changed; the same text at rate 0, or if nothing of it may change or was drawn.

    rate: between 0 and 1, the share of the text's words that change (one at least) · typos: words with a mistake ·
    truncation: words cut from the end · lower, upper, punctuation: of the words that have any. `first-column`
    changes no text by itself. Never empty, if the text is not. With equal generators, a higher rate of typos, lower,
    upper, punctuation or truncation changes the same words and more.
    """
    if rate == 0:
        return text
    tokens: Tokens = split(text)
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


def with_copies(examples: Sequence[Example], settings: AugmentationConfig, seed: int) -> list[Example]:
    """Return the examples, then the first copy of each, then the second, up to `settings.copies`.

    Copy 2 of row r7 has the id r7#2 (more than one # if ids have some), so ids stay unique.
    """
    mark = "#" * (1 + max((example.id.count("#") for example in examples), default=0))
    copies = [
        replace(copy_of(example, number, settings, seed), id=f"{example.id}{mark}{number}")
        for number in range(1, settings.copies + 1)
        for example in examples
    ]
    return [*examples, *copies]


def copy_of(example: Example, number: int, settings: AugmentationConfig, seed: int) -> Example:
    """Return copy `number` (from 1) of an example: its id and label, its text or both its texts changed.

    With several kinds, each example starts at one of its own, and its next copy takes the next.
    """
    kinds = kinds_of(settings)
    if not kinds:
        return example
    first = Random(json.dumps([seed, example.id])).randrange(len(kinds))
    return perturbed(example, kinds[(first + number) % len(kinds)], settings.rate, [seed, example.id, number])


def kinds_of(settings: AugmentationConfig) -> tuple[AugmentationKind, ...]:
    """Return the kinds of the settings, none, one or several."""
    match settings.kind:
        case None:
            return ()
        case tuple():
            return settings.kind
        case kind:
            return (kind,)


def perturbed(example: Example, kind: AugmentationKind, rate: float, key: Sequence[object]) -> Example:
    """Return the example changed by one kind at a rate; what is drawn is a function of the key, plain values.

    `first-column` removes what came from the first of several columns, with probability `rate`; with an equal
    key, examples changed at a lower rate are changed at a higher one too.
    """

    def new(part: str, text: str) -> str:
        return changed(text, kind, rate, Random(json.dumps([*key, part])))

    if kind == "first-column" and Random(json.dumps([*key])).random() < rate:
        return replace(example, text=example.text[example.first_chars :].lstrip(), first_chars=0)
    pair = None if example.text_pair is None else new("text_pair", example.text_pair)
    text = new("text", example.text)
    return replace(example, text=text, text_pair=pair, first_chars=example.first_chars * (text == example.text))


def _n_changes(tokens: Sequence[object], rate: float) -> int:
    return max(1, round(rate * len(tokens)))


def _with_changed_words(tokens: Tokens, kind: WordKind, rate: float, rng: Random) -> Tokens:
    """Change words, only those that may change."""
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
    choices = {place: options for place, word in words.items() if (options := synonyms(word.core))}
    places = rng.sample(sorted(choices), min(n_changes, len(choices)))
    new = {place: words[place].replaced(rng.choice(choices[place])) for place in places}
    return [(new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)]


def _inserted(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    """Insert synonyms of the text's words anywhere in it."""
    choices = [options for word in words.values() if (options := synonyms(word.core))]
    if not choices:
        return tokens
    tokens = [*tokens[:-1], (tokens[-1][0], " ")]
    for _ in range(n_changes):
        tokens.insert(rng.randint(0, len(tokens)), (rng.choice(rng.choice(choices)), " "))
    return tokens


def _swapped(tokens: Tokens, words: dict[int, Word], n_changes: int, rng: Random) -> Tokens:
    """Swap pairs of words, one pair after the other; punctuation stays."""
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
    """Rewrite a share of the tokens that the function changes; those that become empty go."""
    new = {place: after for place, (token, _) in enumerate(tokens) if (after := rewrite(token)) != token}
    places = sorted(new)
    rng.shuffle(places)
    kept = set(places[_n_changes(places, rate) :])
    rewritten = [
        (token if place in kept else new.get(place, token), blanks) for place, (token, blanks) in enumerate(tokens)
    ]
    return [(token, blanks) for token, blanks in rewritten if token] or tokens


def _unmarked(token: str) -> str:
    """Return the token without punctuation around it, "" if nothing is left; marks inside stay (don't, 3.5, a@b.c)."""
    core = token.strip(_MARKS)
    return core if core.strip(_DASHES) else ""
