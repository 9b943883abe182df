"""A model and a split make `Predictions`; batches are large and sorted by length, results keep the rows' order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from submillion.batching import TokenizedSplit, evaluation_batches
from submillion.classifier import Classifier
from submillion.metrics import Predictions


def predict(
    classifier: Classifier,
    split: TokenizedSplit,
    batch_size: int,
    watch: Callable[[int], None] | None = None,
) -> Predictions:
    """Return the class probabilities of every row, float64 [N, C], in the split's order.

    `watch` is called with the number of rows done after each batch. The classifier is left in
    evaluation mode.
    """
    probs = np.empty((len(split), len(classifier.labels)), dtype=np.float64)
    device = next(classifier.parameters()).device
    classifier.eval()
    n_done = 0
    with torch.no_grad():
        for rows, batch in evaluation_batches(split, batch_size):
            logits = classifier(batch.to(device))
            probs[rows] = torch.softmax(logits.cpu().double(), dim=-1).numpy()
            n_done += len(rows)
            if watch is not None:
                watch(n_done)
    return Predictions(ids=list(split.example_ids), label_ids=split.label_ids, probs=probs)
