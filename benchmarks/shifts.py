"""The shifts that estimates without labels are measured on: two groups, each with a half on which methods are fixed.

Between domains: a model of each of the packaged sentiment data's four domains, on the three others. Made: one model of
AG News on rows that training and validation did not have, drawn or changed; and each sentiment model on its own test
rows, changed. Halves are split by the source domain and by the kind of change, so that no judged change was met before
at another strength. Nothing is predicted here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from submillion import data
from submillion.config import AugmentationKind, DataConfig
from submillion.data import Example, augmentation

DOMAINS = ("tweets", "films", "amazon", "news")
SENTIMENTS = ("negative", "neutral", "positive")
_FIXED_DOMAINS = ("tweets", "films")  # sources whose pairs methods are fixed on; the others' are judged
N_ROWS = 2_000
Half = Literal["fixed on", "judged", "no shift"]
Change = Callable[[Example, Random], str]


@dataclass(frozen=True)
class Shift:
    """Labelled rows that a run sees as if they had no labels. `source` names the run."""

    name: str
    source: str
    half: Half
    rows: list[Example]


def between_domains() -> list[Shift]:
    """Return the 12 ordered pairs, 2,000 rows each."""
    rows = {name: data.read_rows(f"packaged:{name}", DataConfig(), SENTIMENTS) for name in DOMAINS}
    return [
        Shift(
            name=f"{source} → {target}",
            source=source,
            half="fixed on" if source in _FIXED_DOMAINS else "judged",
            rows=_drawn(rows[target]),
        )
        for source in DOMAINS
        for target in DOMAINS
        if source != target
    ]


def of_own_rows(source: str, rows: Sequence[Example]) -> list[Shift]:
    """Return a sentiment model's test rows unchanged, and changed in the ways of its half."""
    half = "fixed on" if source in _FIXED_DOMAINS else "judged"
    plain = _drawn(rows)
    changed = [_changed(f"{kind} {rate}", each, plain, _by_kind(kind, rate)) for kind, each, rate in _KINDS]
    changed += [_changed(name, each, plain, change) for name, each, change in _CHANGES]
    chosen = [shift for shift in changed if shift.half == half]
    return [replace(shift, source=source) for shift in (Shift("none", source, "no shift", plain), *chosen)]


def made(pool: Sequence[Example], file: Path) -> list[Shift]:
    """Return the shifts made from AG News rows that no split has; `file` tells title and description apart."""
    parts = pq.read_table(file, columns=["title", "description"]).to_pylist()
    titles = {one.id: parts[int(one.id)]["title"].strip() for one in pool}
    titled = [one for one in pool if titles[one.id]]
    plain = _drawn(pool)
    return [
        Shift("none", "agnews", "no shift", plain),
        *(Shift(name, "agnews", half, _with_priors(pool, shares)) for name, half, shares in _PRIORS),
        *(_changed(f"{kind} {rate}", half, plain, _by_kind(kind, rate)) for kind, half, rate in _KINDS),
        *(_changed(name, half, plain, change) for name, half, change in _CHANGES),
        _changed("title only", "fixed on", _drawn(titled), lambda one, _: titles[one.id]),
        _changed("title missing", "judged", _drawn(titled), lambda one, _: one.text[len(titles[one.id]) :].strip()),
        Shift("rows that come without title", "agnews", "judged", _drawn([one for one in pool if not titles[one.id]])),
        Shift("rows of Reuters", "agnews", "fixed on", _drawn([one for one in pool if "Reuters" in one.text])),
        Shift("rows of AP and AFP", "agnews", "judged", _drawn([one for one in pool if _PRESS.search(one.text)])),
        Shift("another class's text behind", "agnews", "judged", _joined(plain)),
    ]


# In the order of the labels: Business, Sci/Tech, Sports, World.
_PRIORS: tuple[tuple[str, Half, tuple[float, ...]], ...] = (
    ("priors 70 10 10 10", "fixed on", (0.7, 0.1, 0.1, 0.1)),
    ("priors 33 33 33 0", "fixed on", (1 / 3, 1 / 3, 1 / 3, 0.0)),
    ("priors 5 15 30 50", "judged", (0.05, 0.15, 0.3, 0.5)),
    ("priors 45 45 5 5", "judged", (0.45, 0.45, 0.05, 0.05)),
)
_KINDS: tuple[tuple[AugmentationKind, Half, float], ...] = (
    ("typos", "fixed on", 0.2),
    ("typos", "fixed on", 0.4),
    ("deletion", "fixed on", 0.3),
    ("deletion", "fixed on", 0.6),
    ("truncation", "fixed on", 0.5),
    ("truncation", "fixed on", 0.75),
    ("upper", "judged", 1.0),
    ("punctuation", "judged", 1.0),
    ("synonyms", "judged", 0.2),
    ("synonyms", "judged", 0.4),
    ("insertion", "judged", 0.4),
    ("swap", "judged", 0.4),
)
_CHANGES: tuple[tuple[str, Half, Change], ...] = (
    ("digits missing", "judged", lambda one, _: re.sub(r"\d", "", one.text).strip() or one.text),
    ("last 8 words", "judged", lambda one, _: " ".join(one.text.split()[-8:])),
    ("half of the words without vowels", "judged", lambda one, rng: _without_vowels(one.text, rng)),
)
_PRESS = re.compile(r"\b(AP|AFP)\b")


def _drawn(rows: Sequence[Example]) -> list[Example]:
    """At most 2,000 rows, the same at each call."""
    chosen = np.random.default_rng(0).permutation(len(rows))[:N_ROWS]
    return [rows[row] for row in np.sort(chosen)]


def _with_priors(pool: Sequence[Example], shares: Sequence[float]) -> list[Example]:
    labels = sorted({str(one.label) for one in pool})
    rng, drawn = np.random.default_rng(1), []
    for label, share in zip(labels, shares, strict=True):
        rows = [one for one in pool if one.label == label]
        drawn += [rows[row] for row in rng.permutation(len(rows))[: round(share * N_ROWS)]]
    return drawn


def _changed(name: str, half: Half, rows: Sequence[Example], change: Change) -> Shift:
    new = [replace(one, text=change(one, Random(f"{name} {one.id}"))) for one in rows]
    return Shift(name, "agnews", half, new)


def _by_kind(kind: AugmentationKind, rate: float) -> Change:
    return lambda one, rng: augmentation.changed(one.text, kind, rate, rng)


def _without_vowels(text: str, rng: Random) -> str:
    words = [re.sub(r"[aeiouAEIOU]", "", word) if rng.random() < 0.5 else word for word in text.split()]
    return " ".join(filter(None, words)) or text


def _joined(rows: Sequence[Example]) -> list[Example]:
    """Each text, followed by the next one of another class."""
    joined = []
    for number, one in enumerate(rows):
        following = (rows[(number + step) % len(rows)] for step in range(1, len(rows)))
        other = next(each for each in following if each.label != one.label)
        joined.append(replace(one, text=f"{one.text} {other.text}"))
    return joined
