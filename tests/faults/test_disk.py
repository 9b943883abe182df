"""Full disks and folders that may only be read: a sentence that names the file, nothing lost, the same command goes on.

Real disks: a small tmpfs, and bind mounts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from submillion import runs
from tests.faults.conftest import Question
from tests.kit.commands import Commands

pytestmark = pytest.mark.xdist_group("disks")  # one process of commands, one answer to compare with


def holding(disks: Commands, folder: Path, run: Path) -> Path:
    """Make a folder a small disk which has another finished run; return that run, seen from here.

    The log of test reads ends just before a page does, of which alone the next line's beginning would fit.
    """
    disks.small_disk(folder, "8m")
    other = disks.inside(folder) / "other-00000001"
    shutil.copytree(run, other)
    log = json.dumps({"fingerprint": "f1", "purpose": ""})
    (other.parent / "test-reads.jsonl").write_text(log.replace('""', f'"{"-" * (4079 - len(log))}"') + "\n")
    return other


@pytest.mark.parametrize(
    ("phase", "file"),
    [
        ("reading", "config.yaml"),
        ("training", "metrics.jsonl"),
        ("saving", "adapter"),
        ("testing", "test-reads.jsonl"),
    ],
)
def test_on_a_full_disk_a_run_stops_and_goes_on_when_there_is_room(
    disks: Commands, question: Question, tmp_path: Path, phase: str, file: str
) -> None:
    out = tmp_path / "runs"
    other = holding(disks, out, question.answer)
    full = question.ask(out, fill_at=phase, disk=out)
    assert full.code == 1
    assert f"{file} cannot be written: No space left on device: free some space" in full.err
    assert question.results(other) == question.results(question.answer)
    assert runs.count_test_reads(other.parent, "f1") == 1, "no half line is in the log"
    (disks.inside(out) / "filler").unlink()
    done = question.ask(out)
    assert done.code == 0, done.err
    assert question.is_answered(disks.inside(out))
    assert len((other.parent / "test-reads.jsonl").read_text().splitlines()) == 2


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(
    disks: Commands, question: Question, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    disks.small_disk(out, "160k")
    full = question.ask(out)
    assert full.code == 1
    assert "safetensors cannot be written" in full.err
    assert "the last checkpoint is untouched: free some space" in full.err
    disks.mount("-o", "remount,size=8m", out)
    assert question.ask(out).code == 0
    assert question.is_answered(disks.inside(out))


def test_a_cache_on_a_full_disk_stops_nothing(disks: Commands, question: Question, tmp_path: Path) -> None:
    disks.small_disk(tmp_path / "cache", "4k")
    done = question.ask(tmp_path / "runs", cache=tmp_path / "cache")
    assert done.code == 0, done.err
    assert "not kept" in done.err
    assert question.results(tmp_path / "runs" / question.answer.name).keys() == question.results(question.answer).keys()


def test_predictions_on_a_full_disk_go_on_when_there_is_room(
    disks: Commands, question: Question, tmp_path: Path
) -> None:
    words = ["predict", question.answer, "--input", question.rows, "--output"]
    assert disks.run(*words, tmp_path / "whole.csv").code == 0
    disks.small_disk(tmp_path / "disk", "12k")
    output = tmp_path / "disk" / "labels.csv"
    disks.inside(output).write_text("what was there before")
    full = disks.run(*words, output, "--force")
    assert full.code == 1
    assert "cannot be written: No space left on device: free some space" in full.err
    assert disks.inside(output).read_text() == "what was there before"
    disks.mount("-o", "remount,size=8m", tmp_path / "disk")
    assert disks.run(*words, output, "--force").code == 0
    assert disks.inside(output).read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_study_on_a_full_disk_keeps_its_finished_trials(disks: Commands, question: Question, tmp_path: Path) -> None:
    disks.small_disk(tmp_path / "disk", "8m")
    out, study = tmp_path / "disk" / "runs", tmp_path / "study.yaml"
    settings = dict(
        each.split("=", 1) for each in (*question.words[1::2], f"out={out}", f"data.source={question.rows}")
    )
    typed = {key: yaml.safe_load(value) for key, value in settings.items()}
    factors = [{"key": "adapter.rank", "values": [1, 2]}]
    values = {"name": "tiny", "kind": "grid", "base": {"settings": typed}, "factors": factors}
    study.write_text(yaml.safe_dump(values))
    full = disks.run("sweep", study, fill_after="DONE", disk=tmp_path / "disk")
    assert full.code == 1, full.err
    assert "cannot be written" in full.err
    assert "the same command resumes" in full.err
    inside = disks.inside(out)
    (kept,) = (run for run in runs.list_runs(inside) if run.is_done)
    before = (kept.path / "predictions-validation.parquet").read_bytes()
    (disks.inside(tmp_path / "disk") / "filler").unlink()
    done = disks.run("sweep", study)
    assert done.code == 0, done.err
    assert (kept.path / "predictions-validation.parquet").read_bytes() == before
    assert sum(run.is_done for run in runs.list_runs(inside)) == 2


def test_a_folder_that_may_only_be_read_is_named(disks: Commands, question: Question, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    disks.read_only(out)
    done = question.ask(out)
    assert done.code == 1
    assert f"{out / question.answer.name} cannot be made: Read-only file system: change its permissions" in done.err


def test_what_is_finished_answers_from_a_folder_that_may_only_be_read(
    disks: Commands, question: Question, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(question.answer.parent, out)
    disks.read_only(out)
    run = out / question.answer.name
    assert question.ask(out).code == 0
    assert disks.run("runs", "show", run).code == 0
    labels = tmp_path / "labels.csv"
    done = disks.run("predict", run, "--input", question.rows, "--output", labels)
    assert done.code == 0, done.err
    assert len(labels.read_text().splitlines()) == 121
    evaluated = disks.run("evaluate", run, "--data", question.rows)
    assert evaluated.code == 1
    assert "test-reads.jsonl cannot be written: Read-only file system" in evaluated.err


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_a_cache_that_may_only_be_read_stops_nothing(
    disks: Commands, question: Question, tmp_path: Path, filled: bool
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(disks.cache, cache) if filled else cache.mkdir()
    disks.read_only(cache)
    done = question.ask(tmp_path / "runs", cache=cache)
    assert done.code == 0, done.err
    assert ("not kept" in done.err) != filled
    assert not filled or question.is_answered(tmp_path / "runs")
