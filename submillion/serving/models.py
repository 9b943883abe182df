"""Loaded runs on at most so many encoders at a time: the runs of the least recently used encoder go first.

A run is loaded when it is first asked for, in the precision that `predict` takes unless `serve` is told otherwise. A
run that was trained again is loaded again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from submillion import runs
from submillion.config import Config
from submillion.data import Label
from submillion.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from submillion.model.classifier import Classifier

_Key = tuple[Path, int]


@dataclass(eq=False)
class Tokenizer:
    """A tokenizer that runs share: hold `lock` while using it."""

    tokenizer: PreTrainedTokenizerBase
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Encoder:
    """A frozen encoder, by way of a stock model on it that nobody runs; it lives as long as a run that shares it."""

    stock: PreTrainedModel | None = None


@dataclass(eq=False)
class Loaded:
    """A run ready to classify; hold `tokenizer.lock` while using its tokenizer, which other runs share."""

    run: Run
    settings: Config
    classes: tuple[Label, ...]
    classifier: Classifier
    encoder: Encoder
    tokenizer: Tokenizer


class Loads(Protocol):
    """What `sharing.Loader` does. It is named here, since that module imports torch, which the page does not need."""

    def find_encoder(self, run: Run) -> Encoder | None:
        """Return the loaded encoder that a run would share, None if it needs one of its own."""
        ...

    def load(self, run: Run) -> Loaded:
        """Return a verified run."""
        ...


class Models:
    """The loaded runs of a server, safe to share between threads."""

    def __init__(self, make_loader: Callable[[], Loads], n_encoders: int = 2) -> None:
        self._make_loader = make_loader  # called when a run is first asked for
        self._n_encoders = n_encoders
        self._lock = threading.Lock()  # of the table; held for moments only
        self._loading = threading.Lock()  # one run is loaded at a time: two at once would need twice the memory
        self._table: OrderedDict[_Key, Loaded] = OrderedDict()
        self._loader: Loads | None = None

    def get(self, run: Run) -> Loaded:
        """Return a finished run, loaded now or before; RunError if it is unfinished, damaged or gone."""
        if (found := self.find(run)) is not None:
            return found
        runs.load(run.path)
        with self._loading:
            if (found := self.find(run)) is not None:  # another request loaded it meanwhile
                return found
            runs.verify(run)
            loader = self._loader = self._loader or self._make_loader()
            self.forget_gone()
            if loader.find_encoder(run) is None:
                self._make_room()
            key, loaded = _key(run), loader.load(run)
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
        """Free the runs whose folders are gone, or hold another training by now."""
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


def _key(run: Run) -> _Key | None:
    """What a loaded run is known by: its folder and when it was finished; None if it is not."""
    try:
        return run.path, (run.path / "DONE").stat().st_mtime_ns
    except OSError:
        return None
