"""A saved adapter as the start of another training, and an adapter merged into its base model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from submillion.errors import ConfigError
from submillion.model.adapters import heads
from submillion.model.adapters.injection import is_head, stock, trainable_parameters
from submillion.model.adapters.saving import FULL_WEIGHTS, LABELS, SETTINGS, WEIGHTS, injected_state

Tensors = dict[str, torch.Tensor]
_TOLERANCE = 1e-5  # of a head that is taken: a bottleneck's factors come from a decomposition
_SCALE_KEYS = ("peft_type", "lora_alpha", "alpha_pattern", "use_rslora")


def start_from(model: nn.Module, source: Path, labels: Sequence[str]) -> bool:
    """Load a finished run's adapter (or an adapter's folder) into a fresh model; say whether the head came too.

    The head comes if the labels and its kind agree. ConfigError lists how methods, sites, ranks or
    scales differ.
    """
    folder = source / "adapter" if (source / "adapter").is_dir() else source
    saved, settings, saved_labels = _read(folder, isinstance(model, PeftModel))
    own = _part(model, _state(model), of_head=False)
    body = _part(model, saved, of_head=False)
    if differences := [*_scale_differences(model, settings), *_shape_differences(body, own)]:
        raise ConfigError(*(f"adapter.start_from is {source}: {difference}" for difference in differences))
    with torch.no_grad():
        for name, tensor in body.items():
            own[name].copy_(tensor)
    return saved_labels == list(labels) and _take_head(model, _part(model, saved, of_head=True))


def merged(model: nn.Module) -> PreTrainedModel:
    """Return a new stock model that computes the same without adapters (to about 1e-6); `model` is left as it is.

    Its weights must be float32: a merge in lower precision would round the adapter away.
    """
    assert all(p.dtype == torch.float32 for p in model.parameters()), "merging starts from float32 weights"
    new: Any = copy.deepcopy(model)
    if isinstance(new, PeftModel):
        heads.unwrap(new)
        new = new.merge_and_unload()
    heads.fold(new)
    for parameter in new.parameters():  # the fast path may have put several weights into one storage
        parameter.data = parameter.data.clone()
    return new.requires_grad_(False).eval()


def _read(folder: Path, is_adapter: bool) -> tuple[Tensors, dict[str, Any], list[str]]:
    """The tensors, PEFT's settings and the labels of a saved adapter, or of a full model."""
    wanted, other = (WEIGHTS, FULL_WEIGHTS) if is_adapter else (FULL_WEIGHTS, WEIGHTS)
    if not (folder / wanted).is_file():
        kind = "an adapter" if is_adapter else "a full model"
        found = f"it has {other}, from another method" if (folder / other).is_file() else "there is none"
        raise ConfigError(f"adapter.start_from is {folder}: {kind} ({wanted}) is needed, but {found}")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) if is_adapter else {}
        return load_file(folder / wanted), settings, json.loads((folder / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"adapter.start_from is {folder}: it cannot be read: {error}") from None


def _state(model: nn.Module) -> Tensors:
    """The model's tensors as they are saved; but for a bottleneck's they share the parameters' memory."""
    return injected_state(model) if isinstance(model, PeftModel) else model.state_dict()


def _part(model: nn.Module, state: Mapping[str, torch.Tensor], of_head: bool) -> Tensors:
    return {name: tensor for name, tensor in state.items() if is_head(model, name) == of_head}


def _scale_differences(model: nn.Module, settings: Mapping[str, Any]) -> list[str]:
    """What makes the same A and B count differently."""
    if not isinstance(model, PeftModel):
        return []
    own = model.peft_config["default"].to_dict()
    return [
        f"{key} is {settings.get(key)} there and {getattr(own[key], 'value', own[key])} here"
        for key in _SCALE_KEYS
        if key in own and settings.get(key) != own[key]
    ]


def _shape_differences(saved: Tensors, own: Tensors) -> list[str]:
    def shape(state: Tensors, name: str) -> str:
        return str(list(state[name].shape)) if name in state else "absent"

    return [
        f"{name} is {shape(saved, name)} there and {shape(own, name)} here"
        for name in sorted({*saved, *own})
        if shape(saved, name) != shape(own, name)
    ]


def _take_head(model: nn.Module, saved: Tensors) -> bool:
    """Load a saved head if this model's kind of head can compute it; else leave all as it is."""
    if _shape_differences(saved, _part(model, _state(model), of_head=True)):
        return False
    first = {name: p.detach().clone() for name, p in trainable_parameters(model).items() if is_head(model, name)}
    dense = {name.rpartition(".")[2]: tensor for name, tensor in saved.items() if not _is_last_layer(name)}
    last = {name.rpartition(".")[2]: tensor for name, tensor in saved.items() if _is_last_layer(name)}
    heads.take(stock(model), dense, last)
    now = _part(model, _state(model), of_head=True)
    if all(torch.allclose(now[name], tensor, atol=_TOLERANCE) for name, tensor in saved.items()):
        return True
    with torch.no_grad():
        for name, tensor in first.items():
            model.get_parameter(name).copy_(tensor)
    return False


def _is_last_layer(name: str) -> bool:
    return f".{name}".rpartition(".")[0].endswith((".classifier", ".out_proj"))
