"""Work on batches that a GPU does as one recorded graph per shape: small batches are bound by launches otherwise.

Owns what a shape is, the memory that a graph reads its batch from, and when one is recorded: at the second batch of
its shape, since the first one compiles kernels and sets up libraries, which cannot be recorded.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from submillion.errors import is_out_of_memory
from submillion.model.batching import Batch
from submillion.model.packed.layout import Layout, lay_out
from submillion.text import first_line

_MOST_GRAPHS = 96  # some MiB each; those not used for longest are dropped
_MOST_MEMORY = 0.5  # of the card, in use when another graph is recorded


@dataclass(frozen=True)
class _Shape:
    """What a graph is recorded for: the rows and texts of a layout, its longest text, and the work's own number."""

    n_rows: int
    n_texts: int
    longest: int
    number: int


@dataclass(frozen=True)
class _Flat:
    """A batch's integers in one array, int64, so that one copy takes them to the device."""

    shape: _Shape
    values: np.ndarray
    n_tokens: int

    @classmethod
    def of(cls, batch: Batch, number: int) -> _Flat:
        """Return those of a batch that is on the CPU."""
        layout = lay_out(batch.offsets, None, torch.device("cpu"))
        tokens = np.zeros((2, layout.n_rows), np.int64)
        tokens[0, : layout.n_tokens], tokens[1, : layout.n_tokens] = batch.tokens.numpy(), batch.token_types.numpy()
        parts = (layout.take, layout.positions, layout.bounds, layout.unsort, batch.label_ids)
        values = np.concatenate([*tokens, *(part.numpy() for part in parts)])
        return cls(_Shape(layout.n_rows, batch.n_rows, layout.longest, number), values, layout.n_tokens)

    def on(self, device: torch.device) -> torch.Tensor:
        """Return the values there, without waiting for the copy."""
        return torch.from_numpy(self.values).pin_memory().to(device, non_blocking=True)

    def batch(self, values: torch.Tensor, source: Batch) -> Batch:
        """Return the batch whose integers are `values` on a device; `source` has the rest."""
        rows, texts = self.shape.n_rows, self.shape.n_texts
        parts = values.split([rows, rows, rows, rows, texts + 1, texts, texts])
        tokens, types, take, positions, bounds, unsort, labels = parts
        layout = Layout(take, positions, bounds, unsort, self.n_tokens, self.shape.longest)
        return replace(source, tokens=tokens, token_types=types, label_ids=labels, layout=layout)


@dataclass(frozen=True)
class _Recorded:
    """A graph, and the batch in the memory that it reads."""

    graph: torch.cuda.CUDAGraph
    values: torch.Tensor
    batch: Batch

    def replay(self, flat: _Flat, batch: Batch) -> None:
        """Do the work on another batch of the shape."""
        self.values.copy_(torch.from_numpy(flat.values).pin_memory(), non_blocking=True)
        for name, there in _floats(self.batch).items():
            here = getattr(batch, name)
            there[: len(here)].copy_(here.pin_memory(), non_blocking=True)
        self.graph.replay()


class Recorder:
    """Records work on a device as graphs, which share their memory: they are replayed one after the other.

    Where work cannot be recorded, all goes on without graphs; `say` gets the reason once.
    """

    def __init__(self, device: torch.device, say: Callable[[str], object]) -> None:
        self.device, self.say = device, say
        self.is_able = True
        self._pool: Any = None  # one graph's memory is the next one's

    @property
    def has_room(self) -> bool:
        """Say whether another graph may be recorded: together they keep more memory than the largest alone needs."""
        total = torch.cuda.get_device_properties(self.device).total_memory
        return self.is_able and torch.cuda.memory_reserved(self.device) < _MOST_MEMORY * total

    def graph_of(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
        """Return work as a graph, None where that cannot be; nothing is computed. It must have been done before."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        state = generator.get_state()
        try:
            self._record(graph, work)
        except RuntimeError as error:
            # A recording that failed leaves a generator that waits for its end, and so does not draw any more.
            generator.graphsafe_set_state(generator.clone_state())
            if is_out_of_memory(error):
                raise
            self.is_able = False
            reason = first_line(error)
            self.say(f"steps cannot be recorded here ({reason}): kernels are launched one by one, which is slower")
            return None
        finally:
            generator.set_state(state)
        return graph

    def _record(self, graph: torch.cuda.CUDAGraph, work: Callable[[], object]) -> None:
        torch.cuda.synchronize()
        if self._pool is None:
            torch.cuda.empty_cache()  # what batches before this one left cannot be used by graphs
            self._pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=self._pool)
            try:
                work()
            except BaseException:
                with suppress(RuntimeError), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that the graph is empty
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)


class Replay:
    """Work that is the same each time: done, then recorded, then replayed. It must not wait for the device."""

    def __init__(self, work: Callable[[], object], recorder: Recorder) -> None:
        self._work, self._recorder = work, recorder
        self._is_done = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do the work."""
        if self._graph is None and self._is_done and self._recorder.is_able:
            self._graph = self._recorder.graph_of(self._work)
        if self._graph is None:
            self._is_done = True
            self._work()
        else:
            self._graph.replay()


class Replays:
    """`work(batch, number)` on batches in the packed pass, in tensors that stay; `number` is a part of the shape.

    The work must not wait for the device.
    """

    def __init__(self, work: Callable[[Batch, int], None], recorder: Recorder) -> None:
        self._work, self._recorder = work, recorder
        self._seen: set[_Shape] = set()
        self._recorded: OrderedDict[_Shape, _Recorded] = OrderedDict()

    @property
    def n_graphs(self) -> int:
        """Return the number of graphs that are kept."""
        return len(self._recorded)

    def __call__(self, batch: Batch, number: int) -> None:
        """Do the work on a batch that is on the CPU."""
        flat = _Flat.of(batch, number)
        if not self._recorder.is_able:
            self._recorded.clear()  # they draw by a generator that is not the device's any more
        elif flat.shape in self._seen and flat.shape not in self._recorded and self._recorder.has_room:
            self._keep(flat, batch)
        recorded = self._recorded.get(flat.shape)
        if recorded is None:
            self._seen.add(flat.shape)
            self._work(self._there(flat, batch)[1], number)
            return
        self._recorded.move_to_end(flat.shape)
        recorded.replay(flat, batch)

    def _there(self, flat: _Flat, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """The batch on the device, in memory for any of its shape, and its integers."""
        device = self._recorder.device
        values = flat.on(device)
        there = flat.batch(values, batch)
        for name, part in _floats(batch).items():
            n_rows = flat.shape.n_rows if name == "hidden" else flat.shape.n_texts
            rows = torch.zeros(n_rows, part.shape[1], dtype=part.dtype, device=device)
            rows[: len(part)].copy_(part.pin_memory(), non_blocking=True)
            there = replace(there, **{name: rows})
        return values, there

    def _keep(self, flat: _Flat, batch: Batch) -> None:
        values, there = self._there(flat, batch)
        try:
            graph = self._recorder.graph_of(lambda: self._work(there, flat.shape.number))
        except RuntimeError:  # out of memory
            self._recorded.clear()
            self._seen.clear()
            raise
        if graph is None:
            return
        if len(self._recorded) == _MOST_GRAPHS:
            self._recorded.popitem(last=False)
        self._recorded[flat.shape] = _Recorded(graph, values, there)


def _floats(batch: Batch) -> dict[str, torch.Tensor]:
    """What a batch has besides integers."""
    parts = {"teacher_logits": batch.teacher_logits, "hidden": batch.hidden}
    return {name: part for name, part in parts.items() if part is not None}
