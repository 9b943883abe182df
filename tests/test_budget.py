"""The law of the budget: counts from shapes alone equal those of the model that trains.

For every family, method, head, bias mode, set of sites and layers, on tiny random models: any two of them meet.
"""

from __future__ import annotations

import copy
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
from tests.kit.architectures import CONFIGS
from tests.kit.pairs import pairwise

N_CLASSES = 5
RANKED = ("lora", "dora", "adalora")
FAMILIES = tuple(CONFIGS)
REFUSES_LINEAR = ("electra", "electra-narrow", "distilbert")


def settings_of(file, sites="all-linear", layers=None, head="full", **adapter):
    """A wide budget, since only the counts matter here."""
    model = {"name": str(file), "head": head, "head_width": 3 if head == "bottleneck" else None}
    return validate({"model": model, "adapter": {"sites": sites, "layers": layers, **adapter}, "budget": 10**6})


def plan_of(kind, *wishes, **adapter):
    """The plan of a tiny encoder with 3 layers."""
    model_type, sizes = CONFIGS[kind]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({"model_type": model_type, **sizes}))
        return planning.plan(settings_of(file, *wishes, **adapter), N_CLASSES)


@cache
def stock(kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, sizes = CONFIGS[kind]
    return AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(model_type, num_labels=N_CLASSES, **sizes)
    )


def check(kind, *wishes, **adapter):
    """The law itself, of the model as training injects it; returns the plan."""
    from submillion.model import adapters

    plan = plan_of(kind, *wishes, **adapter)
    section = settings_of("any", *wishes, **adapter).adapter
    model = adapters.inject(copy.deepcopy(stock(kind)), plan, section, total_steps=9)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    head = sum(n for name, n in trainable.items() if "modules_to_save" in name)
    assert plan.head_params == head
    assert plan.adapter_params == sum(trainable.values()) - head
    assert plan.total == sum(trainable.values())
    assert plan.all_params == sum(p.numel() for p in model.parameters())
    assert plan.total == sum(part.params for part in planning.parts(plan))
    return plan


SITE_SETS = ("query", "query+value", "query,dense", "all-linear", "ffn_out")


@pytest.mark.parametrize(
    ("kind", "method", "sites", "layers"),
    pairwise(FAMILIES, [*RANKED, "ia3"], SITE_SETS, [None, "top:1", [0, 2]]),
    ids=str,
)
def test_sites_and_layers(kind, method, sites, layers):
    rank = {} if method == "ia3" else {"rank": 3}
    check(kind, sites, layers, method=method, **rank)


@pytest.mark.parametrize(
    ("kind", "head", "bias", "method"),
    pairwise(
        FAMILIES,
        ("full", "linear", "bottleneck"),
        ("none", "all", "lora_only"),
        RANKED,
        where=lambda kind, head, *_: head != "linear" or kind not in REFUSES_LINEAR,
    ),
)
def test_heads_and_biases(kind, head, bias, method):
    check(kind, "key+ffn_in", "bottom:2", head, method=method, rank=2, bias=bias)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_ranks_of_each_site_and_rslora(method):
    rank = {"query": 5, "dense": 1, "ffn_in": 4}
    for kind in FAMILIES:
        plan = check(kind, "query+dense", method=method, rank=rank, rslora=True)
        assert plan.ranks == {"query": 5, "attention_output": 1, "ffn_in": 4, "ffn_out": 1}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_pattern_of_ones_own(kind):
    plan = check(kind, ["value", "*.layer.1.*"], rank={"value": 1, "*.layer.1.*": 2})
    assert sorted(target.rank for target in plan.targets) == [1, 1, 2, 2, 2, 2, 2, 2]


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
