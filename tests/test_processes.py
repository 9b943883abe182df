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
from tests.launched import stopped_at_7

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


@pytest.mark.slow
def test_two_processes_train_as_one_and_an_error_in_one_is_said_once(
    base: list[str], tmp_path: Path, encoders: dict[str, Path]
) -> None:
    teacher = tmp_path / "teacher.yaml"
    teacher.write_text(
        f"name: teacher\nmodel: {{name: {encoders['bert']}, dropout: 0}}\nadapter: {{dropout: 0}}\n"
        "train: {steps: 6, batch_size: 8, precision: fp32}\n"
    )
    cases = {
        name: [*base, f"name=case{i}", *(o.replace("TEACHER", str(teacher)) for o in overrides)]
        for i, (name, overrides) in enumerate(CASES.items())
    }
    cases["begun by one process"] = [*base, "name=begun", "train.seed=4"]
    paused = trained(cases["begun by one process"], tmp_path / "two", watch=at_step(7))
    assert not paused.is_done
    # Every process its own dropout: other results than one process', the same in both.
    dropout = [*base, "name=dropout", "model.dropout=0.1", "adapter.dropout=0.2", "train.patience=1"]
    runs = [[*overrides, f"out={tmp_path / 'two'}"] for overrides in (*cases.values(), dropout)]
    job = tmp_path / "job.json"
    out, rows = f"out={tmp_path / 'two'}", base[-1].removeprefix("data.source=")
    others = {"fails": [*base, "name=fails", out], "stopped": [*base, "name=stopped", out], "rows": rows}
    folded = [*base, "name=folded", "train.steps=4"]
    others["folded"] = [*folded, f"out={tmp_path / 'two'}"]
    job.write_text(json.dumps({"runs": runs, **others}))
    done = subprocess.run(
        launch(ROOT / "tests" / "launched.py", job),
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
        timeout=600,
    )
    taught_by = next((tmp_path / "two").glob("teacher-*"))  # its weights, to the bit, are in the student's hash
    for name, overrides in cases.items():
        overrides = [override.replace(str(teacher), str(taught_by)) for override in overrides]
        one = trained(overrides, tmp_path / "one").path
        two = tmp_path / "two" / one.name  # the hash knows nothing of processes
        assert (two / "DONE").exists(), f"{name}: {done.stderr}"
        compare(one, two, name)
        assert Run(two).environment()["processes"] == 2
    one = stopped_at_7([*base, "name=stopped", f"out={tmp_path / 'one'}"], rows)
    assert one.stopped() == Stopped(7, 12)
    compare(one.path, tmp_path / "two" / one.name, "stopped")
    whole = folds.train(config.load(overrides=[*folded, f"out={tmp_path / 'one'}"]), 2)
    assert whole.predictions is not None
    pooled, _ = records.pooled(tmp_path / "two" / whole.folder.name)
    np.testing.assert_allclose(pooled.probs, whole.predictions.probs, atol=1e-5)
    assert len(list((tmp_path / "two").glob("dropout-*/DONE"))) == 1, done.stderr
    reads = (tmp_path / "two" / "test-reads.jsonl").read_text().splitlines()
    assert len(reads) == len(runs) + 1  # each run once
    computed = list((tmp_path / "cache" / "prefix").iterdir())
    assert len(computed) == 2  # of training and validation rows, and no half-filled folders beside them
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("row r17 has a label that nobody knows") == 1
    assert "internal error" not in done.stderr
    assert not list((tmp_path / "two").glob("fails-*/DONE"))


def at_step(step: int):
    return lambda record: isinstance(record, StepRecord) and record.step == step


@pytest.mark.slow
def test_killed_in_one_process_and_resumed_ends_as_if_never_killed(base: list[str], tmp_path: Path) -> None:
    overrides = [*base, "train.steps=80", "train.evaluate_every=20"]  # it must still be training when it is killed
    arguments = ["train", "--json", *(word for o in [*overrides, f"out={tmp_path / 'two'}"] for word in ("--set", o))]
    command = launch("-m", "submillion", *arguments, launcher="accelerate")
    with beside(command, env=environment(tmp_path)) as child:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "two").glob("run-*/checkpoints/last.*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(worker_of(child.pid, rank=1), signal.SIGKILL)
        _, told = child.communicate(timeout=600)
    assert child.returncode == 1, told
    (folder,) = (tmp_path / "two").glob("run-*")
    assert Run(folder).state == "interrupted"
    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(tmp_path), timeout=600)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(folder)  # one document, of one process
    assert again.stderr.count("tokenising") == 1
    assert "going on after step" in again.stderr
    compare(trained(overrides, tmp_path / "one").path, folder, "resumed")


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
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["plan"], "plan works in one process"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["predict", "runs/x"], "predict works in one process"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, ["train"], "MASTER_ADDR, MASTER_PORT not set: start with torchrun"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, ["train"], "give --multi_gpu in place"),
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
