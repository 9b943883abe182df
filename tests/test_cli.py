"""Laws of the command line: results on stdout, the rest on stderr, the exit code says whose fault it is."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import submillion
from submillion.runs import Run
from tests.data import write_csv
from tests.kit import forks
from tests.kit.calls import call

PACKAGE = Path(submillion.__file__).parent


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 90)


@pytest.fixture(scope="module")
def arguments(rows: Path, encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a small `train`."""
    out = tmp_path_factory.mktemp("runs")
    sets = [f"model.name={encoders['mpnet']}", "train.steps=8", "train.precision=fp32", "data.test=20"]
    return ["train", "--data", str(rows), "--out", str(out), *(word for text in sets for word in ("--set", text))]


@pytest.fixture(scope="module")
def run(arguments: list[str]) -> Run:
    assert call(*arguments) == 0
    (path,) = (folder for folder in Path(arguments[4]).iterdir() if folder.is_dir())
    return Run(path)


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("predict", "[OPTIONS] {RUN}...\n"),
        ("compare", "[OPTIONS] {RUN}...\n"),
        ("shift", "[OPTIONS] {RUN}...\n"),
        ("recipes", "[OPTIONS] [NAME]\n"),
        ("ask", "-n N"),
    ],
)
def test_arguments_are_in_capitals_and_repeated_ones_have_their_dots_once(
    command: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, "--help") == 0
    assert usage in re.sub(" +", " ", capsys.readouterr().out)


