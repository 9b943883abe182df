"""Which rows make a batch, and when: a pure function of lengths, settings and epoch.

Owns the two ways to cut an epoch, by rows and by tokens, and the batches of evaluation. An epoch has the same number of
batches whatever its order, so neither the schedule nor a resumed run needs a history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from submillion.config import TrainConfig
from submillion.model.backbone import seed_for

# Rows are shuffled over the whole split; then, inside each window of this many batches, rows of similar length are put
# together. A row's batch is random within the window, never beyond it. Windows are a little larger if batches are cut
# by tokens and their number is no multiple.
WINDOW_BATCHES = 16
# Larger batches are hardly faster (less than 5 % at MiniLM's size), but memory grows in proportion: a feed-forward
# layer of width 3,072 needs 50 MB in float32, and freed blocks of many sizes leave holes between them.
EVALUATION_TOKENS = 4096
# So few do not fill a GPU, and launches take as long: it gets this many times the rows and tokens.
_GPU_TIMES = 8
# Kernels are made, and kept, for each new number of rows: above this, only its multiples occur.
_ROWS_STEP = 16
ALL = slice(None)


def n_batches(lengths: np.ndarray, train: TrainConfig) -> int:
    """Return the number of batches of an epoch, the same in each; lengths are the rows' tokens, int64 [N]."""
    size = _batch_size(lengths, train)
    if size is not None:
        return math.ceil(len(lengths) / size)
    return -(-int(lengths.sum()) // _mean_tokens(lengths, train))


def training_order(lengths: np.ndarray, train: TrainConfig, epoch: int) -> list[np.ndarray]:
    """Return an epoch's `n_batches` batches as row numbers, each row once; keyed by (train.seed, epoch).

    Rows are shuffled; inside a window they are sorted by length (ties in shuffled order), cut into batches,
    and the batches shuffled. By rows, only the last batch may be smaller; by tokens, none has more than
    `train.batch_tokens`, which the longest text must not exceed.
    """
    rng = np.random.default_rng(seed_for("order", train.seed, epoch))
    rows = rng.permutation(len(lengths))
    size = _batch_size(lengths, train)
    if size is None:
        return _by_tokens(rows, lengths, n_batches(lengths, train), rng)
    return _by_rows(rows, lengths, size, rng)


def within(lengths: np.ndarray, max_tokens: int) -> Iterator[slice]:
    """Yield slices of rows of these lengths (tokens, int64 [B]) in order, each of at most `max_tokens` tokens.

    At least one row, even if it is longer.

    >>> list(within(np.array([3, 3, 9, 1, 4]), 6))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
    """
    ends = np.cumsum(lengths)
    start, n_before = 0, 0
    while start < len(lengths):
        stop = max(int(np.searchsorted(ends, n_before + max_tokens, side="right")), start + 1)
        yield slice(start, stop)
        start, n_before = stop, int(ends[stop - 1])


def evaluation_rows(lengths: np.ndarray, batch_size: int, on_gpu: bool = False) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch of an evaluation, longest texts first, so that memory peaks at the start.

    A batch has at most `batch_size` rows, and fewer if they would need more than `EVALUATION_TOKENS`, padding included;
    at least one. On a GPU both limits are 8 times as large.
    """
    times = _GPU_TIMES if on_gpu else 1
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        n_rows = min(times * batch_size, max(1, times * EVALUATION_TOKENS // longest))
        rows = order[start : start + (n_rows if n_rows < _ROWS_STEP else n_rows - n_rows % _ROWS_STEP)]
        yield rows
        start += len(rows)


def _by_rows(rows: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    n_full = len(rows) // batch_size * batch_size
    batches: list[np.ndarray] = []
    for start in range(0, n_full, WINDOW_BATCHES * batch_size):
        window = rows[start : min(start + WINDOW_BATCHES * batch_size, n_full)]
        window = window[np.argsort(lengths[window], kind="stable")]
        groups = window.reshape(-1, batch_size)
        batches += [groups[i] for i in rng.permutation(len(groups))]
    if n_full < len(rows):
        batches.append(rows[n_full:])
    return batches


def _by_tokens(rows: np.ndarray, lengths: np.ndarray, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut shuffled rows into n batches of about equally many tokens, via windows of whole batches."""
    window_of = np.arange(n) * max(1, n // WINDOW_BATCHES) // n  # of each batch
    windows = _split(rows, window_of[_shares(rows, lengths, n)])
    batches: list[np.ndarray] = []
    for window, n_within in zip(windows, np.bincount(window_of), strict=True):
        window = window[np.argsort(lengths[window], kind="stable")]
        parts = _split(window, _shares(window, lengths, n_within))
        batches += [parts[i] for i in rng.permutation(n_within)]
    return batches


def _shares(rows: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """The share, 0 to n - 1, that each row's first token is in, when all their tokens make n equal shares."""
    ends = np.cumsum(lengths[rows])
    return (ends - lengths[rows]) * n // ends[-1]


def _split(rows: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """The rows in groups of one number each; numbers ascend."""
    return np.split(rows, np.flatnonzero(np.diff(numbers)) + 1)


def _mean_tokens(lengths: np.ndarray, train: TrainConfig) -> int:
    """The most tokens that a batch may have on average, so that none has more than `train.batch_tokens`.

    The last row of a share overruns it by less than the longest text; so does that of a window, whose batches, at least
    `WINDOW_BATCHES`, share the excess.
    """
    assert train.batch_tokens is not None
    longest = int(lengths.max())
    return train.batch_tokens - longest - math.ceil(longest / WINDOW_BATCHES)


def _batch_size(lengths: np.ndarray, train: TrainConfig) -> int | None:
    """The rows of a batch; None if batches are cut by tokens.

    Shares of less than two of the longest texts might hold no row at all: then the rows that always fit.
    """
    if train.batch_tokens is None:
        return train.batch_size
    longest = int(lengths.max())
    return None if _mean_tokens(lengths, train) >= 2 * longest else train.batch_tokens // longest
