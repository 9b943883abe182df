"""Laws of the schedules and parameter groups; shapes compared with transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from submillion import config
from submillion.config import TrainConfig
from submillion.training import optimizers

N_STEPS = 50
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "cosine": ("cosine", {}),
    "cosine-restarts": ("cosine_with_restarts", {"num_cycles": 3}),
    "polynomial": ("polynomial", {"power": 2.0, "lr_end": 1e-7}),
    "constant": ("constant_with_warmup", {}),
}


def settings(*overrides: str) -> TrainConfig:
    return config.load(overrides=[f"train.{override}" for override in overrides]).train


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warmup_the_rate_is_transformers_own(schedule: str) -> None:
    train = settings(f"schedule={schedule}", "cycles=3", "power=2", "warmup=10", "learning_rate=1e-3")
    name, extra = SCHEDULES[schedule]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=train.learning_rate)
    theirs = get_scheduler(name, optimizer, 10, N_STEPS, scheduler_specific_kwargs=extra)
    for done in range(N_STEPS):
        if done >= 10:
            ours = optimizers.rate_factor(train, done + 1, N_STEPS) * train.learning_rate
            assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 0.06, 0.5, 10, 100])
def test_the_rate_rises_to_its_peak_and_every_step_changes_something(schedule: str, warmup: float) -> None:
    train = settings(f"schedule={schedule}", f"warmup={warmup}")
    factors = [optimizers.rate_factor(train, step, N_STEPS) for step in range(1, N_STEPS + 1)]
    rising = factors[: min(N_STEPS, optimizers.warmup_steps(train, N_STEPS))]
    assert rising == sorted(rising)
    assert all(0 < factor <= 1 for factor in factors)


def test_polynomial_of_power_one_is_linear() -> None:
    linear, polynomial = settings("schedule=linear"), settings("schedule=polynomial", "power=1")
    for step in range(1, N_STEPS + 1):
        ours = optimizers.rate_factor(polynomial, step, N_STEPS)
        assert ours == pytest.approx(optimizers.rate_factor(linear, step, N_STEPS), abs=3e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_groups_hold_each_parameter_once_with_its_rate_and_decay(name: str) -> None:
    train = settings(f"optimizer={name}", "learning_rate=1e-3", "head_learning_rate=1e-2", "weight_decay=0.1")
    adapter = {
        "lora_A.default.weight": nn.Parameter(torch.ones(1, 4)),
        "lora_E.default": nn.Parameter(torch.ones(3, 1)),
    }
    head = {"w": nn.Parameter(torch.ones(2, 3)), "b": nn.Parameter(torch.ones(2))}
    optimizer = optimizers.build(adapter, head, train)
    rate = optimizers.set_learning_rate(optimizer, train, 4, N_STEPS)
    seen = {
        id(p): (group["lr"] / rate, group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(seen) == 4
    found = [seen[id(p)] for p in (*adapter.values(), *head.values())]
    for (ratio, decay), expected in zip(found, [(1, 0.1), (1, 0.0), (10, 0.1), (10, 0.0)], strict=True):
        assert (ratio, decay) == (pytest.approx(expected[0]), expected[1])
