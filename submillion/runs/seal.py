"""Rows that were seen before: a score on them says less than it seems to.

`<out>/test-reads.jsonl` logs the test splits that were opened: a test is fresh only once. `trained-on.npy` in a run's
folder holds hashes of the texts it was trained on: the data need not be at hand, and no text is kept.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from submillion import data
from submillion.data import Example
from submillion.errors import RunError
from submillion.runs.files import read_bytes, reported, write_atomically
from submillion.runs.folder import Run
from submillion.runs.records import dumps
from submillion.text import plural

_NAME = "test-reads.jsonl"
_TRAINED_ON = "trained-on.npy"


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
    """Return how often test rows were opened, in words.

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


def note_trained_on(run: Run, examples: Sequence[Example]) -> None:
    """Write `trained-on.npy`: the hashes of the training texts, uint64 [N], each once and sorted."""
    buffer = io.BytesIO()
    np.save(buffer, np.unique(data.text_hashes(examples)), allow_pickle=False)
    write_atomically(run.path / _TRAINED_ON, buffer.getvalue())


def count_trained_on(run: Run, examples: Sequence[Example]) -> int | None:
    """Return how many of the rows have a text that the run was trained on; None for folders from before it was noted.

    Raises the errors of `trained_on`.
    """
    seen = trained_on(run, examples)
    return None if seen is None else int(seen.sum())


def trained_on(run: Run, examples: Sequence[Example]) -> np.ndarray | None:
    """Return which rows have a text that the run was trained on, bool [N]; None for folders from before it was noted.

    Case and white space are ignored. RunError if the file is damaged.
    """
    path = run.path / _TRAINED_ON
    if not path.exists():
        return None
    try:
        # Not np.load, which takes a damaged file for an archive or a pickle, and raises their errors.
        hashes = np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or train again") from None
    return np.isin(data.text_hashes(examples), hashes)


def seen_warnings(n_trained_on: int | None, n_rows: int) -> tuple[str, ...]:
    """Return the sentence about rows that a run was trained on, if there are any.

    >>> seen_warnings(3, 1000)
    ('3 of 1,000 rows were trained on: scores on rows already seen mean nothing; leave these out',)
    """
    if not n_trained_on:
        return ()
    which = "all" if n_trained_on == n_rows else f"{n_trained_on:,} of"
    advice = "give others" if n_trained_on == n_rows else f"leave {plural(n_trained_on, 'it', 'these')} out"
    were = plural(n_trained_on, "was", "were")
    return (f"{which} {n_rows:,} rows {were} trained on: scores on rows already seen mean nothing; {advice}",)