def test_train_prints_the_score_the_files_and_the_next_command(
    run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    for part in (
        "test accuracy",
        "after selection",
        "trainable parameters",
        "scores.json",
        "adapter",
        "submillion predict",
    ):
        assert part in out
    assert str(run.path) in out


def commands_of(text: str) -> list[list[str]]:
    """The commands that a text says to type, in backticks, after a colon or on a line, as a shell splits them."""
    found = re.findall(r"`(submillion [^`]*)`|^ *(?:resume it with: )?(submillion .*)$", text, re.MULTILINE)
    return [shlex.split("".join(each)) for each in found]


def test_commands_that_are_to_be_typed_are_quoted(
    arguments: list[str], run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my runs (it's)"
    path = out / run.name
    assert call(*arguments[:4], str(out), *arguments[5:]) == 0
    show, predict = commands_of(capsys.readouterr().out)
    assert show == ["submillion", "runs", "show", str(path)]
    assert predict[:3] == ["submillion", "predict", str(path)]
    assert call(*show[1:]) == 0
    (path / "DONE").unlink()
    capsys.readouterr()
    assert call("predict", path, "--input", "a.csv", "--output", tmp_path / "b.csv") == 1
    assert call("runs", "show", path) == 0
    printed = capsys.readouterr()
    resume = ["submillion", "train", "--config", str(path / "config.yaml")]
    assert resume in commands_of(printed.err)
    assert resume in commands_of(printed.out)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "last.safetensors").write_bytes(b"no checkpoint")
    assert call(*resume[1:]) == 1
    assert ["submillion", "runs", "remove", str(path)] in commands_of(capsys.readouterr().err)
    assert call("config", "--config", tmp_path / "a b.yaml") == 1
    assert ["submillion", "config", ">", str(tmp_path / "a b.yaml")] in commands_of(capsys.readouterr().err)
    assert not re.findall(r"`submillion [^`\n]*\{(?!shlex)", "".join(map(Path.read_text, PACKAGE.rglob("*.py"))))


def test_train_json_is_json_alone(run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"] == json.loads((run.path / "scores.json").read_text())
    assert printed["total"] <= printed["budget"]
    assert Path(printed["run"]) == run.path


def test_evaluate_prints_one_split(run: Run, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", run.path, "--data", rows, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert set(scores) == {"accuracy", "macro_f1", "log_loss", "ece", "n_trained_on", "warnings"}
    assert scores["accuracy"].keys() == {"value", "low", "high", "n"}
    assert scores["accuracy"]["n"] == 90
    assert call("evaluate", run.name, "--out", run.path.parent, "--data", rows) == 0
    assert "accuracy" in capsys.readouterr().out


def test_rows_that_were_trained_on_are_counted_whatever_their_case_and_order(
    run: Run, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n_trained_on = run.read_json("data.json")["rows"]["train"]
    assert submillion.evaluate(run, rows).n_trained_on == n_trained_on < 90
    with rows.open(encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    held_out = {row_id for split in ("validation", "test") for row_id in run.load_predictions(split).ids}
    for name, kept, expected in (
        ("unseen.csv", [line for line in lines if line[0] in held_out], 0),
        ("seen.csv", [line for line in lines if line[0] not in held_out], n_trained_on),
        ("changed.csv", [[f"x{line[0]}", f"  {line[1].upper()}", line[2]] for line in lines[::-1]], n_trained_on),
    ):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *kept])
        assert call("evaluate", run.path, "--data", tmp_path / name, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["n_trained_on"], len(found["warnings"])) == (expected, int(expected > 0))
        assert call("evaluate", run.path, "--data", tmp_path / name) == 0
        printed = capsys.readouterr().out
        assert ("warning" in printed) == (expected > 0)
        assert all(f"warning: {warning}" in printed for warning in found["warnings"])


def test_classes_that_no_row_has_are_named(run: Run, rows: Path, tmp_path: Path) -> None:
    kept = [line for line in rows.read_text(encoding="utf-8").splitlines() if not line.endswith(",art")]
    (tmp_path / "some.csv").write_text("\n".join(kept), encoding="utf-8")
    found = submillion.evaluate(run, tmp_path / "some.csv")
    assert found.absent == ("art",)
    assert any("no row is of 'art'" in warning for warning in found.warnings)
    assert not submillion.evaluate(run, rows).absent


def test_a_run_that_noted_no_training_texts_is_scored_without_a_word(run: Run, rows: Path, tmp_path: Path) -> None:
    older = Run(tmp_path / run.name)
    shutil.copytree(run.path, older.path)
    (older.path / "trained-on.npy").unlink()
    older.mark_done()
    found = submillion.evaluate(older, rows)
    assert (found.n_trained_on, found.warnings) == (None, ())
    assert found.scores == submillion.evaluate(run, rows).scores


def test_evaluating_the_test_rows_again_gives_the_same_score_and_is_noted(
    run: Run, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_ids = set(run.load_predictions("test").ids)
    with rows.open(encoding="utf-8") as file:
        lines = list(csv.reader(file))
    again = tmp_path / "again.csv"
    with again.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([lines[0], *(line for line in lines if line[0] in test_ids)])
    log = run.path.parent / "test-reads.jsonl"
    before = len(log.read_text().splitlines())
    assert call("evaluate", run.path, "--data", again, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["accuracy"] == vars(run.scores()["test"]["accuracy"])
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == before + 1
    assert entries[-1]["fingerprint"] == run.read_json("data.json")["test_fingerprint"]


def test_predict_keeps_ids_order_and_labels(run: Run, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    assert call("predict", run.path, "--input", rows, "--output", output, "--probabilities") == 0
    with output.open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [f"r{i}" for i in range(90)]
    for row in written:
        probs = {label: float(row[f"prob_{label}"]) for label in run.labels()}
        assert row["label"] == max(probs, key=lambda label: probs[label])
        assert sum(probs.values()) == pytest.approx(1, abs=1e-5)


def test_predict_numbers_rows_without_ids_and_writes_label_ids(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "new.jsonl", tmp_path / "submission.csv"
    source.write_text('{"text": "the game of the team"}\n{"text": "a film"}\n', encoding="utf-8")
    assert call("predict", run.path, "--input", source, "--output", output, "--label-ids") == 0
    lines = output.read_text().splitlines()
    assert lines[0] == "ID,Label"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
    assert all(0 <= int(line.split(",")[1]) < 3 for line in lines[1:])


def test_runs_list_show_remove(run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = arguments[4]
    assert call("runs", "list", "--out", out, "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["run"] for entry in listed] == [run.name]
    assert call("runs", "list", "--out", out) == 0
    assert run.name in capsys.readouterr().out
    assert call("runs", "show", run.path) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("predict RUN --input nowhere.csv --output {tmp}/o.csv", 1, "nowhere.csv"),
        ("predict RUN --input ROWS --output {tmp}/o.txt", 1, "ends in .csv"),
        ("predict RUN --input ROWS --output {tmp}/none/o.csv", 1, "no such folder"),
        ("predict RUN --input {tmp}/in.csv --output {tmp}/in.csv", 1, "is also the input"),
        ("train --data no/such/folder --set model.name=ENCODER", 1, "no such file or folder"),
        ("train --data ~nobody-here/rows.csv --set model.name=ENCODER", 1, "~nobody-here/rows.csv"),
        ("predict ~nobody-here/run --input ROWS --output {tmp}/o.csv", 1, "~nobody-here/run"),
        ("predict nobody --input ROWS --output {tmp}/o.csv", 1, "nobody"),
        ("evaluate RUN --data {tmp}", 1, "{tmp}"),
        ("train --recipe study-bb", 1, "did you mean 'study-b'"),
        ("train --set model.name=ENCODER", 1, "data.source"),
        ("train --set train.epochs", 1, "section.key=value"),
        ("train --config {tmp}/none.yaml", 1, "no such file"),
        ("plan --budget 0", 1, "budget is 0"),
        ("train --unknown", 2, "--unknown"),
        ("nothing", 2, "nothing"),
        ("plan --budget many", 2, "--budget"),
    ],
)
def test_mistakes_are_named_and_have_their_exit_code(
    run: Run, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, code: int, message: str
) -> None:
    places = {"RUN": str(run.path), "ROWS": str(rows), "ENCODER": run.config().model.name}
    words = re.sub("|".join(places), lambda found: places[found[0]], command.format(tmp=tmp_path)).split()
    assert call(*words) == code
    captured = capsys.readouterr()
    assert message.format(tmp=tmp_path) in captured.err
    assert "Traceback" not in captured.err


def test_our_own_faults_exit_with_three_and_show_where_only_with_v(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("submillion.cli.settings.recipe_names", broken)
    assert call("recipes") == 3
    assert "Traceback" not in capsys.readouterr().err
    assert call("-v", "recipes") == 3
    assert "Traceback" in capsys.readouterr().err


def test_config_prints_a_config_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("config", "--recipe", "study-b", "--set", "train.seed=5") == 0
    file = tmp_path / "c.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert call("config", "--config", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["train"]["seed"] == 5


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize(
    "command", ["data check FILE", "data check FILE --json", "data augment FILE --json", "data augment FILE", "nothing"]
)
def test_what_a_terminal_cannot_show_is_written_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, encoding: str
) -> None:
    file = tmp_path / "rows.csv"
    rows = (f"好 😀 – {number},{'é中'[number % 2]}" for number in range(40))
    file.write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    words = [str(file) if word == "FILE" else word for word in [*command.split(), "--set", "augmentation.kind=upper"]]
    assert call(*words) == (2 if command == "nothing" else 0)
    # Typer writes UTF-8 where a terminal says that it has ASCII alone; the rest is ASCII there.
    printed = out.buffer.getvalue().decode("utf-8" if encoding == "ascii" else encoding)
    if "--json" in words:
        assert {"中", "é"} <= {*re.findall("中|é", json.dumps(json.loads(printed), ensure_ascii=False))}
    elif command.startswith("data"):
        assert "\\u4e2d" in printed


def test_it_starts_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "submillion", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("submillion 0.")


def test_plain_transformers_and_peft_give_the_runs_predictions(run: Run, rows: Path, tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "adapters.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    with rows.open(encoding="utf-8") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    predictions = run.load_predictions("test")
    settings = run.config()
    given = f"folder, base = {str(run.path / 'adapter')!r}, {settings.model.name!r}\n"
    given += f"texts = {[texts[row_id] for row_id in predictions.ids]!r}\n"
    shown = "import json\nprint(json.dumps([labels, logits.softmax(dim=-1).tolist()]))"
    done = forks.run(given + code + shown, os.environ, "peft")
    labels, probs = json.loads(done.stdout)
    assert labels == [run.labels()[i] for i in predictions.predicted]
    np.testing.assert_allclose(probs, predictions.probs, atol=1e-6)
