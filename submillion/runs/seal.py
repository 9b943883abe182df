"""The log of test splits that were opened, `<out>/test-reads.jsonl`: a test is fresh only once."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from submillion.errors import RunError
from submillion.runs.files import reported
from submillion.runs.folder import Run
from submillion.runs.records import dumps

_NAME = "test-reads.jsonl"


def append_test_read(out: str | Path, fingerprint: str, run: Run, purpose: str) -> None:
    """Note that the test split with this fingerprint is opened now, by which run and for which command."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
        "run": run.name,
        "purpose": purpose,
    }
    path = Path(os.path.expanduser(out)) / _NAME
    with reported(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:  # opened to append: lines of several processes do not mix
            line, end = (dumps(entry) + "\n").encode(), file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.truncate(path, end)  # half a line would make the log unreadable
                raise


def times(n_reads: int) -> str:
    """Return how often test rows were opened, as people say it.

    >>> times(1), times(3)
    ('once', '3 times')
    """
    return "once" if n_reads == 1 else f"{n_reads} times"


def count_test_reads(out: str | Path, fingerprint: str) -> int:
    """Return how often the test split with this fingerprint was opened."""
    import json

    path = Path(os.path.expanduser(out)) / _NAME
    if not path.exists():
        return 0
    with reported(path, "read"):
        lines = path.read_bytes().splitlines()
    try:
        return sum(json.loads(line)["fingerprint"] == fingerprint for line in lines)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): repair or remove its broken line") from None
