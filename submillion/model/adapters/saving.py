"""An adapter's folder, written so that plain transformers and PEFT read back the same function: saved, loaded, used as
the start of another training, merged into its base model.

`adapter_model.safetensors` and `adapter_config.json` are PEFT's, against the untouched base model; `config.json` and
`labels.json` carry the label names; the tokenizer is next to them. With method none the folder is an ordinary
checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.adalora import AdaLoraModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from submillion.errors import ConfigError, RunError, os_problem
from submillion.model.adapters import heads
from submillion.model.adapters.injection import INITIAL_A, INITIAL_B, PREFIX, is_head, stock, trainable_parameters
from submillion.model.backbone import not_finite, quiet
from submillion.text import first_line

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
FULL_WEIGHTS, LABELS = "model.safetensors", "labels.json"
Tensors = dict[str, torch.Tensor]
_TOLERANCE = 1e-5  # of a head that is loaded: a bottleneck's factors come from a decomposition
_SCALE_KEYS = ("peft_type", "lora_alpha", "alpha_pattern", "use_rslora")


def save(
    model: nn.Module,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    base_name: str,
    fresh: Iterable[str] = (),
    revision: str | None = None,
) -> None:
    """Write the adapter's folder, replacing an old one; completely or not at all.

    `base_name` is what others load the base model by, `revision` its commit on the Hub. `fresh` names parameters that
    started random: ConfigError if one is neither trained nor saved, RunError if the folder cannot be written.
    """
    refuse_unsaved(model, fresh)
    temporary = folder.with_name(f"{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(model, temporary, base_name, revision)
        tokenizer.save_pretrained(temporary)
        (temporary / LABELS).write_text(json.dumps(list(labels), ensure_ascii=False), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        reason = os_problem(error) if isinstance(error, OSError) else first_line(error)
        raise RunError(f"{folder} cannot be written: {reason}") from None


def load(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return the base model with a saved adapter and head, nothing trainable; RunError if the folder is damaged."""
    if not (folder / WEIGHTS).is_file():  # PEFT would look for a pickle, which could run code
        raise RunError(f"{folder} is damaged: it has no {WEIGHTS}, and no other weights are read; train again")
    try:
        broken = not_finite(load_file(folder / WEIGHTS).items())
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            loaded = PeftModel.from_pretrained(model, str(folder))
    except (
        SafetensorError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        UserWarning,
    ) as error:
        raise RunError(f"{folder} is damaged, or for another model: {' '.join(str(error).split())[:300]}") from None
    if broken:
        raise RunError(f"{folder / WEIGHTS}: {_holds(broken)}: train again")
    return loaded.requires_grad_(False)


def _holds(broken: Sequence[str]) -> str:
    more = f" and {len(broken) - 1:,} other tensors hold" if len(broken) > 1 else " holds"
    return f"{broken[0]}{more} NaN or infinite weights"


def start_from(model: nn.Module, source: Path, labels: Sequence[str]) -> bool:
    """Load a finished run's adapter (or an adapter's folder) into a fresh model; return whether the head came too.

    The head comes if the labels and its kind agree. ConfigError lists how methods, sites, ranks or
    scales differ.
    """
    folder = source / "adapter" if (source / "adapter").is_dir() else source
    saved, settings, saved_labels = _read(folder, isinstance(model, PeftModel))
    own_body = _part(model, _state(model), of_head=False)
    body = _part(model, saved, of_head=False)
    if differences := [*_scale_differences(model, settings), *_shape_differences(body, own_body)]:
        raise ConfigError(*(f"adapter.start_from is {source}: {difference}" for difference in differences))
    with torch.no_grad():
        for name, tensor in body.items():
            own_body[name].copy_(tensor)
    return saved_labels == list(labels) and _take_head(model, _part(model, saved, of_head=True))


def merged(model: nn.Module) -> PreTrainedModel:
    """Return a new stock model that computes the same without adapters (to about 1e-6); `model` is unchanged.

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


def refuse_unsaved(model: nn.Module, fresh: Iterable[str]) -> None:
    """Raise a ConfigError if a parameter that started random is frozen and would not be saved.

    Loading the base model again would draw it anew, and predictions would change.
    """
    if not isinstance(model, PeftModel):
        return
    saved = adapter_state(model)
    lost = sorted(name for name in fresh if f"{PREFIX}{name}" not in saved)
    if lost:
        raise ConfigError(
            f"the checkpoint has no weights for {', '.join(lost)}, and model.head: linear neither trains nor saves "
            "them: use model.head: full or bottleneck, or a checkpoint that has them"
        )


def adapter_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return what PEFT saves of the adapter and the head, by the names that it saves them under.

    A bottleneck is saved as an ordinary dense layer, PiSSA and OLoRA as LoRA of twice the rank on the original weights.
    AdaLoRA keeps its pruned ranks, whose E is 0: PEFT drops those of the last mask, but E grows again until the next
    mask.
    """
    return _with_first_weights(model, injected_state(model))


