"""From texts to token ids, kept in the cache between runs; their flat storage, from which batches are cut.

Only the tokenizer's output is kept, under a key of tokenizer and texts; labels and row ids are added anew each time. If
the cache cannot be written, work continues without it. `order` decides which rows make a batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from submillion.data import Example, RowLabel, cache, cutting
from submillion.data.long_texts import Reading
from submillion.data.tokens import Seen, seen
from submillion.judging.metrics import numbered
from submillion.model.batching.batch import Batch
from submillion.model.batching.windows import Read, Windows, ranges, read_ends, read_windows

_KIND = "tokens"
_FORMAT = 2
# Fewer rows are tokenised in about 0.1 s: not worth a folder each time a few texts are predicted.
_CACHED_ROWS = 1000
_CHUNK_ROWS = 1000

_ARRAYS = ("tokens", "token_types", "offsets", "is_truncated")
_OF_WINDOWS = ("firsts", "window_offsets")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Taken:
    """Where rows were taken from: splits, and their numbers in these, one after the other, int64 [N]."""

    splits: tuple[TokenizedSplit, ...]
    rows: np.ndarray


@dataclass(frozen=True)
class TokenizedSplit:
    """A split's token ids in flat arrays: tokens uint16 or int32 [T], token_types uint8 [T], offsets int64 [N + 1],
    label_ids int64 [N] (-1 if a row has no label; for several labels 0 or 1 in [N, C]), example_ids of length N,
    n_truncated rows with unread tokens.

    notes: sentences worth printing · hidden, if the frozen layers' output is kept: from the texts' first tokens and
    lengths (int64 [B] each) to their rows [T, D], one text after the other. n_variants: the rows are this many blocks
    of equal length, each a variant of the same examples in the same order; an epoch reads one. teacher_logits: float32
    [N, C], if there is a teacher · windows: of the rows, whose tokens are then those of their windows, one after the
    other; None if each row is one · is_truncated: bool [N], which rows n_truncated counts, if known · taken_from: where
    the rows were taken from, if anywhere · groups: of rows to be judged, as in `Predictions`.
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
    windows: Windows | None = None
    is_truncated: np.ndarray | None = None
    taken_from: Taken | None = None
    groups: np.ndarray | None = None

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
        """Return the places of an epoch's rows: in variant 0 for epoch 0, in 1 for epoch 1, and so on in a cycle."""
        return rows + epoch % self.n_variants * (len(self) // self.n_variants)

    def take(self, rows: np.ndarray) -> TokenizedSplit:
        """Return a split of these rows (int64 [R]); this one must be as `tokenize` returned it."""
        assert self.is_truncated is not None
        lengths = self.lengths[rows]
        index = ranges(torch.from_numpy(self.offsets[rows]), torch.from_numpy(lengths)).numpy()
        return replace(
            self,
            tokens=self.tokens[index],
            token_types=self.token_types[index],
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            label_ids=self.label_ids[rows],
            example_ids=tuple(self.example_ids[row] for row in rows),
            n_truncated=int(self.is_truncated[rows].sum()),
            is_truncated=self.is_truncated[rows],
            windows=None if self.windows is None else Windows.of([self.windows.of_row(row) for row in rows]),
            taken_from=Taken((self,), rows),
            groups=None if self.groups is None else numbered(self.groups[rows]),
        )

    @staticmethod
    def joined(parts: Sequence[TokenizedSplit]) -> TokenizedSplit:
        """Return one split of the rows of several tokenised ones, one after the other."""
        return TokenizedSplit(
            tokens=np.concatenate([part.tokens for part in parts]),
            token_types=np.concatenate([part.token_types for part in parts]),
            offsets=np.cumsum([0, *(length for part in parts for length in part.lengths)], dtype=np.int64),
            label_ids=np.concatenate([part.label_ids for part in parts]),
            example_ids=tuple(row_id for part in parts for row_id in part.example_ids),
            n_truncated=sum(part.n_truncated for part in parts),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            windows=Windows.joined([part.windows for part in parts if part.windows is not None]),
            is_truncated=np.concatenate([part.is_truncated for part in parts if part.is_truncated is not None]),
            taken_from=Taken(tuple(parts), np.arange(sum(map(len, parts)))),
        )

    def hidden_of(self, wholes: Sequence[TokenizedSplit]) -> TokenizedSplit:
        """Return the split with the kept rows of the splits it was taken from; unchanged if one of them keeps none."""
        source = self.taken_from
        assert source is not None
        if len(getters := [whole.hidden for whole in wholes if whole.hidden is not None]) < len(wholes):
            return self
        firsts = np.cumsum([0, *map(len, wholes)])

        def hidden(starts: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
            numbers = source.rows[np.searchsorted(self.offsets, starts, side="right") - 1]
            owners = np.searchsorted(firsts, numbers, side="right") - 1
            places = numbers - firsts[owners]
            cuts = [0, *np.flatnonzero(np.diff(owners)) + 1, len(owners)]  # rows of one split together, in their order
            spans = [(int(owners[start]), slice(start, stop)) for start, stop in pairwise(cuts)]
            return torch.cat([getters[i](wholes[i].offsets[places[part]], lengths[part]) for i, part in spans])

        return replace(self, hidden=hidden)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the rows (int64 [B], in the requested order) as a `Batch` on the CPU."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        index = ranges(torch.from_numpy(starts), torch.from_numpy(lengths)).numpy()
        n_windows, of_windows = (None, lengths) if self.windows is None else self.windows.lengths(rows)
        is_plain = n_windows is None or len(of_windows) == len(rows)
        return Batch(
            tokens=torch.from_numpy(self.tokens[index].astype(np.int64)),
            token_types=torch.from_numpy(self.token_types[index].astype(np.int64)),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(of_windows)])),
            label_ids=torch.from_numpy(self.label_ids[rows]),
            teacher_logits=None if self.teacher_logits is None else torch.from_numpy(self.teacher_logits[rows]),
            example_ids=tuple(self.example_ids[row] for row in rows),
            hidden=None if self.hidden is None else self.hidden(starts, lengths),
            n_windows=None if is_plain else torch.from_numpy(n_windows),
        )


