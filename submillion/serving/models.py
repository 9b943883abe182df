"""Loaded runs on at most so many encoders at a time: the runs of the least recently used encoder go first.

A run is loaded when it is first asked for, in float32 unless told otherwise, where a text's probabilities do not depend
on the others that are computed with it. A run that was trained again is loaded again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from submillion import runs
from submillion.config import Config, Precision
from submillion.data import Label
from submillion.runs import Run

if TYPE_CHECKING:
    from submillion.classifier import Classifier
    from submillion.serving.sharing import Encoder, Loader, Tokenizer

_Key = tuple[Path, int]


@dataclass(eq=False)
class Loaded:
    """A run ready to classify; hold `tokenizer.lock` while using its tokenizer, which other runs share."""

    run: Run
    settings: Config
    classes: tuple[Label, ...]
    classifier: Classifier
    encoder: Encoder
    tokenizer: Tokenizer


class Models:
    """The loaded runs of a server, safe to share between threads."""

    def __init__(self, n_encoders: int = 2, precision: Precision = "fp32") -> None:
        self._n_encoders = n_encoders
        self._precision: Precision = precision
        self._lock = threading.Lock()  # of the table; held for moments only
        self._loading = threading.Lock()  # one run is loaded at a time: two at once would need twice the memory
        self._table: OrderedDict[_Key, Loaded] = OrderedDict()
        self._loader: Loader | None = None

    def get(self, run: Run) -> Loaded:
        """Return a finished run, loaded now or before; RunError if it is unfinished, damaged or gone."""
        if (found := self.find(run)) is not None:
            return found
        runs.load(run.path)
        with self._loading:
            if (found := self.find(run)) is not None:  # another request loaded it meanwhile
                return found
            runs.verify(run)
            loader = self._ready_loader()
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

    def _ready_loader(self) -> Loader:
        if self._loader is None:
            from submillion.serving.sharing import Loader  # imports torch, which the rest of the page needs not

            self._loader = Loader(self._precision)
        return self._loader


def _key(run: Run) -> _Key | None:
    """What a loaded run is known by: its folder and when it was finished; None if it is not."""
    try:
        return run.path, (run.path / "DONE").stat().st_mtime_ns
    except OSError:
        return None
