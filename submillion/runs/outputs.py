"""Files that commands write where a user says, without losing others.

An output replaces a file only if that is an earlier output of the same command, unchanged since, or if `force` is
given; nothing is written into a run folder. Outputs are noted in the cache by path, command and content; a file
without a note counts as the user's own. Formats are left to the writers.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from submillion.data import cache
from submillion.errors import ConfigError
from submillion.runs.files import reported, sha256, write_atomically
from submillion.runs.finding import run_around

_KIND = "outputs"


@dataclass(frozen=True)
class Output:
    """A file to write. force: it may replace any file, but none in a run folder."""

    path: Path
    command: Literal["predict", "shift", "ask", "evaluate", "compare", "errors"]
    force: bool = False

    def check(self) -> None:
        """Raise a ConfigError if the output would be in a run folder, or replace what this command did not write."""
        refuse_run_folder(self.path)
        if not os.path.lexists(self.path) or self.force:
            return
        if not self.path.is_file() or cache.find(_KIND, self._key(self.path)) is None:
            raise ConfigError(
                f"{self.path} already exists, but not as `{self.command}` wrote "
                "it: give another name, or replace it with --force (in Python force=True)"
            )

    def take(self, temporary: Path) -> None:
        """Move a finished file, on the same disk, to the output's path; check again and note it first."""
        self.check()
        with suppress(OSError), cache.filling(_KIND, self._key(temporary)):  # without a cache a rerun needs --force
            pass
        with reported(self.path, "written"):
            os.replace(temporary, self.path)

    def write(self, content: str | bytes) -> None:
        """Write the output, whole or not at all; RunError if the disk does not take it."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        write_atomically(temporary, content)
        try:
            self.take(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def _key(self, content: Path) -> str:
        return cache.key_of(self.command, os.path.realpath(self.path), sha256(content))


def refuse_run_folder(path: Path) -> None:
    """Raise a ConfigError if a path is a run folder, or in one."""
    if (run := run_around(path)) is not None:
        raise ConfigError(
            f"{path} is inside the run folder {run}, which must hold only the run: give a name outside it"
        )
