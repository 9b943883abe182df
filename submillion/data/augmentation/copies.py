"""Examples and their changed copies.

A copy's text is a function of (seed, the example's id and texts, the copy's number) alone: neither the order of
rows nor the other rows matter, and a resumed run makes the same copies again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from submillion.config import AugmentationConfig, AugmentationKind
from submillion.data import Example
from submillion.data.augmentation.changes import changed


def with_copies(examples: Sequence[Example], settings: AugmentationConfig, seed: int) -> list[Example]:
    """Return the examples, then the first copy of each, then the second, up to `settings.copies`.

    Copy 2 of row r7 has the id r7#2 (more than one # where ids have some), so that ids stay unique.
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

    Of several kinds each example starts at one of its own, and its next copy takes the next.
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

    `first-column` takes what came from the first of several columns, with probability `rate`; its examples of a
    higher rate, and an equal key, hold those of a lower one.
    """

    def new(part: str, text: str) -> str:
        return changed(text, kind, rate, Random(json.dumps([*key, part])))

    if kind == "first-column" and Random(json.dumps([*key])).random() < rate:
        return replace(example, text=example.text[example.first_chars :].lstrip(), first_chars=0)
    pair = None if example.text_pair is None else new("text_pair", example.text_pair)
    text = new("text", example.text)
    return replace(example, text=text, text_pair=pair, first_chars=example.first_chars * (text == example.text))
