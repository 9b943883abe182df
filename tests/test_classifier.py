"""Laws of the classifier: its two passes are the stock model's, precisions, saving, loading, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from submillion import config, planning
from submillion.config import Config
from submillion.data import Example
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, HubError, RunError
from submillion.model import adapters, backbone, batching
from submillion.model.classifier import Classifier
from submillion.planning import Plan
from submillion.runs import Run
from tests.adapted import HEADS, LABELS, METHODS, can_have, shaken
from tests.kit.pairs import each, pairwise
from tests.tiny import FAMILIES, PADDED, TEXTS, make_encoder, settings

CPU = torch.device("cpu")


def build(settings: Config, precision: Any = "fp32", steps: int = 20) -> Classifier:
    return Classifier.build(settings, planning.plan(settings, 3), LABELS, steps, precision, CPU)


def make_batch(classifier: Classifier, texts=TEXTS, pairs=None) -> batching.Batch:
    examples = [Example(str(i), text, LABELS[i % 3], pairs[i] if pairs else None) for i, text in enumerate(texts)]
    split = batching.tokenize(examples, classifier.tokenizer, LABELS, Reading(32))
    return split.batch(next(batching.evaluation_rows(split.lengths, 100)))


def in_order(classifier: Classifier, **kwargs: Any) -> torch.Tensor:
    """Logits of the texts in their own order."""
    batch = make_batch(classifier, **kwargs)
    with torch.no_grad():
        logits = classifier.eval()(batch)
    return logits[torch.tensor([batch.example_ids.index(str(i)) for i in range(batch.n_rows)])]


def stock_logits(classifier: Classifier, texts=TEXTS, pairs=None) -> torch.Tensor:
    inputs = classifier.tokenizer(list(texts), pairs, padding=True, return_tensors="pt", truncation=True, max_length=32)
    with torch.no_grad():
        return classifier.eval().model(**inputs).logits


def finished(classifier: Classifier, settings: Config, folder: Path) -> Run:
    """A run folder with what loading needs."""
    folder.mkdir()
    run = Run(folder)
    run.write("config.yaml", config.to_yaml(settings))
    run.write("plan.json", planning.to_json(classifier.plan))
    run.write_json("labels.json", list(LABELS))
    run.write_json("environment.json", {"device": "cpu", "precision": classifier.precision})
    classifier.save(folder / "adapter")
    return run


@pytest.mark.parametrize(
    ("family", "head", "method"),
    pairwise(
        (*FAMILIES, "camembert"),
        ("full", "linear", "bottleneck"),
        ("lora", "dora", "ia3", "adalora-bias-all"),
        where=lambda family, head, method: (family, head) in HEADS and can_have(family, method),
    ),
)
def test_both_passes_give_the_stock_models_logits(encoders, family, head, method) -> None:
    classifier = build(settings(encoders[family], head, **METHODS[method]))
    shaken(classifier.model)
    expected = stock_logits(classifier)
    assert classifier.packed
    assert torch.allclose(in_order(classifier), expected, rtol=0, atol=1e-5)
    classifier.packed = False
    assert torch.allclose(in_order(classifier), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "head"),
    [place for place in HEADS if place[0] in PADDED and place[1] != "bottleneck"],
)
def test_other_families_take_the_stock_models_pass(encoders, family, head) -> None:
    classifier = build(settings(encoders[family], head))
    shaken(classifier.model)
    assert not classifier.packed
    assert any("packed pass does not know" in note for note in classifier.notes)
    assert torch.allclose(in_order(classifier), stock_logits(classifier), rtol=0, atol=1e-6)
    pairs = list(reversed(TEXTS))
    assert torch.allclose(in_order(classifier, pairs=pairs), stock_logits(classifier, pairs=pairs), rtol=0, atol=1e-6)


def test_a_config_that_its_family_s_table_does_not_describe_takes_the_stock_pass(tmp_path) -> None:
    classifier = build(settings(make_encoder("deberta-v2", tmp_path, type_vocab_size=2)))
    shaken(classifier.model)
    assert any("does not know deberta-v2 with such a config" in note for note in classifier.notes)
    assert torch.allclose(in_order(classifier), stock_logits(classifier), rtol=0, atol=1e-6)


def test_modernbert_pools_as_its_config_says(encoders, tmp_path) -> None:
    means = make_encoder("modernbert", tmp_path, classifier_pooling="mean")
    classifier, first = (build(settings(encoder)) for encoder in (means, encoders["modernbert"]))
    assert torch.allclose(in_order(classifier), stock_logits(classifier), rtol=0, atol=1e-6)
    assert not torch.allclose(in_order(classifier), in_order(first), rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_read_as_the_stock_model_reads_them(encoders, family) -> None:
    classifier = build(settings(encoders[family]))
    shaken(classifier.model)
    pairs = list(reversed(TEXTS))
    expected = stock_logits(classifier, pairs=pairs)
    for classifier.packed in (True, False):
        assert torch.allclose(in_order(classifier, pairs=pairs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "packed"),
    sorted(
        {
            *each(
                ["bert", "mpnet", "electra"], ["lora", "dora", "adalora", "ia3", "bias-all", "pissa", "none"], [True]
            ),
            *each(
                ["electra", "bert", "mpnet"], ["lora", "dora", "adalora", "ia3", "bias-all", "pissa", "none"], [False]
            ),
            *each(PADDED, ["lora", "dora", "none"], [False]),
        }
    ),
)
def test_bf16_trains_the_same_parameters_in_float32(encoders, family, method, packed) -> None:
    options = {"method": "none"} if method == "none" else METHODS[method]
    exact, lower = (build(settings(encoders[family], **options), precision) for precision in ("fp32", "bf16"))
    gradients = []
    for classifier in (exact, lower):
        classifier.packed = packed
        shaken(classifier.model)
        logits = classifier.eval()(batch := make_batch(classifier))
        assert logits.dtype == torch.float32
        torch.nn.functional.cross_entropy(logits, batch.label_ids).backward()
        parameters = adapters.trainable_parameters(classifier.model)
        assert {p.dtype for p in parameters.values()} == {torch.float32}
        gradients.append({name: p.grad for name, p in parameters.items()})
    products = {m.weight.dtype for m in lower.model.modules() if isinstance(m, torch.nn.Embedding)}
    assert products == {torch.float32 if method == "none" else torch.bfloat16}
    assert all(gradient is not None for gradient in gradients[1].values())
    flat = [torch.cat([gradient.flatten() for gradient in named.values()]) for named in gradients]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.99


@pytest.mark.parametrize(
    ("family", "packed"), [*((family, True) for family in FAMILIES), ("bert", False), ("distilbert", False)]
)
def test_checkpointing_changes_no_gradient(encoders, family, packed) -> None:
    gradients = []
    for checkpointing in (False, True):
        train = {"gradient_checkpointing": checkpointing}
        classifier = build(settings(encoders[family], train=train, dropout=0.1))
        classifier.packed = packed
        torch.manual_seed(3)
        logits = classifier.train()(batch := make_batch(classifier))
        torch.nn.functional.cross_entropy(logits, batch.label_ids).backward()
        gradients.append({n: p.grad for n, p in adapters.trainable_parameters(classifier.model).items()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], rtol=0, atol=1e-7) for name in gradients[0])


@pytest.mark.parametrize(("checkpointing", "n_calls"), [(False, 1), (True, 2)])
def test_checkpointing_computes_layers_again_and_none_below_the_adapters(encoders, checkpointing, n_calls) -> None:
    train = {"gradient_checkpointing": checkpointing}
    classifier = build(settings(encoders["bert"], layers="top:1", train=train))
    classifier.packed = False
    layers, calls = adapters.stock(classifier.model).bert.encoder.layer, [0, 0]
    for number, layer in enumerate(layers):
        layer.output.dense.register_forward_hook(lambda *_, n=number: calls.__setitem__(n, calls[n] + 1))
    classifier.train()(make_batch(classifier)).sum().backward()
    assert calls == [1, n_calls]


def test_the_same_seed_builds_the_same_model(encoders) -> None:
    def parameters(seed: int) -> dict[str, torch.Tensor]:
        return dict(build(settings(encoders["roberta"], train={"seed": seed})).named_parameters())

    torch.manual_seed(1)
    one = parameters(5)
    torch.manual_seed(2)
    again, other = parameters(5), parameters(6)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert {"lora_A", "classifier"} <= {
        part for name in one if not torch.equal(one[name], other[name]) for part in name.split(".")
    }


@pytest.mark.parametrize("method", ["lora", "adalora", "pissa", "none"])
@pytest.mark.parametrize("head", ["full", "bottleneck"])
def test_a_saved_run_loads_with_the_same_logits_and_nothing_trains(encoders, tmp_path, head, method) -> None:
    if (head, method) == ("bottleneck", "none"):
        return
    options = {"method": "none"} if method == "none" else METHODS[method]
    wishes = settings(encoders["distilbert"], head, **options)
    classifier = build(wishes)
    shaken(classifier.model)
    run = finished(classifier, wishes, tmp_path / "run")
    loaded = Classifier.load(run, "cpu")
    assert torch.allclose(in_order(loaded), in_order(classifier), rtol=0, atol=1e-5)
    assert loaded.labels == LABELS
    assert loaded.precision == "fp32"
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert Classifier.load(run, "cpu", "bf16").precision == "bf16"


def test_a_run_in_lower_precision_loads_with_the_same_predictions(encoders, tmp_path) -> None:
    wishes = settings(encoders["roberta"], "linear")
    classifier = build(wishes, "bf16")
    shaken(classifier.model)
    loaded = Classifier.load(finished(classifier, wishes, tmp_path / "run"), "cpu")
    assert loaded.precision == "bf16"
    assert torch.equal(in_order(loaded), in_order(classifier))


def test_a_run_on_a_relative_model_loads_from_anywhere(encoders, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(encoders["bert"].parent)
    wishes = settings("./bert")
    classifier = build(wishes)
    run = finished(classifier, wishes, tmp_path / "run")
    monkeypatch.chdir(os.sep)
    assert torch.allclose(in_order(Classifier.load(run, "cpu")), in_order(classifier), rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", ["plan.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"])
def test_a_run_with_a_file_gone_is_refused(encoders, tmp_path, file) -> None:
    wishes = settings(encoders["bert"])
    run = finished(build(wishes), wishes, tmp_path / "run")
    (run.path / file).unlink()
    with pytest.raises(RunError, match=r"damaged"):
        Classifier.load(run, "cpu")


def test_starting_from_a_run_is_noted(encoders, tmp_path) -> None:
    wishes = settings(encoders["bert"])
    first = build(wishes)
    shaken(first.model)
    run = finished(first, wishes, tmp_path / "run")
    second = build(settings(encoders["bert"], start_from=str(run.path / "adapter")))
    assert second.notes == (f"training starts from {run.path / 'adapter'}: adapter and head",)
    assert torch.allclose(in_order(second), in_order(first), rtol=0, atol=1e-6)
    third = build(settings(encoders["bert"], "bottleneck", start_from=str(run.path / "adapter")))
    assert "the adapter alone; the head is new" in third.notes[0]
    with pytest.raises(ConfigError, match=r"adapter.start_from is"):
        build(settings(encoders["bert"], start_from=str(tmp_path / "nothing")))


def test_starting_from_an_adapter_of_another_commit_says_so(encoders, tmp_path) -> None:
    wishes = settings(encoders["bert"])
    folder = finished(build(wishes), wishes, tmp_path / "run").path / "adapter"
    facts = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**facts, "revision": "1" * 40}))
    wishes = settings(encoders["bert"], start_from=str(folder))
    for commit, is_said in (("1" * 40, False), ("2" * 40, True), (None, False)):
        own = wishes.model_copy(update={"model": wishes.model.model_copy(update={"revision": commit})})
        sentence = f"at commit {'1' * 12}, not at {'2' * 12} as here"
        assert (sentence in build(own).notes[0]) == is_said


def test_what_cannot_work_is_refused_before_training(encoders) -> None:
    def refused(message: str, wishes: Config, precision: Any = "fp32", plan: Plan | None = None) -> None:
        with pytest.raises(ConfigError, match=message):
            Classifier.build(wishes, plan or planning.plan(wishes, 3), LABELS, 20, precision, CPU)

    longer = settings(encoders["roberta"])
    longer = longer.model_copy(update={"model": longer.model.model_copy(update={"max_length": 129})})
    refused("model.max_length is 129: .* has positions for at most 128 tokens", longer)
    refused("adapter.method adalora: its importance scores", settings(encoders["bert"], method="adalora"), "fp16")
    lost = settings(encoders["bert"])
    plan = planning.plan(lost, 3)
    gone = dataclasses.replace(plan.architecture, name="nobody/no-such-model")
    with pytest.raises(HubError, match="it is not in the Hub's cache"):
        Classifier.build(lost, dataclasses.replace(plan, architecture=gone), LABELS, 20, "fp32", CPU)


def test_the_device_is_the_parameters(encoders) -> None:
    classifier = build(settings(encoders["bert"]))
    assert classifier.device == CPU
    assert backbone.choose_device("cpu") == classifier.device