def injected_state(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the same as `adapter_state`, but PiSSA and OLoRA as they were injected.

    All but a bottleneck's weight share their memory with the parameters.
    """
    settings: Any = model.peft_config["default"]
    masks = getattr(settings, "rank_pattern", None)
    if isinstance(model.base_model, AdaLoraModel):
        settings.rank_pattern = None
    try:
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    finally:
        if isinstance(model.base_model, AdaLoraModel):
            settings.rank_pattern = masks
    # With bias: all PEFT also lists the biases of the head's two copies, under names that nothing reads.
    copies = (".original_module.", ".modules_to_save.")
    state = heads.folded_state(model, state)
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in copies)}


def _write(model: nn.Module, folder: Path, base_name: str, revision: str | None) -> None:
    if not isinstance(model, PeftModel):
        with quiet():
            stock(model).save_pretrained(folder)
        return
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_state(model).items()}
    # Not save_file: it makes files that only their owner may read.
    (folder / WEIGHTS).write_bytes(serialized(tensors, metadata={"format": "pt"}))
    _published(model, base_name, revision).save_pretrained(str(folder))
    config = copy.deepcopy(stock(model).config)
    config.architectures = [type(stock(model)).__name__]
    config.save_pretrained(folder)


def _published(model: PeftModel, base_name: str, revision: str | None) -> Any:
    """PEFT's config as others need it: for inference, on the published base, without repeated module names."""
    settings: Any = copy.deepcopy(model.peft_config["default"])
    settings.inference_mode = True
    settings.base_model_name_or_path, settings.revision = base_name, revision
    settings.modules_to_save = list(dict.fromkeys(settings.modules_to_save))
    for key in ("target_modules", "feedforward_modules"):  # sets, whose order changes from run to run
        if hasattr(settings, key):
            setattr(settings, key, sorted(getattr(settings, key)))
    if isinstance(model.base_model, AdaLoraModel):
        settings.rank_pattern = None
    if _first_weights(model):
        _double_ranks(settings)
    return settings


def _double_ranks(settings: Any) -> None:
    """Turn a PiSSA or OLoRA config into the LoRA config of twice the rank and the same scaling."""
    factor = math.sqrt(2) if settings.use_rslora else 2
    settings.init_lora_weights = True
    settings.r *= 2
    settings.lora_alpha *= factor
    settings.rank_pattern = {name: 2 * rank for name, rank in settings.rank_pattern.items()}
    settings.alpha_pattern = {name: factor * alpha for name, alpha in settings.alpha_pattern.items()}


def _with_first_weights(model: PeftModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Append the first A and B, B negative: W0 + s(BA - B0 A0) is what PiSSA and OLoRA compute."""
    state = dict(state)
    for name, layer in _first_weights(model).items():
        down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        state[down] = torch.cat([state[down], getattr(layer, INITIAL_A)])
        state[up] = torch.cat([state[up], -getattr(layer, INITIAL_B)], dim=1)
    return state


def _first_weights(model: PeftModel) -> dict[str, nn.Module]:
    """The layers whose base weights the initialisation changed, by full name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, INITIAL_A)}


def _read(folder: Path, is_adapter: bool) -> tuple[Tensors, dict[str, Any], list[str]]:
    """The tensors, PEFT's settings and the labels of a saved adapter, or of a full model."""
    wanted, other = (WEIGHTS, FULL_WEIGHTS) if is_adapter else (FULL_WEIGHTS, WEIGHTS)
    if not folder.is_dir():
        raise ConfigError(f"adapter.start_from is {folder}: no such folder; give that of a finished run")
    if not (folder / wanted).is_file():
        kind = "an adapter" if is_adapter else "a full model"
        reason = f"it has {other}, from another method" if (folder / other).is_file() else "there is none"
        raise ConfigError(f"adapter.start_from is {folder}: {kind} ({wanted}) is needed, but {reason}")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) if is_adapter else {}
        tensors, labels = load_file(folder / wanted), json.loads((folder / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"adapter.start_from is {folder}: it cannot be read: {error}") from None
    if broken := not_finite(tensors.items()):
        raise ConfigError(f"adapter.start_from is {folder}: {_holds(broken)}; start from another")
    return tensors, settings, labels


def _state(model: nn.Module) -> Tensors:
    """The model's tensors as they are saved; all but a bottleneck's share the parameters' memory."""
    return injected_state(model) if isinstance(model, PeftModel) else model.state_dict()


def _part(model: nn.Module, state: Mapping[str, torch.Tensor], of_head: bool) -> Tensors:
    return {name: tensor for name, tensor in state.items() if is_head(model, name) == of_head}


def _scale_differences(model: nn.Module, settings: Mapping[str, Any]) -> list[str]:
    """Return the settings that scale the same A and B differently."""
    if not isinstance(model, PeftModel):
        return []
    own_settings = model.peft_config["default"].to_dict()
    return [
        f"{key} is {settings.get(key)} there and {getattr(own_settings[key], 'value', own_settings[key])} here"
        for key in _SCALE_KEYS
        if key in own_settings and settings.get(key) != own_settings[key]
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
    """Load a saved head if this model's kind of head can compute it; else change nothing."""
    if _shape_differences(saved, _part(model, _state(model), of_head=True)):
        return False
    first = {name: p.detach().clone() for name, p in trainable_parameters(model).items() if is_head(model, name)}
    with torch.no_grad():
        heads.take(stock(model), {name.removeprefix(PREFIX): tensor for name, tensor in saved.items()})
    current = _part(model, _state(model), of_head=True)
    if all(torch.allclose(current[name], tensor, atol=_TOLERANCE) for name, tensor in saved.items()):
        return True
    with torch.no_grad():
        for name, tensor in first.items():
            model.get_parameter(name).copy_(tensor)
    return False
