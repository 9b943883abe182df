"""Laws of the queue: everybody gets their own answer, in their order, whatever others do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submillion.serving.queue import FullError, Limits, Queue

Body = Callable[["Queue[int, str]", "Work"], Awaitable[None]]


class Work:
    """Answers an item with its text, notes the batches, and stops while `gate` is closed.

    -1 is a fault, -2 is left out.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[str]:
        self.gate.wait(10)
        self.batches.append(list(items))
        if -1 in items:
            raise RuntimeError("a fault")
        return [str(item) for item in items if item != -2]


def run(body: Body, limits: Limits | None = None) -> Work:
    """Run a body beside a queue."""
    work = Work()

    async def everything() -> None:
        queue: Queue[int, str] = Queue(work, limits or Limits(10, 0.0, 100))
        async with asyncio.timeout(10), queue.running():
            await body(queue, work)

    asyncio.run(asyncio.wait_for(everything(), 10))
    return work


async def ask(queue: Queue[int, str], items: Sequence[int], n_tokens: int = 1, caller: str = "") -> list[str]:
    with queue.places(len(items), caller):
        return await queue.answers(items, [n_tokens] * len(items), caller)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 15), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.002]),
)
def test_any_interleaving_gives_each_its_own_answers_in_order(requests: list, wait_s: float) -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        async def one(number: int, n_items: int, n_tokens: int, later: bool) -> None:
            if later:
                await asyncio.sleep(0.001)
            items = [100 * number + i for i in range(n_items)]
            assert await ask(queue, items, n_tokens) == [str(item) for item in items]

        await asyncio.gather(*(one(number, *each) for number, each in enumerate(requests)))
        assert queue.n_texts == 0

    work = run(body, Limits(10, wait_s, 1000))
    asked = [100 * number + i for number, each in enumerate(requests) for i in range(each[0])]
    assert sorted(item for batch in work.batches for item in batch) == asked
    sizes = {100 * number + i: each[1] for number, each in enumerate(requests) for i in range(each[0])}
    assert all(len(batch) == 1 or sum(sizes[item] for item in batch) <= 10 for batch in work.batches)


def test_texts_that_come_while_a_batch_is_computed_are_the_next_one() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        first = asyncio.create_task(ask(queue, [0]))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(ask(queue, [i])) for i in range(1, 6)]
        await asyncio.sleep(0.02)
        work.gate.set()
        await asyncio.gather(first, *others)

    assert run(body).batches == [[0], [1, 2, 3, 4, 5]]


def test_a_batch_waits_for_those_of_the_last_one_and_no_longer_than_it_may() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        first = asyncio.create_task(ask(queue, [0]))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(ask(queue, [i])) for i in (1, 2)]
        await asyncio.sleep(0.02)
        work.gate.set()
        await asyncio.gather(first, *others)
        again = asyncio.create_task(ask(queue, [3]))
        await asyncio.sleep(0.02)
        await asyncio.gather(again, ask(queue, [4]))  # both are back
        began = time.monotonic()
        await ask(queue, [5])  # the other is not
        assert time.monotonic() - began >= 0.2
        await ask(queue, [6])

    began = time.monotonic()
    assert run(body, Limits(10, 0.2, 100)).batches == [[0], [1, 2], [3, 4], [5], [6]]
    assert time.monotonic() - began < 2


def test_who_is_alone_waits_for_nobody() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        for item in range(3):
            await ask(queue, [item])  # or `run` would give up

    assert run(body, Limits(10, 60.0, 100)).batches == [[0], [1], [2]]


@pytest.mark.parametrize("callers", [("large", "small"), ("same", "same")])
def test_who_asks_for_little_does_not_wait_for_all_that_another_asked_for(callers: tuple[str, str]) -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        large = asyncio.create_task(ask(queue, range(100, 160), caller=callers[0]))
        await asyncio.sleep(0.02)
        small = asyncio.create_task(ask(queue, [1], caller=callers[1]))
        await asyncio.sleep(0.02)
        work.gate.set()
        await asyncio.gather(large, small)

    assert 1 in run(body).batches[1]


