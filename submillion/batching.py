"""From texts to batches without padding.

Owns tokenising, the flat storage of token ids, the order of rows (shuffled by key, rows of similar
length together inside a window) and the `Batch`. What a model does with a batch is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from submillion.backbone import seed_for
from submillion.data import Example

# Rows are shuffled over the whole split; then, inside each window of this many batches, rows of
# similar length are put together. A row's batch is random within the window, never beyond it.
WINDOW_BATCHES = 16
_TOKENIZE_ROWS = 1000


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass: T tokens of B texts, one after the other, without padding.

    tokens, token_types: int64 [T] · offsets: int64 [B + 1], text i is tokens[offsets[i]:offsets[i+1]],
    kept on the CPU · label_ids: int64 [B] · teacher_logits: float32 [B, C] or None · hidden: [T, D], the output of
    the model's frozen lower layers where that is kept, or None.
    """

    tokens: torch.Tensor
    token_types: torch.Tensor
    offsets: torch.Tensor
    label_ids: torch.Tensor
    teacher_logits: torch.Tensor | None
    example_ids: tuple[str, ...]
    hidden: torch.Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Return B."""
        return len(self.example_ids)

    @property
    def n_tokens(self) -> int:
        """Return T, the real tokens."""
        return int(self.tokens.numel())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors, but the offsets, on `device`."""
        teacher = None if self.teacher_logits is None else self.teacher_logits.to(device)
        return replace(
            self,
            tokens=self.tokens.to(device),
            token_types=self.token_types.to(device),
            label_ids=self.label_ids.to(device),
            teacher_logits=teacher,
            hidden=None if self.hidden is None else self.hidden.to(device),
        )


@dataclass(frozen=True)
class TokenizedSplit:
    """A split's token ids in flat arrays: tokens int32 [T], token_types uint8 [T], offsets int64 [N + 1],
    label_ids int64 [N] (-1 where a row has no label), example_ids of length N, n_truncated rows cut.

    hidden, where the frozen layers' output is kept: from the texts' first tokens and lengths (int64 [B] each) to
    their rows [T, D], one text after the other.
    """

    tokens: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    label_ids: np.ndarray
    example_ids: tuple[str, ...]
    n_truncated: int
    hidden: Callable[[np.ndarray, np.ndarray], torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the rows (int64 [B], in the order wanted) as a `Batch` on the CPU."""
        starts, lengths = self.offsets[rows], self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Batch(
            tokens=torch.from_numpy(self.tokens[index].astype(np.int64)),
            token_types=torch.from_numpy(self.token_types[index].astype(np.int64)),
            offsets=torch.from_numpy(offsets),
            label_ids=torch.from_numpy(self.label_ids[rows]),
            teacher_logits=None,
            example_ids=tuple(self.example_ids[row] for row in rows),
            hidden=None if self.hidden is None else self.hidden(starts, lengths),
        )


def tokenize(examples: Sequence[Example], tokenizer: Any, labels: Sequence[str], max_length: int) -> TokenizedSplit:
    """Return the examples as token ids, special tokens included, cut to `max_length` tokens."""
    label_ids = {label: i for i, label in enumerate(labels)}
    tokens: list[np.ndarray] = []
    types: list[np.ndarray] = []
    n_truncated = 0
    for start in range(0, len(examples), _TOKENIZE_ROWS):
        encodings = _encode(examples[start : start + _TOKENIZE_ROWS], tokenizer, max_length)
        n_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        tokens += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        types += [np.array(encoding.type_ids, dtype=np.uint8) for encoding in encodings]
    return TokenizedSplit(
        tokens=np.concatenate(tokens) if tokens else np.empty(0, np.int32),
        token_types=np.concatenate(types) if types else np.empty(0, np.uint8),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in tokens])]).astype(np.int64),
        label_ids=np.array(
            [label_ids.get(e.label, -1) if e.label is not None else -1 for e in examples], dtype=np.int64
        ),
        example_ids=tuple(example.id for example in examples),
        n_truncated=n_truncated,
    )


def training_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return an epoch's batches as row numbers: each row once, only the last batch may be smaller.

    Keyed by (seed, epoch). Rows are shuffled; inside a window of `WINDOW_BATCHES` batches they are
    sorted by length (ties in shuffled order), cut into batches, and the batches shuffled.
    """
    rng = np.random.default_rng(seed_for("order", seed, epoch))
    rows = rng.permutation(len(lengths))
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


def evaluation_batches(split: TokenizedSplit, batch_size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield (row numbers, batch) over the whole split, longest texts first, so that memory peaks at once."""
    order = np.argsort(-split.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, split.batch(rows)


def _encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Any]:
    texts = [example.text for example in examples]
    pairs = [example.text_pair or "" for example in examples] if examples[0].text_pair is not None else None
    return tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=False).encodings
