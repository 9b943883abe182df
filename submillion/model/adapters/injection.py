"""From a stock model and a `Plan` to the model that trains: adapters by PEFT, the rest set here.

Owns which parameters train, in which dtype, their names, and the check that they are what the plan counted. PEFT's own
marking of biases and saved modules is not relied on. Also AdaLoRA's penalty, the pruning of its ranks and the state
that resuming needs: these functions do what PEFT's own forward pass and its users' training loops do, and nothing for a
model of another method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.adalora import AdaLoraLayer, AdaLoraModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from submillion.config import AdapterConfig
from submillion.errors import BudgetError, ConfigError
from submillion.model.adapters import heads
from submillion.model.backbone import quiet, seed_for
from submillion.planning import Plan, architectures
from submillion.planning.architectures.built import head_modules
from submillion.planning.budget import Bias, target_params

INITIAL_A, INITIAL_B = "initial_A", "initial_B"
PREFIX = "base_model.model."  # where a PeftModel keeps the stock model
_INITS = {"default": True, "gaussian": "gaussian", "orthogonal": "orthogonal", "pissa": "pissa", "olora": "olora"}
_SENSITIVITY, _UNCERTAINTY, _MASK = "adalora.sensitivity.", "adalora.uncertainty.", "adalora.mask."


def inject(
    model: PreTrainedModel, plan: Plan, adapter: AdapterConfig, total_steps: int, seed: int = 0
) -> PreTrainedModel | PeftModel:
    """Return the float32 model with the plan's adapters and head; only what the plan counts trains.

    With method none, the model itself, all of which trains. Initial weights are drawn with `seed`; total_steps
    (optimiser steps) sets AdaLoRA's schedule. ConfigError if the initialisation does not allow the ranks.
    """
    if plan.method == "none":
        return model.requires_grad_(True)
    _refuse_ranks(plan, adapter)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed_for("adapter", seed))
        injected: PeftModel = get_peft_model(model, _peft_config(plan, adapter, total_steps))
        heads.build(stock(injected), plan.head, plan.head_width)
    injected.requires_grad_(False)
    for parameter in _trained(injected, plan):
        parameter.requires_grad_(True)
    if adapter.init in ("pissa", "olora"):
        _keep_first_weights(injected)
    return injected


def stock(model: nn.Module) -> PreTrainedModel:
    """Return the stock model inside a PeftModel, or the model itself."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return inner


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what trains, by full name, in the order of the model's modules."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def is_head(model: nn.Module, name: str) -> bool:
    """Return whether a parameter of this full name belongs to the head."""
    prefix = PREFIX if isinstance(model, PeftModel) else ""
    return name.startswith(tuple(f"{prefix}{module}." for module in head_modules(stock(model))))


def verify(model: nn.Module, plan: Plan) -> None:
    """Raise a BudgetError that names each site (and biases, head) whose built count differs from the plan's.

    Also if the plan itself exceeds its budget.
    """
    planned, built = _planned(plan), Counter[str]()
    prefix = PREFIX if isinstance(model, PeftModel) else ""
    parts = _adapter_parts(model)
    sites = {f"{prefix}{target.module}.{part}": target.site for target in plan.targets for part in parts}
    for name, parameter in trainable_parameters(model).items():
        built[_place(model, name, sites)] += parameter.numel()
    wrong = [
        f"{place}: the plan has {planned[place]:,} parameters, the built model trains {built[place]:,}"
        for place in dict.fromkeys([*planned, *built])
        if planned[place] != built[place]
    ]
    if wrong or built.total() != plan.total:
        raise BudgetError(*wrong, f"in all, planned {plan.total:,}, built {built.total():,}: this is a bug; report it")
    if plan.budget is not None and plan.total > plan.budget:
        raise BudgetError(f"the plan trains {plan.total:,} parameters, its budget is {plan.budget:,}: plan again")


