"""What a loaded run says of a text, which words it says it for (occlusion), and what it says of changed copies.

A word's effect is the probability of a class minus that without the word (leave one out: Li, Monroe and Jurafsky 2016,
"Understanding Neural Networks through Representation Erasure", section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.config import AugmentationKind
from submillion.data import Example, augmentation, naming
from submillion.errors import DataError
from submillion.model import batching
from submillion.serving.models import Loaded
from submillion.training import evaluation
from submillion.words import tokens

MAX_CHARACTERS = 20_000
MAX_WORDS = 300  # each is a pass of the whole text

Texts = tuple[str, str | None]
_STRENGTHS = ("mild", "moderate", "strong")  # as augmentation has them


@dataclass(frozen=True)
class _Word:
    """A word of text 0 or 1: where it starts, in characters, and where the next one does: its blanks go with it."""

    which: int
    start: int
    end: int
    text: str


def checked(loaded: Loaded, texts: Texts) -> Texts:
    """Return the text, or the pair of texts, as a file's would be read: without white space around it.

    DataError lists why the run cannot classify it.
    """
    columns, problems = loaded.settings.data, []
    if columns.text_pair is None and texts[1] is not None:
        problems.append(f"{loaded.run.name} was trained on single texts: leave the second text out")
    if columns.text_pair is not None and texts[1] is None:
        problems.append(f"{loaded.run.name} was trained on pairs of texts: give the second one too")
    for name, text in zip(("the text", "the second text"), texts, strict=True):
        if text is None:
            continue
        if not text.strip():
            problems.append(f"{name} is empty: type at least one word")
        if len(text) > MAX_CHARACTERS:
            problems.append(
                f"{name} has {len(text):,} characters: at most {MAX_CHARACTERS:,} are taken here; shorten it, or use "
                "`submillion predict`"
            )
        if not naming.is_unicode(text):
            problems.append(f"{name} has half a character (a lone surrogate): type it anew")
    if problems:
        raise DataError(*problems)
    return texts[0].strip(), None if texts[1] is None else texts[1].strip()


def facts(loaded: Loaded) -> dict[str, Any]:
    """Return what a form for the run needs to know, as JSON holds it."""
    columns = loaded.settings.data
    return {
        "run": loaded.run.name,
        "labels": loaded.classifier.labels,
        "text": [columns.text] if isinstance(columns.text, str) else columns.text,
        "text_pair": columns.text_pair,
        "max_length": loaded.settings.model.max_length,
        "device": loaded.classifier.device.type,
        "notes": loaded.classifier.notes,
    }


def probs(loaded: Loaded, rows: Sequence[Texts]) -> np.ndarray:
    """Return the class probabilities of texts, float64 [N, C]."""
    examples = [Example(str(i), text, None, pair) for i, (text, pair) in enumerate(rows)]
    classifier, settings = loaded.classifier, loaded.settings
    with loaded.tokenizer.lock:
        split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, settings.model.max_length)
    return evaluation.predict(classifier, split, settings.train.evaluation_batch_size).probs


def prediction(loaded: Loaded, texts: Texts) -> dict[str, Any]:
    """Return the classes with their probabilities, the most probable first, and how many words were not read."""
    texts = checked(loaded, texts)
    (found,) = probs(loaded, [texts])
    n_unread = sum(word.start >= end for word, end in _with_ends(loaded, texts))
    return {"classes": _ranked(loaded, found), "n_unread_words": n_unread}


def words(loaded: Loaded, texts: Texts) -> dict[str, Any]:
    """Return each text in words with their effects on the most probable class, of what the run reads.

    An effect is None where the word was not tried: beyond the run's last token, or after the first `MAX_WORDS`.
    """
    texts = checked(loaded, texts)
    found = _with_ends(loaded, texts)
    read = [word for word, end in found if word.start < end]
    texts = _cut(texts, read)  # what is not read moves in for no word
    tried = read[:MAX_WORDS]
    after = probs(loaded, [texts, *(_without(texts, word) for word in tried)])
    best = int(after[0].argmax())
    effects = dict(zip(tried, (after[0, best] - after[1:, best]).tolist(), strict=True))
    return {
        "label": loaded.classifier.labels[best],
        "prob": float(after[0, best]),
        "texts": [
            [{"word": word.text, "effect": effects.get(word)} for word, _ in found if word.which == which]
            for which, text in enumerate(texts)
            if text is not None
        ],
        "n_tried": len(tried),
    }


def variants(loaded: Loaded, texts: Texts, strength: str) -> list[dict[str, Any]]:
    """Return the text as it is and changed in each way that robustness is measured by, with its classes.

    `first-column` is left out: a text that is typed has no columns. The same text is always changed alike.
    """
    texts = checked(loaded, texts)
    step, kinds = _STRENGTHS.index(strength), augmentation.STRENGTHS.items()
    rates: dict[AugmentationKind, float] = {kind: steps[step] for kind, steps in kinds if kind != "first-column"}
    typed = Example("", texts[0], None, texts[1])
    changed = {kind: augmentation.perturbed(typed, kind, rate, ["playground"]) for kind, rate in rates.items()}
    rows = [(each.text, each.text_pair) for each in (typed, *changed.values())]
    found = probs(loaded, rows)
    return [
        {"kind": kind, "rate": rate, "texts": row, "is_changed": row != texts, "classes": _ranked(loaded, each)}
        for (kind, rate), row, each in zip([(None, 0.0), *rates.items()], rows, found, strict=True)
    ]


def _ranked(loaded: Loaded, found: np.ndarray) -> list[dict[str, Any]]:
    labels = loaded.classifier.labels
    return [{"label": labels[i], "prob": float(found[i])} for i in np.argsort(-found, kind="stable")]


def _with_ends(loaded: Loaded, texts: Texts) -> list[tuple[_Word, int]]:
    """Each word of both texts, with the character at which the run's last token of its text ends."""
    ends = _read_until(loaded, texts)
    found = []
    for which, text in enumerate(texts):
        start = 0  # a text that was checked begins without blanks
        for token, blanks in tokens(text or ""):
            end = start + len(token) + len(blanks)
            found.append((_Word(which, start, end, token), ends[which]))
            start = end
    return found


def _cut(texts: Texts, read: Sequence[_Word]) -> Texts:
    """The texts up to the last word that is read, of each."""
    ends = [max((word.end for word in read if word.which == which), default=0) for which in (0, 1)]
    return texts[0][: ends[0]], None if texts[1] is None else texts[1][: ends[1]]


def _without(texts: Texts, word: _Word) -> Texts:
    """The texts without a word and its blanks."""
    shorter = [
        text if text is None or which != word.which else (text[: word.start] + text[word.end :]).rstrip()
        for which, text in enumerate(texts)
    ]
    return shorter[0] or "", shorter[1]


def _read_until(loaded: Loaded, texts: Texts) -> tuple[int, int]:
    """Where the last token that the run reads ends, in characters, in each text."""
    text, pair = texts
    tokenizer: Any = loaded.classifier.tokenizer
    longest = loaded.settings.model.max_length
    with loaded.tokenizer.lock:
        pairs = None if pair is None else [pair]
        encoding = tokenizer([text], pairs, truncation=True, max_length=longest, padding=False).encodings[0]
    ends = [0, 0]
    for which, (_, end) in zip(encoding.sequence_ids, encoding.offsets, strict=True):
        if which is not None:
            ends[which] = max(ends[which], end)
    return ends[0], ends[1]
