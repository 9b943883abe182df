"""A folder as people have them, for the page: a study's tiny runs, one on pairs, and what goes wrong with folders."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from submillion import config
from submillion.reports import write as write_report
from submillion.runs import Run
from submillion.serving import folders
from submillion.serving.app import Options, create_app
from submillion.serving.folders import Folder
from submillion.sweeps.sitting import sweep
from submillion.training import workflow
from tests.data import write_csv
from tests.kit.studies import BASE, write_study

ATTACK = '<img src="http://evil.example/x.png" onerror="document.title=1"> <script>alert(1)</script>'
GRID = [{"key": "adapter.rank", "values": [1, 2]}]


def make_folder(parent: Path, encoder: Path) -> Path:
    """Train a grid of two ranks and two seeds and a run on pairs; return the folder, with these beside them:

    cut-00000001, interrupted · bad-00000002, a damaged JSON file · half-00000003, begun and killed at once ·
    old-00000004, its config has an unknown key · out-00000005, a link that leads out.
    """
    rows = write_csv(parent / "rows.csv", 120)
    settings = {**BASE, "model.name": str(encoder), "data.source": str(rows)}
    found = sweep(write_study(parent, settings, factors=GRID, seeds=2))
    out = parent / "runs"
    pairs = {"data.test": "null", "data.text_pair": "id", "name": "pairs", "out": str(out)}
    overrides = [f"{key}={value}" for key, value in (settings | pairs).items()]
    workflow.train(config.load(overrides=overrides))
    run = found.recommended.path
    for name in ("cut-00000001", "bad-00000002", "old-00000004"):
        shutil.copytree(run, out / name)
    (out / "cut-00000001" / "DONE").unlink()
    (out / "bad-00000002" / "labels.json").write_text("{", encoding="utf-8")
    with (out / "old-00000004" / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(f"gone: '{ATTACK}'\n")
    (out / "half-00000003").mkdir()
    shutil.copy(run / "config.yaml", out / "half-00000003")
    shutil.copytree(run, parent / "out-00000005")
    (out / "out-00000005").symlink_to(parent / "out-00000005")
    return out


def with_report(run: Path) -> Path:
    """Write a run's report; return the page's path."""
    return write_report(Run(run))[0]


def finished(out: Path) -> list[str]:
    """The names of the study's runs, by name."""
    return sorted(path.name for path in out.iterdir() if path.name.startswith("tiny-"))


TEXT = "the team of the film"


_CLIENTS = ExitStack()


def client_of(folder: Path | Folder, **options: Any) -> TestClient:
    """A client of an app that runs until all tests have."""
    found = folder if isinstance(folder, Folder) else folders.opened(folder)
    return _CLIENTS.enter_context(TestClient(create_app(found, Options(**options)), base_url="http://127.0.0.1:8000"))


def close_clients() -> None:
    _CLIENTS.close()
