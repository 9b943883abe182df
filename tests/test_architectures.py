"""Laws: names, shapes and counts from a config.json are those of the stock model built from it."""

import ast
import json
import re
import shlex

import pytest

from submillion.config import ModelConfig
from submillion.errors import ConfigError, HubError
from submillion.planning import architectures
from submillion.planning.architectures import files
from tests.kit.architectures import BUILT, CONFIGS, write

N_CLASSES = 5


@pytest.fixture(params=[*CONFIGS, *BUILT])
def built(request, tmp_path):
    """A stock model with random weights, and the architecture read from its own config.json."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model_type, sizes = {**CONFIGS, **BUILT}[request.param]
    config = AutoConfig.for_model(model_type, num_labels=N_CLASSES, **sizes)
    config.save_pretrained(tmp_path)
    arch = architectures.load(str(tmp_path))
    assert (arch.built is None) == (request.param in CONFIGS), "a table is used where there is one"
    return AutoModelForSequenceClassification.from_config(config), arch


def test_counts_equal_the_built_model(built):
    model, arch = built
    parameters = dict(model.named_parameters())
    assert architectures.n_parameters(arch, N_CLASSES) == sum(p.numel() for p in parameters.values())
    head = tuple(f"{module}." for module in architectures.head_modules(arch))
    encoder = {name: p for name, p in parameters.items() if not name.startswith(head)}
    assert architectures.encoder_parameters(arch) == sum(p.numel() for p in encoder.values())
    assert architectures.encoder_biases(arch) == sum(p.numel() for n, p in encoder.items() if n.endswith(".bias"))
    assert architectures.head_parameters(arch, N_CLASSES) == sum(
        p.numel() for name, p in parameters.items() if name.startswith(head)
    )


def test_linears_are_all_linear_layers_of_the_encoders_layers(built):
    import torch

    model, arch = built
    heads = tuple(f"{module}." for module in architectures.head_modules(arch))
    inside = (".layer.", ".layers.", ".albert_layer_groups.", ".attentions.", ".ffns.")
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part in name for part in inside) and not name.startswith(heads)
    }
    linears = architectures.linears(arch)
    assert {each.module for each in linears} == set(linear)
    assert len({(each.site, each.layer) for each in linears}) == len(linears), "a site is once in a layer"
    assert {each.layer for each in linears} == set(range(arch.n_layers))
    for each in linears:
        module = linear[each.module]
        assert (each.d_in, each.d_out) == (module.in_features, module.out_features)
        assert each.has_bias == (module.bias is not None)


def test_head_layers_are_those_of_the_stock_class(built):
    from submillion.planning.architectures import built as rules

    model, arch = built
    dense, last = architectures.head_layers(arch)
    last_layer = model.get_submodule(last)
    assert last_layer.out_features == N_CLASSES
    assert rules.last_layer_name(model, N_CLASSES) == last
    assert rules.head_modules(model) == architectures.head_modules(arch)
    if arch.built is None:
        assert model.get_submodule(dense).weight.shape == (arch.width, arch.width)


def test_a_text_may_be_as_long_as_the_encoder_has_positions(built):
    import torch

    model, arch = built
    longest = architectures.longest_tokens(arch)
    tokens = torch.full((1, longest), 7)
    assert model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.isfinite().all()


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
        ("ModernBERT-base", 2, 149_606_402),
        ("deberta-v3-base", 2, 184_423_682),
        ("albert-base-v2", 2, 11_685_122),
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


@pytest.mark.parametrize(
    ("model_type", "told"),
    [
        (None, "model_type is None; supported are bert, roberta"),
        (["bert"], r"model_type is \['bert'\]"),
        (3, "model_type is 3"),
        ("bertt", "transformers .* cannot read it: .*bertt"),
        ("gpt2", "'gpt2', a decoder: only encoders"),
        ("qwen3", "'qwen3', a decoder: only encoders"),
        ("bart", "'bart', an encoder with a decoder: only encoders"),
        ("t5", "'t5', an encoder with a decoder: only encoders"),
        ("vit", "'vit', for which transformers .* has no sequence classifier"),
        ("squeezebert", "no layers with linear modules"),
    ],
)
def test_what_is_not_an_encoder_is_refused(tmp_path, model_type, told):
    with pytest.raises(ConfigError, match=told):
        architectures.load(write(tmp_path, model_type, {}))


@pytest.mark.parametrize("kind", sorted({*CONFIGS} - {"deberta-v2"}))
def test_every_missing_key_is_named(tmp_path, kind):
    """But DeBERTa's: without the keys of version 3 it is another encoder, and is built as transformers reads it."""
    model_type, values = CONFIGS[kind]
    sizes = {key for key in values if not key.endswith("_token_id")}
    with pytest.raises(ConfigError) as caught:
        architectures.load(write(tmp_path, model_type, {}))
    assert len(caught.value.problems) == len(sizes)
    assert all(any(key in problem for problem in caught.value.problems) for key in sizes)
    assert all("config.json" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**9}, {"hidden_size": 10**9}, {"vocab_size": 10**12}])
def test_an_encoder_that_no_memory_holds_is_not_built(tmp_path, change):
    with pytest.raises(ConfigError, match=f"config.json: {next(iter(change))} is .*: allowed are whole numbers"):
        architectures.load(write(tmp_path, "rembert", {**BUILT["rembert"][1], **change}))


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
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set|neither the name of a Hub repository"):
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
    with pytest.raises(ConfigError, match="it has only pickled weights") as no:
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
