"""Laws of the packed pass: the stock padded model's results, whatever trains, and dropout's statistics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_model
from torch import nn

from submillion.model import backbone, packed
from submillion.model.adapters import stock as stock_model
from submillion.model.batching import Batch
from submillion.model.packed import disentangled, native
from submillion.model.packed.linear import project
from submillion.model.packed.passes import Dice, Mask, keep_frac, masked
from submillion.planning import architectures
from submillion.planning.architectures import module_name
from tests.kit.pairs import each, pairwise
from tests.tiny import FAMILIES, make_encoder

LENGTHS = (2, 40, 7, 33, 2, 64, 31, 12)
ATTENTION = ("query", "key", "value")


def build(folder: Any, family: str, adapt: Callable[[list[str]], Any] | None = None, **wishes: Any) -> nn.Module:
    """A stock model in evaluation mode, adapted at the sites and layers wished, no adapter weight at its start."""
    sites = dict.fromkeys(fused(family, site) for site in wishes.get("sites", architectures.SEPARATE_SITES))
    layers = wishes.get("layers") or range(wishes.get("n_layers", 2))
    if family == "albert":
        layers = (0,)  # applied twice
    model, _ = backbone.load_model(architectures.load(str(folder)), ("a", "b", "c"), dropout=wishes.get("dropout"))
    torch.manual_seed(0)
    if adapt is None:
        return model.eval()
    targets = [module_name(family, site, layer) for layer in layers for site in sites]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a deprecated name
        model = get_peft_model(model, adapt(targets))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_" in name or "ia3" in name):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def fused(family: str, site: architectures.Site) -> architectures.Site:
    """The site itself, or the one that computes it too."""
    return site if site in architectures.FAMILIES[family].sites else "qkv"


def lora(targets: list[str], **kwargs: Any) -> LoraConfig:
    return LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": targets, **kwargs})


def make_batch(model: nn.Module, lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> Batch:
    """Random texts of these lengths, with token types where the family has them."""
    config: Any = stock_model(model).config
    rng = np.random.default_rng(seed)
    tokens = torch.from_numpy(rng.integers(5, config.vocab_size, sum(lengths)))
    n_types = max(1, getattr(config, "type_vocab_size", 1))
    return Batch(
        tokens=tokens,
        token_types=torch.from_numpy(rng.integers(0, n_types, sum(lengths))),
        offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        label_ids=torch.from_numpy(rng.integers(0, 3, len(lengths))),
        teacher_logits=None,
        example_ids=tuple(map(str, range(len(lengths)))),
    )


def rows_of(batch: Batch, rows: list[int]) -> Batch:
    """The batch with only these texts, in this order."""
    spans = [slice(int(batch.offsets[row]), int(batch.offsets[row + 1])) for row in rows]
    lengths = [span.stop - span.start for span in spans]
    return Batch(
        tokens=torch.cat([batch.tokens[span] for span in spans]),
        token_types=torch.cat([batch.token_types[span] for span in spans]),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        label_ids=batch.label_ids[rows],
        teacher_logits=None,
        example_ids=tuple(batch.example_ids[row] for row in rows),
    )


def stock_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    config: Any = stock_model(model).config
    spans = list(zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True))
    shape = (len(spans), max(stop - start for start, stop in spans))
    ids = torch.full(shape, config.pad_token_id)
    types, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, (start, stop) in enumerate(spans):
        ids[row, : stop - start] = batch.tokens[start:stop]
        types[row, : stop - start] = batch.token_types[start:stop]
        mask[row, : stop - start] = 1
    has_types = config.model_type in ("bert", "electra", "albert")
    extra = {"token_type_ids": types} if has_types else {}
    return model(input_ids=ids, attention_mask=mask, **extra).logits


def packed_logits(model: nn.Module, batch: Batch, **kwargs: Any) -> torch.Tensor:
    stock = stock_model(model)
    hidden = packed.encode(packed.prepare(model, architecture(model)), batch, **kwargs)
    match stock.config.model_type:
        case "bert":
            return stock.classifier(stock.dropout(stock.bert.pooler(hidden[:, None])))
        case "distilbert":
            return stock.classifier(stock.dropout(torch.relu(stock.pre_classifier(hidden))))
        case "modernbert":
            return stock.classifier(stock.drop(stock.head(hidden)))
        case "albert":
            return stock.classifier(stock.dropout(stock.albert.pooler_activation(stock.albert.pooler(hidden))))
        case "deberta-v2":
            return stock.classifier(stock.dropout(stock.pooler(hidden[:, None])))
        case _:
            return stock.classifier(hidden[:, None])


def architecture(model: nn.Module) -> architectures.Architecture:
    return architectures.load(stock_model(model).config._name_or_path)


def gradients(model: nn.Module, logits: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    nn.functional.cross_entropy(logits, batch.label_ids).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(model: nn.Module, batch: Batch, **kwargs: Any) -> None:
    """The law itself: logits within 1e-5, gradients of the same parameters within 1e-4 of their largest entry."""
    expected, found = stock_logits(model, batch), packed_logits(model, batch, **kwargs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    wanted, got = gradients(model, expected, batch), gradients(model, found, batch)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        # A key's bias has no influence: softmax does not see it. Its gradient is rounding.
        scale = max(float(gradient.abs().max()), 1e-4)
        assert float((got[name] - gradient).abs().max()) <= 1e-4 * scale, name


METHODS: dict[str, tuple[Callable[[list[str]], Any] | None, dict[str, Any]]] = {
    "all-linear": (lora, {}),
    "value": (lora, {"sites": ("value",)}),
    "query": (lora, {"sites": ("query",)}),
    "query-value": (lora, {"sites": ("query", "value")}),
    "query-key-value": (lora, {"sites": ATTENTION}),
    "ffn": (lora, {"sites": ("ffn_in", "ffn_out")}),
    "top layer": (lora, {"layers": (1,)}),
    "bottom layer": (lora, {"sites": ("attention_output", "key"), "layers": (0,)}),
    "ranks by site": (lambda t: lora(t, rank_pattern={name: 1 + i % 4 for i, name in enumerate(t)}), {}),
    "rslora": (lambda t: lora(t, use_rslora=True), {}),
    "dora": (lambda t: lora(t, use_dora=True), {}),
    "ia3": (lambda t: IA3Config(target_modules=t, feedforward_modules=[n for n in t if "ffn" in n]), {}),
    "adalora": (lambda t: AdaLoraConfig(init_r=3, target_r=2, total_step=10, target_modules=t), {}),
    "bias all": (lambda t: lora(t, bias="all"), {"sites": ("value",)}),
    "bias lora_only": (lambda t: lora(t, bias="lora_only"), {"sites": ("query", "ffn_out")}),
    "dora and bias": (lambda t: lora(t, use_dora=True, bias="all"), {"sites": ("value", "ffn_in")}),
    "none": (None, {}),
}


# Three things decide how a layer is walked: its family's modules, PEFT's class, and which of q, k, v stand together.
WALKED = {
    *pairwise(FAMILIES, ("all-linear", "query-value", "dora", "ia3", "bias all", "none")),
    *each(FAMILIES, METHODS),
}


@pytest.mark.parametrize(("family", "method"), sorted(WALKED))
def test_equal_to_stock(encoders, family, method):
    adapt, wishes = METHODS[method]
    model = build(encoders[family], family, adapt, **wishes)
    assert packed.supported(model.config, architecture(model)) is None
    assert_same(model, make_batch(model))


@pytest.fixture(scope="module")
def modernberts(tmp_path_factory):
    """ModernBERT by its pooling: layers 0 and 3 attend to all, 1 and 2 to 4 tokens on either side."""
    parent = tmp_path_factory.mktemp("modernberts")
    return {
        pooling: make_encoder("modernbert", parent / pooling, n_layers=4, classifier_pooling=pooling)
        for pooling in ("cls", "mean")
    }


@pytest.mark.parametrize(("pooling", "method"), pairwise(("cls", "mean"), METHODS))
def test_local_and_global_layers_are_equal_to_stock(modernberts, pooling, method):
    adapt, wishes = METHODS[method]
    model = build(modernberts[pooling], "modernbert", adapt, n_layers=4, **wishes)
    assert packed.supported(model.config, architecture(model)) is None
    assert_same(model, make_batch(model))
    assert_same(model, make_batch(model, (5, 1, 3)))  # none beyond the window
    assert_same(model, make_batch(model, (40,)), checkpoint=True)


def test_local_layers_see_their_window_alone(modernberts):
    model = build(modernberts["cls"], "modernbert")
    stock = stock_model(model)
    stock.config.layer_types = ["sliding_attention"] * 4
    for layer in stock.model.layers:
        layer.attention_type = "sliding_attention"
    batch = make_batch(model, (40,))
    with torch.no_grad():
        before = packed_logits(model, batch)
        batch.tokens[17:] = 5  # 4 layers of 4 tokens
        assert torch.equal(packed_logits(model, batch), before)
        batch.tokens[16] = (batch.tokens[16] - 4) % 30 + 5
        assert not torch.equal(packed_logits(model, batch), before)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_local_attention_in_bf16_agrees_with_float32(modernberts, pooling):
    model = build(modernberts[pooling], "modernbert", lora, n_layers=4)
    batch = make_batch(model)

    def run(dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hidden = packed.encode(packed.prepare(model, architecture(model), dtype), batch)
        return hidden.detach(), gradients(model, hidden, batch)

    (exact, wanted), (found, got) = run(torch.float32), run(torch.bfloat16)
    assert float((found - exact).norm() / exact.norm()) < 0.03
    for name, gradient in wanted.items():
        assert float(nn.functional.cosine_similarity(got[name].ravel(), gradient.ravel(), dim=0)) > 0.98, name


def test_scaled_rotary_positions_are_refused(modernberts):
    model = build(modernberts["cls"], "modernbert")
    model.config.rope_parameters["full_attention"]["rope_type"] = "yarn"
    assert "yarn" in str(packed.supported(model.config, architecture(model)))


@pytest.fixture(scope="module")
def debertas(tmp_path_factory):
    """DeBERTa by the parts of its scores; buckets join distances from 4 on, or there is a row for each."""
    parent = tmp_path_factory.mktemp("debertas")
    kinds = {"both": ["p2c", "c2p"], "c2p": ["c2p"], "p2c": ["p2c"], "neither": []}
    folders = {
        kind: make_encoder("deberta-v2", parent / kind, pos_att_type=parts, max_relative_positions=60)
        for kind, parts in kinds.items()
    }
    return folders | {"no buckets": make_encoder("deberta-v2", parent / "plain", position_buckets=100)}


SCORES = ("both", "c2p", "p2c", "neither", "no buckets")


@pytest.mark.parametrize(("parts", "method"), sorted({*pairwise(SCORES, METHODS), *each(SCORES, METHODS)}))
def test_distances_in_scores_are_equal_to_stock(debertas, parts, method):
    adapt, wishes = METHODS[method]
    model = build(debertas[parts], "deberta-v2", adapt, **wishes)
    assert packed.supported(model.config, architecture(model)) is None
    assert_same(model, make_batch(model))
    assert_same(model, make_batch(model, (100, 3, 70, 1)))  # beyond the last bucket
    assert_same(model, make_batch(model, (40,)), checkpoint=True)


def test_kept_distances_follow_what_they_are_made_of(debertas, monkeypatch):
    """They are computed once for all batches where nothing in them trains or drops, and anew after any change."""
    model = build(debertas["both"], "deberta-v2", lora, sites=("value",))
    inner = packed.prepare(model, architecture(model))
    batch, real, made = make_batch(model), disentangled.project_for_each, list[int]()
    monkeypatch.setattr(disentangled, "project_for_each", lambda x, *rest: made.append(len(x)) or real(x, *rest))
    stock: Any = stock_model(model)

    def check(n_made: int) -> None:
        made.clear()
        with torch.inference_mode():
            hidden = packed.encode(inner, batch)
            found = stock.classifier(stock.dropout(stock.pooler(hidden[:, None])))
            torch.testing.assert_close(found, stock_logits(model, batch), rtol=0, atol=1e-5)
        assert len(made) == n_made

    check(2)
    check(0)
    assert_same(model, batch)  # what was made without a gradient serves where there is one
    layers = stock.deberta.encoder.layer
    attention = layers[0].attention.self
    for parameter in (attention.query_proj.weight, attention.key_proj.bias):
        with torch.no_grad():
            parameter.mul_(1.5)
        check(1)
    with torch.no_grad():
        stock.deberta.encoder.LayerNorm.bias.add_(0.3)
    check(2)
    stock.deberta.encoder.rel_embeddings.weight.data = stock.deberta.encoder.rel_embeddings.weight * 2
    check(2)
    layers[1].attention.self.key_proj.weight.data.mul_(0.7)
    inner = packed.prepare(model, architecture(model))
    check(2)
    model.train()
    made.clear()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    packed.encode(inner, batch)
    assert not made
    attention.pos_dropout.p = 0.1
    packed.encode(inner, batch)
    assert len(made) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_text_of_one_batch_or_another_has_the_same_result(encoders, family):
    model = build(encoders[family], family, lora)
    batch = make_batch(model)
    with torch.no_grad():
        whole = packed_logits(model, batch)
        order = [5, 0, 7, 3, 1, 6, 2, 4]
        torch.testing.assert_close(packed_logits(model, rows_of(batch, order)), whole[order], rtol=0, atol=1e-5)
        alone = torch.cat([packed_logits(model, rows_of(batch, [row])) for row in range(len(LENGTHS))])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_padding_token_inside_a_text_shifts_positions_as_in_stock(encoders, family):
    model = build(encoders[family], family)
    batch = make_batch(model)
    batch.tokens[[5, 6, 44]] = 1
    assert_same(model, batch)


def test_inference_mode_gives_the_same(encoders):
    model = build(encoders["bert"], "bert", lora)
    batch = make_batch(model)
    expected = packed_logits(model, batch)
    with torch.inference_mode():
        torch.testing.assert_close(packed_logits(model, batch), expected)


PLACES = {
    "embeddings": (".embeddings.dropout", ".embeddings.drop"),
    "attention weights": (".self.dropout", ".attn.dropout", "attention.dropout", ".attn", ".attention_dropout"),
    "attention output": ("attention.output.dropout", "attention.dropout", ".out_drop", ".output_dropout"),
    "feed-forward": (".output.dropout", ".ffn.dropout", ".mlp.drop"),
    "adapters": ".lora_dropout.default",
    "distances": ".pos_dropout",
}
HAVE_DROPOUT = [
    (family, place)
    for family in ("bert", "mpnet", "distilbert", "modernbert", "deberta-v2", "albert")
    for place in PLACES
    if (place != "distances" or family == "deberta-v2") and (place != "feed-forward" or family != "albert")
]


def only_dropout(model: nn.Module, place: str, p: float) -> None:
    """Set the dropouts of one place to p, all others to 0, and train."""
    model.train()
    for name, module in model.named_modules():
        wished = p if name.endswith(PLACES[place]) else 0.0
        if isinstance(module, nn.Dropout):
            module.p = wished
        elif isinstance(getattr(module, "attention_dropout", None), float):  # ModernBERT's own number
            module.attention_dropout = wished


@pytest.mark.parametrize(("family", "place"), HAVE_DROPOUT)
def test_dropout_has_the_stock_mean_and_variance(encoders, family, place):
    model = build(encoders[family], family, lambda targets: lora(targets, lora_dropout=0.1), dropout=0.1)
    only_dropout(model, place, 0.3)
    # All texts of a batch have one draw of the distances.
    n, n_passes = (1, 250) if place == "distances" else (2000, 1)
    batch = rows_of(make_batch(model, (5,)), [0] * n)
    n *= n_passes
    torch.manual_seed(1)
    with torch.no_grad():
        expected, found = (
            torch.cat([logits(model, batch) for _ in range(n_passes)]).double()
            for logits in (stock_logits, packed_logits)
        )
    assert float(found.var(0).min()) > 0

    def close(a: torch.Tensor, b: torch.Tensor) -> None:
        error = ((a.var(0) + b.var(0)) / n).sqrt()
        assert float(((a.mean(0) - b.mean(0)).abs() / error).max()) < 4.5

    close(found, expected)
    close((found - expected.mean(0)) ** 2, (expected - expected.mean(0)) ** 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_reproducible_and_survives_checkpointing(encoders, family):
    model = build(encoders[family], family, lambda targets: lora(targets, lora_dropout=0.2), dropout=0.2).train()
    batch = make_batch(model)

    def run(seed: int, checkpoint: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(seed)
        logits = packed_logits(model, batch, checkpoint=checkpoint)
        return logits.detach(), gradients(model, logits, batch)

    (first, wanted), (again, replayed), (kept, recomputed) = run(7, False), run(7, False), run(7, True)
    assert torch.equal(first, again)
    assert torch.equal(first, kept)
    assert not torch.equal(first, run(8, False)[0])
    for name, gradient in wanted.items():
        assert torch.equal(gradient, replayed[name])
        assert torch.equal(gradient, recomputed[name])


class SpelledOut(Dice):
    """The same masks as tensors, which torch's operators apply."""

    def masks(self, shapes: Sequence[Sequence[int]], p: float) -> list[Mask | None]:
        found = super().masks(shapes, p)
        ones = [torch.ones(*shape, dtype=torch.int16) for shape in shapes]
        return [mask and Mask(0, mask.least, masked(bits, mask)) for bits, mask in zip(ones, found, strict=True)]


