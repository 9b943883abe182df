"""Models with adapters for tests: every family with every head it may have, and every way to adapt it."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from submillion import planning
from submillion.model import adapters, backbone
from submillion.planning import Plan, architectures
from tests.kit.architectures import REFUSES_LINEAR
from tests.tiny import FAMILIES, PADDED, settings

LABELS = ("bad", "fine", "good")
HEADS = [
    (family, head)
    for family in (*FAMILIES, "camembert", *PADDED)
    for head in ("full", "linear", "bottleneck")
    if not (head == "linear" and family in REFUSES_LINEAR) and (head == "full" or family != "nomic_bert")
]
FUSED = ("modernbert",)  # some of query, key and value are not to be had; nor biases
SEPARATE = tuple(family for family in FAMILIES if family not in FUSED)
METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"method": "dora"},
    "adalora": {"method": "adalora"},
    "ia3": {"method": "ia3"},
    "rslora": {"rslora": True, "sites": ("query", "ffn_out"), "rank": {"query": 2, "ffn_out": 3}},
    "bias-all": {"bias": "all", "layers": "top:1"},
    "bias-lora-only": {"bias": "lora_only", "sites": ("value", "attention_output")},
    "adalora-bias-all": {"method": "adalora", "bias": "all"},
    "gaussian": {"init": "gaussian"},
    "orthogonal": {"init": "orthogonal"},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora", "rslora": True, "sites": ("key", "ffn_in"), "rank": {"key": 2, "ffn_in": 5}},
}


def can_have(family: str, method: str) -> bool:
    """Whether a family can be adapted in a way of `METHODS`."""
    wishes = METHODS.get(method, {})
    parts = {"query", "key", "value"} & set(wishes.get("sites", ()))
    no_biases = family in ("modernbert", "nomic_bert")
    return not (parts and family in FUSED) and not (no_biases and wishes.get("bias", "none") != "none")


@cache
def stock_model(encoder: Path) -> tuple[nn.Module, frozenset[str]]:
    """The stock classifier of an encoder, loaded once; copy it before changing it."""
    return backbone.load_model(architectures.load(str(encoder)), LABELS, seed=1)


def adapted(
    encoder: Path, head: str = "full", total_steps: int = 20, seed: int = 0, **adapter: Any
) -> tuple[nn.Module, Plan]:
    """A freshly injected model in evaluation mode, and its plan; `adapter` are keys of that section."""
    config = settings(encoder, head, **adapter)
    plan = planning.plan(config, len(LABELS))
    model = adapters.inject(copy.deepcopy(stock_model(encoder)[0]), plan, config.adapter, total_steps, seed)
    return model.eval(), plan


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with noise added to all that trains, as if it had been trained; some of AdaLoRA's ranks pruned.

    Of these one layer has none left, and the others keep every second one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.trainable_parameters(model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for number, (name, parameter) in enumerate(adapters.trainable_parameters(model).items()):
            if "lora_E" in name:
                parameter[:: 1 if number < 3 else 2] = 0
    return model
