"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.cli import main


def call(*arguments: str | Path) -> int:
    """Run the command line in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code if isinstance(stop.value.code, int) else 0
