"""SIGKILL at each phase and before each of a run's files: the same command ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from submillion import runs
from submillion.errors import RunError
from submillion.runs import Run
from tests.faults.conftest import Question

pytestmark = pytest.mark.xdist_group("disks")  # one process of commands, one answer to compare with

PHASES = ("reading", "tokenising", "building", "computing", "training", "saving", "testing")
FILES = (
    *("config.yaml", "plan.json", "environment.json", "labels.json", "data.json", "best-0000003.safetensors"),
    *("last.safetensors", "adapter", "predictions-validation.parquet", "predictions-test.parquet", "scores.json"),
    *("cost.json", "DONE"),
)


def assert_whole(run: Path) -> None:
    """Every file of a killed run that has its own name can be read; it is not taken for a finished one."""
    for file in run.rglob("*"):
        match file.suffix:
            case ".tmp":
                assert file.name.startswith(".") or file.name.endswith(("safetensors.tmp", "adapter.tmp"))
            case ".json" if "adapter.tmp" not in file.parts:
                json.loads(file.read_bytes())
            case ".parquet":
                assert np.isfinite(pq.read_table(file)["prob_art"].to_numpy()).all()
            case ".safetensors" if "adapter.tmp" not in file.parts:
                safe_open(file, framework="pt").__enter__()
    if Run(run).is_done:
        runs.verify(runs.load(run))
    else:
        with pytest.raises(RunError, match=r"is not finished|is not a run folder"):
            runs.load(run)


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_a_phase_it_goes_on_to_the_same_end(question: Question, tmp_path: Path, phase: str) -> None:
    killed = question.ask(tmp_path, kill_at=phase)
    assert killed.code == -9, killed.err
    for run in tmp_path.glob("run-*"):
        assert_whole(run)
    done = question.ask(tmp_path)
    assert done.code == 0, done.err
    assert question.is_answered(tmp_path)


@pytest.mark.slow
def test_killed_before_each_file_it_goes_on_to_the_same_end(question: Question, tmp_path: Path) -> None:
    """One run, taken up and killed again and again: each time one file further."""
    run = tmp_path / question.answer.name
    kills = [("kill_before", file) for file in FILES]
    for when, file in (*kills, ("kill_after", "adapter"), ("kill_after", "DONE")):
        killed = question.ask(tmp_path, **{when: file})
        assert killed.code == -9, f"{when} {file}: {killed.err}"
        assert_whole(run)
        assert (run / "DONE").exists() == ((when, file) == ("kill_after", "DONE"))
    assert question.ask(tmp_path).code == 0
    assert question.is_answered(tmp_path)
    reads = (tmp_path / "test-reads.jsonl").read_text().splitlines()
    assert len(reads) == 5, "the test split was opened before each of the last four files, and once more: all is noted"
