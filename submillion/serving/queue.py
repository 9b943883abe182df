"""Many small requests become few large batches: a queue before one worker thread.

A batch begins when so many tokens wait, or when the first text has waited so long; while the worker is busy, texts
gather by themselves. What the items are and what is made of them is the caller's: `work` gets those of a batch.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LONGEST_RETRY_S = 60
_MEMORY = 0.2  # the share of the last batch in the seconds that a text takes


@dataclass(frozen=True)
class Limits:
    """How many tokens make a batch, how long the first text waits for others, and how many texts may be in hand."""

    batch_tokens: int = 4096
    wait_s: float = 0.005
    n_texts: int = 1024


class FullError(Exception):
    """No more is taken now; `retry_after_s` is when there should be room, in whole seconds."""

    def __init__(self, problem: str, retry_after_s: int) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


def stopping() -> FullError:
    """Return what is said to those whom the server will not answer any more."""
    return FullError("the server is stopping: ask again when it is back", 1)


@dataclass(eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    n_tokens: int
    since: float
    answer: asyncio.Future[Answer]


class Queue(Generic[Item, Answer]):
    """Items in order of arrival, and the thread that works on them; use it inside `running`, on one event loop."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Answer]], limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._n_tokens = 0  # of what waits
        self._n_texts = 0  # places that are taken
        self._seconds_a_text = 0.0
        self._is_closing = False
        self._changed = asyncio.Event()

    @property
    def n_texts(self) -> int:
        """Return how many texts are in hand: taken, and not answered yet."""
        return self._n_texts

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the body runs; then take no more, and answer what was taken."""
        self._is_closing, self._changed = False, asyncio.Event()
        with ThreadPoolExecutor(1, "batches") as thread:
            worker = asyncio.create_task(self._run(thread))
            try:
                yield
            finally:
                self._is_closing = True
                self._changed.set()
                await worker

    @contextmanager
    def places(self, n_texts: int) -> Iterator[None]:
        """Take places for texts that are about to be asked for; FullError if there are not so many, or it closes."""
        if self._is_closing:
            raise stopping()
        if self._n_texts + n_texts > self._limits.n_texts:
            raise FullError(
                f"{self._n_texts:,} texts are in hand, {n_texts:,} more were sent, and {self._limits.n_texts:,} is the "
                "most: ask again after the seconds in Retry-After",
                self._retry_after_s(),
            )
        self._n_texts += n_texts
        try:
            yield
        finally:
            self._n_texts -= n_texts
            self._changed.set()  # when it closes, the worker ends with the last place

    async def answers(self, items: Sequence[Item], n_tokens: Sequence[int]) -> list[Answer]:
        """Return the answers to items, in their order, asked for in `places`.

        Whoever is cancelled leaves the queue, and so do the items that are left of one that failed.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        entries = [_Waiting(item, n, now, loop.create_future()) for item, n in zip(items, n_tokens, strict=True)]
        self._waiting += entries
        self._n_tokens += sum(n_tokens)
        self._changed.set()
        try:
            return await asyncio.gather(*(entry.answer for entry in entries))
        finally:
            for entry in entries:
                entry.answer.cancel()

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or self._n_texts or not self._is_closing:  # who has a place may still be on the way here
            if not self._waiting:
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._gathered()
            if batch := self._batch():
                began = time.monotonic()
                try:
                    _answer(batch, await loop.run_in_executor(thread, self._work, [entry.item for entry in batch]))
                except Exception as error:  # whatever it is: without this task nobody would be answered any more
                    _fail(batch, error)
                self._note((time.monotonic() - began) / len(batch))

    async def _gathered(self) -> None:
        """Wait until the next batch is full, or its first text has waited long enough."""
        until = self._waiting[0].since + self._limits.wait_s
        while self._n_tokens < self._limits.batch_tokens and not self._is_closing:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _batch(self) -> list[_Waiting[Item, Answer]]:
        """Take the next batch: the first items whose tokens fit, at least one; without those that nobody waits for."""
        batch: list[_Waiting[Item, Answer]] = []
        left = self._limits.batch_tokens
        while self._waiting and (not batch or self._waiting[0].n_tokens <= left):
            entry = self._waiting.popleft()
            self._n_tokens -= entry.n_tokens
            if not entry.answer.done():
                batch.append(entry)
                left -= entry.n_tokens
        return batch

    def _note(self, seconds: float) -> None:
        known = self._seconds_a_text
        self._seconds_a_text = seconds if not known else known + _MEMORY * (seconds - known)

    def _retry_after_s(self) -> int:
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._n_texts * self._seconds_a_text)))


def _answer(batch: Sequence[_Waiting[Item, Answer]], found: Sequence[Answer]) -> None:
    for entry, answer in zip(batch, found, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
    for entry in batch:
        if not entry.answer.done():
            entry.answer.set_exception(error)
