"""Malformed settings and study files: each is refused by the law of `malformed`, with the key or the place named."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from submillion import config
from submillion.config import Config
from submillion.errors import ConfigError, SubmillionError
from submillion.sweeps.space import load_study
from tests.kit.settings import sections
from tests.malformed import assert_sentences, in_time, inside, refused

_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)

# Name of the case → the file, and what the refusal names.
DOCUMENTS: dict[str, tuple[str | bytes, str]] = {
    "text alone": ("hello", "holds a str"),
    "a number alone": ("42", "holds a int"),
    "a list alone": ("[]", "holds a list"),
    "true alone": ("true", "holds a bool"),
    "empty quotes": ("''", "holds a str"),
    "a tab": ("train:\n\tseed: 1", "line 2"),
    "an open quote": ("name: 'unclosed", "line 1"),
    "an open brace": ("name: {a", "line 1"),
    "two colons": ("a: b: c", "line 1"),
    "an at sign": ("name: @x", "line 1"),
    "two documents": ("name: a\n---\nname: b", "line 2"),
    "a key twice": ("name: a\nname: b", "'name' is given twice"),
    "a key twice, inside": ("train: {seed: 1, seed: 2}", "'seed' is given twice"),
    "an unknown alias": ("name: *nothing", "nothing"),
    "a merge of a number": ("<<: 3", "line 1"),
    "another YAML": ("%YAML 9.9\n---\nname: a", "9.9"),
    "a bell": ("name: a\x07", "#x0007"),
    "a NUL byte": (b"name: a\0b", "#x0000"),
    "a binary file": (bytes(range(256)) * 4, "UTF-8"),
    "Latin-1": ("name: café".encode("latin-1"), "UTF-8"),
    "UTF-16": ("name: a".encode("utf-16"), "UTF-8"),
    "UTF-8 of a surrogate": (b"name: \xed\xa0\x80", "UTF-8"),
    "a gzip file": (b"\x1f\x8b\x08\x00abc", "UTF-8"),
    "a safetensors file": (b"\x40\x00\x00\x00\x00\x00\x00\x00{}", "#x0000"),
    "too large": (b"# " + b"x" * 300_000, "too large"),
    "too deep": ("name: " + "[" * 5000, "too deep"),
    "deep": ("name: " + "[" * 200 + "]" * 200, "name is"),
    "a list in itself": ("name: &a [*a]", "name is"),
    "a table in itself": ("data: &a {source: *a}", "data.source is"),
    "billions of laughs": (_LAUGHS, "unknown key"),
    "billions of laughs in a list": (_LAUGHS + "tracking: *m", "tracking is"),
    "billions of laughs in columns": (_LAUGHS + "data: {text: *m}", "data.text is"),
    "billions of laughs in weights": (_LAUGHS + "train: {class_weights: *m}", "train.class_weights is"),
    "billions of laughs in a text": (_LAUGHS + "data: {source: *m}", "data.source is"),
    "a day that is not one": ("budget: 2024-99-99", "line 1"),
    "a binary number of no digits": ("budget: 0b_", "line 1"),
    "a hexadecimal number of no digits": ("budget: 0x_", "line 1"),
    "a number of 5,000 digits": ("budget: " + "9" * 5000, "line 1"),
    "a number of 4,000 digits": ("train: {seed: " + "9" * 4000 + "}", "train.seed is"),
    "a hexadecimal number of 50,000 digits": ("budget: 0x" + "f" * 50_000, "budget is"),
    "an int that is not one": ("budget: !!int many", "line 1"),
    "a bool that is not one": ("adapter: {rslora: !!bool maybe}", "line 1"),
    "a float that is not one": ("budget: !!float much", "line 1"),
    "a time that is not one": ("name: !!timestamp soon", "line 1"),
    "base64 that is not one": ("name: !!binary abc!", "line 1"),
    "a set": ("name: !!set {a, b}", "name is"),
    "bytes that are not text": ("name: !!binary /w==", "name is"),
    "ordered pairs": ("name: !!omap [a: 1]", "name is"),
    "a Python object": ("name: !!python/object/apply:os.system [ls]", "python/object"),
    "a Python name": ("name: !!python/name:os.system", "python/name"),
    "a Python tuple": ("name: !!python/tuple [1]", "python/tuple"),
    "an unknown tag": ("name: !secret x", "!secret"),
    "a number as key": ("1: 2", "key 1 is not a name"),
    "null as key": ("null: 2", "key None is not a name"),
    "true as key": ("true: 2", "key True is not a name"),
    "a day as key": ("2024-01-01: x", "is not a name"),
    "a list as key": ("[a]: 1", "a key is not a name"),
    "a number as key, inside": ("train: {1: 2}", "key 1 of train is not a name"),
    "escapes in a key": ('"\\e[31mred\\n\\n\\n": 1', "\\x1b[31mred"),
    "a key of 900 characters": ("k" * 900 + ": 1", "unknown key"),
    "a text of 100,000 characters": ("device: " + "v" * 100_000, "device is"),
    "5,000 unknown keys": ("\n".join(f"k{i}: 1" for i in range(5000)), "5000 problems"),
    "5,000 words of one list": ("tracking: [" + "x," * 5000 + "]", "tracking is"),
    "a section that is text": ("train: hello", "train is"),
    "a section that is null": ("train: null", "train is"),
    "a section that is a list": ("train: [1]", "train is"),
    "half a surrogate pair": ('name: "\\ud800"', "name is"),
    "NUL in the name": ('name: "a\\0b"', "NUL"),
    "NUL in a path": ('out: "a\\0b"', "NUL"),
    "NUL in a source": ('data: {source: "a\\0b.csv"}', "NUL"),
    "NUL in a column": ('data: {text: [a, "b\\0"]}', "NUL"),
    "NUL in a model's name": ('model: {name: "a\\0b"}', "NUL"),
    "a name that is a path": ("name: a/b", "name is"),
    "a name that leads up": ("name: ..", "name is"),
    "a name with a line": ('name: "run\\n"', "name is"),
    "a name in other letters": ("name: ünï", "name is"),
    "a name of 81 characters": ("name: " + "a" * 81, "name is"),
    "true as a number": ("budget: true", "budget is True"),
    "true as a seed": ("train: {seed: true}", "seed is True"),
    "true as a rate": ("train: {learning_rate: true}", "learning_rate is True"),
    "true as a layer": ("adapter: {layers: [true]}", "layers is"),
    "true as a rank": ("adapter: {rank: {query: true}}", "rank is"),
    "half a parameter": ("budget: 1.5", "budget is 1.5"),
    "too many parameters": ("budget: 1000000000001", "budget is 1000000000001"),
    "1e999": ("train: {learning_rate: 1e999}", "learning_rate"),
    "not a number": ("train: {label_smoothing: .nan}", "label_smoothing"),
    "minus infinity": ("train: {weight_decay: -.inf}", "weight_decay"),
    "passes without end": ("train: {epochs: 1.0e+308}", "train.epochs is"),
    "a scale without end": ("adapter: {alpha: 1.0e+308}", "adapter.alpha is"),
    "out is a URL": ("out: s3://user:geheim@bucket/runs", "out is s3://***@bucket"),
    "sixty minutes": ("budget: 1:99:99", "budget is"),
    "weights of no number": ("train: {class_weights: {a: {b: c}}}", "train.class_weights"),
}

_OVERRIDES = {
    "no value": ("train.epochs", "section.key=value"),
    "no key": ("=3", "section.key=value"),
    "an empty part": ("train..epochs=3", "unknown key"),
    "a dot": (".=3", "unknown key"),
    "too deep": ("budget=" + "[" * 3000, "not YAML"),
    "a day that is not one": ("budget=2024-99-99", "not YAML"),
    "a key twice": ("train={seed: 1, seed: 2}", "not YAML"),
    "a key that is a list": ("train={[1]: 2}", "not YAML"),
    "into a number": ("budget.inner=3", "budget"),
    "a long value": ("device=" + "v" * 50_000, "device is"),
}

_GRID = "kind: grid\nfactors: [{key: adapter.rank, values: [1, 2]}]\n"
STUDIES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "kind"),
    "a list": ("- a", "holds a list"),
    "no factors": ("kind: grid\nfactors: []", "factors is empty"),
    "factors of text": ("kind: grid\nfactors: many", "factors"),
    "an unknown kind": (_GRID.replace("grid", "all"), "kind is 'all'"),
    "a name that leads up": (_GRID + "name: ../../etc", "name is"),
    "a name that is a path": (_GRID + "name: /etc/passwd", "name is"),
    "NUL in the name": (_GRID + 'name: "a\\0"', "NUL"),
    "a factor of an unknown key": (_GRID.replace("rank", "rnk"), "adapter.rnk"),
    "a factor of a section": (_GRID.replace("adapter.rank", "adapter"), "adapter is a section"),
    "a factor of where runs are": (_GRID.replace("adapter.rank", "out"), "out is the same"),
    "laughs in values": (_LAUGHS + "kind: grid\nfactors: [{key: adapter.rank, values: *m}]", "factor"),
    "subsets of thirty": (
        f"kind: grid\nfactors: [{{key: adapter.sites, subsets: [{','.join(f's{i}' for i in range(30))}]}}]",
        "at most 10",
    ),
    "a grid of a billion": (
        "kind: grid\nfactors:\n"
        + "".join(
            f"- {{name: f{key[-4:]}, key: {key}, values: [{','.join(map(str, range(1, 1001)))}]}}\n"
            for key in ("adapter.rank", "train.steps", "train.batch_size")
        ),
        "1,000,000,000 trials",
    ),
    "seeds without end": (_GRID + "seeds: 1000000000", "seeds"),
    "trials without end": (_GRID.replace("grid", "random") + "n_trials: 1000000000", "n_trials"),
    "a seed that the sampler has not": (_GRID + "sampler_seed: 99999999999", "sampler_seed"),
    "true as a number": (_GRID + "seeds: true", "seeds is True"),
    "a range upside down": ("kind: random\nfactors: [{key: train.learning_rate, low: 1, high: 0}]", "low below high"),
    "a range of nan": ("kind: random\nfactors: [{key: train.learning_rate, low: .nan, high: 1}]", "low"),
    "chosen on test": (_GRID + "split: test", "test is opened once"),
    "a claim of nothing": (_GRID + "claims: [{factor: x, winner: y}]", "factor x"),
    "a claim of no number": (_GRID + "claims: [{factor: rank, winner: 1, scores: {1: .inf}}]", "scores"),
    "settings of keys that are numbers": (_GRID + "base: {settings: {1: 2}}", "base.settings"),
    "binary": (bytes(range(256)), "UTF-8"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_malformed_config_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, named = DOCUMENTS[case]
    file = tmp_path / "bad.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    before = inside(tmp_path)
    refused(capsys, "config", "--config", file, "--json", named=("bad.yaml", named))
    assert inside(tmp_path) == before


@pytest.mark.parametrize("case", _OVERRIDES)
def test_a_malformed_override_is_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    override, named = _OVERRIDES[case]
    refused(capsys, "config", "--set", override, named=(named,))


@pytest.mark.parametrize("case", STUDIES)
def test_a_malformed_study_is_refused(case: str, tmp_path: Path) -> None:
    content, named = STUDIES[case]
    file = tmp_path / "bad.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with in_time(), pytest.raises(ConfigError) as error:
        load_study(file)
    assert_sentences(str(error.value), "bad.yaml", named)


@pytest.mark.parametrize("what", ["a folder", "a device without end", "no name", "a long name", "a link in a circle"])
def test_what_is_no_file_is_refused(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    path = {
        "a folder": tmp_path,
        "a device without end": Path("/dev/zero"),
        "no name": Path(""),
        "a long name": tmp_path / ("n" * 300),
        "a link in a circle": tmp_path / "circle.yaml",
    }[what]
    refused(capsys, "config", "--config", path)


def test_a_pipe_is_read_and_no_further_than_a_config_may_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe.yaml"
    for content, error in ((b"name: [", "not valid YAML"), (b"#" * 1_000_000, "too large")):
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)

        def feed(content: bytes = content) -> None:
            with suppress(BrokenPipeError):
                pipe.write_bytes(content)

        feeding = threading.Thread(target=feed)
        feeding.start()
        refused(capsys, "config", "--config", pipe, named=(error,))
        feeding.join(5)


_ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(st.characters(codec=None), max_size=20),
    st.binary(max_size=8),
    st.dates(),
)
_VALUES = st.recursive(
    _ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


def taken_or_refused(load: Any) -> None:
    """What is taken is a config that its own dump gives again; all else is refused by the law."""
    try:
        with in_time():
            settings = load()
    except SubmillionError as error:
        assert_sentences(str(error))
    else:
        assert config.validate(yaml.safe_load(config.to_yaml(settings))) == settings


@how(deadline=None, max_examples=150)
@given(st.sampled_from([key for key, _ in sections(Config())]), _VALUES)
def test_any_value_of_any_setting_is_taken_or_refused(key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    taken_or_refused(lambda: config.validate({section: {name: value}} if section else {name: value}))


@how(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=80), st.text("{}[]:,-&*!%@|>'\"#\n\t ab01.eE_~<\x85\ufeff", max_size=60).map(str.encode)
    )
)
def test_any_file_is_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    taken_or_refused(lambda: config.load(file))