def test_many_requests_of_one_caller_count_as_one_against_anothers() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        many = [asyncio.create_task(ask(queue, [100 + i], caller="many")) for i in range(50)]
        await asyncio.sleep(0.02)
        few = asyncio.create_task(ask(queue, range(8), caller="few"))
        await asyncio.sleep(0.02)
        work.gate.set()
        await asyncio.gather(*many, few)

    batches = run(body).batches
    assert sum(item < 100 for batch in batches[1:4] for item in batch) == 8, batches


def test_a_caller_who_fills_the_queue_keeps_nobody_else_out() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        taken = asyncio.create_task(ask(queue, [1, 2, 3, 4], caller="large"))
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await ask(queue, [5], caller="large")
        other = asyncio.create_task(ask(queue, [5, 6], caller="small"))
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await ask(queue, [7, 8, 9], caller="third")
        work.gate.set()
        assert await taken + await other == ["1", "2", "3", "4", "5", "6"]

    run(body, Limits(10, 0.0, 4))


def test_a_full_batch_waits_for_nobody() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        await ask(queue, [3], n_tokens=10)  # or `run` would give up

    assert run(body, Limits(10, 60.0, 100)).batches == [[3]]


def test_a_full_queue_refuses_and_says_for_how_long() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        await ask(queue, [0, 1])
        work.gate.clear()
        taken = asyncio.create_task(ask(queue, [1, 2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(FullError, match="3 texts are waiting, 2 more were sent, and 4 is the limit") as refused:
            await ask(queue, [4, 5])
        assert 1 <= refused.value.retry_after_s <= 60
        work.gate.set()
        assert await taken == ["1", "2", "3"]
        assert await ask(queue, [4, 5, 6, 7]) == ["4", "5", "6", "7"]

    run(body, Limits(10, 0.0, 4))


def test_who_leaves_frees_the_places_and_harms_nobody() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        work.gate.clear()
        computed = asyncio.create_task(ask(queue, [0]))
        await asyncio.sleep(0.02)
        stays, leaves = asyncio.create_task(ask(queue, [1, 2])), asyncio.create_task(ask(queue, [3, 4, 5]))
        await asyncio.sleep(0.02)
        for gone in (computed, leaves):
            gone.cancel()
        await asyncio.sleep(0.02)
        assert queue.n_texts == 2
        work.gate.set()
        assert await stays == ["1", "2"]

    assert run(body).batches == [[0], [1, 2]]


@pytest.mark.parametrize(("item", "fault"), [(-1, RuntimeError), (-2, ValueError)])
def test_a_fault_is_told_to_its_batch_alone(item: int, fault: type[Exception]) -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        with pytest.raises(fault):
            await ask(queue, [item, 2])
        assert await ask(queue, [3]) == ["3"]

    run(body)


def test_what_is_left_of_a_failed_request_leaves_the_queue() -> None:
    async def body(queue: Queue[int, str], work: Work) -> None:
        with pytest.raises(RuntimeError, match="a fault"):
            await ask(queue, [-1, *range(10, 20)], n_tokens=10)  # each a batch
        assert await ask(queue, [3]) == ["3"]

    assert [19] not in run(body).batches


def test_what_was_taken_is_answered_at_the_end_and_nothing_after_it() -> None:
    async def everything() -> None:
        queue: Queue[int, str] = Queue(Work(), Limits(2, 60.0, 100))
        async with queue.running():
            taken = [asyncio.create_task(ask(queue, [i, i])) for i in range(5)]
            late = asyncio.create_task(ask(queue, [9]))  # would wait for others to join it
            await asyncio.sleep(0)
        assert await asyncio.gather(*taken, late) == [[str(i)] * 2 for i in range(5)] + [["9"]]
        with pytest.raises(FullError, match="stopping"):
            await ask(queue, [1])

    asyncio.run(asyncio.wait_for(everything(), 10))


def test_who_has_a_place_at_the_end_is_answered_when_they_come_to_the_queue() -> None:
    async def everything() -> None:
        queue: Queue[int, str] = Queue(Work(), Limits(10, 0.0, 100))
        ready = asyncio.Event()

        async def slow() -> list[str]:
            with queue.places(1):  # and then a run is loaded, and texts are cut into tokens
                await ready.wait()
                return await queue.answers([7], [1])

        async with queue.running():
            taken = asyncio.create_task(slow())
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, ready.set)
        assert await taken == ["7"]

    asyncio.run(asyncio.wait_for(everything(), 10))
