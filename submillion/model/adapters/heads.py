"""The head's three kinds, built inside the stock head so that a stock class reloads each exactly.

A stock head is a dense layer, an activation and a last layer. Owns which of its parameters train, the low-rank dense
layer of `bottleneck`, and the head's forward pass. PEFT keeps a copy of each head module; this module is about the
copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from submillion.config import Head
from submillion.planning.architectures import FAMILIES, Architecture
from submillion.planning.architectures.built import head_modules, last_layer_name


class Bottleneck(nn.Module):
    """A dense layer whose weight is W0 + UV: W0 [D, D] is frozen; u [D, b], v [b, D] and bias [D], if any, train.

    It starts at W0, since u is 0. Its forward pass multiplies with the sum, so that an ordinary dense
    layer that holds `weight` gives the same output.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, width: int) -> None:
        super().__init__()
        d_out, d_in = weight.shape
        self.frozen = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.u = nn.Parameter(torch.zeros(d_out, width))
        self.v = nn.Parameter(torch.empty(width, d_in))
        nn.init.kaiming_uniform_(self.v, a=math.sqrt(5))

    @property
    def weight(self) -> torch.Tensor:
        """Return W0 + UV, [D, D]."""
        return self.frozen + self.u @ self.v

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [B, D] through the layer."""
        return F.linear(x, self.weight, self.bias)

    def folded(self) -> nn.Linear:
        """Return the ordinary dense layer that computes the same."""
        d_out, d_in = self.frozen.shape
        dense = nn.Linear(d_in, d_out, bias=self.bias is not None, device=self.frozen.device)
        dense.weight.data.copy_(self.weight)
        if self.bias is not None:
            dense.bias.data.copy_(self.bias)
        return dense

    def unfold(self, weight: torch.Tensor) -> None:
        """Take u and v from a dense layer's weight of W0 + UV, as the best factors of its difference from W0."""
        left, scales, right = torch.linalg.svd(weight - self.frozen)
        roots = scales[: self.u.shape[1]].sqrt()
        with torch.no_grad():
            self.u.copy_(left[:, : len(roots)] * roots)
            self.v.copy_(roots[:, None] * right[: len(roots)])


def build(model: PreTrainedModel, head: Head, width: int | None) -> None:
    """Make the copied head modules of `model` into a head of this kind; `width` is the bottleneck's.

    The dense layer starts at the identity, unless it is full or the checkpoint has it (BERT's pooler).
    """
    if head == "full":
        return
    parent, name = _dense_place(model)
    dense = getattr(parent, name)
    if not FAMILIES[model.config.model_type].pretrained:
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)
    if head == "bottleneck":
        assert width is not None
        setattr(parent, name, Bottleneck(dense.weight, dense.bias, width))


def trained(model: PreTrainedModel, head: Head) -> Iterator[nn.Parameter]:
    """Yield the parameters of the built head that train."""
    match head:
        case "full":
            for name in head_modules(model):
                yield from copy_of(model.get_submodule(name)).parameters()
        case "linear":
            yield from last_layer(model).parameters()
        case "bottleneck":
            dense = dense_layer(model)
            yield from (parameter for name, parameter in dense.named_parameters() if name != "frozen")
            yield from last_layer(model).parameters()


def take(model: PreTrainedModel, saved: Mapping[str, torch.Tensor]) -> None:
    """Copy a saved head's weights, by their full names in a stock model, into what trains of the head.

    What is frozen stays unchanged, and a bottleneck takes what its width can hold.
    """
    for name in head_modules(model):
        for inner, module in copy_of(model.get_submodule(name)).named_modules(prefix=name):
            if isinstance(module, Bottleneck):
                module.unfold(saved[f"{inner}.weight"])
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad and (full := f"{inner}.{key}") in saved:
                    parameter.copy_(saved[full])


def dense_layer(model: PreTrainedModel) -> nn.Module:
    """Return the head's dense layer: an nn.Linear [D, D], or a `Bottleneck`."""
    parent, name = _dense_place(model)
    return getattr(parent, name)


def last_layer(model: PreTrainedModel) -> nn.Linear:
    """Return the head's last layer, [C, D]; PEFT's copy of it if there is one."""
    name = last_layer_name(model, int(model.config.num_labels or 0))
    assert name is not None, "an encoder without one is refused when it is planned"
    return cast("nn.Linear", model.get_submodule(name))


def copy_of(module: nn.Module) -> nn.Module:
    """Return PEFT's copy of a module that it saves; any other module itself."""
    return module.modules_to_save["default"] if isinstance(module, ModulesToSaveWrapper) else module


def unwrap(model: nn.Module) -> None:
    """Replace PEFT's wrapper of each saved module by the copy that trained (its own merge of IA3 fails at this)."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, copy_of(module))


def fold(model: nn.Module) -> None:
    """Replace every `Bottleneck` inside the model by the ordinary dense layer that computes the same."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Bottleneck):
                setattr(module, name, child.folded())


def folded_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the model's state dict with each bottleneck's entries replaced by an ordinary dense layer's."""
    state = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, Bottleneck):
            saved = name.replace(".modules_to_save.default", "")
            for entry in ("frozen", "u", "v"):
                del state[f"{saved}.{entry}"]
            state[f"{saved}.weight"] = module.weight.detach()
    return state


def head_logits(model: PreTrainedModel, architecture: Architecture, first: torch.Tensor) -> torch.Tensor:
    """Return the stock head's logits [B, C] for the first tokens' hidden states [B, D], float32 all the way.

    If ModernBERT pools by the mean, these are the means.
    """
    stock: Any = model
    first = first.float()
    match architecture.family:
        case "bert":
            return stock.classifier(stock.dropout(stock.bert.pooler(first[:, None])))
        case "distilbert":
            return stock.classifier(stock.dropout(F.relu(stock.pre_classifier(first))))
        case "modernbert":
            return stock.classifier(stock.drop(stock.head(first)))
        case "deberta-v2":
            return stock.classifier(stock.dropout(stock.pooler(first[:, None])))
        case "albert":
            return stock.classifier(stock.dropout(stock.albert.pooler_activation(stock.albert.pooler(first))))
        case _:
            return stock.classifier(first[:, None])


def _dense_place(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """The module that holds the dense layer, and the layer's name there."""
    place = FAMILIES[model.config.model_type].dense
    whole = model.get_submodule(place)
    if isinstance(whole, ModulesToSaveWrapper):  # DistilBERT's and ALBERT's are saved by themselves
        return whole.modules_to_save, "default"
    parent, _, name = place.rpartition(".")
    return copy_of(model.get_submodule(parent)), name
