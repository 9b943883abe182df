"""The limit: only the products of a training step that no implementation can leave out.

The frozen linear layers' forward and input-gradient products, replayed in the run's dtype at the row counts of
its batches, on CUDA as one graph for each row count: of the last layer's query, output and feed-forward only the
first token's; no gradient below the lowest adapted layer. Adapters, attention, norms, dropout and everything else are
not counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.contestants import Spec, place, settings
from benchmarks.material import LABELS, rows
from submillion import planning
from submillion.config import TrainConfig
from submillion.model.batching import training_order
from submillion.model.packed.layout import n_rows_for
from submillion.model.packed.weights import torch_product
from submillion.planning.architectures import Architecture

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_NUMBERS = 1 << 26  # 128 texts of 128 tokens, 3,072 wide


def steps(spec: Spec) -> Callable[[int], dict[str, int]]:
    """Return a function that replays training steps and returns their rows and tokens."""
    plan = planning.plan(settings(spec), len(LABELS))
    split = rows(spec.n_rows, 0, spec.length)
    batches = _forever(split.lengths, settings(spec).train)
    weights, device = _weights(plan.architecture, _DTYPES[spec.precision], place(spec)), place(spec)

    @functools.cache  # on the CPU, too, kernels are made for each number of rows
    def step(n_rows: int) -> Callable[[], object]:
        products = functools.partial(_step, weights, n_rows, spec.batch_size, min(plan.layers))
        products()
        return _graph(products).replay if device.type == "cuda" else products

    for order in training_order(split.lengths, settings(spec).train, 0):
        step(n_rows_for(int(split.lengths[order].sum()) + 1))

    def work(n_steps: int) -> dict[str, int]:
        n_tokens = 0
        for _ in range(n_steps):
            tokens = int(split.lengths[next(batches)].sum())
            step(n_rows_for(tokens + 1))()
            n_tokens += tokens
        return {"rows": n_steps * spec.batch_size, "tokens": n_tokens}

    return work


def _graph(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The work's kernels as one graph; what they write is shared by all graphs, which are replayed one by one."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool()):
        work()
    return graph


@functools.cache
def _pool() -> Any:
    return torch.cuda.graph_pool_handle()


def _forever(lengths: np.ndarray, train: TrainConfig) -> Iterator[np.ndarray]:
    epoch = 0
    while True:
        yield from training_order(lengths, train, epoch)
        epoch += 1


def _weights(arch: Architecture, dtype: torch.dtype, device: torch.device) -> list[list[torch.Tensor]]:
    """Query-key-value, attention output, feed-forward in and out of every layer; no two share memory."""
    width, inner = arch.width, arch.ffn_width
    shapes = [(3 * width, width), (width, width), (inner, width), (width, inner)]
    return [[torch.randn(shape, device=device).to(dtype) for shape in shapes] for _ in range(arch.n_layers)]


def _step(weights: list[list[torch.Tensor]], n_tokens: int, n_texts: int, lowest: int) -> None:
    for number, (attention, *rest) in enumerate(weights):
        is_last = number == len(weights) - 1
        query, keys_values = attention.tensor_split([attention.shape[1]])
        inputs = [(keys_values, n_tokens), (query, n_texts)] if is_last else [(attention, n_tokens)]
        outputs = [(weight, n_texts if is_last else n_tokens) for weight in rest]
        for weight, n_rows in inputs + outputs:
            torch_product(_filled(n_rows, weight.shape[1], weight), weight.t())
        for weight, n_rows in outputs * (number >= lowest) + inputs * (number > lowest):
            torch_product(_filled(n_rows, weight.shape[0], weight), weight)


@functools.cache
def _random(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(_MOST_NUMBERS, device=device).to(dtype)


def _filled(n_rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
    return _random(like.dtype, like.device)[: n_rows * width].view(n_rows, width)
