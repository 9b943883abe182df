"""AdaLoRA while it trains: its penalty, the pruning of its ranks, and the state that resuming needs.

PEFT's `AdaLoraModel` does the work; these functions do what its own forward pass and its users'
training loops do, and nothing at all for a model of another method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    if (tuner := _tuner(model)) is None:
        return None
    layers = [module for module in tuner.model.modules() if isinstance(module, AdaLoraLayer)]
    factors = [factor for layer in layers for factor in (layer.lora_A["default"], layer.lora_B["default"].t())]
    norms = [torch.linalg.norm(f @ f.t() - torch.eye(len(f), dtype=f.dtype, device=f.device)) for f in factors]
    return tuner.peft_config["default"].orth_reg_weight * torch.stack(norms).mean()


def reallocate(model: nn.Module, step: int) -> None:
    """Update AdaLoRA's importance scores and prune by them, after optimiser step `step` (from 1).

    The gradients of the step must still be there.
    """
    tuner = _tuner(model)
    # PEFT cannot allocate a budget that equals the first one (rank 1, or target_rank = rank): nothing is pruned then.
    if tuner is not None and tuner.rankallocator.target_bgt < tuner.rankallocator.init_bgt:
        tuner.update_and_allocate(step)


def method_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what the method holds besides its parameters: AdaLoRA's scores and masks; else nothing."""
    if (tuner := _tuner(model)) is None:
        return {}
    allocator, masks = tuner.rankallocator, tuner.peft_config["default"].rank_pattern or {}
    return {
        **{_SENSITIVITY + name: tensor for name, tensor in allocator.exp_avg_ipt.items()},
        **{_UNCERTAINTY + name: tensor for name, tensor in allocator.exp_avg_unc.items()},
        **{_MASK + name: torch.tensor(mask) for name, mask in masks.items()},
    }


def load_method_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put back what `method_state` returned; an empty state is that of the start."""
    if (tuner := _tuner(model)) is None:
        return
    device = next(model.parameters()).device

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): t.to(device) for name, t in state.items() if name.startswith(prefix)}

    allocator = tuner.rankallocator
    allocator.exp_avg_ipt, allocator.exp_avg_unc = part(_SENSITIVITY), part(_UNCERTAINTY)
    # The scores of a parameter that has no `ipt` are set to 0; its own value is computed anew each step.
    allocator.ipt = {name: torch.zeros_like(tensor) for name, tensor in allocator.exp_avg_ipt.items()}
    masks = {name: mask.tolist() for name, mask in part(_MASK).items()}
    tuner.peft_config["default"].rank_pattern = masks or None


def _tuner(model: Any) -> Any:
    """PEFT's AdaLoRA around the stock model, or None."""
    tuner = getattr(model, "base_model", None)
    return tuner if isinstance(tuner, AdaLoraModel) else None
