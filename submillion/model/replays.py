"""Work that a GPU does as recorded graphs: small batches are otherwise bound by kernel launches.

Owns the shapes of batches, the memory that a graph reads its batch from, when a graph is recorded (at the second batch
of its shape: the first compiles kernels and sets up libraries, which cannot be recorded), and when no more are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from submillion.model.batching import Batch, on_device, pinned
from submillion.model.packed.layout import Layout, lay_out
from submillion.text import first_line

_MOST_GRAPHS = 96  # some MiB each; batches cut by tokens have more shapes than that, most of them rare
_MOST_MEMORY = 0.5  # of the card; no graph is recorded while more is in use


@dataclass(frozen=True)
class _Shape:
    """What a graph is recorded for: a layout's rows and texts, its longest text, the sizes of label ids (C for several
    labels, none for one), and the batch's texts if the layout's texts are their windows."""

    n_rows: int
    n_texts: int
    longest: int
    label_sizes: tuple[int, ...] = ()
    n_whole_texts: int | None = None

    @property
    def parts(self) -> list[int]:
        """Return how many integers there are of each kind."""
        n_labels = self.n_texts if self.n_whole_texts is None else self.n_whole_texts
        n_counts = self.n_whole_texts or 0
        return [*4 * [self.n_rows], self.n_texts + 1, self.n_texts, n_labels * math.prod(self.label_sizes), n_counts]


@dataclass(frozen=True)
class _Integers:
    """A batch's integers in one array, int64, so that one copy takes them to the device."""

    shape: _Shape
    values: np.ndarray
    n_tokens: int

    @classmethod
    def of(cls, batch: Batch) -> _Integers:
        """Return the integers of a batch on the CPU."""
        layout = lay_out(batch.offsets, None, torch.device("cpu"), is_recorded=True)
        tokens = np.zeros((2, layout.n_rows), np.int64)
        tokens[0, : layout.n_tokens], tokens[1, : layout.n_tokens] = batch.tokens.numpy(), batch.token_types.numpy()
        parts = [layout.take, layout.positions, layout.bounds, layout.unsort, batch.label_ids.flatten()]
        n_texts, n_whole = layout.unsort.numel(), None
        if batch.n_windows is not None:
            parts.append(batch.n_windows)
            n_whole = batch.n_rows
        values = np.concatenate([*tokens, *(part.numpy() for part in parts)])
        shape = _Shape(layout.n_rows, n_texts, layout.longest, tuple(batch.label_ids.shape[1:]), n_whole)
        return cls(shape, values, layout.n_tokens)

    def batch(self, values: torch.Tensor, source: Batch) -> Batch:
        """Return the batch whose integers are `values` on a device; `source` has the rest."""
        tokens, types, take, positions, bounds, unsort, labels, counts = values.split(self.shape.parts)
        layout = Layout(take, positions, bounds, unsort, self.n_tokens, self.shape.longest)
        return replace(
            source,
            tokens=tokens,
            token_types=types,
            label_ids=labels.view(source.n_rows, *self.shape.label_sizes),
            layout=layout,
            n_windows=None if source.n_windows is None else counts,
        )


@dataclass(frozen=True)
class _Recorded:
    """A graph; if it works on batches, the batch in the memory that it reads, and its integers."""

    graph: Any
    values: torch.Tensor | None = None
    batch: Batch | None = None

    def read(self, integers: _Integers, batch: Batch) -> None:
        """Replace the batch by another of the same shape."""
        assert self.values is not None
        assert self.batch is not None
        self.values.copy_(pinned(torch.from_numpy(integers.values), self.values.device), non_blocking=True)
        for name, target in _floats(self.batch).items():
            source = getattr(batch, name)
            target[: len(source)].copy_(pinned(source, target.device), non_blocking=True)