def tokenize(
    examples: Sequence[Example], tokenizer: Any, labels: Sequence[str], reading: Reading | int, keep: bool = True
) -> TokenizedSplit:
    """Return the examples as token ids, special tokens included, long texts as `reading` says: a number of tokens, at
    which they are cut, or more.

    Large splits are looked up in the cache and kept there; a note says why if they cannot be. With `keep` false the
    cache is not used. Either all examples are pairs or none is.
    """
    reading = Reading(reading) if isinstance(reading, int) else reading
    arrays, notes = _made_or_found(examples, tokenizer, reading) if keep else (_made(examples, tokenizer, reading), ())
    tokens, types = arrays["tokens"], arrays["token_types"]
    return TokenizedSplit(
        tokens=tokens,
        token_types=types if len(types) else np.zeros(len(tokens), np.uint8),
        offsets=arrays["offsets"],
        label_ids=label_ids([example.label for example in examples], labels),
        example_ids=tuple(example.id for example in examples),
        n_truncated=int(arrays["is_truncated"].sum()),
        is_truncated=arrays["is_truncated"],
        notes=notes,
        windows=Windows(arrays["firsts"], arrays["window_offsets"]) if reading.long_texts == "windows" else None,
    )


def label_ids(rows: Sequence[RowLabel | None], labels: Sequence[str]) -> np.ndarray:
    """Return the number of each row's label, int64 [N], -1 if unknown; for several int64 [N, C], 0 or 1.

    >>> label_ids(["b", None], ["a", "b"]), label_ids([("b",), ()], ["a", "b"]).tolist()
    (array([ 1, -1]), [[0, 1], [0, 0]])
    """
    places = {label: i for i, label in enumerate(labels)}
    if not any(isinstance(label, tuple) for label in rows):
        return np.array([-1 if label is None else places.get(str(label), -1) for label in rows], dtype=np.int64)
    ids = np.zeros((len(rows), len(labels)), dtype=np.int64)
    for row, row_labels in enumerate(rows):
        ids[row, [places[name] for name in row_labels or ()]] = 1
    return ids


def _made_or_found(examples: Sequence[Example], tokenizer: Any, reading: Reading) -> tuple[Arrays, tuple[str, ...]]:
    if len(examples) < _CACHED_ROWS:
        return _made(examples, tokenizer, reading), ()
    key = _key(examples, tokenizer, reading)
    cached = _found(key, reading)
    if cached is not None:
        return cached, ()
    arrays = _made(examples, tokenizer, reading)
    try:
        with cache.filling(_KIND, key) as folder:
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
    except OSError as error:
        return arrays, (
            f"token ids are not kept for other runs: {cache.folder()} cannot be written ({error.strerror or error}); "
            "set $SUBMILLION_CACHE to another folder",
        )
    return arrays, ()


