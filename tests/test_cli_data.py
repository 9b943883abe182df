"""`submillion data check`: the census on stdout, problems on stderr, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from submillion.cli import main
from submillion.config import ModelConfig
from submillion.data.tokens import fast_tokenizer
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
    assert "1 text stands there with different labels (rows 1, 2 (lines 2, 3))" in text


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
