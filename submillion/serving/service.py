"""From texts to probabilities for many callers at once: a place in the queue, the run, its tokens, a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from submillion.data import Example
from submillion.errors import ConfigError, DataError
from submillion.runs import Run
from submillion.serving.counting import Counts
from submillion.serving.folders import Folder
from submillion.serving.listing import Listing
from submillion.serving.models import Loaded, Models
from submillion.serving.queue import Limits, Queue

if TYPE_CHECKING:
    from submillion.serving.sharing import Row

Texts = tuple[str, str | None]
_SHOWN_RUNS = 10


class Service:
    """The runs of a folder, for any number of callers; use it inside `running`."""

    def __init__(self, folder: Folder, models: Models, counts: Counts, limits: Limits) -> None:
        self._folder, self._models, self._counts = folder, models, counts
        self._queue: Queue[Row, np.ndarray] = Queue(self._work, limits)
        self._loading = asyncio.Lock()
        counts.watch("texts_in_hand", "Texts taken and not answered yet", lambda: self._queue.n_texts)
        counts.watch("loaded_runs", "Runs in memory", lambda: len(models.loaded()))
        encoders = "Encoders in memory, which runs share"
        counts.watch("loaded_encoders", encoders, lambda: len({each.encoder for each in models.loaded()}))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the body runs; what was taken by its end is answered too."""
        self._loading = asyncio.Lock()  # of the event loop that runs now
        async with self._queue.running():
            yield

    async def answer(self, name: str | None, texts: Sequence[Texts]) -> tuple[Loaded, list[np.ndarray]]:
        """Return the run of this name (None: the only one) and its class probabilities of texts, float64 [C] each.

        FullError if too many texts are in hand; SubmillionError if there is no such run, or it cannot read the texts.
        """
        with self._queue.places(len(texts)):
            run = await asyncio.to_thread(self._only_run) if name is None else self._folder.run(name)
            loaded = await self._loaded(run)
            rows = await asyncio.to_thread(_tokenized, loaded, texts)
            found = await self._queue.answers(rows, [len(row.tokens) for row in rows])
            # Here, and not in the batch, which holds texts of other callers.
            _refuse_not_finite(loaded, found)
            return loaded, found

    async def _loaded(self, run: Run) -> Loaded:
        if (found := self._models.find(run)) is not None:
            return found
        async with self._loading:  # here, and not in so many threads
            return await asyncio.to_thread(self._models.get, run)

    def _only_run(self) -> Run:
        names = [run.name for run in self._folder.runs() if run.is_done]
        if len(names) == 1:
            return self._folder.run(names[0])
        some = ", ".join(names[:_SHOWN_RUNS]) + (", ..." if len(names) > _SHOWN_RUNS else "")
        remedy = (
            f"name one in `run`: {some}" if names else "`submillion train` makes one; it is served without a restart"
        )
        raise ConfigError(f"no run is named, and {self._folder.path} has {len(names)} finished runs: {remedy}")

    def _work(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Answer a batch, in the queue's thread."""
        from submillion.serving import sharing  # imports torch, which a server that is not asked needs not

        began = time.monotonic()
        found = sharing.probs(rows)
        runs = [row.loaded.run.name for row in rows]
        self._counts.batch(runs, sum(len(row.tokens) for row in rows), time.monotonic() - began)
        self._models.forget_gone()
        return found


def _refuse_not_finite(loaded: Loaded, found: Sequence[np.ndarray]) -> None:
    from submillion.training import evaluation  # imports torch, which a server that is not asked needs not

    ids = [f"texts[{number}]" for number in range(len(found))]
    evaluation.refuse_not_finite(np.stack(found), ids, loaded.classifier.precision)


def model_values(folder: Folder, listing: Listing, models: Models) -> list[dict[str, Any]]:
    """Return the finished runs of the folder, as they are now, as JSON holds them."""
    models.forget_gone()
    loaded = {each.run.name for each in models.loaded()}
    rows = [row for row in listing.values()["runs"] if row["state"] == "finished"]
    return [
        {
            "run": row["run"],
            "labels": folder.run(row["run"]).classes(),
            "takes_pairs": "data.text_pair" in row["settings"],
            "model": row["model"],
            "trainable_params": row["trainable_params"],
            "is_loaded": row["run"] in loaded,
        }
        for row in rows
    ]


def _tokenized(loaded: Loaded, texts: Sequence[Texts]) -> list[Row]:
    """The texts' tokens; DataError lists the texts that the run cannot read."""
    from submillion.model import batching
    from submillion.serving import explaining
    from submillion.serving.sharing import Row

    examples, problems = list[Example](), list[str]()
    for number, each in enumerate(texts):
        try:
            text, pair = explaining.checked(loaded, each)
            examples.append(Example("", text, None, pair))
        except DataError as error:
            problems += [f"texts[{number}]: {problem}" for problem in error.problems]
    if problems:
        raise DataError(*problems)
    with loaded.tokenizer.lock:
        longest = loaded.settings.model.max_length
        split = batching.tokenize(examples, loaded.classifier.tokenizer, loaded.classifier.labels, longest)
    cuts = split.offsets[1:-1]
    parts = zip(np.split(split.tokens, cuts), np.split(split.token_types, cuts), strict=True)
    return [Row(loaded, tokens, types) for tokens, types in parts]
