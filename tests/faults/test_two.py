"""Two processes on one folder or file: the second is told at once, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from pathlib import Path

import pytest

from submillion import prediction, runs
from submillion.errors import RunError
from submillion.runs import Run, files
from tests.faults.conftest import Question

pytestmark = pytest.mark.xdist_group("disks")  # one process of commands, one answer to compare with


def test_a_second_training_is_told_at_once_and_the_first_is_unharmed(question: Question, tmp_path: Path) -> None:
    killed = question.ask(tmp_path, kill_after="last.safetensors")
    assert killed.code == -9
    run = Run(tmp_path / question.answer.name)
    with run.lock():
        second = question.ask(tmp_path)
        assert second.code == 1
        assert f"{run.path}: another process is writing it; wait for it, or stop it" in second.err
    assert question.ask(tmp_path).code == 0
    assert question.is_answered(tmp_path)


def test_a_second_prediction_to_one_file_is_told_at_once(question: Question, tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    words = ["predict", question.answer, "--input", question.rows, "--output", output]
    partial = tmp_path / "labels.csv.partial"
    partial.mkdir()
    with runs.locked(partial):
        second = question.commands.run(*words)
        assert second.code == 1
        assert f"{partial}: another process is writing it" in second.err
        assert not output.exists()
    assert question.commands.run(*words).code == 0
    assert len(output.read_text().splitlines()) == 121


def test_a_lock_that_another_process_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_: object) -> bool:
        (tmp_path / ".lock").unlink()  # it finished between our opening the file and our lock
        return True

    monkeypatch.setattr(files, "take_lock", take)
    with pytest.raises(RunError, match="another process is writing it"), runs.locked(tmp_path):
        pass


def test_two_predictions_at_one_moment_leave_a_whole_file(question: Question, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "labels.csv"
    prediction.predict_file(question.answer, question.rows, whole)
    begin = time.monotonic() + 1

    def predict() -> None:
        time.sleep(max(0.0, begin - time.monotonic()))
        with suppress(RunError):  # the second, if it comes before the first is done
            prediction.predict_file(question.answer, question.rows, output)

    both = [multiprocessing.get_context("fork").Process(target=predict) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert [each.exitcode for each in both] == [0, 0]
    assert output.read_bytes() == whole.read_bytes()
    assert not output.with_name("labels.csv.partial").exists()
