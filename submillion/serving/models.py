"""Loaded runs on a limited number of encoders, and their predictions for rows of any of them at once.

The runs of the least recently used encoder are dropped first. Runs are loaded in `predict`'s precision unless `serve`
is told otherwise. A run that was trained again is loaded again. `queue` decides which rows make a batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from submillion import runs
from submillion.config import Precision
from submillion.data import Example
from submillion.data.long_texts import Reading
from submillion.judging.confidence import Answering, Rules
from submillion.model import batching
from submillion.model.batching import TokenizedSplit, Windows
from submillion.model.classifier import mixed_logits
from submillion.prediction import ensemble
from submillion.prediction.sharing import Encoder, Loaded, Loader, Tokenizer
from submillion.runs import Run
from submillion.training import evaluation

_MOST_RULES = 64  # of a run
_Key = tuple[Path, int]
_Tokens = tuple[np.ndarray, np.ndarray, np.ndarray, bool]  # a text's part of a `Row`


@dataclass(frozen=True)
class Row:
    """A text for a run, as its token ids and token types [its tokens]; windows: the tokens of each of its windows,
    int64 [W] · is_blank: the encoder knows none of them."""

    loaded: Loaded
    tokens: np.ndarray
    token_types: np.ndarray
    windows: np.ndarray
    is_blank: bool


class Models:
    """The loaded runs of a server, safe to share between threads."""

    def __init__(self, precision: Precision | None = None, n_encoders: int = 2) -> None:
        self._loader = Loader(precision)
        self._n_encoders = n_encoders
        self._lock = threading.Lock()  # of the table; held for moments only
        self._loading = threading.Lock()  # one run is loaded at a time: two at once would need twice the memory
        self._table: OrderedDict[_Key, Loaded] = OrderedDict()

    def get(self, run: Run) -> Loaded:
        """Return a finished run, loaded now or before; RunError if it is unfinished, damaged or gone."""
        if (cached := self.find(run)) is not None:
            return cached
        runs.load(run.path)
        with self._loading:
            if (cached := self.find(run)) is not None:  # another thread loaded it meanwhile
                return cached
            runs.verify(run)
            self.forget_gone()
            if self._loader.find_encoder(run) is None:
                self._make_room()
            key, loaded = _key(run), self._loader.load(run)
            with self._lock:
                if key is not None:
                    self._table[key] = loaded
        return loaded

    def find(self, run: Run) -> Loaded | None:
        """Return a run if it is loaded, and its folder still holds what was loaded."""
        key = _key(run)
        with self._lock:
            if key is None or key not in self._table:
                return None
            self._table.move_to_end(key)
            return self._table[key]

    def loaded(self) -> list[Loaded]:
        """Return the loaded runs, the least recently used first."""
        with self._lock:
            return list(self._table.values())

    def forget_gone(self) -> None:
        """Free the runs whose folders are gone, or by now hold another training."""
        with self._lock:
            for key, loaded in list(self._table.items()):
                if _key(loaded.run) != key:
                    del self._table[key]

    def _make_room(self) -> None:
        """Drop the least recently used encoders with their runs, until there is room for one more."""
        with self._lock:
            used = list(dict.fromkeys(loaded.encoder for loaded in reversed(self._table.values())))
            dropped = set(used[self._n_encoders - 1 :])
            for key, loaded in list(self._table.items()):
                if loaded.encoder in dropped:
                    del self._table[key]


def rules(loaded: Loaded, answering: Answering) -> Rules:
    """Return a run's rules for probabilities, learnt once; errors as in `ensemble.rules`. Not thread-safe."""
    if answering not in loaded.rules:
        if len(loaded.rules) >= _MOST_RULES:  # callers may ask for any number
            loaded.rules.clear()
        loaded.rules[answering] = ensemble.rules([loaded.run], answering)
    return loaded.rules[answering]


def rows(requests: Sequence[tuple[Loaded, Sequence[tuple[str, str | None]]]]) -> list[list[Row]]:
    """Return the rows of each run's texts, or pairs of them; texts for several runs are tokenised once."""
    known: dict[tuple[Tokenizer, Reading, tuple[tuple[str, str | None], ...]], list[_Tokens]] = {}
    by_run = []
    for loaded, texts in requests:
        key = loaded.tokenizer, Reading.of(loaded.settings.model), tuple(texts)
        if key not in known:
            known[key] = _tokens(loaded, texts)
        by_run.append([Row(loaded, *each) for each in known[key]])
    return by_run


