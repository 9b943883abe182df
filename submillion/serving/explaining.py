"""Questions about a text: its classes, the words they depend on (occlusion), the classes of changed copies.

Each says which texts' probabilities it needs, and what to make of them; the queue computes them.

A word's effect is the probability of a class minus that without the word (leave one out: Li, Monroe and Jurafsky 2016,
"Understanding Neural Networks through Representation Erasure", section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from submillion.config import AugmentationKind
from submillion.data import Example, augmentation
from submillion.data.long_texts import Reading
from submillion.serving.service import MAX_TEXTS, Question, Text, Values, checked, max_characters
from submillion.words import tokens

if TYPE_CHECKING:
    from submillion.prediction.sharing import Loaded

MAX_WORDS = MAX_TEXTS - 6  # each is a pass of the whole text, and one is of all words

_STRENGTHS = ("mild", "moderate", "strong")  # as in augmentation


@dataclass(frozen=True, order=True)
class _Word:
    """A word of text 0 or 1: where it starts, in characters, and where the next one does, as blanks belong to it."""

    which: int
    start: int
    end: int
    text: str


def facts(loaded: Loaded) -> Values:
    """Return what a form for the run needs to know, as JSON values."""
    columns = loaded.settings.data
    return {
        "run": loaded.run.name,
        "labels": loaded.classifier.labels,
        "has_several_labels": loaded.thresholds is not None,
        "text": [columns.text] if isinstance(columns.text, str) else columns.text,
        "text_pair": columns.text_pair,
        "max_length": loaded.settings.model.max_length,
        "long_texts": loaded.settings.model.long_texts,
        "max_characters": max_characters(loaded),
        "device": loaded.classifier.device.type,
        "precision": loaded.classifier.precision,
        "notes": loaded.classifier.notes,
    }


def prediction(text: Text, loaded: Loaded) -> Question:
    """Ask for the ranked classes with probabilities (and thresholds of several labels), and the number of unread
    words."""
    text = checked(loaded, text)
    n_unread = sum(not is_read for _, is_read in _words(loaded, text))
    return Question([text], lambda probs: {"classes": _ranked(loaded, probs[0]), "n_unread_words": n_unread})


def words(text: Text, loaded: Loaded) -> Question:
    """Ask for each text's words with their effects on the most probable class or label, for what the run reads.

    An effect is None if the word was not tried: the run does not read it, or it comes after the first `MAX_WORDS`.
    """
    text = checked(loaded, text)
    entries = _words(loaded, text)
    read = [word for word, is_read in entries if is_read]
    tried = read[:MAX_WORDS]

    def values(probs: Sequence[np.ndarray]) -> Values:
        best = int(probs[0].argmax())
        effects = {word: float(probs[0][best] - each[best]) for word, each in zip(tried, probs[1:], strict=True)}
        return {
            "label": loaded.classifier.labels[best],
            "prob": float(probs[0][best]),
            "texts": [
                [{"word": word.text, "effect": effects.get(word)} for word, _ in entries if word.which == which]
                for which, each in enumerate(text)
                if each is not None
            ],
            "n_tried": len(tried),
        }

    # No unread text moves in for a removed word.
    left_out = [word for word, is_read in entries if not is_read]
    return Question([_without(text, left_out), *(_without(text, sorted([*left_out, word])) for word in tried)], values)


def variants(text: Text, strength: str, loaded: Loaded) -> Question:
    """Ask for the text unchanged and changed in each way that robustness measures, with its classes.

    `first-column` is left out: a typed text has no columns. The same text is always changed alike.
    """
    text = checked(loaded, text)
    step, kinds = _STRENGTHS.index(strength), augmentation.STRENGTHS.items()
    rates: dict[AugmentationKind, float] = {kind: steps[step] for kind, steps in kinds if kind != "first-column"}
    typed = Example("", text[0], None, text[1])
    changed = {kind: augmentation.perturbed(typed, kind, rate, ["playground"]) for kind, rate in rates.items()}
    rows = [(each.text, each.text_pair) for each in (typed, *changed.values())]

    def values(probs: Sequence[np.ndarray]) -> Values:
        outcomes = zip([(None, 0.0), *rates.items()], rows, probs, strict=True)
        return {
            "variants": [
                {"kind": kind, "rate": rate, "texts": row, "is_changed": row != text, "classes": _ranked(loaded, each)}
                for (kind, rate), row, each in outcomes
            ]
        }

    return Question(rows, values)


def _ranked(loaded: Loaded, class_probs: np.ndarray) -> list[dict[str, Any]]:
    labels, thresholds = loaded.classifier.labels, loaded.thresholds
    ranked = [{"label": labels[i], "prob": float(class_probs[i])} for i in np.argsort(-class_probs, kind="stable")]
    if thresholds is not None:
        threshold_of = dict(zip(labels, thresholds.tolist(), strict=True))
        for each in ranked:
            each["threshold"] = threshold_of[each["label"]]
    return ranked


def _words(loaded: Loaded, texts: Text) -> list[tuple[_Word, bool]]:
    """Return each word of both texts, and whether the run reads any of it."""
    from submillion.model import batching  # it was imported when the run was loaded

    with loaded.tokenizer.lock:
        spans = batching.spans(*texts, loaded.classifier.tokenizer, Reading.of(loaded.settings.model))
    entries = []
    for which, text in enumerate(texts):
        start = 0  # a checked text begins without blanks
        for token, blanks in tokens(text or ""):
            end = start + len(token) + len(blanks)
            is_read = any(start < last and first < end for first, last in spans[which])
            entries.append((_Word(which, start, end, token), is_read))
            start = end
    return entries


def _without(texts: Text, words: Sequence[_Word]) -> Text:
    """Return the texts without some words, given in order, and their blanks."""
    shorter = [text if text is None else _shorter(text, which, words) for which, text in enumerate(texts)]
    return shorter[0] or "", shorter[1]


def _shorter(text: str, which: int, words: Sequence[_Word]) -> str:
    pieces, start = list[str](), 0
    for word in (word for word in words if word.which == which):
        pieces.append(text[start : word.start])
        start = word.end
    return "".join((*pieces, text[start:])).rstrip()
