"""Laws of what trains: the plan's count, fresh adapters change nothing, merging, starting from another, AdaLoRA."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from submillion.errors import BudgetError, ConfigError, RunError
from submillion.model import adapters
from submillion.model.adapters import heads
from tests.adapted import FUSED, HEADS, LABELS, METHODS, SEPARATE, adapted, can_have, shaken, stock_model
from tests.kit.pairs import each, pairwise
from tests.tiny import FAMILIES, PADDED, TEXTS

ALL = (*FAMILIES, *PADDED)
CASES = pairwise(
    ALL,
    ("full", "linear", "bottleneck"),
    METHODS,
    where=lambda family, head, method: (family, head) in HEADS and can_have(family, method),
)


def logits(model, encoder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    with torch.no_grad():
        return model.eval()(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits


def hidden(model, encoder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    stock = adapters.stock(model)
    with torch.no_grad():
        return getattr(stock, stock.base_model_prefix)(**tokenizer(list(TEXTS), padding=True, return_tensors="pt"))[0]


def trainable(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in adapters.trainable_parameters(model).items()}


@pytest.mark.parametrize(("family", "head", "method"), CASES)
def test_what_trains_is_what_the_plan_counts_and_all_of_it_is_float32(encoders, family, head, method) -> None:
    model, plan = adapted(encoders[family], head, **METHODS[method])
    adapters.verify(model, plan)
    parameters = adapters.trainable_parameters(model)
    assert sum(p.numel() for p in parameters.values()) == plan.total
    assert sum(p.numel() for p in model.parameters()) == plan.all_params
    adapters.hold_frozen_in(model, torch.bfloat16)
    in_head = {name: p for name, p in model.named_parameters() if adapters.is_head(model, name)}
    assert {p.dtype for p in (*parameters.values(), *in_head.values())} == {torch.float32}
    assert sum(p.numel() for name, p in parameters.items() if name in in_head) >= plan.head_params


@pytest.mark.parametrize("family", ALL)
def test_full_fine_tuning_trains_everything(encoders, family) -> None:
    model, plan = adapted(encoders[family], method="none")
    adapters.verify(model, plan)
    head = sum(p.numel() for name, p in adapters.trainable_parameters(model).items() if adapters.is_head(model, name))
    assert (plan.total, plan.head_params) == (plan.all_params, head)


def test_a_model_that_is_not_the_plan_is_refused_by_site(encoders) -> None:
    model, plan = adapted(encoders["bert"], sites=("query", "value"), bias="lora_only")
    wrong = tuple(dataclasses.replace(t, rank=t.rank + (t.site == "value")) for t in plan.targets)
    with pytest.raises(BudgetError, match=r"site value: the plan has 640 parameters, the built model trains 512"):
        adapters.verify(model, dataclasses.replace(plan, targets=wrong))
    adapters.stock(model).bert.embeddings.LayerNorm.bias.requires_grad_(True)
    with pytest.raises(BudgetError, match=r"biases: the plan has 128 parameters, the built model trains 160") as error:
        adapters.verify(model, plan)
    assert "site" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *each(SEPARATE, ["lora", "dora", "adalora", "ia3", "rslora", "gaussian", "bias-all"]),
        *each((*FUSED, *PADDED), ["lora", "dora", "adalora", "ia3"]),
    ],
)
def test_a_fresh_adapter_changes_no_bit(encoders, family, method) -> None:
    model, _ = adapted(encoders[family], **METHODS[method])
    before = hidden(stock_model(encoders[family])[0].eval(), encoders[family])
    assert torch.equal(hidden(model, encoders[family]), before)


@pytest.mark.parametrize(
    ("family", "method"),
    [*each(SEPARATE, ["pissa", "olora", "orthogonal"]), *each((*FUSED, *PADDED), ["pissa", "orthogonal"])],
)
def test_a_fresh_adapter_taken_from_the_weights_changes_next_to_nothing(encoders, family, method) -> None:
    model, _ = adapted(encoders[family], **METHODS[method])
    before = hidden(stock_model(encoders[family])[0].eval(), encoders[family])
    assert (hidden(model, encoders[family]) - before).abs().max() <= 1e-6 * before.abs().max()


@pytest.mark.parametrize("head", ["linear", "bottleneck"])
def test_a_fresh_head_passes_on_what_it_reads(encoders, tmp_path, head) -> None:
    """Both start as the identity before the activation; BERT's as the pooler that was pretrained."""
    first = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    trained = adapters.merged(shaken(adapted(encoders["roberta"])[0]))
    trained.save_pretrained(tmp_path)
    for encoder in (encoders["roberta"], tmp_path):  # the second one comes with a head that was trained
        model, _ = adapted(encoder, head)
        assert torch.equal(heads.dense_layer(adapters.stock(model))(first), first)
    model, _ = adapted(encoders["bert"], head)
    pooler = stock_model(encoders["bert"])[0].bert.pooler.dense
    assert torch.equal(heads.dense_layer(adapters.stock(model))(first), pooler(first))


