"""AdaLoRA while it trains: its penalty, the pruning of its ranks, and the state that resuming needs.

PEFT's `AdaLoraModel` does the work; these functions do what its own forward pass and its users'
training loops do, and nothing at all for a model of another method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from peft.tuners.adalora import AdaLoraLayer, AdaLoraModel
from torch import nn

_SENSITIVITY, _UNCERTAINTY, _MASK = "adalora.sensitivity.", "adalora.uncertainty.", "adalora.mask."


def schedule(total_steps: int) -> dict[str, Any]:
    """Return the steps of AdaLoRA's three phases, as PEFT names them.

    A tenth of the training prunes nothing, the last three tenths tune what is left; in between ranks
    are reallocated at most 100 times. The paper (Zhang et al. 2023, appendix) warms up for 5 to 20 %
    and ends with 30 to 50 % on GLUE. PEFT needs a step before its last allocation, hence the 2.
    """
    steps = max(2, total_steps)
    return {"tinit": steps // 10, "tfinal": 3 * steps // 10, "deltaT": max(1, steps // 100), "total_step": steps}


def orthogonality_loss(model: nn.Module) -> torch.Tensor | None:
    """Return the weighted mean of ||A A^T - I|| and ||B^T B - I|| over all layers, a scalar; None without AdaLoRA.

    The same as `AdaLoraModel.forward` adds to a loss (PEFT 0.21.2; Zhang et al. 2023, equation 4).
    """
    if not isinstance(tuner := getattr(model, "base_model", None), AdaLoraModel):
        return None
    factors = [
        factor for layer in layers(model).values() for factor in (layer.lora_A["default"], layer.lora_B["default"].t())
    ]
    norms = [torch.linalg.norm(f @ f.t() - torch.eye(len(f), dtype=f.dtype, device=f.device)) for f in factors]
    settings: Any = tuner.peft_config["default"]
    return settings.orth_reg_weight * torch.stack(norms).mean()


def reallocate(model: nn.Module, step: int) -> None:
    """Update AdaLoRA's importance scores and prune by them, after optimiser step `step` (from 1).

    The gradients of the step must still be there.
    """
    tuner = getattr(model, "base_model", None)
    # PEFT cannot allocate a budget that equals the first one (rank 1, or target_rank = rank): nothing is pruned then.
    if isinstance(tuner, AdaLoraModel) and tuner.rankallocator.target_bgt < tuner.rankallocator.init_bgt:
        tuner.update_and_allocate(step)


def method_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the method holds besides its parameters: AdaLoRA's scores and masks; else nothing."""
    if not isinstance(tuner := getattr(model, "base_model", None), AdaLoraModel):
        return {}
    allocator, settings = tuner.rankallocator, cast("Any", tuner.peft_config["default"])
    return {
        **{_SENSITIVITY + name: tensor for name, tensor in allocator.exp_avg_ipt.items()},
        **{_UNCERTAINTY + name: tensor for name, tensor in allocator.exp_avg_unc.items()},
        **{_MASK + name: torch.tensor(mask) for name, mask in (settings.rank_pattern or {}).items()},
    }


def load_method_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put back what `method_state` returned; an empty state is that of the start."""
    if not isinstance(tuner := getattr(model, "base_model", None), AdaLoraModel):
        return
    allocator = tuner.rankallocator
    allocator.exp_avg_ipt = _part(state, _SENSITIVITY, model)
    allocator.exp_avg_unc = _part(state, _UNCERTAINTY, model)
    # The scores of a parameter that has no `ipt` are set to 0; its own value is computed anew each step.
    allocator.ipt = {name: torch.zeros_like(tensor) for name, tensor in allocator.exp_avg_ipt.items()}
    masks = {name: mask.tolist() for name, mask in _part(state, _MASK, model).items()}
    settings: Any = tuner.peft_config["default"]
    settings.rank_pattern = masks or None


def layers(model: nn.Module) -> dict[str, Any]:
    """Return AdaLoRA's layers by their names in the stock model."""
    tuner: Any = model.base_model
    return {name: module for name, module in tuner.model.named_modules() if isinstance(module, AdaLoraLayer)}


def _part(state: Mapping[str, torch.Tensor], prefix: str, model: nn.Module) -> dict[str, torch.Tensor]:
    device = next(model.parameters()).device
    return {name.removeprefix(prefix): t.to(device) for name, t in state.items() if name.startswith(prefix)}