def _key(examples: Sequence[Example], tokenizer: Any, reading: Reading) -> str:
    """Return the key of all that decides the token ids; state left by the tokenizer's last call does not."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "versions": [tokenizers.__version__, transformers.__version__],
        "class": type(tokenizer).__name__,
        "truncation_side": tokenizer.truncation_side,
        "split_special_tokens": tokenizer.split_special_tokens,
        "max_length": reading.max_length,
        "pairs": examples[0].text_pair is not None,
        "types": gives_types(tokenizer),
    }
    if reading.long_texts != "cut":
        facts["reading"] = asdict(reading)
    texts = (part for example in examples for part in (example.text, example.text_pair or ""))
    return cache.key_of(json.dumps(facts), tokenizer.backend_tokenizer.to_str(), *texts)


def _found(key: str, reading: Reading) -> Arrays | None:
    """The arrays kept under the key, read into memory: as small as new ones, and safe if the cache is emptied."""
    folder = cache.find(_KIND, key)
    if folder is None:
        return None
    try:
        names = (*_ARRAYS, *(_OF_WINDOWS if reading.long_texts == "windows" else ()))
        return {name: np.load(folder / f"{name}.npy") for name in names}
    except OSError:  # another process has just removed it, to make room
        return None


def _made(examples: Sequence[Example], tokenizer: Any, reading: Reading) -> Arrays:
    """Tokens uint16 [T] (int32 [T] if one of them is larger), offsets int64 [N + 1], is_truncated bool [N], and
    token_types uint8 [T], or [0] if all are zero; with windows also theirs."""
    tokens, types, lengths = [np.empty(0, np.int32)], [np.empty(0, np.uint8)], list[list[int]]()
    is_truncated, has_types = list[bool](), gives_types(tokenizer)
    for start in range(0, len(examples), _CHUNK_ROWS):
        rows, are_longer = _encode(examples[start : start + _CHUNK_ROWS], tokenizer, reading)
        is_truncated += are_longer
        for ids, type_ids in (window for windows in rows for window in windows):
            tokens.append(np.array(ids, dtype=np.int32))
            types.append(np.array(type_ids if has_types else [0] * len(ids), np.uint8))
        lengths += [[len(ids) for ids, _ in windows] for windows in rows]
    flat, flat_types, windows = np.concatenate(tokens), np.concatenate(types), Windows.of(lengths)
    arrays = {
        "tokens": flat.astype(np.uint16) if flat.max(initial=0) < 2**16 else flat,
        "token_types": flat_types if flat_types.any() else flat_types[:0],
        "offsets": windows.offsets[windows.firsts],
        "is_truncated": np.array(is_truncated, dtype=bool),
    }
    if reading.long_texts == "windows":
        arrays |= {"firsts": windows.firsts, "window_offsets": windows.offsets}
    return arrays


def gives_types(tokenizer: Any) -> bool:
    """Return whether a stock call gives the model token types; ALBERT's tokenizer does not, in transformers 5."""
    return "token_type_ids" in tokenizer.model_input_names


def _encode(examples: Sequence[Example], tokenizer: Any, reading: Reading) -> tuple[list[list[Read]], list[bool]]:
    """Return each row's windows, one if it has none, and whether some of the row is not read."""
    texts = [example.text for example in examples]
    match reading.long_texts:
        case "windows":
            return read_windows(texts, tokenizer, reading)
        case "head-tail":
            rows, are_longer = read_ends(texts, tokenizer, reading)
            return [[row] for row in rows], are_longer
        case "cut":
            pairs = [example.text_pair or "" for example in examples] if examples[0].text_pair is not None else None
            return _read_beginnings(texts, pairs, tokenizer, reading.max_length)


def _read_beginnings(
    texts: list[str], pairs: list[str] | None, tokenizer: Any, max_length: int
) -> tuple[list[list[Read]], list[bool]]:
    if tokenizer.truncation_side == "right":
        texts, pairs = _cut(texts, pairs, tokenizer, max_length)
    encodings = tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=False).encodings
    return [[(each.ids, each.type_ids)] for each in encodings], [bool(each.overflowing) for each in encodings]


def _cut(
    texts: list[str], pairs: list[str] | None, tokenizer: Any, max_length: int
) -> tuple[list[str], list[str] | None]:
    """Return the texts up to the last token that is read."""
    backend, n_tokens = tokenizer.backend_tokenizer, max_length - tokenizer.num_special_tokens_to_add(pairs is not None)
    if pairs is None:
        return [cutting.cut(text, backend, n_tokens) for text in texts], None
    both = [cutting.cut_pair(pair, backend, n_tokens) for pair in zip(texts, pairs, strict=True)]
    return [text for text, _ in both], [pair for _, pair in both]
