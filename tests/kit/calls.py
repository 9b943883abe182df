"""The command line, called in this process, and commands that run beside a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from submillion.cli import main


def call(*arguments: str | Path) -> int:
    """Run the command line in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code if isinstance(stop.value.code, int) else 0


@contextmanager
def beside(words: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the test does; killed at the end, since a later test is blamed for open pipes."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as child:
        try:
            yield child
        finally:
            child.kill()
