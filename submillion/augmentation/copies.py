"""Examples and their changed copies.

A copy's text is a function of (seed, the example's id and texts, the copy's number) alone: neither the order of
rows nor the other rows matter, and a resumed run makes the same copies again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from submillion.augmentation.changes import changed
from submillion.config import AugmentationConfig
from submillion.data import Example


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
    """Return copy `number` (from 1) of an example: its id and label, its text or both its texts changed."""
    kind, rate = settings.kind, settings.rate
    if kind is None:
        return example

    def new(part: str, text: str) -> str:
        return changed(text, kind, rate, Random(json.dumps([seed, example.id, number, part])))

    pair = None if example.text_pair is None else new("text_pair", example.text_pair)
    return replace(example, text=new("text", example.text), text_pair=pair)
