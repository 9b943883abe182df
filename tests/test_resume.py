"""A run that is killed at any step and started again ends as one that was never killed, with other threads too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import write_csv
from tests.kit.several_labels import make_rows, write_rows

# One process imports torch once and forks a child a run: a child that must die kills itself with SIGKILL while a
# record is being shown, so that no cleanup of ours runs. The parent has a single thread, because forks and thread pools
# do not mix; each child finds as many as OMP_NUM_THREADS could give it.
SCRIPT = """
import gc, json, os, signal, sys
import torch
torch.set_num_threads(1)
from submillion import config, reports
from submillion.training import workflow
from tests.kit.forks import import_training
import_training()
reports.write = lambda *_: []  # longer than such a training
gc.freeze()  # else each child goes through all of it when it collects

def run(out, overrides, kill_at, n_threads):
    os.environ["SUBMILLION_CACHE"] = out + "/cache"

    def watch(record):
        place = ("rows", int(record.n_done > 0)) if record.kind == "phase" else (record.kind, record.step)
        if place == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return False
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    torch.set_num_threads(n_threads)
    try:
        workflow.train(config.load(overrides=[*overrides, f"out={out}"]), watch)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

results = {}
for name, case in json.load(sys.stdin).items():
    folder, overrides = case["folder"], case["overrides"]
    codes = [run(folder + "/whole", overrides, None, 2)]
    codes += [run(folder + "/killed", overrides, tuple(kill), 2 - i % 2) for i, kill in enumerate(case["kills"])]
    codes += [run(folder + "/killed", overrides, None, 1)]
    results[name] = codes
assert run(folder + "/other", overrides, None, 1) == 0  # of full fine-tuning: a norm's gradient depends on the threads
print(json.dumps(results))
"""
COMMON = [
    "train.steps=12",
    "train.batch_size=8",
    "train.checkpoint_every=2",
    "train.evaluate_every=5",
    "train.precision=fp32",
]
# Before and after a checkpoint, at an evaluation and at the end: of one case. Of the others one kill, after which their
# own state matters.
CASES = {
    "lora": (["adapter.dropout=0.2", "train.accumulation=2"], [("step", 1), ("step", 5), ("eval", 5), ("step", 12)]),
    "adalora": (
        ["adapter.method=adalora", "adapter.rank=4", "train.steps=30"],
        [("step", 7), ("eval", 25)],
    ),
    "rmsprop, restarts": (["train.optimizer=rmsprop", "train.schedule=cosine-restarts"], [("eval", 10)]),
    "by tokens": (
        ["model.max_length=64", "train.batch_tokens=240", "train.accumulation=2", "train.steps=16"],
        [("step", 11)],
    ),
    "prefix": (
        ["adapter.layers=top:1", "model.prefix=true", "train.precision=bf16"],
        [("rows", 1), ("step", 3), ("eval", 5)],
    ),
    "rotating copies": (
        ["augmentation.kind=swap", "augmentation.copies=2", "augmentation.placement=rotating", "train.steps=30"],
        [("step", 23)],
    ),
    "several labels": (["data.source=SEVERAL", "train.threshold=each"], [("eval", 5), ("step", 12)]),
    "distances": (["model.name=DEBERTA", "train.precision=bf16"], [("step", 3)]),
    "a padded pass": (["model.name=NOMIC", "train.precision=bf16"], [("step", 3)]),
    # The first two kills fall into the teacher's training, the third between both, the others into the student's.
    "taught by a recipe": (
        ["distillation.teacher=TEACHER", "augmentation.kind=swap"],
        [("step", 3), ("eval", 6), ("rows", 1), ("step", 7), ("eval", 10)],
    ),
    "full fine-tuning": (["adapter.method=none", "train.optimizer=sgd"], [("step", 8)]),
}


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(tmp_path: Path, encoders: dict[str, Path]) -> None:
    data = write_csv(tmp_path / "rows.csv", 90)
    several = write_rows(tmp_path / "several", make_rows(90), "joined")
    teacher = tmp_path / "teacher.yaml"
    model = f"{{name: {encoders['bert']}}}"
    teacher.write_text(f"name: teacher\nmodel: {model}\ntrain: {{steps: 6, batch_size: 8, precision: fp32}}\n")
    cases = {}
    for number, (name, (overrides, kills)) in enumerate(CASES.items()):
        base = [*COMMON, f"model.name={encoders['roberta']}", f"data.source={data}", "data.test=0.2"]
        named = {
            "TEACHER": teacher,
            "DEBERTA": encoders["deberta-v2"],
            "NOMIC": encoders["nomic_bert"],
            "SEVERAL": several,
        }
        for word, path in named.items():
            overrides = [override.replace(word, str(path)) for override in overrides]
        cases[name] = {"folder": str(tmp_path / str(number)), "overrides": base + overrides, "kills": kills}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parent.parent,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MKL_CBWR": "AVX2"},  # products of these sizes then depend on the threads on Intel's too
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    for name, case in cases.items():
        assert codes[name] == [0, *[9] * len(case["kills"]), 0], f"{name}: {done.stderr}"
        whole, killed = (next((Path(case["folder"]) / part).glob("run-*")) for part in ("whole", "killed"))
        assert {json.loads((run / "environment.json").read_text())["threads"] for run in (whole, killed)} == {2}
        assert whole.name == killed.name
        for file in ("predictions-test.parquet", "predictions-validation.parquet", "scores.json"):
            assert (whole / file).read_bytes() == (killed / file).read_bytes(), f"{name}: {file}"
        assert _lines(whole) == _lines(killed), name
        if name == "several labels":
            assert (whole / "thresholds.json").read_bytes() == (killed / "thresholds.json").read_bytes()
    one, two = (next((Path(case["folder"]) / part).glob("run-*")) for part in ("other", "whole"))
    assert _lines(one) != _lines(two), "one thread gives what two give: nothing is proved here"


def _lines(run: Path) -> list[dict[str, object]]:
    """The records without their times."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "evaluation_s")} for record in records
    ]