@pytest.mark.parametrize(("family", "head"), [place for place in HEADS if place[0] != "nomic_bert"])
def test_the_heads_forward_pass_is_the_stock_models(encoders, family, head) -> None:
    model, plan = adapted(encoders[family], head)
    shaken(model)
    with torch.no_grad():
        ours = adapters.head_logits(adapters.stock(model), plan.architecture, hidden(model, encoders[family])[:, 0])
    assert torch.allclose(ours, logits(model, encoders[family]), rtol=0, atol=1e-6)


# Methods merge in the encoder, heads fold above it; but IA3's own merge stumbles over saved modules.
FOLDED = [("bert", "bottleneck"), ("roberta", "linear"), ("distilbert", "full")]
NEWER = [("modernbert", "bottleneck"), ("deberta-v2", "bottleneck"), ("albert", "linear"), ("nomic_bert", "full")]
MERGED = {*each(FOLDED, [*METHODS, "none"]), *((place, "ia3") for place in FOLDED), *((p, "dora") for p in NEWER)}


@pytest.mark.parametrize(("place", "method"), sorted(MERGED))
def test_merging_keeps_the_function_and_the_original(encoders, tmp_path, place, method) -> None:
    family, head = place
    options = {"method": "none"} if method == "none" else METHODS[method]
    model, _ = adapted(encoders[family], "full" if method == "none" else head, **options)
    shaken(model)
    ours, before = logits(model, encoders[family]), {n: t.clone() for n, t in model.state_dict().items()}
    merged = adapters.merged(model)
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path)
    assert {n for n, _ in again.named_parameters()} == {
        n for n, _ in stock_model(encoders[family])[0].named_parameters()
    }
    for stock in (merged, again):
        assert torch.allclose(logits(stock, encoders[family]), ours, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_merging_refuses_weights_that_would_round_the_adapter_away(encoders) -> None:
    model, _ = adapted(encoders["bert"])
    adapters.hold_frozen_in(model, torch.bfloat16)
    with pytest.raises(AssertionError, match=r"float32"):
        adapters.merged(model)


def saved(model, encoder: Path, folder: Path, labels=LABELS) -> Path:
    adapters.save(model, folder, AutoTokenizer.from_pretrained(encoder), labels, str(encoder))
    return folder


@pytest.mark.parametrize(
    ("place", "method"),
    each(
        [("bert", "full"), ("mpnet", "linear"), ("electra", "bottleneck")],
        ["lora", "dora", "adalora", "ia3", "rslora", "adalora-bias-all", "bias-lora-only", "none", "lora"],
    ),
)
def test_training_can_start_from_a_saved_adapter(encoders, tmp_path, place, method) -> None:
    family, head = place
    options = {"method": "none"} if method == "none" else METHODS[method]
    head = "full" if method == "none" else head
    model, _ = adapted(encoders[family], head, **options)
    ours = logits(shaken(model), encoders[family])
    folder = saved(model, encoders[family], tmp_path / "run" / "adapter")
    fresh, plan = adapted(encoders[family], head, **options)
    assert adapters.start_from(fresh, folder.parent, LABELS)
    assert torch.allclose(logits(fresh, encoders[family]), ours, rtol=0, atol=1e-5)
    adapters.verify(fresh, plan)


def test_the_head_comes_along_only_with_its_labels_and_its_kind(encoders, tmp_path) -> None:
    model, _ = adapted(encoders["roberta"], "full")
    shaken(model)
    folder = saved(model, encoders["roberta"], tmp_path / "adapter")
    for head, labels in (("full", ("a", "b", "c")), ("linear", LABELS), ("bottleneck", LABELS)):
        fresh, _ = adapted(encoders["roberta"], head)
        before = trainable(fresh)
        assert not adapters.start_from(fresh, folder, labels)
        now = trainable(fresh)
        kept = {name for name in now if torch.equal(now[name], before[name])}
        assert kept == {name for name in now if adapters.is_head(fresh, name)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 3}, r"lora_A.weight is \[4, 32\] there and \[3, 32\] here"),
        ({"sites": ("query",)}, "key.lora_A.weight is .* there and absent here"),
        ({"alpha": 5}, "lora_alpha is 8.0 there and 5.0 here"),
        ({"method": "dora"}, "lora_magnitude_vector is absent there"),
        ({"method": "adalora"}, "peft_type is LORA there and ADALORA here"),
        ({"method": "none"}, "a full model .* is needed, but it has adapter_model.safetensors"),
    ],
)
def test_starting_from_another_kind_of_adapter_lists_what_differs(encoders, tmp_path, options, message) -> None:
    folder = saved(adapted(encoders["bert"])[0], encoders["bert"], tmp_path / "adapter")
    fresh, _ = adapted(encoders["bert"], **options)
    before = trainable(fresh)
    with pytest.raises(ConfigError, match=message):
        adapters.start_from(fresh, folder, LABELS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable(fresh).items())


