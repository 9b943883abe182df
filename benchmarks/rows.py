"""Rows that two models' difference takes, by accuracy and by scaled log loss: `python -m benchmarks.rows`.

Eight linear models (words, TF-IDF, logistic regression) are trained on 1,000 to 4,000 rows of AG News' training file
($SUBMILLION_AGNEWS) and asked about 10,000 others; a pair counts where accuracies are at least 0.2 points apart on
these. One core, ten seconds, seeded. Writes benchmarks/results/rows.json; the constants of `submillion plan --rows` are
its quartiles.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.results import keep
from submillion.judging.comparison import rows_needed
from submillion.judging.comparison.rows import Z_POWER
from submillion.judging.metrics import Z_95, Predictions, calibrated, row_losses

N_JUDGED, LEAST_APART = 10_000, 0.002
MODELS = [(1000, 1.0), (1000, 10.0), (2000, 0.3), (2000, 1.0), (2000, 10.0), (4000, 0.3), (4000, 1.0), (4000, 10.0)]


@dataclass(frozen=True)
class Judged:
    """A model on the judged rows: which it has right, bool [B], and its scaled log losses, float64 [B]."""

    right: np.ndarray
    losses: np.ndarray


def judged() -> list[Judged]:
    """Train the models (rows, C) and judge each."""
    table = pq.read_table(Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet").to_pydict()
    texts = np.array([f"{a} {b}" for a, b in zip(table["title"], table["description"], strict=True)], dtype=object)
    labels = np.unique(table["label"], return_inverse=True)[1].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(texts))
    rows, found = order[:N_JUDGED], []
    for n_rows, c in MODELS:
        train = order[N_JUDGED : N_JUDGED + n_rows]
        words = TfidfVectorizer(max_features=20_000)
        model = LogisticRegression(C=c, max_iter=200).fit(words.fit_transform(texts[train]), labels[train])
        probs = model.predict_proba(words.transform(texts[rows]))
        predictions = Predictions([str(row) for row in rows], labels[rows], probs)
        found.append(Judged(predictions.right, row_losses(calibrated(predictions).predictions)))
    return found


def of_pair(first: Judged, second: Judged) -> dict[str, float] | None:
    """Return what a pair says: rows by accuracy for each row by log loss, discordant rows for each error, and how much
    of the proportion log loss differs by; None where accuracies are too near each other."""
    apart = float(first.right.mean() - second.right.mean())
    if abs(apart) < LEAST_APART:
        return None
    losses = second.losses - first.losses
    discordance = float((first.right != second.right).mean())
    by_loss = ((Z_95 + Z_POWER) * float(losses.std()) / float(losses.mean())) ** 2
    errors = 1 - float(first.right.mean() + second.right.mean()) / 2
    proportion = abs(apart) * float(first.losses.mean() + second.losses.mean()) / 2 / errors
    return {
        "ratio": (rows_needed(apart, discordance) or math.inf) / by_loss,
        "discordant_for_each_error": discordance / errors,
        "of_proportion": float(losses.mean()) * math.copysign(1, apart) / proportion,
    }


def main() -> None:
    """Measure all pairs, write and print their quartiles."""
    models = judged()
    pairs = [pair for a, b in combinations(models, 2) if (pair := of_pair(a, b)) is not None]
    quartiles = {
        key: np.quantile([pair[key] for pair in pairs], (0.25, 0.5, 0.75)).round(2).tolist() for key in pairs[0]
    }
    accuracies = [round(float(each.right.mean()), 4) for each in models]
    other_way = sum(pair["of_proportion"] < 0 for pair in pairs)
    found = {"n_pairs": len(pairs), "n_other_way": other_way, "accuracies": accuracies, "quartiles": quartiles}
    keep("rows", found)
    print(found)


if __name__ == "__main__":
    main()
