"""Studies of tiny runs: their files, and how they are run here and in a process of their own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from submillion.sweeps.sitting import sweep
from submillion.sweeps.study import How, Sweep
from submillion.training.workflow import Phase
from tests.data import write_csv

BASE = {
    "train.steps": 6,
    "train.batch_size": 8,
    "train.evaluate_every": 3,
    "train.precision": "fp32",
    "data.test": 0.2,
    "data.validation": 0.3,
}


GRID = [
    {"key": "adapter.rank", "values": [1, 2]},
    {"key": "train.learning_rate", "values": [0.001, 0.01]},
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> dict[str, Any]:
    """The settings of a small base."""
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)
    return {**BASE, "model.name": str(encoders["bert"]), "data.source": str(rows)}


def write_study(folder: Path, settings: dict[str, Any], **keys: Any) -> Path:
    """Write a study file, a grid of four unless `keys` say otherwise; its runs go to `folder / runs`."""
    own = keys.pop("base", {})
    base = {"settings": {**settings, "out": str(folder / "runs"), **own}}
    values = {"name": "tiny", "kind": "grid", "base": base, "factors": GRID, **keys}
    (folder / "study.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / "study.yaml"


def trained(which: Path, how: How | None = None, **keys: Any) -> tuple[Sweep, list[str]]:
    """Run a study; return it and the runs that were trained, by their first phase of work."""
    begun: list[str] = []

    def note(record: Any) -> bool:
        if isinstance(record, Phase) and record.name == "training":
            begun.append(record.name)
        return False

    return sweep(which, how=how, watch_run=note, **keys), begun


RANK = {"key": "adapter.rank", "values": [1, 2]}


def command(file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "submillion", "sweep", str(file), *more]


def holder_of(lock: Path) -> int | None:
    """The process that has a run's lock file open."""
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(each) == str(lock) for each in descriptors.iterdir()):
                return int(descriptors.parent.name)
        except OSError:
            continue
    return None


def training_in(
    out: Path, is_over: Callable[[], bool], of: Callable[[int], bool] = lambda _: True
) -> tuple[Path, int] | None:
    """Wait until a process that `of` accepts trains one of a sweep's runs; return the run's folder and the process.

    None if the sweep was over before that.
    """
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not is_over():
        for metrics in out.glob("tiny-*/metrics.jsonl"):
            worker = holder_of(metrics.with_name(".lock"))
            if worker is not None and of(worker):
                return metrics.parent, worker
        time.sleep(0.02)
    return None
