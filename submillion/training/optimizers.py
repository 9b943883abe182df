"""Parameter groups, optimisers and learning-rate schedules.

A schedule is a pure function of the step, so resuming needs only the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from submillion.config import TrainConfig

_POLYNOMIAL_END = 1e-7  # the final learning rate of transformers' polynomial schedule, which the studies used
_WARMUP_NOT_STARTED = 1  # warm-up starts at 1 / n, not at 0: a first step that changes nothing is wasted


def build(
    adapter: Mapping[str, nn.Parameter],
    head: Mapping[str, nn.Parameter],
    train: TrainConfig,
    recorded: torch.device | None = None,
) -> torch.optim.Optimizer:
    """Return the optimiser over up to four groups: adapter and head, each with and without weight decay.

    Vectors (biases, norms, magnitudes) and the scales of IA3 and AdaLoRA do not decay. Each group holds its peak rate
    as `peak`. `recorded`: the device on which AdamW's steps are recorded, and its rates must be.
    """
    groups = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for by_name, rate in ((adapter, train.learning_rate), (head, train.head_learning_rate or train.learning_rate))
        for parameters, decay in (
            ([p for name, p in by_name.items() if _decays(name, p)], train.weight_decay),
            ([p for name, p in by_name.items() if not _decays(name, p)], 0.0),
        )
        if parameters
    ]
    match train.optimizer:
        case "adamw":
            if recorded is not None:
                groups = [{**group, "lr": torch.tensor(group["lr"], device=recorded)} for group in groups]
            # Fused takes a fifth of the time for many small tensors.
            return torch.optim.AdamW(groups, fused=True, capturable=recorded is not None)
        case "sgd":
            return torch.optim.SGD(groups, momentum=train.momentum)
        case "rmsprop":
            return torch.optim.RMSprop(groups, momentum=train.momentum)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """IA3's scales start at 1 and AdaLoRA's are singular values: both are vectors, kept by PEFT as matrices."""
    return parameter.ndim > 1 and not {"ia3_l", "lora_E"} & set(name.split("."))


def set_learning_rate(optimizer: torch.optim.Optimizer, train: TrainConfig, step: int, n_steps: int) -> float:
    """Set every group's rate for `step` (1 to n_steps) and return the adapters' (the first group's)."""
    factor = rate_factor(train, step, n_steps)
    for group in optimizer.param_groups:
        rate = group["peak"] * factor
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return float(optimizer.param_groups[0]["peak"] * factor)


def warmup_steps(train: TrainConfig, n_steps: int) -> int:
    """Return the steps of rising learning rate: `warmup` itself, or that share of all steps, rounded up."""
    return math.ceil(train.warmup * n_steps) if train.warmup < 1 else int(train.warmup)


def rate_factor(train: TrainConfig, step: int, n_steps: int) -> float:
    """Return the share of the peak learning rate at `step`, 1 to n_steps.

    Shapes as in transformers 5.23 `optimization.py`, one step later: there the first step of a
    warm-up has rate 0. cosine-restarts is SGDR with equal cycles (Loshchilov & Hutter 2017, §3).
    """
    done, warmup = step - 1, warmup_steps(train, n_steps)
    if done < warmup:
        return (done + _WARMUP_NOT_STARTED) / (warmup + _WARMUP_NOT_STARTED)
    progress = (done - warmup) / max(1, n_steps - warmup)
    match train.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "cosine-restarts":
            return 0.5 * (1.0 + math.cos(math.pi * (train.cycles * progress % 1.0)))
        case "polynomial":
            end = min(1.0, _POLYNOMIAL_END / train.learning_rate)
            return (1.0 - end) * (1.0 - progress) ** train.power + end