class Recorder:
    """Does work on one device and records it, as graphs that share their memory and are replayed one after the other.

    The work must not wait for the device, and must keep its results in tensors that persist. Work on batches uses the
    packed pass; in a replay the batch's tensors are current, but `offsets`, `example_ids` and `layout.n_tokens` are
    those of the recorded batch. If work cannot be recorded, it runs without graphs; `say` gets the reason once.
    """

    def __init__(self, device: torch.device, say: Callable[[str], object]) -> None:
        self.device, self.say = device, say
        self.is_able = True
        self._seen: set[Hashable] = set()
        self._recorded: dict[Hashable, _Recorded] = {}
        self._pool: Any = None  # graphs share it, on one stream: memory blocks stay with their stream
        self._stream: Any = None

    @property
    def n_graphs(self) -> int:
        """Return the number of graphs that are kept."""
        return len(self._recorded)

    def forget(self) -> bool:
        """Give up all graphs and their memory, and record no more; return whether there were any."""
        had_any, self.is_able = bool(self._recorded), False
        self._recorded.clear()
        self._pool = None
        if had_any:
            torch.cuda.empty_cache()
        return had_any

    def run(self, work: Callable[[], None]) -> None:
        """Run work that is the same each time."""
        if "work" not in self._recorded and self._may_record("work"):
            self._record("work", _Recorded(None), work)
        recorded = self._recorded.get("work")
        if recorded is not None:
            recorded.graph.replay()
            return
        self._seen.add("work")
        with warnings.catch_warnings():  # the first time is not recorded; torch warns about that
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            work()

    def run_on(self, batch: Batch, work: Callable[[Batch], None]) -> None:
        """Run work, the same each time, on a batch from the CPU."""
        integers = _Integers.of(batch)
        shape = integers.shape
        if shape not in self._recorded and self._may_record(shape):
            values, device_batch = self._there(integers, batch)
            self._record(shape, _Recorded(None, values, device_batch), lambda: work(device_batch))
        recorded = self._recorded.get(shape)
        if recorded is None:
            self._seen.add(shape)
            work(self._there(integers, batch)[1])
            return
        recorded.read(integers, batch)
        recorded.graph.replay()

    def _may_record(self, key: Hashable) -> bool:
        return self.is_able and key in self._seen and self.n_graphs < _MOST_GRAPHS and _has_room(self.device)

    def _there(self, integers: _Integers, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """Return a batch's integers, and the batch on the device, in memory for any of its shape."""
        values = on_device(torch.from_numpy(integers.values), self.device)
        device_batch = integers.batch(values, batch)
        for name, part in _floats(batch).items():
            n_rows = integers.shape.n_rows if name == "hidden" else batch.n_rows
            rows = torch.zeros(n_rows, part.shape[1], dtype=part.dtype, device=self.device)
            rows[: len(part)].copy_(pinned(part, self.device), non_blocking=True)
            device_batch = replace(device_batch, **{name: rows})
        return values, device_batch

    def _record(self, key: Hashable, recorded: _Recorded, work: Callable[[], None]) -> None:
        """Keep work as a graph, without computing it; if that fails, also for lack of memory, give up graphs."""
        try:
            self._recorded[key] = replace(recorded, graph=self._graph_of(work))
        except RuntimeError as error:
            reason = first_line(error)
            self.forget()
            self.say(f"steps cannot be recorded here ({reason}): kernels are launched one by one, which is slower")

    def _graph_of(self, work: Callable[[], None]) -> Any:
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state = generator.get_state()
        torch.cuda.synchronize()
        if self._pool is None:
            torch.cuda.empty_cache()  # graphs cannot use the memory that earlier batches left
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):  # a recording ends on the stream on which it began, or never
                _capture(graph, self._pool, work)
        except BaseException:
            # The generator waits for the recording's end and draws no more; a new state waits for nothing.
            generator.graphsafe_set_state(generator.clone_state())
            raise
        finally:
            generator.set_state(state)
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph


def _capture(graph: Any, pool: Any, work: Callable[[], None]) -> None:
    """Record work, and end the recording even if the work fails.

    torch registers the graph with the generator before it allocates two numbers: if it could not, the graph could not
    be freed, and the process would end. So they are allocated here first, where failure is an error.
    """
    room = [torch.empty((), dtype=torch.int64, device="cuda") for _ in range(2)]
    del room
    graph.capture_begin(pool=pool)
    try:
        work()
    except BaseException:
        with suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the graph is empty
            graph.capture_end()
        raise
    graph.capture_end()


def _has_room(device: torch.device) -> bool:
    """Return whether another graph may be recorded: together they keep more memory than the largest alone needs."""
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.memory_reserved(device) < _MOST_MEMORY * total


def _floats(batch: Batch) -> dict[str, torch.Tensor]:
    """Return a batch's tensors other than integers."""
    parts = {"teacher_logits": batch.teacher_logits, "hidden": batch.hidden}
    return {name: part for name, part in parts.items() if part is not None}