@pytest.mark.skipif(not native.available(), reason="kernels.c was not compiled here")
@pytest.mark.parametrize(("family", "kind"), each(FAMILIES, [{}, {"bias": "all"}, {"use_dora": True}]), ids=str)
def test_kernels_drop_the_same_elements_forward_and_backward(encoders, family, kind, monkeypatch):
    model = build(encoders[family], family, lambda t: lora(t, lora_dropout=0.2, **kind), dropout=0.2).train()
    batch = make_batch(model)
    walk = packed.prepare(model, architectures.load(str(encoders[family])), torch.bfloat16)

    def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(3)
        first = packed.encode(walk, batch)
        return first.detach(), gradients(model, first.square(), batch)

    found, found_gradients = run()
    again, replayed = run()
    assert torch.equal(found, again)
    monkeypatch.setattr(packed.forward, "Dice", SpelledOut)
    wanted, wanted_gradients = run()

    def near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
        return float((a - b).norm()) <= tolerance * float(b.norm()) + 2e-3

    assert near(found, wanted, 0.05)
    for name, gradient in wanted_gradients.items():
        assert torch.equal(found_gradients[name], replayed[name])
        # Rounding makes a sixth of small gradients, and all of the keys' biases', which are 0; other masks over a half.
        assert near(found_gradients[name], gradient, 0.25), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_masks_keep_what_they_say(p, dtype):
    torch.manual_seed(0)
    ones = torch.ones(1000, 1000, dtype=dtype)
    first, second = (masked(ones, mask) for mask in Dice(ones).masks([(1000, 1000)] * 2, p))
    keep = keep_frac(p)
    assert keep == pytest.approx(1 - p, abs=1e-5)
    assert set(first.unique().tolist()) == {0, 1}
    n, variance = ones.numel(), keep * (1 - keep)
    for kept, expected in ((first, keep), (second, keep), (first * second, keep**2), (first[1:] * first[:-1], keep**2)):
        spread = 4.5 * (n * expected * (1 - expected)) ** 0.5
        assert float(kept.float().sum()) == pytest.approx(kept.numel() * expected, abs=spread)
    assert float(first.float().mean(0).var()) == pytest.approx(variance / 1000, rel=0.2)
    assert float(first.float().mean(1).var()) == pytest.approx(variance / 1000, rel=0.2)


