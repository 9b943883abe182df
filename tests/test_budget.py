"""The law of the budget: counts from shapes alone equal those of the model that PEFT builds.

For every family, method, head, bias mode, set of sites and layers, on tiny random models.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from submillion import planning
from submillion.config import validate
from submillion.planning import architectures, budget
from submillion.planning.architectures import SITES
from submillion.planning.budget import HeadSize
from tests.test_architectures import CONFIGS

# PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

N_CLASSES = 5
RANKED = ("lora", "dora", "adalora")
FAMILIES = tuple(CONFIGS)
REFUSES_LINEAR = ("electra", "electra-narrow", "distilbert")


def plan_of(kind, sites="all-linear", layers=None, head="full", **adapter):
    """The plan of a tiny encoder with 3 layers; a wide budget, since only the counts matter here."""
    model_type, sizes = CONFIGS[kind]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({"model_type": model_type, **sizes}))
        model = {"name": str(file), "head": head, "head_width": 3 if head == "bottleneck" else None}
        settings = {"model": model, "adapter": {"sites": sites, "layers": layers, **adapter}, "budget": 10**6}
        return planning.plan(validate(settings), N_CLASSES)


def stock(kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, sizes = CONFIGS[kind]
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(model_type, num_labels=N_CLASSES, **sizes)
    )


def peft_config(plan, saved):
    """PEFT's own configuration of a plan, by the full names of its targets."""
    import peft

    names = [target.module for target in plan.targets]
    ranks = {target.module: target.rank for target in plan.targets}
    common = {"target_modules": names, "modules_to_save": saved}
    match plan.method:
        case "lora" | "dora":
            dora = plan.method == "dora"
            return peft.LoraConfig(r=1, rank_pattern=ranks, bias=plan.bias, use_dora=dora, **common)
        case "adalora":
            first = plan.targets[0].rank
            return peft.AdaLoraConfig(init_r=first, target_r=1, total_step=9, bias=plan.bias, **common)
        case "ia3":
            inner = [target.module for target in plan.targets if target.feed_forward]
            return peft.IA3Config(feedforward_modules=inner, **common)


def built(kind, plan):
    """The model that PEFT builds, with the head's frozen parts frozen as `budget` says."""
    import peft
    import torch

    family = plan.architecture.family
    frozen_pooler = family == "bert" and plan.head == "linear"
    saved = ["classifier"] if frozen_pooler else list(architectures.head_modules(family))
    model = peft.get_peft_model(stock(kind), peft_config(plan, saved))
    dense_name, _ = architectures.head_layers(family)
    if plan.head == "full" or frozen_pooler:
        return model
    ends = ("modules_to_save.default.dense", f".{dense_name}.modules_to_save.default")
    (dense,) = (module for name, module in model.named_modules() if name.endswith(ends))
    dense.weight.requires_grad_(False)
    if plan.head == "linear":
        dense.bias.requires_grad_(False)
    else:
        dense.U = torch.nn.Parameter(torch.zeros(dense.out_features, plan.head_width))
        dense.V = torch.nn.Parameter(torch.zeros(plan.head_width, dense.in_features))
    return model


def check(kind, plan):
    model = built(kind, plan)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    head = sum(n for name, n in trainable.items() if "modules_to_save" in name)
    assert plan.head_params == head
    assert plan.adapter_params == sum(trainable.values()) - head
    assert plan.total == sum(trainable.values())
    assert plan.all_params == sum(p.numel() for p in model.parameters())
    assert plan.total == sum(part.params for part in planning.parts(plan))


SITE_SETS = ("query", "query+value", "query,dense", "all-linear", "ffn_out")


@pytest.mark.parametrize("layers", [None, "top:1", [0, 2]], ids=str)
@pytest.mark.parametrize("sites", SITE_SETS)
@pytest.mark.parametrize("method", [*RANKED, "ia3"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_sites_and_layers(kind, method, sites, layers):
    rank = {} if method == "ia3" else {"rank": 3}
    plan = plan_of(kind, sites, layers, method=method, **rank)
    check(kind, plan)


HEADS = [
    (kind, head)
    for kind in FAMILIES
    for head in ("full", "linear", "bottleneck")
    if head != "linear" or kind not in REFUSES_LINEAR
]


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize(("kind", "head"), HEADS)
def test_heads_and_biases(kind, head, bias):
    for method in RANKED:
        check(kind, plan_of(kind, "key+ffn_in", "bottom:2", head, method=method, rank=2, bias=bias))


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_ranks_of_each_site_and_rslora(kind, method):
    rank = {"query": 5, "dense": 1, "ffn_in": 4}
    plan = plan_of(kind, "query+dense", method=method, rank=rank, rslora=True)
    assert plan.ranks == {"query": 5, "attention_output": 1, "ffn_in": 4, "ffn_out": 1}
    check(kind, plan)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_pattern_of_ones_own(kind):
    plan = plan_of(kind, ["value", "*.layer.1.*"], rank={"value": 1, "*.layer.1.*": 2})
    assert sorted(target.rank for target in plan.targets) == [1, 1, 2, 2, 2, 2, 2, 2]
    check(kind, plan)


@pytest.mark.parametrize("kind", FAMILIES)
def test_full_fine_tuning_trains_the_stock_model(kind):
    plan = plan_of(kind, method="none")
    parameters = list(stock(kind).parameters())
    assert plan.total == plan.all_params == sum(p.numel() for p in parameters if p.requires_grad)
    assert plan.total == sum(part.params for part in planning.parts(plan))
    assert (plan.budget, plan.slack, plan.ranks, plan.targets) == (None, None, {}, ())


@pytest.mark.parametrize("method", RANKED)
def test_one_more_rank_costs_a_step(method):
    plans = [plan_of("bert", "query+ffn_out", method=method, rank=rank) for rank in (3, 4)]
    assert budget.step(method, plans[0].targets) == plans[1].total - plans[0].total
    assert budget.step(method, plans[1].targets) == plans[1].total - plans[0].total


@pytest.mark.parametrize("method", ["ia3", "none"])
def test_methods_without_ranks_have_no_step(method):
    assert budget.step(method, plan_of("bert", method=method).targets) == 0


@cache
def roberta():
    return architectures.load("roberta-base")


@pytest.mark.parametrize(
    ("kind", "width", "expected"),
    [("full", None, 593_668), ("linear", None, 3_076), ("bottleneck", 32, 2 * 32 * 768 + 768 + 3_076)],
)
def test_heads_of_roberta_base(kind, width, expected):
    assert budget.head_params(roberta(), HeadSize(kind, 4, width)) == expected


def test_sites_are_in_their_families_order():
    assert tuple(plan_of("bert", "all-linear", rank=1).ranks) == SITES
