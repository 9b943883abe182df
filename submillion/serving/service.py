"""From texts to probabilities for many callers at once: a place in the queue, the run, its tokens, a batch.

Everything that takes time waits in one of two queues: texts in the model's, and what reads the folder or loads a run at
the desk. Both are bounded and fair between callers, and requests leave them when their callers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from submillion.config import Precision
from submillion.data import naming
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, DataError
from submillion.judging.confidence import AS_TRAINED, RAW, Answering, Rules
from submillion.runs import Run
from submillion.serving.counting import Counts
from submillion.serving.folders import Folder
from submillion.serving.queue import Limits, Queue

if TYPE_CHECKING:
    from submillion.prediction.sharing import Loaded
    from submillion.serving.models import Models, Row

MAX_CHARACTERS = 20_000  # of a text, for a run that reads no more
LONGEST_CHARACTERS = 200_000  # of any text; a request has little room for more
_CHARACTERS_PER_TOKEN = 8  # more than words need: no text that is read whole is refused
MAX_TEXTS = 256  # of a request, for all its runs together; the smallest queue holds as many
_DESK = Limits(batch_tokens=1, wait_s=0, n_texts=256)  # for calls, which are answered one by one
_SHOWN_RUNS = 10

Text = tuple[str, str | None]
Values = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """Texts, and what to make of their probabilities (float64 [C] each)."""

    texts: Sequence[Text]
    values: Callable[[Sequence[np.ndarray]], Values]


class Service:
    """The runs of a folder, for any number of callers; use it inside `running`."""

    def __init__(
        self, folder: Folder, counts: Counts, precision: Precision | None, n_encoders: int, limits: Limits
    ) -> None:
        self._folder, self._counts = folder, counts
        self._precision: Precision | None = precision
        self._n_encoders = n_encoders
        self._models: Models | None = None  # until a run is requested: torch is imported then
        self._queue: Queue[Row, np.ndarray] = Queue(self._work, limits)
        self._desk: Queue[Callable[[], Any], Any] = Queue(_each_called, _DESK)
        self._warming: asyncio.Future[None] | None = None
        counts.watch("texts_in_hand", "Texts accepted and not answered yet", lambda: self._queue.n_texts)
        counts.watch("loaded_runs", "Runs in memory", lambda: len(self.loaded()))
        encoders = "Encoders in memory, which runs share"
        counts.watch("loaded_encoders", encoders, lambda: len({each.encoder for each in self.loaded()}))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the body runs; what was accepted by its end is answered too."""
        self._warming = None
        async with self._desk.running(), self._queue.running():
            yield

    async def at_desk(self, caller: str, work: Callable[[], T]) -> T:
        """Return what a call returns, made in the thread for reading the folder; FullError if too many wait."""
        with self._desk.places(1, caller):
            return (await self._desk.answers([work], [1], caller))[0]

    def is_ready(self) -> bool:
        """Return whether the first answer takes no longer than others; the first call prepares that.

        This loads the libraries and, if it is the only one, the run.
        """
        if self._warming is None:
            self._warming = asyncio.ensure_future(self.at_desk("", self._warm))
            self._warming.add_done_callback(lambda warmed: warmed.cancelled() or warmed.exception())
        return self._warming.done()

    async def answer(
        self,
        names: Sequence[str | None],
        texts: Sequence[Text],
        caller: str = "",
        answering: Answering = AS_TRAINED,
    ) -> list[tuple[Loaded, Rules, list[np.ndarray], list[bool]]]:
        """Return each run of these names (None: the only one) with the rules for its raw probabilities, these of all
        texts, float64 [C], and which texts hold no token that its encoder knows.

        FullError if too many texts are in hand; SubmillionError if there is no such run, it cannot read the texts, or
        the request cannot be guaranteed.
        """
        with self._queue.places(len(names) * len(texts), caller):
            runs = [await self._run(name, caller) for name in names]
            loaded = [await self._loaded(run, caller) for run in runs]
            checked = [_all_checked(each, texts) for each in loaded]
            rules = [await self._rules(each, answering, caller) for each in loaded]
            answers = await self._probs(list(zip(loaded, checked, strict=True)), caller)
            for each, (probs, _) in zip(loaded, answers, strict=True):  # here, since the batch has others' texts too
                _refuse_not_finite(each, probs)
            return [(each, run_rules, *rows) for each, run_rules, rows in zip(loaded, rules, answers, strict=True)]

    async def explain(self, name: str, question: Callable[[Loaded], Question], caller: str = "") -> Values:
        """Return a question's values for a run, and whether the first text is blank to its encoder; errors as in
        `answer`."""
        with self._queue.places(1, caller):
            loaded = await self._loaded(self._folder.run(name), caller)
            prepared = await asyncio.to_thread(question, loaded)
        if not prepared.texts:
            return prepared.values([])
        with self._queue.places(len(prepared.texts), caller):
            ((probs, is_blank),) = await self._probs([(loaded, prepared.texts)], caller)
        _refuse_not_finite(loaded, probs)
        return prepared.values(probs) | {"is_blank": is_blank[0]}

    def loaded(self) -> list[Loaded]:
        """Return the runs that are in memory, without those whose folders are gone."""
        if self._models is None:
            return []
        self._models.forget_gone()
        return self._models.loaded()

    async def _probs(
        self, requests: Sequence[tuple[Loaded, Sequence[Text]]], caller: str
    ) -> list[tuple[list[np.ndarray], list[bool]]]:
        """Return the probabilities of each run's texts, and which of these are blank to it. Runs' rows of one text are
        adjacent, so that they share a batch."""
        from submillion.serving import models  # it was imported when the first run was loaded

        by_run = await asyncio.to_thread(models.rows, requests)
        rows = [row for of_text in zip(*by_run, strict=True) for row in of_text]
        row_probs = await self._queue.answers(rows, [len(row.tokens) for row in rows], caller)
        return [
            (row_probs[number :: len(requests)], [row.is_blank for row in run_rows])
            for number, run_rows in enumerate(by_run)
        ]

    async def _loaded(self, run: Run, caller: str) -> Loaded:
        loaded = None if self._models is None else self._models.find(run)
        return await self.at_desk(caller, partial(self._load, run)) if loaded is None else loaded

    async def _rules(self, loaded: Loaded, answering: Answering, caller: str) -> Rules:
        """Return a run's rules for probabilities, at the desk: they are learnt from its folder."""
        if answering == AS_TRAINED:
            return RAW
        from submillion.serving import models  # it was imported when the run was loaded

        return await self.at_desk(caller, partial(models.rules, loaded, answering))

    async def _run(self, name: str | None, caller: str) -> Run:
        return await self.at_desk(caller, self._only_run) if name is None else self._folder.run(name)

    def _only_run(self) -> Run:
        names = [run.name for run in self._folder.runs() if run.is_done]
        if len(names) == 1:
            return self._folder.run(names[0])
        some = ", ".join(names[:_SHOWN_RUNS]) + (", ..." if len(names) > _SHOWN_RUNS else "")
        remedy = (
            f"name one in `run`: {some}" if names else "`submillion train` makes one; it is served without a restart"
        )
        raise ConfigError(f"no run is named, and {self._folder.path} has {len(names)} finished runs: {remedy}")

    def _load(self, run: Run) -> Loaded:
        """Return a loaded run; called at the desk, since torch takes seconds to import."""
        if self._models is None:
            from submillion.serving.models import Models

            self._models = Models(self._precision, self._n_encoders)
        return self._models.get(run)

    def _warm(self) -> None:
        from submillion.serving import models

        done = [run for run in self._folder.runs() if run.is_done]
        if len(done) == 1:  # a damaged one reports that when it is requested
            models.probs(*models.rows([(self._load(done[0]), [("a text", "and another")])]))

    def _work(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Answer a batch, in the queue's thread."""
        from submillion.serving import models

        began = time.monotonic()
        probs = models.probs(rows)
        runs = [row.loaded.run.name for row in rows]
        self._counts.batch(runs, sum(len(row.tokens) for row in rows), time.monotonic() - began)
        self.loaded()
        return probs


def _refuse_not_finite(loaded: Loaded, probs: Sequence[np.ndarray]) -> None:
    from submillion.training import evaluation  # it was imported when the run was loaded

    ids = [f"texts[{number}]" for number in range(len(probs))]
    evaluation.refuse_not_finite(np.stack(probs), ids, loaded.classifier.precision)


def checked(loaded: Loaded, text: Text) -> Text:
    """Return a text, or a pair, as read from a file: without surrounding white space.

    DataError lists why the run cannot classify it.
    """
    columns, problems = loaded.settings.data, []
    if columns.text_pair is None and text[1] is not None:
        problems.append(f"{loaded.run.name} was trained on single texts: leave the second text out")
    if columns.text_pair is not None and text[1] is None:
        problems.append(f"{loaded.run.name} was trained on pairs of texts: give the second one too")
    for name, each in zip(("the text", "the second text"), text, strict=True):
        if each is None:
            continue
        if not each.strip():
            problems.append(f"{name} is empty: type at least one word")
        if len(each) > max_characters(loaded):
            problems.append(
                f"{name} has {len(each):,} characters: at most {max_characters(loaded):,} are allowed here; shorten "
                "it, or use `submillion predict`"
            )
        if not naming.is_unicode(each):
            problems.append(f"{name} has half a character (a lone surrogate): type it again")
    if problems:
        raise DataError(*problems)
    return text[0].strip(), None if text[1] is None else text[1].strip()


def max_characters(loaded: Loaded) -> int:
    """Return the most characters of a text: as many as the run reads, if it reads many tokens."""
    n_tokens = Reading.of(loaded.settings.model).most_tokens(0)
    return min(max(MAX_CHARACTERS, _CHARACTERS_PER_TOKEN * n_tokens), LONGEST_CHARACTERS)


def _all_checked(loaded: Loaded, texts: Sequence[Text]) -> list[Text]:
    valid, problems = list[Text](), list[str]()
    for number, text in enumerate(texts):
        try:
            valid.append(checked(loaded, text))
        except DataError as error:
            problems += [f"texts[{number}]: {problem}" for problem in error.problems]
    if problems:
        raise DataError(*problems)
    return valid


def _each_called(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]
