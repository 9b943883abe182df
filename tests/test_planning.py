"""Laws of planning: published figures, the largest rank that fits, monotone in the budget, all wishes checked."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from submillion.config import load, validate
from submillion.errors import BudgetError, ConfigError, RunError
from submillion.planning import (
    Plan,
    alternatives,
    architectures,
    draft,
    fitting_rank,
    from_json,
    parts,
    plan,
    resolve,
    to_json,
)
from tests.kit.architectures import BUILT, write

DENSE = ("attention_output", "ffn_in", "ffn_out")


def config_of(name="roberta-base", head="full", head_width=None, budget=1_000_000, **adapter):
    model = {"name": name, "head": head, "head_width": head_width}
    return validate({"model": model, "budget": budget, "adapter": adapter})


def made(n_classes=4, **wishes):
    return plan(config_of(**wishes), n_classes)


@pytest.mark.parametrize(
    ("wishes", "rank", "total"),
    [
        ({"sites": "value"}, 22, 999_172),
        ({"sites": "query"}, 22, 999_172),
        ({"sites": "query+value"}, 11, 999_172),
        ({"sites": "query+key+value"}, 7, 980_740),
        ({"sites": "query+key+value", "rank": 6}, 6, 925_444),
        ({"sites": "value", "rank": 11}, 11, 796_420),
        ({"sites": "value", "rank": 6}, 6, 704_260),
        ({"sites": "query+dense", "rank": 3}, 3, 980_740),
        ({"sites": "query+dense"}, 3, 980_740),
        ({"sites": "query+value", "rank": 16, "layers": "top:8"}, 16, 986_884),
        ({"sites": "query+value", "head": "linear"}, 27, 998_404),
        ({"sites": "query", "head": "linear"}, 54, 998_404),
        ({"sites": "query+key+value+attention_output"}, 5, 962_308),
        ({"sites": "all-linear"}, 2, 925_444),
        ({"sites": "all-linear", "head": "linear"}, 6, 998_404),
    ],
    ids=str,
)
def test_published_figures_of_roberta_base(wishes, rank, total):
    found = made(**wishes)
    assert set(found.ranks.values()) == {rank}
    assert (found.total, found.adapter_params + found.head_params) == (total, total)
    assert (found.alpha, found.slack) == (2 * rank, 1_000_000 - total)


@pytest.mark.parametrize(
    ("wishes", "total", "all_params"),
    [({"sites": "value"}, 999_172, 125_647_880), ({"sites": "query+key+value", "rank": 6}, 925_444, 125_574_152)],
)
def test_published_shares(wishes, total, all_params):
    found = made(**wishes)
    assert (found.total, found.all_params) == (total, all_params)


def test_adalora_counts_its_first_rank():
    assert draft(resolve(config_of(sites="query+value", method="adalora", rank=12), 4)).total == 1_036_324


# --- the budget -----------------------------------------------------------------------------------

wishes = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["roberta-base", "all-MiniLM-L6-v2", "mpnet-base", "electra-small"]),
        "head": st.sampled_from(["full", "bottleneck"]),
        "sites": st.sampled_from(["query", "query+value", "query+dense", "all-linear"]),
        "layers": st.sampled_from([None, "top:2", "bottom:5"]),
        "method": st.sampled_from(["lora", "dora", "adalora"]),
        "bias": st.sampled_from(["none", "all", "lora_only"]),
    }
)
budgets = st.integers(1, 5_000_000)


def rank_within(budget, wished):
    """The rank that a budget buys; 0 where none fits."""
    try:
        found = made(budget=budget, **wished)
    except BudgetError:
        return 0
    assert found.total <= budget
    (rank,) = set(found.ranks.values())
    return rank


@settings(deadline=None, max_examples=60)
@given(wished=wishes, smaller=budgets, more=budgets)
def test_a_larger_budget_never_buys_a_lower_rank(wished, smaller, more):
    assert rank_within(smaller, wished) <= rank_within(smaller + more, wished)


@settings(deadline=None, max_examples=60)
@given(wished=wishes, budget=budgets)
def test_the_rank_is_the_largest_that_fits_or_is_worth_it(wished, budget):
    rank = rank_within(budget, wished)
    one_more = draft(resolve(config_of(budget=budget, **wished, rank=rank + 1), 4))
    worth = min(t.d_in * t.d_out // (t.d_in + t.d_out) for t in one_more.targets)
    assert rank <= worth
    assert rank == worth or one_more.total > budget


def test_the_rank_stops_where_the_full_matrix_is_cheaper():
    found = made(name="all-MiniLM-L6-v2", sites="query", budget=10**7)
    assert found.ranks == {"query": 192}
    assert any("full matrix" in reason for reason in found.reasons)


def test_a_wished_rank_beyond_that_is_kept_and_told():
    found = made(name="all-MiniLM-L6-v2", sites="query", rank=193, budget=10**7)
    assert found.ranks == {"query": 193}
    assert any("beyond 192" in reason for reason in found.reasons)


def test_the_last_parameter_of_the_budget_may_be_used_and_none_beyond():
    wished = {"sites": "query+value", "rank": 11}
    total = made(**wished).total
    assert made(**wished, budget=total).slack == 0
    with pytest.raises(BudgetError, match="1 over the budget"):
        made(**wished, budget=total - 1)


def test_over_budget_tells_total_excess_rank_and_the_nearest_alternative():
    with pytest.raises(BudgetError) as caught:
        made(sites="query+value", rank=16)
    text = str(caught.value)
    assert all(part in text for part in ("1,183,492", "183,492 over", "1,000,000", "is 11 (999,172)"))
    assert "nearest alternative at rank 16: sites query+value, layers all, head linear (592,900)" in text
    assert made(sites="query+value", rank=16, head="linear").total == 592_900


def test_over_budget_where_no_rank_fits_offers_the_smallest_change():
    with pytest.raises(BudgetError, match=r"no rank fits[\s\S]*at rank 1: sites value, layers all, head linear"):
        made(sites="value", budget=100_000)


def test_over_budget_where_nothing_fits_says_so():
    with pytest.raises(BudgetError, match="no alternative fits") as caught:
        made(sites="value", budget=100)
    match = re.search(
        r"raise the budget of 100 to ([\d,]+) or more, .* at rank 1: sites (\S+), layers (\S+), head (\w+)",
        str(caught.value),
    )
    assert match is not None
    budget, wished = int(match[1].replace(",", "")), {"sites": match[2], "layers": match[3], "head": match[4]}
    assert made(**wished, rank=1, budget=budget).slack == 0
    with pytest.raises(BudgetError, match="1 over the budget"):
        made(**wished, rank=1, budget=budget - 1)


def test_over_budget_without_ranks():
    with pytest.raises(BudgetError, match=r"ia3 has no rank to lower\nthe nearest alternative: .*head linear"):
        made(method="ia3", budget=600_000)


def test_ranks_of_each_site_over_budget_tell_the_largest_common_rank():
    wished = {"sites": "query+value", "rank": {"query": 40, "value": 2}}
    with pytest.raises(BudgetError, match=r"at rank 2, 40[\s\S]*is 11 "):
        made(**wished)
    assert fitting_rank(resolve(config_of(**wished), 4)) == 11


def test_full_fine_tuning_lifts_the_budget():
    found = made(method="none", budget=1)
    assert (found.budget, found.slack, found.total) == (None, None, 124_648_708)
    assert any("budget of 1 does not apply" in reason for reason in found.reasons)


# --- sites and layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "keys"),
    [
        ("query", ["query"]),
        ("query+value", ["query", "value"]),
        (" value , query,value", ["value", "query"]),
        (["query", "value"], ["query", "value"]),
        ("dense", list(DENSE)),
        ("query+dense", ["query", *DENSE]),
        ("query,all-linear", ["query", "key", "value", *DENSE]),
        ("attention.self.query", ["attention.self.query"]),
        ("*.query", ["*.query"]),
        (["*.intermediate.*", "query"], ["*.intermediate.*", "query"]),
    ],
    ids=str,
)
def test_sites_may_be_named_in_many_ways(sites, keys):
    found = made(sites=sites)
    assert list(found.ranks) == keys
    modules = [target.module for target in found.targets]
    assert len(set(modules)) == len(modules) == 12 * len(keys)


@pytest.mark.parametrize(
    "family",
    [
        "bert-base-uncased",
        "mpnet-base",
        "distilbert-base-uncased",
        "electra-small",
        "deberta-v3-base",
        "albert-base-v2",
    ],
)
def test_sites_carry_the_same_names_in_every_family(family):
    found = made(name=family, sites="all-linear", head="bottleneck")
    assert list(found.ranks) == list(architectures.SEPARATE_SITES)
    assert len(found.targets) == 6 * found.architecture.n_layers


def test_modernbert_has_one_site_for_query_key_and_value():
    found = made(name="ModernBERT-base", sites="all-linear", head="linear")
    assert list(found.ranks) == ["qkv", "attention_output", "ffn_in", "ffn_out"]
    assert [(t.d_in, t.d_out) for t in found.targets[:4]] == [(768, 2304), (768, 768), (768, 2304), (1152, 768)]


def test_an_encoder_without_a_packed_pass_keeps_no_prefix(tmp_path):
    settings = {"model": {"name": write(tmp_path / "encoder", *BUILT["nomic_bert"]), "max_length": 8, "dropout": 0.0}}
    assert plan(validate(settings), 4).n_prefix_layers == 0
    settings["model"]["prefix"] = True
    with pytest.raises(ConfigError, match=r"model.prefix is true, but .* has no packed pass"):
        plan(validate(settings), 4)
    settings["model"] |= {"name": "albert-base-v2"}
    with pytest.raises(ConfigError, match=r"model.prefix is true, but albert-base-v2 applies one layer 12 times"):
        plan(validate(settings), 4)


@pytest.mark.parametrize(("suffix", "n"), [("self.query", 12), ("query", 12), ("output.dense", 24), ("uery", 0)])
def test_a_name_is_matched_like_pefts_suffixes(suffix, n):
    if n == 0:
        with pytest.raises(ConfigError, match="did you mean 'query'"):
            made(sites=suffix)
    else:
        assert len(made(sites=suffix).targets) == n


def test_ones_own_pattern_goes_before_the_six_names():
    wished = {"sites": ["all-linear", "*.layer.11.*"], "rank": {"all-linear": 1, "*.layer.11.*": 4}}
    found = made(**wished)
    assert {target.rank for target in found.targets if target.layer == 11} == {4}
    assert {target.rank for target in found.targets if target.layer < 11} == {1}
    assert found.alpha == {**dict.fromkeys(architectures.SEPARATE_SITES, 2.0), "*.layer.11.*": 8.0}


def test_a_site_whose_layers_are_all_taken_is_dropped_and_told():
    found = made(sites=["query", "*.self.query"])
    assert found.ranks == {"*.self.query": 22}
    assert any(reason.startswith("query: all its layers already belong to another site") for reason in found.reasons)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (None, range(12)),
        ("top:1", [11]),
        ("top:12", range(12)),
        ("bottom:3", range(3)),
        ([5], [5]),
        ([7, 0], [0, 7]),
    ],
    ids=str,
)
def test_layers(layers, chosen):
    found = made(sites="query", layers=layers)
    assert found.layers == tuple(chosen)
    assert [target.layer for target in found.targets] == list(chosen)


def test_targets_are_told_in_full():
    first, *_, last = made(sites="value+ffn_out", rank=1).targets
    assert vars(first) == {
        "module": "roberta.encoder.layer.0.attention.self.value",
        "site": "value",
        "layer": 0,
        "d_in": 768,
        "d_out": 768,
        "feed_forward": False,
        "rank": 1,
        "alpha": 2.0,
        "n_biases": 768,
    }
    assert (last.module, last.d_in, last.feed_forward) == ("roberta.encoder.layer.11.output.dense", 3072, True)


# --- wishes that cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"sites": "qury"}, "adapter.sites has 'qury'.*did you mean 'query'"),
        ({"sites": "query,,value"}, "adapter.sites has ''"),
        ({"sites": "*.nothing"}, r"adapter.sites has '\*.nothing'.*roberta.encoder.layer.0.attention.self.query"),
        ({"sites": "classifier.dense"}, "adapter.sites has 'classifier.dense'"),
        ({"sites": "layer.3.attention.self.query", "layers": "top:2"}, "is in layer 3 only, outside adapter.layers"),
        ({"layers": "top:0"}, "'top:0'.*1 to 12"),
        ({"layers": "top:13"}, "'top:13'.*1 to 12"),
        ({"layers": "bottom:-1"}, "'bottom:-1'"),
        ({"layers": "middle:2"}, "'middle:2'.*allowed are null"),
        ({"layers": []}, "adapter.layers is an empty list"),
        ({"layers": [12, -1]}, "adapter.layers has 12, -1: roberta-base has layers 0 to 11"),
        ({"layers": [3, 3]}, "names 3 more than once"),
        ({"sites": "query", "rank": {"query": 1, "vale": 2}}, "adapter.rank names 'vale'"),
        ({"sites": "query", "rank": {"query": 1, "dense": 2}}, "adapter.rank names 'dense'"),
        ({"sites": "query+value", "rank": {"query": 1}}, "adapter.rank has no rank for value"),
        ({"head": "bottleneck", "head_width": 385}, "head_width is 385: allowed are 1 to 384"),
        ({"name": "electra-small", "head": "linear"}, "model.head is linear.*GELU.*use model.head: bottleneck"),
        ({"name": "distilbert-base-uncased", "head": "linear"}, "model.head is linear.*ReLU"),
        ({"method": "none", "head": "linear"}, "method none trains every layer: use head: full"),
        ({"method": "none", "layers": "top:2"}, "method none trains every layer: set null"),
        (
            {"method": "adalora", "sites": "query", "rank": 4, "target_rank": 5},
            "target_rank is 5.*to its first rank, 4",
        ),
        ({"init": "pissa", "sites": "value", "rank": 769, "layers": "top:1"}, "allowed are 1 to 768"),
        ({"init": "orthogonal", "sites": "value", "rank": 3}, "init orthogonal needs an even rank"),
    ],
    ids=str,
)
def test_wishes_that_cannot_be_are_refused(wishes, told):
    with pytest.raises(ConfigError, match=told):
        made(**wishes)


@pytest.mark.parametrize("n_classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(n_classes):
    with pytest.raises(ConfigError, match=f"number of classes is {n_classes}"):
        made(n_classes=n_classes)


def test_all_problems_are_told_together():
    with pytest.raises(ConfigError) as caught:
        made(sites="qury+vale", layers="top:99", head="bottleneck", head_width=999)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("budget", [700_000, 800_000, 999_999])
def test_orthogonal_starts_get_an_even_rank(budget):
    found = made(sites="query", init="orthogonal", budget=budget)
    assert found.ranks["query"] % 2 == 0
    assert found.total + 2 * 18_432 > budget


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["electra-small", "electra-base", "distilbert-base-uncased", "bert-base-uncased"])
def test_every_family_takes_the_bottleneck(name):
    found = made(name=name, head="bottleneck", sites="query")
    width = found.architecture.width
    assert found.head_width == 32
    assert found.head_params == 2 * 32 * width + width + 4 * (width + 1)
    assert "head_width 32: the default" in found.reasons


def test_berts_plan_tells_what_happens_to_its_pooler():
    assert any("pretrained pooler" in reason for reason in made(name="all-MiniLM-L6-v2").reasons)


# --- what else -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "ia3"])
def test_alternatives_are_what_planning_each_of_them_gives(method):
    rows = alternatives(resolve(config_of(sites="query+value", method=method), 4))
    assert len(rows) == len({(row.sites, row.layers, row.head) for row in rows}) == 7 * 3 * 3
    assert sum(row.n_changes == 0 for row in rows) == 1
    for row in rows:
        layers = None if row.layers == "all" else row.layers
        planned = made(sites=row.sites, layers=layers, head=row.head, method=method)
        assert row.fits
        assert row.total == planned.total
        assert row.rank == (None if method == "ia3" else next(iter(planned.ranks.values())))


def test_alternatives_keep_the_users_own_wishes_and_say_what_does_not_fit():
    wished = config_of(sites="*.layer.3.*", layers=[2, 3], head="bottleneck", head_width=7, budget=60_000)
    rows = alternatives(resolve(wished, 4))
    (own,) = (row for row in rows if row.n_changes == 0)
    assert (own.sites, own.layers, own.head) == ("*.layer.3.*", "2,3", "bottleneck")
    assert own.total == plan(wished, 4).total
    assert all(row.fits == (row.total <= 60_000) == (row.rank is not None) for row in rows)
    assert {row.fits for row in rows} == {True, False}
    assert not any(row.sites == "*.layer.3.*" and row.layers == "top:8" for row in rows)


def test_alternatives_leave_out_heads_that_the_family_refuses():
    assert {row.head for row in alternatives(resolve(config_of(name="electra-small"), 4))} == {"full", "bottleneck"}


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_alternatives_of_shallow_encoders(tmp_path, n_layers):
    from tests.kit.architectures import BERT_LIKE, write

    name = write(tmp_path, "bert", {**BERT_LIKE, "type_vocab_size": 2, "num_hidden_layers": n_layers})
    config = validate({"model": {"name": name, "max_length": 16}})
    layers = {row.layers for row in alternatives(resolve(config, 4))}
    assert layers == {1: {"all"}, 2: {"all", "top:1"}, 3: {"all", "top:2", "top:1"}}[n_layers]


def test_full_fine_tuning_has_no_alternatives():
    assert alternatives(resolve(config_of(method="none"), 4)) == []


# --- parts and JSON --------------------------------------------------------------------------------

PLANS = [
    {"sites": "query+value"},
    {"sites": "query+dense", "rank": {"query": 2, "dense": 1}, "bias": "all"},
    {"name": "all-MiniLM-L6-v2", "method": "dora", "head": "linear", "bias": "lora_only"},
    {"name": "mpnet-base", "method": "adalora", "sites": "value", "head": "bottleneck", "head_width": 5},
    {"name": "electra-small", "method": "ia3"},
    {"name": "distilbert-base-uncased", "method": "none"},
]


@pytest.mark.parametrize("wishes", PLANS, ids=str)
def test_json_brings_back_an_equal_plan(wishes):
    found = made(**wishes)
    assert from_json(to_json(found)) == found


@pytest.mark.parametrize("wishes", PLANS, ids=str)
def test_parts_add_up_to_the_total(wishes):
    found = made(**wishes)
    assert sum(part.params for part in parts(found)) == found.total
    assert all(part.params > 0 for part in parts(found))


def test_json_has_the_promised_keys():
    values = json.loads(to_json(made(sites="query+value")))
    promised = "total adapter_params head_params budget ranks alpha head all_params".split()
    assert {key: values[key] for key in promised} == {
        "total": 999_172,
        "adapter_params": 405_504,
        "head_params": 593_668,
        "budget": 1_000_000,
        "ranks": {"query": 11, "value": 11},
        "alpha": 22,
        "head": "full",
        "all_params": 125_647_880,
    }


def test_alpha_is_a_number_where_all_sites_share_it_else_a_table():
    ranks = {"query": 3, "value": 4}
    assert made(sites="query+value", rank=ranks).alpha == {"query": 6, "value": 8}
    assert made(sites="query+value", rank=ranks, alpha=5).alpha == 5
    assert made(sites="query+value", rank={"query": 3, "value": 3}).alpha == 6
    assert made(method="ia3").alpha is None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[: len(text) // 2], "plan.json"),
        (lambda text: text.replace('"total"', '"totl"'), "total"),
        (lambda text: text.replace('"lora"', '"lara"'), "method"),
        (lambda text: "[]", "plan.json"),
    ],
)
def test_a_damaged_plan_is_refused(damage, told):
    with pytest.raises(RunError, match=told):
        from_json(damage(to_json(made())))


@pytest.mark.parametrize(
    ("recipe", "total"),
    [("study-a", 986_884), ("study-b", 999_172), ("study-c", 980_740), ("study-d", 999_172), ("study-e", 925_444)],
)
def test_the_studies_recipes_train_what_the_studies_could(recipe: str, total: int) -> None:
    assert plan(load(recipe=recipe), n_classes=4).total == total


# --- the prefix -----------------------------------------------------------------------------------


def with_prefix(asked, dropout=None, **adapter):
    model = {"name": "roberta-base", "prefix": asked, "dropout": dropout}
    return validate({"model": model, "adapter": {"sites": "query", **adapter}})


@pytest.mark.parametrize(
    ("asked", "dropout", "layers", "n", "told"),
    [
        (True, None, "top:4", 8, "prefix: the output of layers 0 to 7, frozen and without dropout, is computed once"),
        (True, 0.1, "top:11", 1, "prefix: the output of layer 0, frozen and without dropout, .*; dropout applies only"),
        (True, 0, [3, 7], 3, "prefix: the output of layers 0 to 2"),
        (None, 0, "top:4", 8, "prefix: the output of layers 0 to 7, .* if they are read more than once"),
        (None, 0.1, "top:4", 0, r"prefix: none, since model\.dropout is 0\.1 and also applies below layer 8"),
        (
            None,
            None,
            "top:4",
            0,
            r"prefix: none, since model\.dropout is the checkpoint's own and also applies below layer 8",
        ),
        (None, 0, None, 0, None),
        (False, 0, "top:4", 0, None),
    ],
)
def test_the_plan_tells_its_prefix(asked, dropout, layers, n, told):
    found = plan(with_prefix(asked, dropout, layers=layers), 4)
    assert found.n_prefix_layers == n
    sentences = [reason for reason in found.reasons if reason.startswith("prefix")]
    assert len(sentences) == (told is not None)
    assert told is None or re.match(told, sentences[0])


@pytest.mark.parametrize("wishes", [{"bias": "all"}, {"method": "none", "sites": "all-linear"}, {"layers": [0, 11]}])
def test_there_is_no_prefix_where_something_trains_at_the_bottom(wishes):
    asked_not = with_prefix(None, 0, **({"layers": "top:4"} if "bias" in wishes else {}), **wishes)
    assert plan(asked_not, 4).n_prefix_layers == 0
    with pytest.raises(ConfigError, match=r"model\.prefix is true, but .*(method none|bias all|layer 0).*null"):
        plan(with_prefix(True, **wishes), 4)


def test_a_plan_written_before_there_were_prefixes_has_none():
    values = json.loads(to_json(made()))
    del values["n_prefix_layers"]
    assert from_json(json.dumps(values)) == made()


@pytest.mark.parametrize(("name", "longest"), [("roberta-base", 512), ("bert-base-uncased", 512)])
def test_texts_longer_than_the_encoder_has_positions_are_no_plan(name: str, longest: int) -> None:
    def of(max_length: int) -> Plan:
        return plan(validate({"model": {"name": name, "max_length": max_length}}), 2)

    assert of(longest).total > 0
    with pytest.raises(ConfigError, match=f"max_length is {longest + 1}: .* positions for at most {longest} tokens"):
        of(longest + 1)
