"""Laws: names, shapes and counts from a config.json are those of the stock model built from it."""

import ast
import json
import re
import shlex

import pytest

from submillion.config import ModelConfig
from submillion.errors import ConfigError, HubError
from submillion.planning import architectures
from submillion.planning.architectures import FAMILIES, SITES, files
from tests.kit.architectures import BERT_LIKE, CONFIGS, write

N_CLASSES = 5


@pytest.fixture(params=CONFIGS)
def built(request, tmp_path):
    """A stock model with random weights, and the architecture read from its own config.json."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, sizes = CONFIGS[request.param]
    config = AutoConfig.for_model(model_type, num_labels=N_CLASSES, **sizes)
    config.save_pretrained(tmp_path)
    return AutoModelForSequenceClassification.from_config(config), architectures.load(str(tmp_path))


def test_counts_equal_the_built_model(built):
    model, arch = built
    parameters = dict(model.named_parameters())
    assert architectures.n_parameters(arch, N_CLASSES) == sum(p.numel() for p in parameters.values())
    head = tuple(f"{module}." for module in architectures.head_modules(arch.family))
    encoder = {name: p for name, p in parameters.items() if not name.startswith(head)}
    assert architectures.encoder_parameters(arch) == sum(p.numel() for p in encoder.values())
    assert architectures.encoder_biases(arch) == sum(p.numel() for n, p in encoder.items() if n.endswith(".bias"))
    assert architectures.head_parameters(arch, N_CLASSES) == sum(
        p.numel() for name, p in parameters.items() if name.startswith(head)
    )


def test_sites_are_all_linear_layers_of_the_encoders_layers(built):
    import torch

    model, arch = built
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layer." in n}
    modules = architectures.linear_modules(arch)
    assert set(modules) == set(linear)
    assert len(modules) == arch.n_layers * len(SITES)
    for name, (site, layer) in modules.items():
        assert name == architectures.module_name(arch.family, site, layer)
        assert architectures.site_shape(arch, site) == (linear[name].in_features, linear[name].out_features)


def test_head_layers_are_those_of_the_stock_class(built):
    model, arch = built
    dense, last = (model.get_submodule(name) for name in architectures.head_layers(arch.family))
    assert (dense.in_features, dense.out_features) == (arch.width, arch.width)
    assert (last.in_features, last.out_features) == (arch.width, N_CLASSES)
    for module in architectures.head_modules(arch.family):
        model.get_submodule(module)


@pytest.mark.parametrize(
    ("name", "n_classes", "published"),
    [
        ("roberta-base", 4, 124_648_708),
        ("roberta-large", 2, 355_361_794),
        ("bert-base-uncased", 2, 109_483_778),
        ("distilbert-base-uncased", 2, 66_955_010),
        ("all-MiniLM-L6-v2", 2, 22_713_986),
        ("electra-small", 2, 13_549_314),
        ("mpnet-base", 2, 109_488_002),
    ],
)
def test_known_checkpoints_have_their_published_sizes(name, n_classes, published):
    assert architectures.n_parameters(architectures.load(name), n_classes) == published


@pytest.mark.parametrize("name", architectures.known())
def test_a_known_checkpoint_is_known_by_its_short_name_and_its_hub_id(name):
    hub = architectures.hub_id(name)
    assert hub is not None
    assert hub.count("/") == 1
    assert architectures.hub_id(hub) == hub
    short, full = architectures.load(name), architectures.load(hub)
    assert (short.name, full.name) == (name, hub)
    assert {**vars(short), "name": ""} == {**vars(full), "name": ""}


def test_another_organisations_model_is_not_the_known_one():
    assert architectures.hub_id("someone/roberta-base") is None


def test_a_local_folder_goes_before_a_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "roberta-base", "bert", {**CONFIGS["bert"][1]})
    assert architectures.load("roberta-base").family == "bert"
    assert architectures.load("roberta-base/config.json").family == "bert"


@pytest.mark.parametrize("family", ["gpt2", None, ["bert"], 3])
def test_an_unsupported_family_is_refused_with_the_six(tmp_path, family):
    with pytest.raises(ConfigError) as caught:
        architectures.load(write(tmp_path, family, BERT_LIKE))
    assert repr(family) in str(caught.value)
    assert all(name in str(caught.value) for name in FAMILIES)


@pytest.mark.parametrize(("model_type", "values"), CONFIGS.values(), ids=CONFIGS)
def test_every_missing_key_is_named(tmp_path, model_type, values):
    with pytest.raises(ConfigError) as caught:
        architectures.load(write(tmp_path, model_type, {}))
    assert len(caught.value.problems) == len(values)
    assert all(any(key in problem for problem in caught.value.problems) for key in values)
    assert all("config.json" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("value", [0, -1, 1.5, "16", True, [16], 10**9])
def test_nonsense_sizes_are_refused_by_key(tmp_path, value):
    with pytest.raises(ConfigError, match=r"config\.json: hidden_size is"):
        architectures.load(write(tmp_path, "bert", {**CONFIGS["bert"][1], "hidden_size": value}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_attention_heads": 3}, "hidden_size is 16, not a multiple of num_attention_heads, 3"),
        ({"num_hidden_layers": 1001}, "num_hidden_layers is 1001"),
        ({"is_decoder": True}, "is_decoder is set"),
        ({"add_cross_attention": True}, "add_cross_attention is set"),
        ({"quantization_config": {"bits": 8}}, "quantization_config is set"),
    ],
)
def test_settings_that_would_be_counted_wrong_are_refused(tmp_path, change, told):
    with pytest.raises(ConfigError, match=told):
        architectures.load(write(tmp_path, "bert", {**CONFIGS["bert"][1], **change}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "holds a list"),
        (b" " * 1_000_001, "too large"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path, content, told):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        architectures.load(str(tmp_path))


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json there"):
        architectures.load(str(tmp_path))


@pytest.mark.parametrize("name", ["robertabase", "bert-base-uncasd", "", "x" * 5000, "a\0b"])
def test_a_bare_unknown_name_is_refused_without_asking_the_network(name, monkeypatch):
    monkeypatch.setattr("submillion.hub.resolve", None)
    with pytest.raises(ConfigError, match="neither a checkpoint known offline"):
        architectures.load(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("https://huggingface.co/org/tiny", "give organisation/name: org/tiny"),
        ("https://hf.co/org/tiny/tree/main", "give organisation/name: org/tiny"),
        ("hf://org/tiny", "give organisation/name: org/tiny"),
        ("s3://bucket/tiny", "an address: give a folder, or organisation/name"),
        ("org/tiny@v1", "--set model.name=org/tiny --set model.revision=v1"),
    ],
)
def test_addresses_and_revisions_in_a_name_are_told_how_to_be_given(name, told, monkeypatch):
    monkeypatch.setattr("submillion.hub.resolve", None)
    for load in (architectures.load, lambda name: architectures.pinned(ModelConfig(name=name))):
        with pytest.raises(ConfigError, match=f"model.name is {name}.*{told}"):
            load(name)


def test_a_slip_is_answered_with_the_closest_name():
    with pytest.raises(ConfigError, match="did you mean 'roberta-base'"):
        architectures.load("robertabase")


@pytest.mark.parametrize("name", ["someone/nothing", "not a name/at all"])
def test_a_hub_that_cannot_answer_is_told(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set|not a name of a Hub repository"):
        architectures.load(name)


@pytest.mark.parametrize("part", ["../evil.safetensors", "/evil.safetensors", "sub/part.safetensors"])
def test_an_index_that_names_files_outside_its_folder_is_refused(tmp_path, part):
    (tmp_path / files.INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": part}}))
    with pytest.raises(ConfigError, match=rf"{files.INDEX} names {re.escape(part)}, which is not a file of its folder"):
        files.shards(tmp_path)


def test_the_line_that_converts_pickles_can_be_typed_whatever_the_folders_name(tmp_path):
    folder = tmp_path / """it's "mine" $HOME"""
    folder.mkdir()
    write(folder, "bert", CONFIGS["bert"][1])
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="it has pickled weights alone") as no:
        architectures.pinned(ModelConfig(name=str(folder)))
    python, _, code = shlex.split(re.search(r"python -c .*, then", str(no.value))[0].removesuffix(", then"))
    assert python == "python"
    assert str(folder) in {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}


def test_weights_that_did_not_change_are_hashed_once(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"one")
    first = files.sha256(tmp_path / "a")
    with monkeypatch.context() as once:
        once.setattr("submillion.hub.sha256", None)
        assert files.sha256(tmp_path / "a") == first
    (tmp_path / "a").write_bytes(b"other")
    assert files.sha256(tmp_path / "a") != first
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        files.sha256(tmp_path / "b")
