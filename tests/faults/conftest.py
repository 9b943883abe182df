"""What the tests of faults share: one process that runs commands, a tiny question, and its undisturbed answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data import write_csv
from tests.kit.commands import Commands, Done

SETTINGS = (
    *("train.steps=6", "train.batch_size=8", "train.evaluate_every=3", "train.checkpoint_every=2"),
    *("train.precision=fp32", "data.test=0.2", "adapter.layers=top:1", "model.prefix=true"),
)


class Question:
    """`submillion train` of a tiny model: `ask` types it, `answer` is what nobody disturbed."""

    def __init__(self, commands: Commands, encoder: Path, folder: Path) -> None:
        self.commands = commands
        self.rows = write_csv(folder / "rows.csv", 120)
        self.words = [word for each in (*SETTINGS, f"model.name={encoder}") for word in ("--set", each)]
        done = self.ask(folder / "runs")
        assert done.code == 0, done.err
        (self.answer,) = (folder / "runs").glob("run-*")

    def ask(self, out: Path, *more: str, **fault: Any) -> Done:
        """Type the command, with another folder of runs, and perhaps with other words and a fault."""
        return self.commands.run("train", *self.words, "--data", self.rows, "--out", out, *more, **fault)

    def is_answered(self, out: Path) -> bool:
        """Say whether the folder holds the undisturbed run, to the byte."""
        return self.results(out / self.answer.name) == self.results(self.answer)

    def results(self, run: Path) -> dict[str, bytes]:
        """Return what a run found out, and the names of all its files; no temporary one may be among them."""
        files = {path.relative_to(run).as_posix(): path for path in sorted(run.rglob("*")) if path.is_file()}
        told = ("predictions-", "scores.json", "labels.json", "plan.json", "data.json", "adapter/")
        return {name: path.read_bytes() if name.startswith(told) else b"" for name, path in files.items()}


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    found = Commands(tmp_path_factory.mktemp("commands") / "cache")
    yield found
    found.close()


@pytest.fixture
def disks(commands: Commands) -> Commands:
    """The commands, where folders can be made disks."""
    if not commands.can_mount:
        pytest.skip("needs a mount namespace, which this machine gives neither to root nor to this user")
    return commands


@pytest.fixture(scope="session")
def question(commands: Commands, encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Question:
    return Question(commands, encoders["bert"], tmp_path_factory.mktemp("question"))