def _tokens(loaded: Loaded, texts: Sequence[tuple[str, str | None]]) -> list[_Tokens]:
    examples = [Example("", text, None, pair) for text, pair in texts]
    with loaded.tokenizer.lock:
        reading = Reading.of(loaded.settings.model)
        split = batching.tokenize(examples, loaded.classifier.tokenizer, loaded.classifier.labels, reading)
        is_blank = split.seen(loaded.classifier.tokenizer).is_blank.tolist()
    cuts, windows = split.offsets[1:-1], split.windows
    lengths = split.lengths[:, None] if windows is None else [windows.of_row(row) for row in range(len(split))]
    return list(zip(np.split(split.tokens, cuts), np.split(split.token_types, cuts), lengths, is_blank, strict=True))


def probs(rows: Sequence[Row]) -> list[np.ndarray]:
    """Return the class probabilities of each row, float64 [its run's C], in the rows' order.

    Rows of several runs that share an encoder are computed together where their adapters allow it.
    """
    row_probs: list[np.ndarray] = [np.empty(0)] * len(rows)
    by_encoder: dict[Encoder, dict[Loaded, list[int]]] = {}
    for place, row in enumerate(rows):
        by_encoder.setdefault(row.loaded.encoder, {}).setdefault(row.loaded, []).append(place)
    for by_run in by_encoder.values():
        several = len(by_run) > 1
        mixed = {loaded: places for loaded, places in by_run.items() if several and loaded.classifier.is_mixable}
        alone = {loaded: places for loaded, places in by_run.items() if loaded not in mixed}
        answers = [(places, _own_logits(loaded, [rows[i] for i in places])) for loaded, places in alone.items()]
        if mixed:
            answers += zip(mixed.values(), _mixed_logits(mixed, rows), strict=True)
        for places, logits in answers:
            run_probs = evaluation.probabilities(logits.numpy(), rows[places[0]].loaded.thresholds is not None)
            for place, values in zip(places, run_probs, strict=True):
                row_probs[place] = values
    return row_probs


def _own_logits(loaded: Loaded, rows: Sequence[Row]) -> torch.Tensor:
    size = loaded.settings.train.evaluation_batch_size
    return torch.from_numpy(evaluation.logits(loaded.classifier, _split(rows), size))


def _mixed_logits(by_run: dict[Loaded, list[int]], rows: Sequence[Row]) -> list[torch.Tensor]:
    """Return the logits of each run's places, float32 [its rows, its C]; equal texts are computed together."""
    chosen = [rows[place] for places in by_run.values() for place in places]
    numbers: dict[tuple[bytes, ...], int] = {}
    keys = [tuple(each.tobytes() for each in (row.tokens, row.token_types, row.windows)) for row in chosen]
    text_of = [numbers.setdefault(key, len(numbers)) for key in keys]
    firsts = [chosen[text_of.index(number)] for number in range(len(numbers))]
    classifiers, split = [loaded.classifier for loaded in by_run], _split(firsts)
    batch = split.batch(np.arange(len(split))).to(classifiers[0].device)
    model_of = np.repeat(np.arange(len(by_run)), [len(places) for places in by_run.values()])
    logits = mixed_logits(classifiers, batch, torch.tensor(text_of), torch.from_numpy(model_of))
    return [each.cpu() for each in logits]


def _split(rows: Sequence[Row]) -> TokenizedSplit:
    return TokenizedSplit(
        tokens=np.concatenate([row.tokens for row in rows]),
        token_types=np.concatenate([row.token_types for row in rows]),
        offsets=np.cumsum([0, *(len(row.tokens) for row in rows)], dtype=np.int64),
        label_ids=np.full(len(rows), -1, dtype=np.int64),
        example_ids=("",) * len(rows),
        n_truncated=0,
        windows=Windows.of([row.windows for row in rows]),
    )


def _key(run: Run) -> _Key | None:
    """Return the key of a loaded run: its folder and when it was finished; None if it is not."""
    try:
        return run.path, (run.path / "DONE").stat().st_mtime_ns
    except OSError:
        return None
