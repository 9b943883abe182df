"""Laws of the settings: what is dumped loads equal, problems come together, the hash names the question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from submillion import config
from submillion.config import Config
from submillion.errors import ConfigError
from tests.kit.settings import sections

OVERRIDES = (
    *("budget=5000", "data.source=a.csv", "data.text=[title, description]", "adapter.sites=[query, value]"),
    *("adapter.rank={query: 2, value: 3}", "train.steps=10", "train.class_weights={a: 2.0}"),
)
CHANGED = config.load(overrides=[*OVERRIDES, "tracking=[wandb]"])


@pytest.mark.parametrize("settings", [Config(), CHANGED], ids=["default", "changed"])
@pytest.mark.parametrize("dump", [config.to_yaml, config.commented])
def test_what_is_dumped_loads_equal(settings: Config, dump: Any, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump(settings), encoding="utf-8")
    assert config.load(file) == settings


@pytest.mark.parametrize(
    ("key", "field"), sections(Config()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_setting_has_a_help_text(key: str, field: Any) -> None:
    assert field.description
    assert not field.is_required(), key
    assert f"# {field.description}" in config.commented()


@pytest.mark.parametrize("recipe", config.recipe_names())
def test_recipes_load_and_say_what_they_are(recipe: str) -> None:
    settings = config.load(recipe=recipe)
    assert settings.name == ("run" if recipe == "default" else recipe)
    assert settings.train.precision is None
    assert config.recipe_text(recipe).startswith("# ")


def test_the_default_recipe_is_empty() -> None:
    assert yaml.safe_load(config.recipe_text("default")) is None
    assert config.load(recipe="default") == config.load()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1", "unknown key train.lerning_rate: did you mean 'learning_rate'?"),
        ("trian.epochs=1", "unknown key trian: did you mean 'train'?"),
        ("train.optimizer=adam", "train.optimizer is 'adam': input should be 'adamw', 'sgd' or 'rmsprop'"),
        ("adapter.rank=0", "adapter.rank is 0"),
        ("adapter.rank={query: 0}", "adapter.rank"),
        ("data.validation=-1", "validation is -1"),
        ("data.validation=1.5", "give a whole number of rows"),
        ("data.text=[]", "name at least one column"),
        ("data.validation=true", "True is not a size"),
        ("data.label=", "data.label is empty or null: give a name, in quotes if it is 'null', or leave the key out"),
        ("name=", "name is empty or null: give a name"),
        ("adapter.rank={query:3}", "; YAML needs a space after the colon: {query: 3}"),
        ("adapter.rank={query:3, value:2}", "; YAML needs a space after the colon: {query: 3, value: 2}"),
        ("data={label: {a: b}}", "put it in quotes"),
        ("out=''", "out is ''"),
        ("name=../up", "name is '../up'"),
        ("model.head_width=4", "only head: bottleneck has a width"),
        ("adapter.target_rank=4", "allowed with adalora"),
        ("adapter.method=none; adapter.rank=4", "method none has none"),
        ("adapter.method=dora; adapter.init=pissa", "use lora"),
        ("adapter.method=ia3; adapter.dropout=0.1", "method ia3 has none"),
        ("adapter.method=ia3; adapter.bias=all", "allowed with lora, dora and adalora"),
        ("adapter.method=adalora; adapter.rank={query: 3}", "AdaLoRA spreads one rank itself"),
        ("adapter.sites=[]", "sites is empty"),
        ("train.epochs=1; train.steps=5", "keep one"),
        ("train.batch_tokens=100", "train.batch_tokens is 100, but a text may have 128 tokens (model.max_length)"),
        ("train.warmup=1.5", "whole steps, or a fraction below 1"),
        ("train.learning_rate=.inf", "train.learning_rate is inf"),
        ("train.learning_rate=.nan", "train.learning_rate is nan"),
        ("budget=many", "budget is 'many'"),
        ("train", "give it as section.key=value"),
        ("train.epochs={", "the value is not YAML"),
        ("name.inner=1", "name"),
        ("data=3", "data is 3"),
        ("epochs=3", "unknown key epochs: did you mean 'train.epochs'?"),
        ("epoch=3", "unknown key epoch: did you mean 'train.epochs'?"),
        ("train.rank=3", "unknown key train.rank: did you mean 'adapter.rank'?"),
        ("adapter.rank={query:3}", "YAML needs a space after the colon: {query: 3}"),
        ("budget=true", "the settings: budget is True"),
        ("data.fold=7/5", "the settings: data.fold is 7/5"),
        ("data.label=[a]", "the settings: data.label is ['a']"),
        ("out=s3://x/y", "the settings: out is s3://x/y"),
        ("data.text=[]", "the settings: data.text is empty"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.load(overrides=override.split("; "))
    assert message in str(error.value)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as error:
        config.load(overrides=["budget=0", "train.seed=-1", "model.heads=full", "device=tpu"])
    assert len(error.value.problems) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"a: [", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"train:\n  seed: 1\n  seed: 2\n", "given twice"),
        (b"!!python/object/apply:os.system [ls]", "is not valid YAML"),
        (b"text", "holds a str"),
        (b"#" * 1_000_001, "too large"),
    ],
)
def test_a_file_that_is_no_config_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        config.load(file)


def test_missing_file_and_recipe() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load("nowhere.yaml")
    with pytest.raises(ConfigError, match="did you mean 'study-b'"):
        config.load(recipe="studyb")
    with pytest.raises(ConfigError, match="keep one"):
        config.load("a.yaml", recipe="demo")


def test_a_value_of_several_types_is_one_problem() -> None:
    with pytest.raises(ConfigError) as error:
        config.load(overrides=["data.validation=null", "adapter.layers=1"])
    assert len(error.value.problems) == 2


_ODD_NAMES = (
    "no",
    "yes",
    "on",
    "Off",
    "true",
    "1.0",
    "0",
    "0x1F",
    "1_000",
    "null",
    "~",
    "2024-01-01",
    "1e5",
    ".inf",
    "=",
)


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_labels_and_columns_are_what_was_written(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"data:\n  label: {name}\n  text: [{name}, b]\ntrain: {{class_weights: {{{name}: 2, b: 1.5}}}}\n")
    written = [f"data.label={name}", f"data.text=[{name}, b]", f"train.class_weights={{{name}: 2, b: 1.5}}"]
    nested = ["data={label: %s, text: [%s, b]}" % (name, name), written[2]]  # noqa: UP031 - braces are the text's own
    for settings in (config.load(file), config.load(overrides=written), config.load(overrides=nested)):
        assert settings.data.label == name
        assert settings.data.text == (name, "b")
        assert settings.train.class_weights == {name: 2.0, "b": 1.5}


@pytest.mark.parametrize(
    "name", ["Review: text", "#label", "a # b", "{x}", "- x", "*x", "@x", "%", '"so so" reviews', "x:", "?", "[x"]
)
def test_a_column_is_named_without_yamls_quotes(name: str) -> None:
    settings = config.load(overrides=[f"data.label={name}", f"data.text_pair= {name} "])
    assert (settings.data.label, settings.data.text_pair) == (name, name)


def test_a_studys_names_are_what_was_written_too(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "base: {settings: {data.label: no, train.steps: 5}}\n"
        "factors:\n- {key: train.class_weights, values: [null, {no: 2, yes: 1}]}\n"
        "- alternatives: [{label: a, settings: {data.text: [on, b]}}]\n"
        "claims: [{factor: x, scores: {0.001: 0.9}}]\n"
    )
    study = config.read_mapping(file)
    assert study["base"]["settings"] == {"data.label": "no", "train.steps": 5}
    assert study["factors"][0]["values"] == [None, {"no": 2, "yes": 1}]
    assert study["factors"][1]["alternatives"][0]["settings"] == {"data.text": ["on", "b"]}
    assert study["claims"][0]["scores"] == {0.001: 0.9}


def test_quotes_lists_and_null_keep_their_meaning() -> None:
    overrides = ["data.label='#a'", 'data.text=["no", Review: text]', "data.text_pair=null", "distillation.teacher=~"]
    settings = config.load(overrides=overrides)
    assert (settings.data.label, settings.data.text) == ("#a", ("no", "Review: text"))
    assert (settings.data.text_pair, settings.distillation.teacher) == (None, None)


def test_a_hash_of_digits_names_a_run_or_a_commit() -> None:
    settings = config.load(overrides=["distillation.teacher=[12345678, 1e345678]", "model.revision=0123456"])
    assert settings.distillation.teacher == ("12345678", "1e345678")
    assert settings.model.revision == "0123456"


def test_a_name_with_a_colon_in_a_file_is_asked_for_in_quotes(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data:\n  text: Review: text\n")
    with pytest.raises(ConfigError, match=r"line 2.*in quotes"):
        config.load(file)


def test_numbers_that_yaml_reads_as_text_count() -> None:
    assert config.load(overrides=["train.learning_rate=1e-3"]).train.learning_rate == 1e-3


def test_an_override_of_steps_takes_the_place_of_a_recipes_epochs() -> None:
    settings = config.load(recipe="demo", overrides=["train.steps=7"])
    assert (settings.train.steps, settings.train.epochs) == (7, None)


def test_another_model_or_data_set_takes_no_revision_along() -> None:
    before = config.load(model={"name": "org/one", "revision": "v1"}, data={"source": "org/rows", "revision": "v2"})
    after = config.changed(before, {"model.name": "org/two", "data.source": "org/others"})
    assert (after.model.revision, after.data.revision) == (None, None)
    kept = config.changed(before, {"model.name": "org/two", "model.revision": "v3"})
    assert (kept.model.revision, kept.data.revision) == ("v3", "v2")


@pytest.mark.parametrize("overrides", ["train.steps=60", [("train.steps", 60)], b"train.steps=60"])
def test_overrides_that_are_not_a_list_of_texts_are_one_problem(overrides: Any) -> None:
    with pytest.raises(ConfigError, match=r"overrides are .*: give a list of texts") as no:
        config.load(overrides=overrides)
    assert len(no.value.problems) == 1


def test_an_override_of_batch_size_takes_the_place_of_a_files_batch_tokens(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("train: {batch_tokens: 2048}")
    assert config.load(file, overrides=["train.batch_size=16"]).train.batch_tokens is None
    both = ["train.batch_size=16", "train.batch_tokens=1024"]
    assert config.load(file, overrides=both).train.batch_tokens == 1024


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_override_is_taken_or_refused_clearly(key: str, value: str) -> None:
    try:
        settings = config.load(overrides=[f"{key}={value}"])
    except ConfigError as error:
        settings = None
        message = str(error)
    assert settings is not None or message


def test_the_hash_ignores_where_and_how_but_not_what() -> None:
    base = config.digest(Config(), "rows")
    same = config.load(overrides=["name=other", "out=elsewhere", "device=cpu", "tracking=[mlflow]"])
    assert config.digest(same, "rows") == base
    assert config.digest(config.load(overrides=["train.seed=1"]), "rows") != base
    assert config.digest(Config(), "other rows") != base
    for override in OVERRIDES:
        assert config.digest(config.load(overrides=[override]), "rows") != base, override
    assert len(base) == 8
