"""Laws of training in several processes: the result of one, one run folder, one message, and nobody left waiting.

Each launch is a real one, two gloo processes on the CPU. Imports are most of what it costs, so few launches serve
many cases.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from submillion import config
from submillion.runs import Run, StepRecord, Stopped
from submillion.runs import folds as records
from submillion.training import folds, workflow
from tests.data import write_csv
from tests.kit.calls import beside, call
from tests.launched import WENT_ON, stopped_at_7

ROOT = Path(__file__).parent.parent
COMMON = [
    *("train.steps=12", "train.batch_size=8", "train.checkpoint_every=6", "train.evaluate_every=5"),
    *("train.precision=fp32", "data.test=0.2", "model.dropout=0", "adapter.dropout=0"),
]
CASES = {
    # 54 rows in batches of 8: the last has 6.
    "lora": ["train.steps=null", "train.epochs=2", "train.class_weights=balanced", "train.label_smoothing=0.1"],
    "adalora": ["adapter.method=adalora", "adapter.rank=4", "train.steps=30"],
    "accumulation": ["train.accumulation=3", "train.max_grad_norm=0.5"],
    "fewer rows than processes": ["train.batch_size=1", "train.accumulation=3"],
    "by tokens": [
        "model.max_length=64",
        "train.batch_tokens=240",
        "train.accumulation=2",
        "train.gradient_checkpointing=true",
    ],
    "prefix and copies": ["adapter.layers=top:1", "model.prefix=true", "augmentation.kind=swap"],
    "taught by a recipe": ["distillation.teacher=TEACHER"],
    "full fine-tuning": ["adapter.method=none", "train.optimizer=sgd"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 90)
    return [*COMMON, f"model.name={encoders['roberta']}", f"data.source={rows}"]


def launch(*arguments: str | Path, launcher: str = "torch.distributed.run") -> list[str]:
    """The command that starts two processes."""
    python = [sys.executable, "-m"]
    if launcher == "accelerate":
        return [*python, "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", *map(str, arguments)]
    return [*python, launcher, "--standalone", "--nproc-per-node=2", *map(str, arguments)]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "SUBMILLION_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}


def trained(overrides: list[str], out: Path, **how: Any) -> Run:
    return workflow.train(config.load(overrides=[*overrides, f"out={out}"]), **how)


def compare(one: Path, two: Path, name: str) -> None:
    """Two run folders hold the same, but for rounding."""
    weights, others = (load_file(folder / "adapter" / _weights(folder)) for folder in (one, two))
    assert weights.keys() == others.keys()
    for key, tensor in weights.items():
        np.testing.assert_allclose(tensor, others[key], atol=1e-5, err_msg=f"{name}: {key}")
    for split in ("validation", "test"):
        probs, theirs = (Run(folder).load_predictions(split) for folder in (one, two))
        assert probs.ids == theirs.ids
        np.testing.assert_allclose(probs.probs, theirs.probs, atol=1e-5, err_msg=name)
    records, theirs = (Run(folder).records() for folder in (one, two))
    assert [(r.kind, r.step, r.tokens) for r in records] == [(r.kind, r.step, r.tokens) for r in theirs], name
    np.testing.assert_allclose([r.loss for r in records], [r.loss for r in theirs], atol=1e-5, err_msg=name)


def _weights(run: Path) -> str:
    return next(file.name for file in (run / "adapter").glob("*.safetensors"))


@dataclass
class Launches:
    """What two launches left in `folder / "two"`: the first was killed in one process, what it did the second ends."""

    folder: Path
    cases: dict[str, list[str]]
    others: dict[str, list[str]]
    killed: subprocess.CompletedProcess[str]
    state: str  # of the killed run
    done: subprocess.CompletedProcess[str]

    @property
    def two(self) -> Path:
        return self.folder / "two"

    def one(self, overrides: list[str]) -> Run:
        """The same run by one process."""
        return trained(overrides, self.folder / "one")


@pytest.fixture(scope="module")
def launches(base: list[str], encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Launches:
    folder = tmp_path_factory.mktemp("launches")
    out = f"out={folder / 'two'}"
    teacher = folder / "teacher.yaml"
    teacher.write_text(
        f"name: teacher\nmodel: {{name: {encoders['bert']}, dropout: 0}}\nadapter: {{dropout: 0}}\n"
        "train: {steps: 6, batch_size: 8, precision: fp32}\n"
    )
    cases = {
        name: [*base, f"name=case{i}", *(o.replace("TEACHER", str(teacher)) for o in overrides)]
        for i, (name, overrides) in enumerate(CASES.items())
    }
    cases["begun by one process"] = [*base, "name=begun", "train.seed=4"]
    assert not trained(cases["begun by one process"], folder / "two", watch=at_step(7)).is_done
    others = {name: [*base, f"name={name}"] for name in ("fails", "stopped")}
    others["folded"] = [*base, "name=folded", "train.steps=4"]
    others["killed"] = [*base, "name=killed", "train.steps=48", "train.evaluate_every=16"]  # long enough to be killed
    # Every process its own dropout: other results than one process', the same in both.
    others["dropout"] = [*base, "name=dropout", "model.dropout=0.1", "adapter.dropout=0.2", "train.patience=1"]
    words = ["train", "--json", *(word for each in [*others["killed"], out] for word in ("--set", each))]
    killed = killed_in_one(launch("-m", "submillion", *words, launcher="accelerate"), folder)
    (run,) = (folder / "two").glob("killed-*")
    state = Run(run).state
    job = folder / "job.json"
    runs = [[*overrides, out] for overrides in (*cases.values(), others["dropout"])]
    asked = {name: [*others[name], out] for name in ("fails", "stopped", "folded")}
    asked |= {"runs": runs, "killed": words, "rows": rows_of(base)}
    job.write_text(json.dumps(asked))
    done = subprocess.run(
        launch(ROOT / "tests" / "launched.py", job),
        capture_output=True,
        text=True,
        check=False,
        env=environment(folder),
        timeout=600,
    )
    return Launches(folder, cases, others, killed, state, done)


def rows_of(base: list[str]) -> str:
    return base[-1].removeprefix("data.source=")


def killed_in_one(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Launch, and kill the second process once there is a checkpoint; the launcher ends the first."""
    with beside(command, env=environment(folder)) as child:
        deadline = time.monotonic() + 300
        while not list((folder / "two").glob("killed-*/checkpoints/last.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(worker_of(child.pid, rank=1), signal.SIGKILL)
        out, told = child.communicate(timeout=600)
    return subprocess.CompletedProcess(command, child.returncode, out, told)


@pytest.mark.slow
def test_two_processes_train_as_one(launches: Launches, base: list[str]) -> None:
    two, done = launches.two, launches.done
    taught_by = next(two.glob("teacher-*"))  # its weights, to the bit, are in the student's hash
    teacher = str(launches.folder / "teacher.yaml")
    for name, overrides in launches.cases.items():
        one = launches.one([override.replace(teacher, str(taught_by)) for override in overrides]).path
        other = two / one.name  # the hash knows nothing of processes
        assert (other / "DONE").exists(), f"{name}: {done.stderr}"
        compare(one, other, name)
        assert Run(other).environment()["processes"] == 2
    out = f"out={launches.folder / 'one'}"
    stopped = stopped_at_7([*launches.others["stopped"], out], rows_of(base))
    assert stopped.stopped() == Stopped(7, 12)
    compare(stopped.path, two / stopped.name, "stopped")
    whole = folds.train(config.load(overrides=[*launches.others["folded"], out]), 2)
    assert whole.predictions is not None
    pooled, _ = records.pooled(two / whole.folder.name)
    np.testing.assert_allclose(pooled.probs, whole.predictions.probs, atol=1e-5)
    assert len(list(two.glob("dropout-*/DONE"))) == 1, done.stderr
    reads = (two / "test-reads.jsonl").read_text().splitlines()
    assert len(reads) == len(launches.cases) + 3  # each run once: dropout, what was stopped, what was killed
    computed = list((launches.folder / "cache" / "prefix").iterdir())
    assert len(computed) == 2  # of training and validation rows, and no half-filled folders beside them


@pytest.mark.slow
def test_an_error_in_one_is_said_once(launches: Launches) -> None:
    told = launches.done.stderr
    assert launches.done.returncode == 1, told
    assert told.count("row r17 has a label that nobody knows") == 1
    assert "internal error" not in told
    assert not list(launches.two.glob("fails-*/DONE"))


def at_step(step: int):
    return lambda record: isinstance(record, StepRecord) and record.step == step


@pytest.mark.slow
def test_killed_in_one_process_and_resumed_ends_as_if_never_killed(launches: Launches) -> None:
    assert launches.killed.returncode == 1, launches.killed.stderr
    assert launches.state == "interrupted"
    (folder,) = launches.two.glob("killed-*")
    told, went_on, _ = launches.done.stderr.partition(WENT_ON)
    assert went_on, told
    assert json.loads(launches.done.stdout)["run"] == str(folder)  # one document, of one process
    assert told.count("tokenising") == 1
    assert "resuming after step" in told
    compare(launches.one(launches.others["killed"]).path, folder, "resumed")


def worker_of(launcher: int, rank: int) -> int:
    """The process of a launch with this rank."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"\0RANK={rank}\0" in (stat.parent / "environ").read_text():
                return int(stat.parent.name)
        except OSError:
            continue
    raise AssertionError("no such process")


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["plan"], "plan runs in one process"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["predict", "runs/x"], "predict runs in one process"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["train"], "MASTER_ADDR, MASTER_PORT not set: start with torchrun"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, ["train"], "give --multi_gpu instead"),
    ],
)
def test_launches_that_cannot_work_are_refused(
    variables: dict[str, str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert call(*arguments) == 1
    assert message in capsys.readouterr().err
