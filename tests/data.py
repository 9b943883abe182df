"""Small labelled files whose labels can be learnt: the label is the text's first telling word."""

from __future__ import annotations

import random
from pathlib import Path

_TELLING = {"sport": ("game", "team", "play"), "money": ("market", "great", "fine"), "art": ("film", "book", "poor")}
_OTHERS = ("the", "a", "of", "and", "in", "to", "world", "news", "dull")


def write_csv(path: Path, n_rows: int, seed: int = 0) -> Path:
    """Write `n_rows` distinct rows with columns id, text and label; return the path."""
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    while len(texts) < n_rows:
        label = rng.choice(sorted(_TELLING))
        words = [rng.choice(_TELLING[label]), *rng.choices(_OTHERS, k=rng.randint(1, 12)), str(rng.randint(0, 9999))]
        rng.shuffle(words)
        texts[" ".join(words)] = label
    lines = [f"r{i},{text},{label}" for i, (text, label) in enumerate(texts.items())]
    path.write_text("\n".join(["id,text,label", *lines]) + "\n", encoding="utf-8")
    return path
