"""Many small requests become few large batches: a queue before one worker thread, fair between callers.

A batch begins when enough tokens wait, or when all requests of the last one are back or have been waited for long
enough; while the worker is busy, texts gather by themselves. What items are and how they are answered is up to the
caller: `work` gets those of a batch.

A caller who sends much does not keep others waiting: items are taken by start-time fair queueing (Goyal, Vin and Cheng
1996), in which each caller's requests, and each request's texts, take turns by their tokens.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LONGEST_RETRY_S = 60
_MEMORY = 0.2  # the share of the last batch in the seconds that a text takes


@dataclass(frozen=True)
class Limits:
    """The tokens of a batch, how long it waits for the last one's callers, and how many texts may be in hand."""

    batch_tokens: int = 4096
    wait_s: float = 0.005
    n_texts: int = 1024


class FullError(Exception):
    """No more is accepted now; `retry_after_s`: when there should be room, in whole seconds."""

    def __init__(self, problem: str, retry_after_s: int) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


def stopping() -> FullError:
    """Return the error for requests that the server will no longer answer."""
    return FullError("the server is stopping: try again when it is back", 1)


@dataclass(eq=False)
class _Request:
    """Items that were requested together: how many of them wait."""

    n_waiting: int


@dataclass(eq=False)
class _Waiting(Generic[Item, Answer]):
    """An item in the queue; None once nobody waits for it, which frees what it held before its turn."""

    item: Item | None
    n_tokens: int
    request: _Request
    answer: asyncio.Future[Answer]


class Queue(Generic[Item, Answer]):
    """Items in fair order, and the thread that works on them; use it inside `running`, on one event loop."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Answer]], limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._waiting: list[tuple[int, int, _Waiting[Item, Answer]]] = []  # a heap: by turn, then by arrival
        self._arrivals = count()
        self._turn = 0  # of the last item taken, in tokens
        self._n_tokens = 0  # of what waits
        self._n_requests = 0  # that wait
        self._n_last = 0  # requests in the last batch
        self._n_texts = 0  # places that are taken
        self._requests_of = Counter[str]()  # that have places, by caller
        self._seconds_per_text = 0.0
        self._is_closing = False
        self._changed = asyncio.Event()

    @property
    def n_texts(self) -> int:
        """Return how many texts are in hand: accepted, and not answered yet."""
        return self._n_texts

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the body runs; then accept no more, and answer what was accepted."""
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
    def places(self, n_texts: int, caller: str = "") -> Iterator[None]:
        """Take places for texts about to be requested; FullError if there are not enough, or the queue closes.

        A caller without places may exceed the limit, up to twice as many: one who fills the queue keeps nobody out.
        """
        if self._is_closing:
            raise stopping()
        limit = self._limits.n_texts
        if self._n_texts + n_texts > (limit if n_texts > limit or self._requests_of[caller] else 2 * limit):
            raise FullError(
                f"{self._n_texts:,} texts are waiting, {n_texts:,} more were sent, and {limit:,} "
                "is the limit: try again after the seconds in Retry-After",
                self._retry_after_s(),
            )
        self._n_texts += n_texts
        self._requests_of[caller] += 1
        try:
            yield
        finally:
            self._n_texts -= n_texts
            self._requests_of[caller] -= 1
            if not self._requests_of[caller]:
                del self._requests_of[caller]
            self._changed.set()  # when it closes, the worker ends with the last place

    async def answers(self, items: Sequence[Item], n_tokens: Sequence[int], caller: str = "") -> list[Answer]:
        """Return the answers to items, in their order; call it inside `places`.

        A cancelled request leaves the queue, and so do the remaining items of a failed one.
        """
        entries = self._enter(items, n_tokens, max(1, self._requests_of[caller]))
        try:
            return await asyncio.gather(*(entry.answer for entry in entries))
        finally:
            for entry in entries:
                entry.answer.cancel()
                self._leave(entry)

    def _enter(self, items: Sequence[Item], n_tokens: Sequence[int], n_requests: int) -> list[_Waiting[Item, Answer]]:
        """Put a request's items in the queue; its caller has `n_requests`, each with its part of the share."""
        loop, request = asyncio.get_running_loop(), _Request(len(items))
        entries = [_Waiting(item, n, request, loop.create_future()) for item, n in zip(items, n_tokens, strict=True)]
        turn = self._turn + (n_requests - 1) * n_tokens[0]
        for entry in entries:
            heapq.heappush(self._waiting, (turn, next(self._arrivals), entry))
            turn += n_requests * entry.n_tokens
        self._n_tokens += sum(n_tokens)
        self._n_requests += 1
        self._changed.set()
        return entries

    def _leave(self, entry: _Waiting[Item, Answer]) -> Item | None:
        """Take an item out of all counts, and out of its entry; None if it has left before."""
        item, entry.item = entry.item, None
        if item is not None:
            self._n_tokens -= entry.n_tokens
            entry.request.n_waiting -= 1
            self._n_requests -= entry.request.n_waiting == 0
        return item

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while (
            self._n_requests or self._n_texts or not self._is_closing
        ):  # one with a place may still be on the way here
            if not self._n_requests:
                self._changed.clear()
                await self._changed.wait()
                continue
            await self._gathered()
            items, entries = self._batch()
            if entries:
                began = time.monotonic()
                try:
                    _answer(entries, await loop.run_in_executor(thread, self._work, items))
                except Exception as error:  # whatever it is: without this task nobody would be answered
                    _fail(entries, error)
                self._note((time.monotonic() - began) / len(entries))

    async def _gathered(self) -> None:
        """Wait until the next batch is full, as many requests wait as were answered last, or time is up.

        A lone caller never waits: the last batch had one request, and one is there.
        """
        until = time.monotonic() + self._limits.wait_s
        while self._n_tokens < self._limits.batch_tokens and self._n_requests < self._n_last and not self._is_closing:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _batch(self) -> tuple[list[Item], list[_Waiting[Item, Answer]]]:
        """Take the next batch: the first items whose tokens fit, at least one, without those that nobody waits for."""
        items, entries = list[Item](), list[_Waiting[Item, Answer]]()
        left = self._limits.batch_tokens
        while self._waiting and (not items or self._waiting[0][2].n_tokens <= left or self._waiting[0][2].item is None):
            turn, _, entry = heapq.heappop(self._waiting)
            if (item := self._leave(entry)) is not None:
                items.append(item)
                entries.append(entry)
                left -= entry.n_tokens
                self._turn = max(self._turn, turn)
        self._n_last = len({entry.request for entry in entries})
        return items, entries

    def _note(self, seconds: float) -> None:
        average = self._seconds_per_text
        self._seconds_per_text = seconds if not average else average + _MEMORY * (seconds - average)

    def _retry_after_s(self) -> int:
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._n_texts * self._seconds_per_text)))


def _answer(batch: Sequence[_Waiting[Item, Answer]], answers: Sequence[Answer]) -> None:
    for entry, answer in zip(batch, answers, strict=True):
        if not entry.answer.done():
            entry.answer.set_result(answer)


def _fail(batch: Sequence[_Waiting[Item, Answer]], error: Exception) -> None:
    for entry in batch:
        if not entry.answer.done():
            entry.answer.set_exception(error)