def test_saving_replaces_and_loading_reads_back(encoders, tmp_path) -> None:
    encoder, folder = encoders["xlm-roberta"], tmp_path / "adapter"
    folder.mkdir()
    (folder / "left-over").touch()
    model, _ = adapted(encoder, "bottleneck")
    saved(shaken(model), encoder, folder)
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "labels.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded = adapters.load(copy.deepcopy(stock_model(encoder)[0]), folder)
    assert torch.allclose(logits(loaded, encoder), logits(model, encoder), rtol=0, atol=1e-6)
    assert not adapters.trainable_parameters(loaded)


def test_loading_a_damaged_adapter_says_so(encoders, tmp_path) -> None:
    folder = saved(adapted(encoders["bert"])[0], encoders["bert"], tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:100], b""):
        weights.write_bytes(damaged)
        with pytest.raises(RunError, match=r"is damaged, or for another model"):
            adapters.load(copy.deepcopy(stock_model(encoders["bert"])[0]), folder)
    weights.write_bytes(content)
    with pytest.raises(RunError, match=r"is damaged, or for another model"):
        adapters.load(copy.deepcopy(stock_model(encoders["electra"])[0]), folder)


def test_orthogonal_needs_an_even_rank(encoders) -> None:
    with pytest.raises(ConfigError, match=r"adapter.rank is 3 for query: init orthogonal needs an even rank"):
        adapted(encoders["bert"], init="orthogonal", rank=3, sites=("query",))


def test_first_weights_follow_the_seed(encoders) -> None:
    torch.manual_seed(1)
    one = trainable(adapted(encoders["bert"], "bottleneck", seed=5)[0])
    torch.manual_seed(2)
    again, other = (trainable(adapted(encoders["bert"], "bottleneck", seed=seed)[0]) for seed in (5, 6))
    assert all(torch.equal(one[name], again[name]) for name in one)
    changed = {name.split(".")[-1] for name in one if not torch.equal(one[name], other[name])}
    assert changed == {"weight", "v"}, "A of each site, and the bottleneck's V"


