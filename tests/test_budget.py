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
from submillion.errors import ConfigError
from submillion.planning import architectures, budget
from submillion.planning.architectures import SEPARATE_SITES, linears
from submillion.planning.budget import HeadSize
from tests.kit.architectures import BUILT, CONFIGS, REFUSES_LINEAR
from tests.kit.pairs import pairwise

N_CLASSES = 5
RANKED = ("lora", "dora", "adalora")
FAMILIES = tuple(CONFIGS)
FUSED = ("modernbert",)


def settings_of(file, sites="all-linear", layers=None, head="full", **adapter):
    """A wide budget, since only the counts matter here."""
    width = 3 if head == "bottleneck" else None
    model = {"name": str(file), "head": head, "head_width": width, "max_length": 16}
    return validate({"model": model, "adapter": {"sites": sites, "layers": layers, **adapter}, "budget": 10**6})


def plan_of(kind, *wishes, **adapter):
    """The plan of a tiny encoder with 3 layers."""
    model_type, sizes = {**CONFIGS, **BUILT}[kind]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({"model_type": model_type, **sizes}))
        return planning.plan(settings_of(file, *wishes, **adapter), N_CLASSES)


@cache
def stock(kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, sizes = {**CONFIGS, **BUILT}[kind]
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


SITE_SETS = ("query", "query+value", "query,dense", "all-linear", "ffn_out", "qkv")


def can_have(kind, sites):
    """Whether an encoder has the sites: some of query, key and value are not to be had where they are one layer."""
    return "query" not in sites or kind not in FUSED


@pytest.mark.parametrize(
    ("kind", "method", "sites", "layers"),
    pairwise(
        FAMILIES,
        [*RANKED, "ia3"],
        SITE_SETS,
        [None, "top:1", [0, 2]],
        where=lambda kind, _, sites, layers: can_have(kind, sites) and (kind != "albert" or layers is None),
    ),
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
        where=lambda kind, head, bias, _: (
            (head != "linear" or kind not in REFUSES_LINEAR) and (bias == "none" or kind != "modernbert")
        ),
    ),
)
def test_heads_and_biases(kind, head, bias, method):
    check(kind, "qkv+ffn_in", "bottom:1", head, method=method, rank=2, bias=bias)


@pytest.mark.parametrize(("kind", "bias", "method"), pairwise(BUILT, ("none", "all", "lora_only"), [*RANKED, "none"]))
def test_encoders_that_are_built(kind, bias, method):
    if method == "none":
        plan = plan_of(kind, method="none")
        assert plan.total == sum(p.numel() for p in stock(kind).parameters())
    else:
        plan = check(kind, method=method, rank=2, bias="none" if kind == "nomic_bert" else bias)
        assert {target.module for target in plan.targets} == {each.module for each in linears(plan.architecture)}


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_ranks_of_each_site_and_rslora(method):
    rank = {"qkv": 5, "dense": 1, "ffn_in": 4}
    for kind in FAMILIES:
        plan = check(kind, "qkv+dense", method=method, rank=rank, rslora=True)
        attention = {"qkv": 5} if kind in FUSED else {"query": 5, "key": 5, "value": 5}
        assert plan.ranks == {**attention, "attention_output": 1, "ffn_in": 4, "ffn_out": 1}


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "albert"])
def test_a_pattern_of_ones_own(kind):
    own = "*.layers.1.*" if kind in FUSED else "*.layer.1.*"
    plan = check(kind, ["ffn_out", own], rank={"ffn_out": 1, own: 2})
    n_others = len(plan.targets) - 2
    assert sorted(target.rank for target in plan.targets) == [1, 1, *[2] * n_others]
    assert n_others == (4 if kind in FUSED else 6)


@pytest.mark.parametrize("sites", ["query", "key,value", ["dense", "query+value"]])
def test_a_part_of_a_fused_layer_is_refused_with_the_reason(sites):
    with pytest.raises(ConfigError, match=r"computes query, key and value in one linear layer.*use qkv"):
        plan_of("modernbert", sites)


def test_all_three_of_a_fused_layer_are_its_site():
    for sites in ("query+key+value", "qkv", ["value", "key", "query"]):
        assert list(plan_of("modernbert", sites, rank=2).ranks) == ["qkv"]
    assert list(plan_of("modernbert", "dense,query,key,value,ffn_out", rank=1).ranks)[3] == "qkv"


def test_a_groups_rank_is_that_of_its_sites():
    assert set(plan_of("modernbert", "all-linear", rank={"all-linear": 3, "ffn_in": 1}).ranks.values()) == {1, 3}
    assert plan_of("modernbert", "qkv", rank={"qkv": 3}).ranks == {"qkv": 3}
    assert plan_of("bert", "qkv", rank={"qkv": 3, "key": 2}).ranks == {"query": 3, "key": 2, "value": 3}


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_are_not_there_are_refused(bias):
    with pytest.raises(ConfigError, match=f"adapter.bias is {bias}, but .* has no biases there"):
        plan_of("modernbert", rank=1, bias=bias)


def test_a_shared_layer_is_adapted_and_counted_once():
    plan = plan_of("albert", rank=2)
    assert {target.layer for target in plan.targets} == {0}
    assert len(plan.targets) == 6


@pytest.mark.parametrize("head", ["linear", "bottleneck"])
def test_an_encoder_that_is_built_has_the_stock_head_only(head):
    with pytest.raises(ConfigError, match=f"model.head is {head}, but only the stock head of .* is known"):
        plan_of("rembert", "all-linear", None, head, rank=1)


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
    assert tuple(plan_of("bert", "all-linear", rank=1).ranks) == SEPARATE_SITES