HALF = ("all-linear", "query-value", "dora", "ia3", "adalora", "bias all", "dora and bias", "none")


@pytest.mark.parametrize(("family", "method"), sorted({*each(FAMILIES, HALF), *each(FAMILIES, HALF[::-1])}))
def test_bf16_agrees_with_float32(encoders, family, method):
    assert_bf16_agrees(encoders[family], family, method)


@pytest.mark.parametrize(("family", "method"), each(FAMILIES, HALF))
def test_bf16_agrees_with_float32_where_heads_fill_tiles(family, method, tmp_path):
    """Heads 32 wide, which `native_attention` takes where it can; else the same as narrow ones."""
    assert_bf16_agrees(make_encoder(family, tmp_path, width=64, n_heads=2), family, method)


def assert_bf16_agrees(encoder: Any, family: str, method: str) -> None:
    """Frozen weights in bf16, trained ones in float32; rows and products in bf16 whichever they are."""
    adapt, wishes = METHODS[method]
    model = build(encoder, family, adapt, **wishes)
    batch = make_batch(model)

    def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hidden = packed.encode(packed.prepare(model, architecture(model), dtype), batch)
        direction = torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
        model.zero_grad()
        (hidden * direction).sum().backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return hidden.detach(), grads

    dtype = torch.float32
    exact, wanted = run()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    dtype = torch.bfloat16
    found, grads = run()
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert float((found - exact).norm() / exact.norm()) < 0.03
    for name, gradient in grads.items():
        assert gradient.dtype == torch.float32
        if ".key.bias" not in name and "k_lin.bias" not in name and "attn.k.bias" not in name:  # zero but for rounding
            assert float(nn.functional.cosine_similarity(gradient.ravel(), wanted[name].ravel(), dim=0)) > 0.95, name


