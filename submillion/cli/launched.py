"""A command that was started in several processes: `train` works in all of them, any other is refused.

Only the main process prints; errors in the others reach it (`processes`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from submillion.errors import ConfigError


@contextmanager
def launched(arguments: list[str]) -> Iterator[None]:
    """Run the block as one command of all processes of the launch, if there is one; else just run it."""
    command = arguments[0] if arguments else "submillion"
    if command != "train":
        if os.environ.get("WORLD_SIZE") not in (None, "", "1"):
            if os.environ.get("RANK", "0") != "0":
                _be_silent()
            raise ConfigError(
                f"{command} runs in one process: start it without a launcher (only train can use several)"
            )
        yield
    elif {"WORLD_SIZE", "MASTER_PORT"} & os.environ.keys():
        from submillion.model import processes

        with processes.together():
            if not processes.is_main():
                _be_silent()
            yield
    else:
        yield


def _be_silent() -> None:
    """Print nothing from here to the end of the process."""
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it is closed with the process