def hold_frozen_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Put the frozen encoder's linear layers and embeddings into `dtype`.

    What trains, the whole head and the norms stay float32: they are small, and precision is worth most there.
    """
    for module_name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Embedding)) and not is_head(model, f"{module_name}."):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


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
    """Restore what `method_state` returned; an empty state is the initial one."""
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


def _refuse_ranks(plan: Plan, adapter: AdapterConfig) -> None:
    odd = sorted(site for site, rank in plan.ranks.items() if rank % 2)
    if adapter.init == "orthogonal" and odd:
        raise ConfigError(
            *(f"adapter.rank is {plan.ranks[site]} for {site}: init orthogonal needs an even rank" for site in odd)
        )


def _peft_config(plan: Plan, adapter: AdapterConfig, total_steps: int) -> PeftConfig:
    """PEFT's config: every target by its full name, with its own rank and alpha where they differ.

    SEQ_CLS always saves `classifier` and `score`; other head modules are named here, except a pretrained pooler under a
    linear head, which stays frozen.
    """
    others = [name for name in architectures.head_modules(plan.architecture) if name not in ("classifier", "score")]
    shared: dict[str, Any] = {
        "task_type": TaskType.SEQ_CLS,
        "target_modules": [target.module for target in plan.targets],
        "modules_to_save": others if others and plan.head != "linear" else None,
    }
    if plan.method == "ia3":
        feed_forward = [target.module for target in plan.targets if target.feed_forward]
        return IA3Config(**shared, feedforward_modules=feed_forward)
    rank, alpha = plan.targets[0].rank, plan.targets[0].alpha
    shared |= {"lora_alpha": alpha, "lora_dropout": adapter.dropout, "bias": plan.bias}
    if plan.method == "adalora":
        target_rank = adapter.target_rank or max(1, round(2 * rank / 3))
        return AdaLoraConfig(init_r=rank, target_r=target_rank, **shared, **_schedule(total_steps))
    return LoraConfig(
        **shared,
        r=rank,
        rank_pattern={t.module: t.rank for t in plan.targets if t.rank != rank},
        alpha_pattern={t.module: t.alpha for t in plan.targets if t.alpha != alpha},
        use_dora=plan.method == "dora",
        use_rslora=adapter.rslora,
        init_lora_weights=_INITS[adapter.init],
    )


def _schedule(total_steps: int) -> dict[str, Any]:
    """Return the steps of AdaLoRA's three phases, as PEFT names them.

    A tenth of the training prunes nothing, the last three tenths tune what is left; in between ranks
    are reallocated at most 100 times. The paper (Zhang et al. 2023, appendix) warms up for 5 to 20 %
    and ends with 30 to 50 % on GLUE. PEFT needs a step before its last allocation, hence the 2.
    """
    steps = max(2, total_steps)
    return {"tinit": steps // 10, "tfinal": 3 * steps // 10, "deltaT": max(1, steps // 100), "total_step": steps}


def _tuner(model: Any) -> Any:
    """PEFT's AdaLoRA around the stock model, or None."""
    tuner = getattr(model, "base_model", None)
    return tuner if isinstance(tuner, AdaLoraModel) else None


def _trained(model: PeftModel, plan: Plan) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            for part in module.adapter_layer_names:
                if isinstance(child := getattr(module, part), nn.Module):
                    yield from child.parameters()
    yield from _trained_biases(model, plan.bias)
    yield from heads.trained(stock(model), plan.head)


def _trained_biases(model: PeftModel, bias: Bias) -> Iterator[nn.Parameter]:
    """The biases that `budget` counts: none; the adapted layers'; or all outside the head modules that are saved."""
    match bias:
        case "none":
            return
        case "lora_only":
            layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
            biases = (cast("nn.Linear", layer.get_base_layer()).bias for layer in layers)
            yield from (bias for bias in biases if bias is not None)
        case "all":
            saved = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, ModulesToSaveWrapper))
            for name, parameter in model.named_parameters():
                if name.endswith(".bias") and not name.startswith(saved):
                    yield parameter


def _keep_first_weights(model: PeftModel) -> None:
    """Keep the initial A and B, which PiSSA and OLoRA subtracted from the base weights: saving adds them back."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        for name, part in ((INITIAL_A, layer.lora_A), (INITIAL_B, layer.lora_B)):
            layer.register_buffer(name, part["default"].weight.detach().clone(), persistent=False)


def _planned(plan: Plan) -> Counter[str]:
    sites = Counter[str]()
    for target in plan.targets:
        sites[f"site {target.site}"] += target_params(plan.method, target)
    rest = "all of the encoder" if plan.method == "none" else "biases"
    return sites + Counter({rest: plan.adapter_params - sites.total(), "head": plan.head_params})


def _adapter_parts(model: nn.Module) -> set[str]:
    """The names of PEFT's parts of an adapted layer, such as lora_A."""
    return {part for m in model.modules() if isinstance(m, BaseTunerLayer) for part in m.adapter_layer_names}


def _place(model: nn.Module, name: str, sites: dict[str, str]) -> str:
    """Return where a trainable parameter belongs in the plan; `sites` is {full name of an adapter's part: site}."""
    if not isinstance(model, PeftModel):
        return "head" if is_head(model, name) else "all of the encoder"
    if ".modules_to_save." in name:
        return "head"
    owner = next((site for part, site in sites.items() if name.startswith(f"{part}.")), None)
    return "biases" if owner is None else f"site {owner}"
