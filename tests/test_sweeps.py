"""Laws of a sweep: what it runs, what it never runs twice, what it may say, and that test stays sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from submillion import runs
from submillion.config import Config
from submillion.sweeps import study_names
from submillion.sweeps.sitting import sweep
from submillion.sweeps.study import How, Status, Sweep
from submillion.workflow import Phase
from tests.data import write_csv
from tests.test_cli import call

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


@pytest.fixture(scope="module")
def grid(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    file = write_study(tmp_path_factory.mktemp("grid"), settings)
    found, begun = trained(file)
    assert len(begun) == 4
    return file, found


def test_a_grid_runs_every_combination_once(grid: tuple[Path, Sweep]) -> None:
    _, found = grid
    hashes = [path.name[-8:] for outcome in found.outcomes for path in outcome.runs]
    assert len(hashes) == len(set(hashes)) == 4
    pairs = {(o.trial.configs[0].adapter.rank, o.trial.configs[0].train.learning_rate) for o in found.outcomes}
    assert pairs == {(rank, rate) for rank in (1, 2) for rate in (0.001, 0.01)}


def test_asked_twice_is_answered_once(grid: tuple[Path, Sweep]) -> None:
    file, found = grid
    before = {path: (path / "DONE").stat().st_mtime_ns for outcome in found.outcomes for path in outcome.runs}
    again, begun = trained(file)
    assert begun == []
    assert again.recommended.path == found.recommended.path
    assert {path: (path / "DONE").stat().st_mtime_ns for path in before} == before


def test_only_the_recommended_run_opens_test_and_once(grid: tuple[Path, Sweep]) -> None:
    _, found = grid
    out = found.recommended.path.parent
    reads = [json.loads(line) for line in (out / "test-reads.jsonl").read_text().splitlines()]
    assert [each["run"] for each in reads] == [found.recommended.name]
    opened = [run.name for run in runs.list_runs(out) if (run.path / "predictions-test.parquet").exists()]
    assert opened == [found.recommended.name]
    assert found.n_test_reads == 1
    runs.verify(found.recommended)
