"""From texts to batches without padding.

`tokens`: texts to token ids, kept in the cache, their flat storage · `batch`: the rows of one forward pass · `windows`:
texts longer than an encoder reads · `order`: which rows make a batch, and when · `fitting`: batches that do not fit in
memory. What a model does with a batch is not decided here.
"""

from submillion.model.batching.batch import Batch, on_device, pinned
from submillion.model.batching.fitting import Fitting
from submillion.model.batching.order import ALL, WINDOW_BATCHES, evaluation_rows, n_batches, training_order, within
from submillion.model.batching.tokens import TokenizedSplit, gives_types, label_ids, tokenize
from submillion.model.batching.windows import Windows, pooled, spans

__all__ = [
    "ALL",
    "WINDOW_BATCHES",
    "Batch",
    "Fitting",
    "TokenizedSplit",
    "Windows",
    "evaluation_rows",
    "gives_types",
    "label_ids",
    "n_batches",
    "on_device",
    "pinned",
    "pooled",
    "spans",
    "tokenize",
    "training_order",
    "within",
]
