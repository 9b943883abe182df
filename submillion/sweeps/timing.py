"""How long trials take: products per token from the plan's shapes, times rows, over a measured speed.

The speed is that of finished runs with the same encoder, else of a short matrix product: an estimate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from submillion import data, planning, runs
from submillion.config import Config, DataConfig
from submillion.data import Example, Splits, sources
from submillion.data.long_texts import Reading
from submillion.errors import SubmillionError
from submillion.planning import Plan
from submillion.runs import EvalRecord, Run
from submillion.training import steps

_ASSUMED_ROWS, _ASSUMED_TOKENS, _ASSUMED_CLASSES = 100_000, 50.0, 4
_CHARACTERS_PER_TOKEN = 4.3  # of English, in BERT's and RoBERTa's vocabularies; two special tokens come on top
_N_SPECIAL = 2
_PROBE_WIDTH = 768
_PROBE_S = 0.2


@dataclass(frozen=True)
class Size:
    """How large the data is: rows of the splits, mean tokens per row, classes C, and how this is known."""

    n_train: int
    n_validation: int
    tokens_per_row: float
    n_classes: int
    sentence: str


@dataclass(frozen=True)
class Speed:
    """Floating-point operations per second, and where the number comes from."""

    flops_per_s: float
    sentence: str


def size_of(settings: DataConfig) -> Size:
    """Return the size of the data, without network access; a Hub data set's is assumed."""
    if settings.source and sources.kind_of(settings.source) != "hub":
        return counted(data.read(settings))
    validation = settings.validation
    share = 0.1 if isinstance(validation, str) else validation
    n_validation = int(share if share >= 1 else share * _ASSUMED_ROWS)
    sentence = (
        f"{_ASSUMED_ROWS:,} rows of {_ASSUMED_TOKENS:.0f} tokens and {_ASSUMED_CLASSES} classes, which are assumed: "
        f"{settings.source} is not on this machine"
    )
    return Size(_ASSUMED_ROWS, n_validation, _ASSUMED_TOKENS, _ASSUMED_CLASSES, sentence)


def counted(splits: Splits) -> Size:
    """Return the size of data that was read; tokens are estimated from characters."""
    tokens, n_train = _tokens_per_row(splits.train), len(splits.train)
    sentence = f"{n_train:,} training rows of about {tokens:.0f} tokens"
    return Size(n_train, len(splits.validation), tokens, len(splits.labels), sentence)


def _tokens_per_row(examples: Sequence[Example]) -> float:
    characters = sum(len(example.text) + len(example.text_pair or "") for example in examples)
    return _N_SPECIAL + characters / _CHARACTERS_PER_TOKEN / len(examples)


def flops(settings: Config, plan: Plan, size: Size) -> float:
    """Return the floating-point operations of one run: trained rows, and validation rows at each evaluation."""
    rows = settings.data.train_rows
    n_rows = size.n_train if rows is None else int(rows if rows >= 1 else rows * size.n_train)
    n_variants = 1
    if settings.augmentation.kind is not None and settings.augmentation.placement == "beside":
        n_variants += settings.augmentation.copies
    tokens = float(Reading.of(settings.model).n_read(np.array(round(size.tokens_per_row)), _N_SPECIAL))
    lengths = np.full(max(1, n_rows) * n_variants, round(tokens), dtype=np.int64)
    length = steps.length(settings.train, lengths, size.n_validation)
    n_trained = length.n_steps / length.n_epoch_steps * len(lengths) * tokens
    n_evaluated = -(-length.n_steps // length.evaluate_every) * size.n_validation * tokens
    return n_trained * per_trained_token(plan) + n_evaluated * per_read_token(plan)


def per_read_token(plan: Plan) -> float:
    """Return the operations of a forward pass for a token: two for each weight of the layers."""
    arch = plan.architecture
    per_layer = 4 * arch.width**2 + 2 * arch.width * arch.ffn_width
    return 2.0 * per_layer * (arch.n_layers - plan.n_prefix_layers)


def per_trained_token(plan: Plan) -> float:
    """Return the operations of a step for a token: forward, and backward down to the lowest layer that trains.

    The gradients of frozen weights are not computed; adapters, attention and the head are left out.
    """
    arch = plan.architecture
    per_layer = 2.0 * (4 * arch.width**2 + 2 * arch.width * arch.ffn_width)
    if plan.method == "none":
        return 3 * per_layer * arch.n_layers
    lowest = 0 if plan.bias == "all" else min(plan.layers)
    return per_read_token(plan) + per_layer * (arch.n_layers - lowest)


def speed(out: str, model: str) -> Speed:
    """Return the speed of this encoder's finished runs in `out`, else that of a matrix product, measured now."""
    measurements = [each for run in runs.list_runs(out) if run.is_done and (each := measured(run, model)) is not None]
    if measurements:
        n_flops, seconds = (sum(each) for each in zip(*measurements, strict=True))
        return Speed(n_flops / seconds, f"the speed of {len(measurements)} finished runs of {model} in {out}")
    return Speed(_probe(), "the speed of a product of matrices in float32, measured now; real steps are often slower")


def measured(run: Run, model: str | None = None) -> tuple[float, float] | None:
    """Return the operations and the seconds of a run's training; None if it is another encoder's, or damaged."""
    try:
        if model is not None and run.config().model.name != model:
            return None
        plan = planning.from_json((run.path / "plan.json").read_text(encoding="utf-8"))
        records = run.records()
        tokens = sum(record.tokens for record in records)
        seconds = sum(record.seconds for record in records if not isinstance(record, EvalRecord))
    except (SubmillionError, OSError):
        return None
    return (tokens * per_trained_token(plan), seconds) if tokens and seconds else None


def _probe() -> float:
    a = np.ones((_PROBE_WIDTH, _PROBE_WIDTH), dtype=np.float32)
    np.dot(a, a)  # the first product starts threads
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < _PROBE_S:
        np.dot(a, a)
        n += 1
    return n * 2 * _PROBE_WIDTH**3 / (time.perf_counter() - started)
