"""Files that are whole or absent: atomic writes, checked reads, plain messages.

What the files mean is left to the run folder's other modules.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor

from submillion import hub
from submillion.errors import RunError, os_problem


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    RunError with the path and the reason if that fails; the old content then stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with reported(path, "written"):
        try:
            with open(temporary, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of killed writes; the caller holds the folder's lock."""
    with reported(folder, "tidied"):
        for temporary in folder.glob(".*.tmp"):
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return a JSON file's value; RunError names a file that is missing or damaged."""
    content = read_bytes(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}): restore it, or remove the run and train again") from None


def read_bytes(path: Path) -> bytes:
    """Return a file's content; RunError if it cannot be read, or is a pipe or a device, which may have no end."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "cannot be read: No such file"
        raise RunError(f"{path} {what}; the run is damaged: restore it, or remove the run and train again")
    with reported(path, "read"):
        return path.read_bytes()


def sha256(path: Path) -> str:
    """Return a file's SHA-256 as hex digits; RunError if it cannot be read."""
    with reported(path, "read"):
        return hub.sha256(path)


@contextmanager
def reported(path: Path, done: str) -> Iterator[None]:
    """Turn an OSError in the block into a RunError that names the path, what failed, and why."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be {done}: {os_problem(error)}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a folder; RunError if one does already.

    The system frees the lock when the process ends, however it ends.
    """
    with reported(folder / ".lock", "opened"):
        file = open(folder / ".lock", "wb")  # noqa: SIM115 - closed below, after the body
    with file:
        if not take_lock(file) or not _is_there(file, folder / ".lock"):
            raise RunError(f"{folder}: another process is writing it; wait for it, or stop it")
        yield


def _is_there(file: IO[bytes], path: Path) -> bool:
    """Whether a path still leads to an open file: another process may have removed it and made it anew."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def take_lock(file: IO[bytes]) -> bool:
    """Take the file's lock and return True, unless another process holds it."""
    try:
        # Not filelock.FileLock: it recreates a missing folder, and a mere query must create no file.
        return lock_descriptor(file.fileno(), blocking=False)
    except OSError:  # a file system without locks
        return False
