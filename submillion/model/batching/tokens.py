"""From texts to token ids, kept in the cache between runs; their flat storage, and the `Batch` that is cut from it.

Only what the tokenizer makes of the texts is kept, under the key of both; labels and row ids are put to it
anew each time. The cache is a convenience: where it cannot be written, the work goes on without it. Which rows make a
batch is left to `order`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from submillion.data import Example, RowLabel, cache, cutting
from submillion.data.tokens import Seen, seen

_KIND = "tokens"
_FORMAT = 1
# Fewer rows are tokenised in about 0.1 s: not worth a folder each time that a few texts are predicted.
_CACHED_ROWS = 1000
_CHUNK_ROWS = 1000

_ARRAYS = ("tokens", "token_types", "offsets", "n_truncated")

Arrays = dict[str, np.ndarray]


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor where copies to `device` do not wait: for a GPU in pinned memory.

    It may be dropped at once: the memory is used again only after the copy.
    """
    return tensor.pin_memory() if device.type == "cuda" and tensor.is_cpu else tensor


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on `device`; a GPU is not waited for."""
    return pinned(tensor, device).to(device, non_blocking=device.type == "cuda")


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass: T tokens of B texts, one after the other, without padding.

    tokens, token_types: int64 [T] · offsets: int64 [B + 1], text i is tokens[offsets[i]:offsets[i+1]],
    kept on the CPU · label_ids: int64 [B], of several labels 0 or 1 in [B, C] ·
    teacher_logits: float32 [B, C] or None · hidden: [T, D], the output of
    the model's frozen lower layers where that is kept, or None · layout: the places of its tokens in the packed pass,
    if those are known already.
    """

    tokens: torch.Tensor
    token_types: torch.Tensor
    offsets: torch.Tensor
    label_ids: torch.Tensor
    teacher_logits: torch.Tensor | None
    example_ids: tuple[str, ...]
    hidden: torch.Tensor | None = None
    layout: Any = None

    @property
    def n_rows(self) -> int:
        """Return B."""
        return len(self.example_ids)

    @property
    def n_tokens(self) -> int:
        """Return T, the real tokens."""
        return int(self.tokens.numel())

    def take(self, texts: torch.Tensor) -> Batch:
        """Return a batch of these texts (int64 [R], on the CPU), some of them several times."""
        lengths = self.offsets.diff()[texts]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        index = torch.repeat_interleave(self.offsets[texts] - offsets[:-1], lengths) + torch.arange(int(offsets[-1]))
        tokens, rows = index.to(self.tokens.device), texts.to(self.tokens.device)
        return Batch(
            tokens=self.tokens[tokens],
            token_types=self.token_types[tokens],
            offsets=offsets,
            label_ids=self.label_ids[rows],
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits[rows],
            example_ids=tuple(self.example_ids[i] for i in texts.tolist()),
            hidden=None if self.hidden is None else self.hidden[tokens],
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors, but the offsets, on `device`; a GPU is not waited for."""
        place = torch.device(device)
        return replace(
            self,
            tokens=on_device(self.tokens, place),
            token_types=on_device(self.token_types, place),
            label_ids=on_device(self.label_ids, place),
            teacher_logits=None if self.teacher_logits is None else on_device(self.teacher_logits, place),
            hidden=None if self.hidden is None else on_device(self.hidden, place),
        )


@dataclass(frozen=True)
class TokenizedSplit:
    """A split's token ids in flat arrays: tokens uint16 or int32 [T], token_types uint8 [T], offsets int64 [N + 1],
    label_ids int64 [N] (-1 where a row has no label; of several labels 0 or 1 in [N, C]),
    example_ids of length N, n_truncated rows cut.

    notes: sentences worth printing · hidden, where the frozen layers' output is kept: from the texts' first tokens
    and lengths (int64 [B] each) to their rows [T, D], one text after the other.
    n_variants: the rows are so many blocks of equal length, each a variant of the same examples in the same order, of
    which an epoch reads one.
    teacher_logits: float32 [N, C], where there is a teacher.
    """

    tokens: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    label_ids: np.ndarray
    example_ids: tuple[str, ...]
    n_truncated: int
    notes: tuple[str, ...] = ()
    hidden: Callable[[np.ndarray, np.ndarray], torch.Tensor] | None = None
    n_variants: int = 1
    teacher_logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def epoch_lengths(self) -> np.ndarray:
        """Return the tokens of each row of an epoch, int64 [N / n_variants]: its longest variant's, so that all fit."""
        return self.lengths.reshape(self.n_variants, -1).max(axis=0)

    def seen(self, tokenizer: Any) -> Seen:
        """Return the rows as an encoder sees them; tokenizer: the one that made them."""
        return seen(self.tokens, self.offsets, tokenizer.backend_tokenizer)

    def in_epoch(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return where the variants of an epoch's rows stand: variant 0 in epoch 0, then 1, and round again."""
        return rows + epoch % self.n_variants * (len(self) // self.n_variants)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the rows (int64 [B], in the order wanted) as a `Batch` on the CPU."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Batch(
            tokens=torch.from_numpy(self.tokens[index].astype(np.int64)),
            token_types=torch.from_numpy(self.token_types[index].astype(np.int64)),
            offsets=torch.from_numpy(offsets),
            label_ids=torch.from_numpy(self.label_ids[rows]),
            teacher_logits=None if self.teacher_logits is None else torch.from_numpy(self.teacher_logits[rows]),
            example_ids=tuple(self.example_ids[row] for row in rows),
            hidden=None if self.hidden is None else self.hidden(starts, lengths),
        )


def tokenize(
    examples: Sequence[Example], tokenizer: Any, labels: Sequence[str], max_length: int, keep: bool = True
) -> TokenizedSplit:
    """Return the examples as token ids, special tokens included, cut to `max_length` tokens.

    Many rows are looked for in the cache, and kept there; a note says why if they cannot be kept. With `keep` false
    they are neither. Either all examples are pairs or none is.
    """
    arrays, notes = (
        _made_or_found(examples, tokenizer, max_length) if keep else (_made(examples, tokenizer, max_length), ())
    )
    tokens, types = arrays["tokens"], arrays["token_types"]
    return TokenizedSplit(
        tokens=tokens,
        token_types=types if len(types) else np.zeros(len(tokens), np.uint8),
        offsets=arrays["offsets"],
        label_ids=label_ids([example.label for example in examples], labels),
        example_ids=tuple(example.id for example in examples),
        n_truncated=int(arrays["n_truncated"]),
        notes=notes,
    )


def label_ids(rows: Sequence[RowLabel | None], labels: Sequence[str]) -> np.ndarray:
    """Return the number of each row's label, int64 [N], -1 where that is not known; of several int64 [N, C], 0 or 1.

    >>> label_ids(["b", None], ["a", "b"]), label_ids([("b",), ()], ["a", "b"]).tolist()
    (array([ 1, -1]), [[0, 1], [0, 0]])
    """
    places = {label: i for i, label in enumerate(labels)}
    if not any(isinstance(label, tuple) for label in rows):
        return np.array([-1 if label is None else places.get(str(label), -1) for label in rows], dtype=np.int64)
    found = np.zeros((len(rows), len(labels)), dtype=np.int64)
    for row, own in enumerate(rows):
        found[row, [places[name] for name in own or ()]] = 1
    return found


def _made_or_found(examples: Sequence[Example], tokenizer: Any, max_length: int) -> tuple[Arrays, tuple[str, ...]]:
    if len(examples) < _CACHED_ROWS:
        return _made(examples, tokenizer, max_length), ()
    key = _key(examples, tokenizer, max_length)
    found = _found(key)
    if found is not None:
        return found, ()
    made = _made(examples, tokenizer, max_length)
    try:
        with cache.filling(_KIND, key) as folder:
            for name, array in made.items():
                np.save(folder / f"{name}.npy", array)
    except OSError as error:
        return made, (
            f"token ids are not kept for other runs: {cache.folder()} cannot be written ({error.strerror or error}); "
            "$SUBMILLION_CACHE names another folder",
        )
    return made, ()


def _key(examples: Sequence[Example], tokenizer: Any, max_length: int) -> str:
    """The key of all that decides the token ids; what the tokenizer's last call left in it does not."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    facts = {
        "format": _FORMAT,
        "versions": [tokenizers.__version__, transformers.__version__],
        "class": type(tokenizer).__name__,
        "truncation_side": tokenizer.truncation_side,
        "split_special_tokens": tokenizer.split_special_tokens,
        "max_length": max_length,
        "pairs": examples[0].text_pair is not None,
        "types": _gives_types(tokenizer),
    }
    texts = (part for example in examples for part in (example.text, example.text_pair or ""))
    return cache.key_of(json.dumps(facts), tokenizer.backend_tokenizer.to_str(), *texts)


def _found(key: str) -> Arrays | None:
    """The arrays kept under the key, read into memory: as small as new ones, and safe from a cache that is emptied."""
    folder = cache.find(_KIND, key)
    if folder is None:
        return None
    try:
        return {name: np.load(folder / f"{name}.npy") for name in _ARRAYS}
    except OSError:  # another process has just removed it, to make room
        return None


def _made(examples: Sequence[Example], tokenizer: Any, max_length: int) -> Arrays:
    """Tokens uint16 [T] (int32 [T] if one of them is larger), offsets int64 [N + 1], n_truncated, and token_types
    uint8 [T], or [0] if all are zero."""
    tokens, types = [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    n_truncated, gives_types = 0, _gives_types(tokenizer)
    for start in range(0, len(examples), _CHUNK_ROWS):
        encodings = _encode(examples[start : start + _CHUNK_ROWS], tokenizer, max_length)
        n_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        tokens += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        types += [
            np.array(encoding.type_ids if gives_types else [0] * len(encoding), np.uint8) for encoding in encodings
        ]
    flat, flat_types = np.concatenate(tokens), np.concatenate(types)
    return {
        "tokens": flat.astype(np.uint16) if flat.max(initial=0) < 2**16 else flat,
        "token_types": flat_types if flat_types.any() else flat_types[:0],
        "offsets": np.cumsum([len(row) for row in tokens], dtype=np.int64),  # the first, empty one makes the 0
        "n_truncated": np.array(n_truncated),
    }


def _gives_types(tokenizer: Any) -> bool:
    """Whether a stock call gives the model token types; ALBERT's knows them and does not, in transformers 5."""
    return "token_type_ids" in tokenizer.model_input_names


def _encode(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Any]:
    texts = [example.text for example in examples]
    pairs = [example.text_pair or "" for example in examples] if examples[0].text_pair is not None else None
    if tokenizer.truncation_side == "right":
        texts, pairs = _cut(texts, pairs, tokenizer, max_length)
    return tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=False).encodings


def _cut(
    texts: list[str], pairs: list[str] | None, tokenizer: Any, max_length: int
) -> tuple[list[str], list[str] | None]:
    """The texts without what is beyond the last token that is read."""
    backend, n_tokens = tokenizer.backend_tokenizer, max_length - tokenizer.num_special_tokens_to_add(pairs is not None)
    if pairs is None:
        return [cutting.cut(text, backend, n_tokens) for text in texts], None
    both = [cutting.cut_pair(pair, backend, n_tokens) for pair in zip(texts, pairs, strict=True)]
    return [text for text, _ in both], [pair for _, pair in both]
