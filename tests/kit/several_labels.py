"""Rows with several labels each, which can be learnt: a label is there if one of its telling words is in the text."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any, Literal

Shape = Literal["lists", "joined", "columns"]
SHAPES: tuple[Shape, ...] = ("lists", "joined", "columns")
NAMES = ("art", "money", "sport")
_TELLING = {"art": ("film", "book"), "money": ("market", "great"), "sport": ("game", "team")}
_OTHERS = ("the", "a", "of", "and", "in", "to", "world", "news", "dull")


def make_rows(n_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return `n_rows` distinct rows: id, text, and label, a list of names, empty in about an eighth of them."""
    rng, found = random.Random(seed), dict[str, list[str]]()
    while len(found) < n_rows:
        labels = [name for name in NAMES if rng.random() < 0.5]
        words = [rng.choice(_TELLING[name]) for name in labels]
        words += [*rng.choices(_OTHERS, k=rng.randint(1, 6)), str(rng.randint(0, 9999))]
        rng.shuffle(words)
        found[" ".join(words)] = labels
    return [{"id": f"r{i}", "text": text, "label": labels} for i, (text, labels) in enumerate(found.items())]


def write_rows(file: Path, rows: list[dict[str, Any]], shape: Shape) -> Path:
    """Write rows to a file, whose suffix is added: lists in JSON Lines, joined by | in CSV, or columns of 0 and 1."""
    path = file.with_suffix(".jsonl" if shape == "lists" else ".csv")
    if shape == "lists":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
    with open(path, "w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["id", "text", *(["label"] if shape == "joined" else NAMES)])
        for row in rows:
            own = ["|".join(row["label"])] if shape == "joined" else [int(name in row["label"]) for name in NAMES]
            writer.writerow([row["id"], row["text"], *own])
    return path


def settings_of(shape: Shape) -> dict[str, Any]:
    """Return the settings that read such a file."""
    return {"data.label": list(NAMES)} if shape == "columns" else {}
