"""The limit: only the products of a training step that no implementation can leave out.

The frozen linear layers' forward and input-gradient products, replayed in the run's dtype at the row counts of
its batches: of the last layer's query, output and feed-forward only the first token's; no gradient below the
lowest adapted layer. Adapters, attention, norms, dropout and everything else count as nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.contestants import Spec, settings
from benchmarks.material import LABELS, rows
from submillion import planning
from submillion.config import TrainConfig
from submillion.model.batching import training_order
from submillion.model.packed.layout import n_rows_for
from submillion.model.packed.weights import torch_product
from submillion.planning.architectures import Architecture


def steps(spec: Spec) -> Callable[[int], dict[str, int]]:
    """Return what replays a number of training steps and returns their rows and tokens."""
    plan = planning.plan(settings(spec), len(LABELS))
    dtype = torch.bfloat16 if spec.precision == "bf16" else torch.float32
    split = rows(spec.n_rows, 0, spec.length)
    batches = _forever(split.lengths, settings(spec).train)
    weights = _weights(plan.architecture, dtype)
    for order in training_order(split.lengths, settings(spec).train, 0):  # kernels are made for each number of rows
        _step(weights, int(split.lengths[order].sum()), spec.batch_size, min(plan.layers))

    def work(n_steps: int) -> dict[str, int]:
        n_tokens = 0
        for _ in range(n_steps):
            tokens = int(split.lengths[next(batches)].sum())
            _step(weights, tokens, spec.batch_size, min(plan.layers))
            n_tokens += tokens
        return {"rows": n_steps * spec.batch_size, "tokens": n_tokens}

    return work


def _forever(lengths: np.ndarray, train: TrainConfig) -> Iterator[np.ndarray]:
    epoch = 0
    while True:
        yield from training_order(lengths, train, epoch)
        epoch += 1


def _weights(arch: Architecture, dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """Query-key-value, attention output, feed-forward in and out of every layer; no two share memory."""
    width, inner = arch.width, arch.ffn_width
    shapes = [(3 * width, width), (width, width), (inner, width), (width, inner)]
    return [[torch.randn(shape).to(dtype) for shape in shapes] for _ in range(arch.n_layers)]


def _step(weights: list[list[torch.Tensor]], n_tokens: int, n_texts: int, lowest: int) -> None:
    n_tokens = n_rows_for(n_tokens + 1)
    for number, (attention, *rest) in enumerate(weights):
        is_last = number == len(weights) - 1
        query, keys_values = attention.tensor_split([attention.shape[1]])
        inputs = [(keys_values, n_tokens), (query, n_texts)] if is_last else [(attention, n_tokens)]
        outputs = [(weight, n_texts if is_last else n_tokens) for weight in rest]
        for weight, n_rows in inputs + outputs:
            torch_product(_filled(n_rows, weight.shape[1], weight.dtype), weight.t())
        for weight, n_rows in outputs * (number >= lowest) + inputs * (number > lowest):
            torch_product(_filled(n_rows, weight.shape[0], weight.dtype), weight)


@functools.cache
def _random(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(1 << 24).to(dtype)


def _filled(n_rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return _random(dtype)[: n_rows * width].view(n_rows, width)
