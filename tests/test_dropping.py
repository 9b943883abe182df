"""`data.drop` leaves rows out and says how many and which, in training, checking, evaluating and predicting alike."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import submillion
from submillion import config, data
from submillion.config import DataConfig
from submillion.errors import DataError
from submillion.prediction import Progress, predict_file
from submillion.runs import Run
from submillion.training import workflow
from tests.malformed import called

GOOD = [f"word{i % 7} word{i} more,{'ab'[i % 2]}" for i in range(40)]
BAD = [",a", "text without a label,", "a,b,c", '"a, b" c,a', "lonely,rare", "twice,two", "Twice ,two"]
DROP = ("bad-rows", "rare-classes")


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("rows") / "bad.csv", *GOOD[:20], *BAD, *GOOD[20:])


@pytest.fixture(scope="module")
def run(encoders: dict[str, Path], bad: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that drops."""
    settings = {"data.source": str(bad), "data.drop": DROP, "model.name": str(encoders["bert"]), "train.steps": 1}
    return workflow.train(config.load(overrides={**settings, "out": str(tmp_path_factory.mktemp("runs"))}))


def test_nothing_is_dropped_unless_asked(bad: Path) -> None:
    with pytest.raises(DataError) as refusal:
        data.read(DataConfig(source=str(bad)))
    assert len(refusal.value.problems) == 4


def test_bad_rows_alone_leave_rare_classes_a_problem(bad: Path) -> None:
    with pytest.raises(DataError, match=r"row 25 \(line 26\): class 'rare' has 1 row"):
        data.read(DataConfig(source=str(bad), drop=("bad-rows",)))


def test_what_is_left_is_what_the_good_rows_are(bad: Path, tmp_path: Path) -> None:
    splits = data.read(DataConfig(source=str(bad), drop=DROP))
    clean = data.read(DataConfig(source=str(write(tmp_path / "good.csv", *GOOD))))
    assert [e.text for e in splits.train] == [e.text for e in clean.train]
    assert {e.id for e in (*splits.train, *splits.validation)} == {str(i) for i in range(47) if not 20 <= i < 27}
    assert splits.n_dropped == {"train": 7}
    assert splits.summary()["dropped"] == {"train": 7}
    (told,) = (warning for warning in splits.warnings if "left out" in warning)
    assert told.startswith(f"{bad}: 7 of 47 rows are left out (data.drop): row 24 (line 25): text follows a")
    assert "row 21 (line 22): the text (column 'text') is empty" in told
    assert told.endswith(
        "rows 25, 26, 27 (lines 26, 27, 28): 2 classes ('rare', 'two') have fewer than 2 different texts"
    )


def test_other_splits_lose_the_classes_that_train_has_lost(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", *GOOD, "lonely,rare")
    write(tmp_path / "test.csv", "new,a", "newer,rare", "newest,b")
    splits = data.read(DataConfig(source=str(tmp_path), drop="rare-classes"))
    assert [e.label for e in splits.test] == ["a", "b"]
    assert splits.n_dropped == {"train": 1, "test": 1}
    write(tmp_path / "test.csv", "new,a", "newer,A", "newest,b")
    with pytest.raises(DataError, match="label 'A' is not a training label: did you mean 'a'"):
        data.read(DataConfig(source=str(tmp_path), drop="rare-classes"))


def test_where_no_row_is_left_the_reasons_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the text .* is empty.*; data\.drop leaves no row"):
        data.read(DataConfig(source=str(write(tmp_path / "a.csv", ",a", ",b")), drop=DROP))


def test_numbers_with_fractions_are_never_dropped(tmp_path: Path) -> None:
    rows = [f"text {i},{[1, 2, 2.5][i % 3]}" for i in range(12)]
    with pytest.raises(DataError, match="regression"):
        data.read(DataConfig(source=str(write(tmp_path / "a.csv", *rows)), drop=DROP))


def test_classes_are_counted_as_they_are_trained(bad: Path) -> None:
    assert data.count_classes(DataConfig(source=str(bad), drop=DROP)) == 2


def test_the_census_and_its_json_count_them(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--set", "model.name=./none", "--set", "data.drop=[bad-rows, rare-classes]")
    code, text, _ = called(capsys, "data", "check", bad, *options)
    assert (code, "train: 40 usable rows, 2 classes; 7 left out (data.drop)" in text) == (0, True)
    assert text.count("7 of 47 rows are left out") == 1
    _, text, _ = called(capsys, "data", "check", bad, *options, "--json")
    assert json.loads(text)["splits"]["train"]["n_dropped"] == 7


def test_the_run_folder_keeps_the_count(run: Run, bad: Path) -> None:
    facts = json.loads((run.path / "data.json").read_text())
    assert facts["dropped"] == {"train": 7}
    assert any(f"{bad}: 7 of 47 rows are left out" in warning for warning in facts["warnings"])


@pytest.mark.parametrize("n_rows", [2, 4096])
def test_a_predicted_file_loses_the_same_rows_and_keeps_the_numbers_of_the_others(
    run: Run, tmp_path: Path, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submillion.data import chunks

    monkeypatch.setattr(chunks, "CHUNK_ROWS", n_rows)
    source = tmp_path / "new.csv"
    source.write_text('text;other\nfine;1\n;2\n;3\nfine too;4\n"a; b" c;5\nlast;6\n')
    notes: list[str] = []
    written = predict_file(
        run, source, tmp_path / "out.csv", watch=lambda step: notes.extend(getattr(step, "notes", ()))
    )
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["0", "3", "5"]
    assert (written.n_rows, written.n_dropped) == (3, 3)
    assert notes[0] == f"{source}: 3 rows are left out and not predicted (data.drop)"
    assert f"{source} is read as separated by ';'" in notes
    assert isinstance(Progress("predicting", 0, None).notes, tuple)


def test_the_command_and_its_json_count_the_rows_that_the_output_lacks(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "new.csv"
    source.write_text("text,x\nfine,1\n,2\nlast,3\n")
    options = ("predict", run.path, "--input", source, "--output", tmp_path / "out.csv")
    code, text, _ = called(capsys, *options)
    assert (code, "1 more row is left out (the run's data.drop)" in text) == (0, True)
    counts = json.loads(called(capsys, *options, "--json")[1])
    assert (counts["rows"], counts["dropped"]) == (2, 1)


def test_an_export_says_what_is_left_out_of_the_rows_it_is_checked_on(run: Run, tmp_path: Path) -> None:
    rows = write(tmp_path / "new.csv", "good,a", ",b", "fine,b")
    exported = submillion.export(run, "merged", output=tmp_path / "merged", data=rows)
    assert exported.manifest is not None
    assert exported.manifest.checks["rows"].startswith("new.csv; 1 of 3 rows is left out (data.drop): row 2 (line 3)")


def test_evaluating_says_what_is_left_out(run: Run, tmp_path: Path) -> None:
    found = submillion.evaluate(run, write(tmp_path / "new.csv", "good,a", ",b", "fine,b", "odd,rare"))
    assert found.n_rows == 2
    assert any("2 of 4 rows are left out (data.drop)" in warning for warning in found.warnings)


def test_rows_in_memory_are_refused_rather_than_dropped(run: Run) -> None:
    with pytest.raises(DataError, match=r"row 2 \(index 1\): the text"):
        submillion.predict(run, ["fine", "", "last"])