@pytest.mark.parametrize("rows", [64, 832, 1300])
def test_products_in_parts_are_the_product(rows):
    torch.manual_seed(0)
    linear = nn.Linear(768, 768).bfloat16().requires_grad_(False)
    x = torch.randn(rows, 768, dtype=torch.bfloat16, requires_grad=True)
    found = project(x, [linear], Dice(x))
    expected = linear(x)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    direction = torch.randn_like(found)
    (wanted,) = torch.autograd.grad(expected, x, direction)
    torch.testing.assert_close(torch.autograd.grad(found, x, direction)[0], wanted, rtol=0.02, atol=0.02)


def test_prepare_leaves_one_copy_of_the_weights_and_the_model_as_it_was(encoders, tmp_path):
    model = build(encoders["bert"], "bert")
    model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packed.prepare(model, architecture(model))
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.items())
    own = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    assert sum(own.values()) == sum(tensor.numel() * tensor.element_size() for tensor in before.values())
    model.save_pretrained(tmp_path)
    again, _ = backbone.load_model(architectures.load(str(tmp_path)), ("a", "b", "c"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in before.items())


def test_weights_changed_after_preparing_are_seen(encoders):
    model = build(encoders["bert"], "bert", lora)
    batch = make_batch(model)
    inner = packed.prepare(model, architecture(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for layer in inner.layers:  # as `.to()` and a safe merge do
            weight = layer.sites["key"].get_base_layer().weight
            weight.data = weight.data * 1.1
        expected = stock_logits(model, batch)
        hidden = packed.encode(inner, batch)
        stock = stock_model(model)
        found = stock.classifier(stock.bert.pooler(hidden[:, None]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_merged_and_disabled_adapters_are_followed(encoders):
    model: Any = build(encoders["roberta"], "roberta", lora)
    batch = make_batch(model)
    with torch.no_grad():
        adapted = packed_logits(model, batch)
        with model.disable_adapter():
            bare = packed_logits(model, batch)
            torch.testing.assert_close(bare, stock_logits(model, batch), rtol=0, atol=1e-5)
        assert not torch.allclose(bare, adapted, atol=1e-3)
        model.merge_adapter()
        torch.testing.assert_close(packed_logits(model, batch), adapted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "word"), [("is_decoder", True, "decoder"), ("chunk_size_feed_forward", 4, "chunk")]
)
def test_unsupported_models_are_named(encoders, key, value, word):
    model = build(encoders["bert"], "bert")
    setattr(model.config, key, value)
    reason = packed.supported(model.config, architecture(model))
    assert reason is not None
    assert word in reason
