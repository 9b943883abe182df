"""The run folder: whole files or none, exact round trips, refusals that name the file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion import config, runs
from submillion.cli import main
from submillion.config import Config
from submillion.errors import RunError
from submillion.judging.metrics import Predictions, Score, score
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.runs.records import from_line, to_line

HASH = "0a1b2c3d"
SCORE = Score(0.5, 0.25, 0.75, 8)
LABELS = ("neg/ative", "pos,itive", "日本")


def step(number: int, loss: float = 0.5) -> StepRecord:
    return StepRecord(number, number / 4, loss, 1e-3, 900, 0.25)


def evaluation(number: int, best: bool = True) -> EvalRecord:
    return EvalRecord(number, number / 4, 0.5, 1e-3, 0, 0.1, 1.5, {"accuracy": SCORE, "ece": SCORE}, best)


def predictions(dtype: type = np.float64) -> Predictions:
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], size=5).astype(dtype)
    return Predictions(["a", "b", "c", "d", "0"], np.array([0, 1, 2, 1, 0]), probs)


def finished(out: Path, name: str = "demo", hash8: str = HASH) -> Run:
    run = runs.create(out, name, hash8)
    run.write("config.yaml", config.to_yaml(Config(name=name)))
    run.write_json("plan.json", {"total": 999_172})
    run.write_json("environment.json", {"device": "cpu"})
    run.write_json("labels.json", list(LABELS))
    run.write_json("data.json", {"rows": {}})
    for record in (step(1), step(2), evaluation(2)):
        run.append(record)
    run.save_predictions("validation", predictions())
    run.write_scores({"validation": score(predictions())})
    (run.path / "adapter").mkdir(exist_ok=True)
    (run.path / "adapter" / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (run.path / "adapter" / "adapter_config.json").write_text("{}")
    run.mark_done()
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished(tmp_path / "runs")


numbers = st.floats(allow_infinity=False, allow_nan=True)
scores = st.builds(Score, numbers, numbers, numbers, st.integers(0, 10**9))
steps = st.builds(StepRecord, st.integers(1), numbers, numbers, numbers, st.integers(0), numbers)
names = st.sampled_from(["accuracy", "macro_f1", "log_loss", "ece"])
evaluations = st.builds(
    EvalRecord,
    *(st.integers(1), numbers, numbers, numbers, st.integers(0), numbers, numbers),
    st.dictionaries(names, scores),
    st.booleans(),
)


@given(steps | evaluations)
def test_a_record_survives_its_line_which_is_strict_json(record: runs.Record) -> None:
    line = to_line(record)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    # repr compares nan with nan, which == does not.
    assert repr(from_line(line)) == repr(record)


def test_infinities_are_written_as_null() -> None:
    assert math.isnan(from_line(to_line(step(1, loss=math.inf))).loss)


def test_scores_stand_beside_the_other_keys_of_an_evaluation() -> None:
    values = json.loads(to_line(evaluation(7)))
    assert values["kind"] == "eval"
    assert values["accuracy"] == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    assert set(json.loads(to_line(step(1)))) == {
        *("kind", "step", "epoch", "loss", "learning_rate", "tokens", "seconds")
    }


def test_records_come_back_in_order(run: Run) -> None:
    assert run.records() == [step(1), step(2), evaluation(2)]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_line_that_a_crash_cut_short_is_left_out_and_then_cut_off(run: Run, cut: int) -> None:
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + to_line(step(3)).encode()[:cut])
    assert len(run.records()) == 3
    run.cut_back(2, 2)
    assert path.read_bytes() == whole


@given(n_before=st.integers(0, 6), n_after=st.integers(0, 6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cutting_back_and_repeating_gives_the_same_file(tmp_path: Path, n_before: int, n_after: int) -> None:
    run = runs.create(tmp_path, "x", HASH)
    (run.path / "metrics.jsonl").unlink(missing_ok=True)
    later = [step(n) for n in range(n_before + 1, n_before + n_after + 1)]
    for record in [step(n) for n in range(1, n_before + 1)]:
        run.append(record)
    for _ in range(2):
        run.cut_back(n_before, 0)
        for record in later:
            run.append(record)
    assert [record.step for record in run.records()] == list(range(1, n_before + n_after + 1))


def test_an_evaluation_that_the_checkpoint_does_not_know_is_cut(run: Run) -> None:
    run.cut_back(2, 0)
    assert run.records() == [step(1), step(2)]


def test_a_broken_line_is_named(run: Run) -> None:
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "step"}\n' + path.read_bytes())
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 1, is not a record"):
        run.records()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_come_back_bit_for_bit(run: Run, dtype: type) -> None:
    saved = predictions(dtype)
    run.save_predictions("test", saved)
    loaded = run.load_predictions("test")
    assert loaded.ids == saved.ids
    assert (loaded.label_ids == saved.label_ids).all()
    assert loaded.probs.dtype == saved.probs.dtype
    assert (loaded.probs == saved.probs).all()
    assert score(loaded) == score(saved)


def test_predictions_name_labels(run: Run) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(run.path / "predictions-validation.parquet")
    assert table.column_names == ["id", "label", "label_id", "predicted", *(f"prob_{label}" for label in LABELS)]
    assert table["label"].to_pylist() == [LABELS[i] for i in predictions().label_ids]
    assert table["predicted"].to_pylist() == [LABELS[i] for i in predictions().predicted]


def test_missing_and_damaged_predictions_are_named(run: Run) -> None:
    with pytest.raises(RunError, match="no predictions of its test split"):
        run.load_predictions("test")
    (run.path / "predictions-test.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(RunError, match=r"predictions-test\.parquet is damaged"):
        run.load_predictions("test")
    run.write_json("labels.json", ["other", "names"])
    with pytest.raises(RunError, match=r"predictions-validation\.parquet is damaged"):
        run.load_predictions("validation")


@pytest.mark.parametrize("name", ["plan.json", "config.yaml", "metrics.jsonl", "predictions-validation.parquet"])
def test_each_kind_of_file_is_sealed(run: Run, name: str) -> None:
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content + b" ")
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        runs.verify(runs.load(run.path))
    (run.path / name).write_bytes(content)
    runs.verify(runs.load(run.path))


def test_scores_come_back(run: Run) -> None:
    assert run.scores() == {"validation": score(predictions())}
    assert set(json.loads((run.path / "scores.json").read_text())["validation"]["accuracy"]) == {
        *("value", "low", "high", "n")
    }


def test_states(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "a", HASH)
    assert run.state == "empty"
    run.append(step(1))
    assert run.state == "interrupted"
    assert finished(tmp_path, "b").state == "done"


def test_a_run_is_found_by_its_hash_whatever_its_name(tmp_path: Path) -> None:
    assert runs.find(tmp_path / "none", HASH) is None
    begun = runs.create(tmp_path, "a", HASH)
    assert runs.find(tmp_path, HASH) is None, "a folder without config.yaml is not a run"
    begun.write("config.yaml", "name: a\n")
    assert runs.find(tmp_path, HASH) == begun
    done = finished(tmp_path, "z")
    assert runs.find(tmp_path, HASH) == done, "a finished one goes first"
    assert runs.find(tmp_path, "ffffffff") is None
    assert runs.create(tmp_path, "z", HASH) == done


def test_only_run_folders_are_listed(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (tmp_path / "notes-0a1b2c3d").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").touch()
    assert runs.list_runs(tmp_path) == [run]


@pytest.mark.parametrize("text", [f"demo-{HASH}", "demo", HASH])
def test_a_run_is_located_by_folder_name_name_and_hash(tmp_path: Path, text: str) -> None:
    run = finished(tmp_path)
    assert runs.locate(text, tmp_path) == runs.locate(str(run.path), "elsewhere") == run.path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dmo", "did you mean 'demo'?"),
        ("demo-0a1b2c3", "did you mean 'demo-0a1b2c3d'?"),
        ("two", "is the name of 2 runs: say which of two-11111111, two-22222222"),
        ("./here/nothing", "no run './here/nothing'"),
        ("zzz", "allowed: demo, demo-0a1b2c3d, two-11111111, two-22222222"),
    ],
)
def test_a_run_that_is_not_there_gets_a_hint(tmp_path: Path, text: str, found: str) -> None:
    for name, hash8 in (("demo", HASH), ("two", "11111111"), ("two", "22222222")):
        finished(tmp_path, name, hash8)
    with pytest.raises(RunError) as caught:
        runs.locate(text, tmp_path)
    assert found in str(caught.value)


def test_the_folder_of_runs_is_no_run(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(RunError, match=f"is not a run folder: it holds runs: demo-{HASH}"):
        runs.locate(str(tmp_path), tmp_path)
    with pytest.raises(RunError, match="no such run folder"):
        runs.locate("demo", tmp_path / "empty")


def test_a_file_is_no_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    with pytest.raises(RunError, match=r"rows.csv is a file: give the folder of the runs \(--out\)"):
        runs.list_runs(tmp_path / "rows.csv")


def test_a_run_that_is_named_twice_is_refused_by_whatever_name(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(RunError, match="is given twice: give it once"):
        runs.refuse_twice([run, Run(tmp_path / "link")])
    runs.refuse_twice([run])


def test_a_finished_run_loads(run: Run) -> None:
    assert runs.load(run.path) == run
    assert run.labels() == LABELS
    assert run.config() == Config(name="demo")
    runs.verify(run)


def test_an_unfinished_run_is_refused_with_what_to_do(run: Run) -> None:
    (run.path / "DONE").unlink()
    with pytest.raises(RunError, match="is not finished: rerun the command that started it to resume"):
        runs.load(run.path)


@pytest.mark.parametrize("name", ["plan.json", "environment.json", "labels.json", "data.json", "scores.json", "DONE"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"a": 1}}', b"[" * 100_000])
def test_damaged_json_is_named(run: Run, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    with pytest.raises(RunError) as caught:
        runs.load(run.path)
    assert str(run.path / name) in str(caught.value)


@pytest.mark.parametrize("values", [[], {}, {"format": "1", "files": {}}, {"format": 1, "files": []}])
def test_a_done_file_of_another_shape_is_named(run: Run, values: object) -> None:
    run.write_json("DONE", values)
    with pytest.raises(RunError, match="DONE is damaged"):
        runs.load(run.path)


@pytest.mark.parametrize("name", ["labels.json", "scores.json"])
def test_json_of_another_shape_is_named(run: Run, name: str) -> None:
    run.write_json(name, {"test": 3})
    with pytest.raises(RunError, match=f"{name} is damaged"):
        run.labels() if name == "labels.json" else run.scores()


def test_a_missing_file_is_named(run: Run) -> None:
    (run.path / "labels.json").unlink()
    with pytest.raises(RunError, match=r"labels\.json cannot be read: No such file"):
        runs.load(run.path)


def test_a_newer_run_is_refused(run: Run) -> None:
    values = run.read_json("DONE")
    run.write_json("DONE", values | {"format": 2, "submillion": "9.9"})
    with pytest.raises(RunError, match=r"was written by submillion 9\.9, in format 2; this version reads 1: update"):
        runs.load(run.path)


@pytest.mark.parametrize("place", [0, 100, 255])
def test_any_flipped_bit_of_the_adapter_is_found(run: Run, place: int) -> None:
    path = run.path / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"adapter_model\.safetensors is not what training wrote"):
        runs.verify(run)


def test_cut_and_missing_adapter_files_are_reported_together(run: Run) -> None:
    path = run.path / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    (run.path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(RunError, match=r"adapter_config\.json is missing") as caught:
        runs.verify(run)
    assert len(caught.value.problems) == 2


def test_two_processes_cannot_write_one_run(run: Run) -> None:
    code = f"from submillion.runs import Run\nfrom pathlib import Path\nwith Run(Path({str(run.path)!r})).lock(): pass"
    with run.lock():
        assert run.is_locked
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"{run.path}: another process is writing it" in done.stderr
        with pytest.raises(RunError, match="another process is writing it"), run.lock():
            pass
        with pytest.raises(RunError, match="another process is writing it"):
            runs.remove(run)
    assert not run.is_locked
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lock_ends_with_an_error_inside(run: Run) -> None:
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock():
        pass


def test_writing_atomically_keeps_the_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    runs.write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.json cannot be written: No space left on device"):
        runs.write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"demo-0a1b2c3d cannot be made: (Not a directory|File exists)"):
        runs.create(tmp_path / "file", "demo", HASH)


def test_removing_takes_the_folder_and_nothing_else(tmp_path: Path) -> None:
    run, other = finished(tmp_path / "runs"), tmp_path / "precious"
    other.mkdir()
    (other / "file").touch()
    (run.path / "link").symlink_to(other)
    runs.remove(run)
    assert not run.path.exists()
    assert (other / "file").exists()


def test_removing_refuses_what_is_no_run_folder(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs")
    link = tmp_path / f"link-{HASH}"
    link.symlink_to(run.path)
    for path, reason in ((tmp_path, "is not a run folder"), (tmp_path / "no", "no such run"), (link, "is a link")):
        with pytest.raises(RunError, match=reason):
            runs.remove(Run(path))
    assert run.is_done


def test_test_reads_are_counted_by_fingerprint(run: Run) -> None:
    out = run.path.parent / "deep" / "runs"
    assert runs.count_test_reads(out, "f1") == 0
    for fingerprint in ("f1", "f2", "f1"):
        runs.append_test_read(out, fingerprint, run, "train")
    assert [runs.count_test_reads(out, fingerprint) for fingerprint in ("f1", "f2", "f3")] == [2, 1, 0]
    entry = json.loads((out / "test-reads.jsonl").read_text().splitlines()[0])
    assert entry["run"] == run.name
    assert entry["purpose"] == "train"


def test_a_broken_log_of_test_reads_is_named(tmp_path: Path) -> None:
    (tmp_path / "test-reads.jsonl").write_text("{")
    with pytest.raises(RunError, match=r"test-reads\.jsonl is damaged"):
        runs.count_test_reads(tmp_path, "f1")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"\x93NUMPY\x01\x00"])
def test_damaged_hashes_of_training_texts_are_named(run: Run, content: bytes) -> None:
    (run.path / "trained-on.npy").write_bytes(content)
    with pytest.raises(RunError, match=r"trained-on\.npy is damaged"):
        runs.count_trained_on(run, [])


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        step(1).loss = 0.0  # type: ignore[misc]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_runs_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = finished(tmp_path), ("--out", str(tmp_path))
    code, text, _ = said(capsys, "runs", "list", *out)
    assert code == 0
    assert "999,172" in text
    (row,) = json.loads(said(capsys, "runs", "list", "--json", *out)[1])
    assert (row["run"], row["state"], row["model"]) == (run.name, "done", "roberta-base")
    assert row["validation_accuracy"] == vars(run.scores()["validation"]["accuracy"])
    assert row["test_accuracy"] is None
    with run.lock():
        assert json.loads(said(capsys, "runs", "list", "--json", *out)[1])[0]["state"] == "running"
    (run.path / "scores.json").write_text("{")
    assert "scores.json is damaged" in json.loads(said(capsys, "runs", "list", "--json", *out)[1])[0]["state"]
    assert said(capsys, "runs", "list", "--out", str(tmp_path / "no"), "--json")[1].strip() == "[]"
    assert "no runs in" in said(capsys, "runs", "list", "--out", str(tmp_path / "no"))[1]


def test_runs_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path)
    values = json.loads(said(capsys, "runs", "show", "demo", "--out", str(tmp_path), "--json")[1])
    assert values["config"] == run.config().model_dump(mode="json")
    assert values["scores"] == run.read_json("scores.json")
    (run.path / "DONE").unlink()
    text = said(capsys, "runs", "show", str(run.path))[1]
    assert "interrupted" in text
    assert f"submillion train --config {run.path / 'config.yaml'}" in text


@pytest.mark.parametrize(("name", "content"), [("DONE", ""), ("scores.json", "{"), ("labels.json", "[")])
def test_a_damaged_run_is_listed_and_shown_as_such(
    run: Run, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / name).write_text(content)
    code, text, _ = said(capsys, "runs", "list", "--out", str(run.path.parent))
    table, reasons = text.split("\ndamaged:\n")
    assert code == 0
    assert re.search(rf"{run.name} +damaged +roberta-base", table)
    assert f"  {run.name}: {run.path / name} is damaged" in reasons
    code, text, _ = said(capsys, "runs", "show", str(run.path))
    assert code == 0
    assert re.search(r"state +damaged\n", text)
    assert f"\ndamaged: {run.path / name} is damaged" in text
    values = json.loads(said(capsys, "runs", "show", str(run.path), "--json")[1])
    assert f"{name} is damaged" in values["state"]
    assert values.get(name.removesuffix(".json")) is None


def test_runs_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, errors = said(capsys, "runs", "remove", HASH, "--out", str(tmp_path))
    assert code == 1
    assert "pass --yes" in errors
    assert run.path.exists()
    code, text, _ = said(capsys, "runs", "remove", HASH, "--out", str(tmp_path), "--yes", "--json")
    assert code == 0
    assert json.loads(text) == {"removed": str(run.path)}
    assert not run.path.exists()