# AdaLoRA while it trains


def adalora_step(model, encoder: Path, step: int) -> torch.Tensor:
    """One step of SGD on half-way random targets; return the loss."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    output = model.train()(**tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
    targets = torch.arange(len(TEXTS)) % 3
    loss = torch.nn.functional.cross_entropy(output.logits, targets) + adapters.orthogonality_loss(model)
    loss.backward()
    with torch.no_grad():
        for parameter in adapters.trainable_parameters(model).values():
            parameter -= 0.5 * parameter.grad
    adapters.reallocate(model, step)
    model.zero_grad()
    return loss.detach()


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def test_the_orthogonality_loss_is_what_peft_adds(encoders) -> None:
    model, _ = adapted(encoders["bert"], method="adalora", sites=("query", "ffn_in"))
    without_dropout(shaken(model))
    inputs = AutoTokenizer.from_pretrained(encoders["bert"])(list(TEXTS), padding=True, return_tensors="pt")
    labels = torch.zeros(len(TEXTS), dtype=torch.long)
    with_penalty = model(**inputs, labels=labels).loss
    plain = adapters.stock(model)(**inputs, labels=labels).loss
    assert torch.allclose(plain + adapters.orthogonality_loss(model), with_penalty, rtol=0, atol=1e-6)
    assert adapters.orthogonality_loss(adapted(encoders["bert"])[0]) is None


def test_adalora_prunes_to_its_target_and_reloads_exactly_at_any_step(encoders, tmp_path) -> None:
    encoder = encoders["bert"]
    model, _ = adapted(encoder, method="adalora", rank=4, target_rank=2)
    without_dropout(model)
    for step in range(1, 21):
        adalora_step(model, encoder, step)
        if step in (5, 20):
            folder = saved(model, encoder, tmp_path / str(step))
            loaded = adapters.load(copy.deepcopy(stock_model(encoder)[0]), folder)
            assert torch.allclose(logits(loaded, encoder), logits(model, encoder), rtol=0, atol=1e-6)
    alive = sum(int((p != 0).sum()) for name, p in adapters.trainable_parameters(model).items() if "lora_E" in name)
    assert alive <= 2 * 12, "12 layers of mean rank 2"


def test_adalora_resumes_exactly(encoders) -> None:
    encoder = encoders["roberta"]
    model = without_dropout(adapted(encoder, method="adalora")[0])
    other = without_dropout(adapted(encoder, method="adalora")[0])
    for step in range(1, 18):
        if step in (3, 9, 16):  # warming up, pruning, and after the last allocation
            state = {name: tensor.clone() for name, tensor in adapters.method_state(model).items()}
            other = without_dropout(adapted(encoder, method="adalora")[0])
            other.load_state_dict(copy.deepcopy(model.state_dict()))
            adapters.load_method_state(other, state)
        assert torch.equal(adalora_step(model, encoder, step), adalora_step(other, encoder, step))
        state, again = adapters.method_state(model), adapters.method_state(other)
        assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert all(torch.equal(p, trainable(other)[name]) for name, p in trainable(model).items())
    assert adapters.method_state(adapted(encoder)[0]) == {}


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize(("rank", "target"), [(1, None), (2, 2), (3, 1)])
def test_adalora_survives_short_trainings_and_ranks_that_cannot_fall(encoders, steps, rank, target) -> None:
    wishes = {"method": "adalora", "rank": rank, "target_rank": target, "sites": ("query",)}
    model, _ = adapted(encoders["bert"], total_steps=steps, **wishes)
    for step in range(1, steps + 1):
        assert torch.isfinite(adalora_step(model, encoders["bert"], step))
