"""From names in addresses to folders: a name means a run or a study inside the served folder, or nothing.

No name leads out of the folder, and neither does a link in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from submillion import runs
from submillion.errors import RunError
from submillion.runs import Run
from submillion.text import closest

_STUDY_FILES = ("study.yaml", "summary.json")


class UnknownNameError(RunError):
    """A name in an address that means no run, study or file of the folder."""


@dataclass(frozen=True)
class Folder:
    """The served folder: `path`, resolved, holds run folders and studies; with `only`, one run of it is served."""

    path: Path
    only: str | None = None

    def runs(self) -> list[Run]:
        """Return the run folders, by name; links that lead out are omitted."""
        candidates = (run for run in runs.list_runs(self.path) if self.only in (None, run.name))
        return [run for run in candidates if self._is_inside(run.path)]

    def studies(self) -> list[Path]:
        """Return the studies' folders, by name."""
        if self.only is not None or not self.path.is_dir():
            return []
        candidates = (
            path for path in sorted(self.path.iterdir()) if any((path / name).is_file() for name in _STUDY_FILES)
        )
        return [path for path in candidates if self._is_inside(path)]

    def run(self, name: str) -> Run:
        """Return the run of this name, finished or not; UnknownNameError if there is none."""
        path = self.path / name
        is_known = path.name == name and self.only in (None, name) and runs.is_run(path)
        if not is_known or not self._is_inside(path):
            names = [run.name for run in self.runs()]
            near = next((each for each in names if each.rpartition("-")[0] == name), None) or closest(name[:80], names)
            hint = "" if near is None else f" did you mean {near!r}?"
            raise UnknownNameError(
                f"there is no run {name[:80]!r} in {self.path} (any more):{hint} reload the list, or ask GET /v1/models"
            )
        return Run(path)

    def study(self, name: str) -> Path:
        """Return the folder of the study of this name; UnknownNameError if there is none."""
        folder = next((path for path in self.studies() if path.name == name), None)
        if folder is None:
            raise UnknownNameError(f"there is no study {name[:80]!r} in {self.path} (any more): reload the list")
        return folder

    def file(self, of: Path, name: str, remedy: str) -> Path:
        """Return a file of a run or study; UnknownNameError with the remedy if it is missing or leads out."""
        path = of / name
        if not path.is_file() or not self._is_inside(path):
            raise UnknownNameError(f"{of.name} has no {name}: {remedy}")
        return path

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.path)


def opened(given: str | Path) -> Folder:
    """Return the folder to serve: a parent of run folders, or one run's; RunError if there is no such folder."""
    path = Path(os.path.expanduser(given)).resolve()
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise RunError(f"{path} {state}: give a folder of runs, such as runs/, or one run's folder")
    if runs.is_run(path):
        return Folder(path.parent, path.name)
    return Folder(path)
