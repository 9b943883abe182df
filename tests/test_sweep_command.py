"""Laws of `submillion sweep`: bad input, killed and continued, dry runs, storages, and what is on stdout."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from submillion import config, runs
from submillion.config import Config
from submillion.errors import ConfigError, DataError, RunError, SubmillionError
from submillion.runs import Run, files
from submillion.sweeps import executors, study_names
from submillion.sweeps.sitting import sweep
from submillion.sweeps.study import How, prepare
from submillion.training import workers, workflow
from tests.kit.calls import beside, call
from tests.kit.studies import GRID, RANK, command, settings, trained, write_study

__all__ = ["settings"]  # a fixture


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"factor": []}, "unknown key factor: did you mean 'factors'"),
        ({"kind": "gird"}, "kind is 'gird'"),
        ({"factors": []}, "factors is empty"),
        ({"factors": [{"key": "adapter.rank", "values": []}]}, "factor rank is empty"),
        ({"factors": [{"key": "adapter.rank"}]}, "factor rank has nothing"),
        ({"factors": [{"key": "adapter.rank", "value": [1]}]}, "unknown key factors.0.value: did you mean 'values'"),
        ({"factors": [{"key": "adapter.rnk", "values": [1]}]}, "unknown key adapter.rnk: did you mean 'rank'"),
        ({"factors": [{"key": "adapter.rank", "values": [1, 1]}]}, "has 1 more than once"),
        ({"factors": [{"key": "adapter.rank", "values": [-1, "x"]}]}, "adapter.rank is -1"),
        ({"factors": [RANK, {"key": "adapter.rank", "name": "again", "values": [3]}]}, "both vary adapter.rank"),
        ({"factors": [RANK, {"name": "b", "alternatives": [{"label": "x", "settings": {"adapter.rank": 4}}]}]}, "both"),
        ({"factors": [{"key": "adapter.rank", "low": 1, "high": 4}]}, "a range is for kinds random and tpe"),
        ({"kind": "tpe", "factors": [{"key": "adapter.rank", "low": 4, "high": 1}]}, "give low below high"),
        ({"kind": "tpe", "factors": [{"key": "model.dropout", "low": 0, "high": 0.1, "log": True}]}, "starts above 0"),
        ({"kind": "two-stage"}, "give short and full"),
        ({"short": {"train.steps": 1}}, "short and full are for kind two-stage"),
        ({"factors": [{"key": "train.seed", "values": [1, 2]}]}, "train.seed cannot be a factor; seeds: 3"),
        ({"factors": [{"key": "data.validation", "values": [10, 20]}]}, "is the same for all trials"),
        ({"factors": [{"key": "out", "values": ["a", "b"]}]}, "is the same for all trials"),
        ({"factors": [{"key": "train", "values": [1]}]}, "train is a section"),
        ({"split": "test"}, "trials are chosen on validation"),
        ({"seeds": 0}, "seeds is 0"),
        ({"base": {"train.stps": 1}}, "unknown key train.stps: did you mean 'steps'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_studies_are_refused_before_anything_is_written(
    keys: dict[str, Any], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep(write_study(tmp_path, settings, **keys))
    assert message in str(refused.value)
    assert not (tmp_path / "runs").exists()


def test_problems_are_reported_together(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "adapter.rnk", "values": [1]}, {"key": "train.stps", "values": [1]}]
    with pytest.raises(ConfigError) as refused:
        prepare(write_study(tmp_path, settings, factors=factors, split="test"))
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_outside_its_range_is_refused(scale: float, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="above 0, at most 1"):
        prepare(write_study(tmp_path, settings), scale=scale)


def test_what_is_not_there_is_named_before_any_trial(settings: dict[str, Any], tmp_path: Path) -> None:
    file = write_study(tmp_path, settings)
    with pytest.raises(DataError, match=r"nobody\.csv"):  # and not the encoder, which is missing too
        prepare(file, ["data.source=nobody.csv", "model.name=nobody"])
    with pytest.raises(ConfigError, match="start_from is nobody: no such folder"):
        prepare(file, ["adapter.start_from=nobody"])
    starts = [RANK, {"key": "adapter.start_from", "values": [str(tmp_path), "somebody"]}]
    with pytest.raises(ConfigError, match="start_from is somebody: no such folder"):
        prepare(write_study(tmp_path, settings, factors=starts))


def test_a_varied_key_is_not_overridden(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set adapter\.rank: the study varies it"):
        prepare(write_study(tmp_path, settings), ["adapter.rank=3"])


def test_an_unknown_study_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'study-a'"):
        prepare("study-aa")


def test_a_teacher_with_other_labels_is_refused_before_any_trial(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(Path(settings["data.source"]).read_text().replace(",art\n", ",painting\n"))
    other = {**settings, "data.source": str(rows), "out": str(tmp_path / "teachers")}
    teacher = workflow.train(config.changed(Config(), other), as_trial=True)
    taught = {"label": "taught", "settings": {"distillation.teacher": str(teacher.path)}}
    alone = {"label": "alone", "settings": {"distillation.teacher": None}}
    file = write_study(tmp_path, settings, factors=[{"name": "teacher", "alternatives": [alone, taught]}])
    with pytest.raises(ConfigError, match="has different labels: it lacks 'art'; it has 'painting'"):
        sweep(file)
    assert not runs.list_runs(tmp_path / "runs")


def test_another_process_on_the_same_study_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    file = write_study(tmp_path, settings)
    folder = prepare(file).folder
    folder.mkdir(parents=True)
    with runs.locked(folder), pytest.raises(RunError, match="another process"):
        sweep(file)


@pytest.mark.slow
def test_a_storage_that_another_process_holds_is_named(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path, settings)
    trained(file)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **{**k, "timeout": 0.1}))
    holder = real(prepare(file).folder / "study.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(RunError, match=r"locked.*another process may hold"):
            sweep(file)
    finally:
        holder.close()
    assert trained(file)[1] == []


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.sqlite3", "nosuchdb://me:secret@host/x"])
def test_a_storage_that_cannot_be_opened_is_refused_without_its_password(
    url: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(SubmillionError) as refused:
        sweep(write_study(tmp_path, settings), how=How(storage=url))
    assert "storage" in str(refused.value) or "cannot be used" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_any_storage_url_serves(settings: dict[str, Any], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    found, _ = trained(write_study(tmp_path, settings, factors=[RANK]), How(storage=url))
    assert (tmp_path / "elsewhere.db").exists()
    assert not (found.folder / "study.sqlite3").exists()


def test_a_full_disk_keeps_finished_trials(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path, settings)
    real = os.replace

    def full_after_two(source: Any, target: Any) -> None:
        if Path(target).name == "DONE" and len(list((tmp_path / "runs").glob("*/DONE"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", full_after_two)
    with pytest.raises(RunError, match="No space left on device"):
        sweep(file)
    monkeypatch.undo()
    kept = [run for run in runs.list_runs(tmp_path / "runs") if run.is_done]
    assert len(kept) == 2
    for run in kept:
        runs.verify(run)
    assert len(trained(file)[1]) <= 2


@pytest.mark.slow
def test_killed_and_started_again_with_other_threads_it_ends_as_if_never_killed(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers that share two threads, then this process with two: full fine-tuning, since a norm's gradient depends
    on them."""
    own = {"train.steps": 30, "train.evaluate_every": 10, "adapter.method": "none"}
    keys = {"base": own, "factors": [{"key": "train.learning_rate", "values": [0.0001, 0.001, 0.01, 0.1]}]}
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    file = write_study(tmp_path / "killed", settings, **keys)
    out = tmp_path / "killed" / "runs"
    with beside(command(file, "--workers", "2"), env={**os.environ, "OMP_NUM_THREADS": "2"}) as child:
        deadline = time.monotonic() + 300
        while not list(out.glob("tiny-*/DONE")) and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.01)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("tiny-*/DONE")}
    assert 1 <= len(finished) < 4
    assert not (out / "test-reads.jsonl").exists()
    with workers.threads(2):
        assert call("sweep", file, "--workers", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    recommended = Path(found["recommended"]).name
    later = {path: path.stat().st_mtime_ns for path in finished}
    assert {p for p in finished if finished[p] != later[p]} <= {out / recommended / "DONE"}  # its test was opened
    (n_threads,) = {(run.environment() or {})["threads"] for run in runs.list_runs(out)}
    with workers.threads(n_threads):
        whole = sweep(write_study(tmp_path / "whole", settings, **keys))
    # Not the same run for sure: of equally large ones the faster is taken, and a clock never says the same twice.
    assert Run(out / recommended).read_json("plan.json")["total"] == whole.recommended.read_json("plan.json")["total"]
    for outcome in whole.outcomes:
        (path,) = outcome.runs
        ours = Run(out / path.name).load_predictions("validation")
        assert (ours.probs == Run(path).load_predictions("validation").probs).all()
    assert len((out / "test-reads.jsonl").read_text().splitlines()) == 1


def test_a_dry_run_starts_nothing_and_its_json_stands_alone(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path, settings, factors=[*GRID[1:], {"key": "adapter.rank", "values": [1, 9000]}])
    assert call("sweep", file, "--dry-run", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["n_trials"] == len(printed["trials"]) == 4
    assert printed["n_runs"] == 2
    assert printed["estimated_s"] > 0
    assert [trial["fits"] for trial in printed["trials"]] == [True, False, True, False]
    assert printed["trials"][0]["settings"] == {"train.learning_rate": 0.001, "adapter.rank": 1}
    assert printed["trials"][1]["over_budget"]
    assert call("sweep", file, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "fits" in out
    assert "an estimate" in out
    assert not (tmp_path / "runs").exists()


def test_the_result_is_printed_and_its_json_stands_alone(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path, settings)
    assert call("sweep", file, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["finished"] is True
    assert len(printed["trials"]) == 4
    assert printed["comparison"]["split"] == "validation"
    folder = Path(printed["folder"])
    assert json.loads((folder / "summary.json").read_text()) == printed
    assert {path.name for path in folder.iterdir()} >= {"study.yaml", "study.sqlite3", "summary.json"}
    assert call("sweep", file) == 0
    shown, progress = capsys.readouterr()
    for part in ("after selection", "No setting is better than another", "recommended"):
        assert part in shown
    assert "0 runs to train" in progress
    reread = write_study(tmp_path, settings, name="again", base={"out": str(folder.parent)})
    assert trained(reread)[1] == []  # a trial is an ordinary run: another study's answer serves


def test_ctrl_c_sums_up_and_the_same_command_goes_on(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path, settings)
    real = executors.run_job

    def interrupted(job: executors.Job, watch: Any) -> executors.Result:
        if job.number == 2:
            raise KeyboardInterrupt
        return real(job, watch)

    monkeypatch.setattr(executors, "run_job", interrupted)
    assert call("sweep", file) == 130
    told = capsys.readouterr().err
    assert "2 of 4 trials are finished and kept" in told
    assert "best so far" in told
    monkeypatch.undo()
    assert len(trained(file)[1]) == 2


def test_without_a_study_the_shipped_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sweep") == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == study_names()
    assert {"quick", *(f"study-{letter}" for letter in "abcde")} <= set(study_names())


def test_ray_authentication_trouble_is_explained(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install -e '.[ray]'")

    def refuse(**_: Any) -> None:
        raise RuntimeError("AuthenticationError: invalid token")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(RunError, match="RAY_AUTH_MODE=token"):
        sweep(write_study(tmp_path, settings), how=How("ray", 1, "ray://nowhere:1"))
