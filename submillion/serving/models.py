"""Loaded runs, at most so many at a time: the least recently used one goes first.

A run is loaded when it is first asked for, in float32, where a text's probabilities do not depend on the others that
are computed with it. A run that was trained again is loaded again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from submillion import runs
from submillion.config import Config
from submillion.runs import Run

if TYPE_CHECKING:
    from submillion.classifier import Classifier

_N_KEPT = 2
_Key = tuple[Path, int]


@dataclass(eq=False)
class Loaded:
    """A run ready to classify: hold `lock` while using the classifier, whose tokenizer and buffers are shared."""

    run: Run
    settings: Config
    classifier: Classifier
    lock: threading.Lock = field(default_factory=threading.Lock)


class Models:
    """The loaded runs of a server, safe to share between threads."""

    def __init__(self, n_kept: int = _N_KEPT) -> None:
        self._n_kept = n_kept
        self._lock = threading.Lock()  # of the table; held for moments only
        self._loading = threading.Lock()  # one run is loaded at a time: two at once would need twice the memory
        self._table: OrderedDict[_Key, Loaded] = OrderedDict()

    def get(self, run: Run) -> Loaded:
        """Return a finished run, loaded now or before; RunError if it is unfinished, damaged or gone."""
        runs.load(run.path)
        key = (run.path, (run.path / "DONE").stat().st_mtime_ns)
        if (found := self._find(key)) is not None:
            return found
        with self._loading:
            if (found := self._find(key)) is not None:  # another request loaded it meanwhile
                return found
            with self._lock:
                while len(self._table) >= self._n_kept:
                    self._table.popitem(last=False)
            loaded = _load(run)
            with self._lock:
                self._table[key] = loaded
        return loaded

    def _find(self, key: _Key) -> Loaded | None:
        with self._lock:
            if key in self._table:
                self._table.move_to_end(key)
            return self._table.get(key)


def _load(run: Run) -> Loaded:
    from submillion.classifier import Classifier  # takes seconds, and the rest of the page needs no torch

    runs.verify(run)
    return Loaded(run, run.config(), Classifier.load(run, precision="fp32"))
