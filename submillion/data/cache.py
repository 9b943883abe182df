"""Folders of files that are computed once and kept between runs, each under the key of what it was made from.

Owns the location, atomic filling, checks on reading, and the total size; a folder's content is its
writer's concern. Anything here may be removed at any time: it is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from submillion import hub
from submillion.errors import ConfigError

_MANIFEST = "submillion-cache.json"  # a folder without it is not ours, nor removed
_PART = ".part-"
_DEFAULT_GIB = 20.0
_ABANDONED_S = 3600.0


def folder() -> Path:
    """Return the cache's folder: $SUBMILLION_CACHE, else `submillion` under $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("SUBMILLION_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "submillion"


def key_of(*parts: str | bytes | memoryview) -> str:
    """Return the key of parts, in their order: 32 hex digits, of SHA-256 over each part's length and content.

    >>> key_of("ab", "c") == key_of("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(f"{memoryview(content).nbytes}:".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def find(kind: str, key: str) -> Path | None:
    """Return the folder filled under this key, its files checked against their SHA-256; None if there is none.

    A damaged folder is removed, to be computed again, and a line says so.
    """
    place = folder() / kind / key
    if not os.path.lexists(place):
        return None
    if _is_whole(place):
        with suppress(OSError):  # a read-only folder serves as well
            os.utime(place)  # what was used last is removed last
        return place
    if os.path.lexists(place):  # else another process has just removed it, to make room
        logging.getLogger("submillion").warning(f"{place} is damaged: its contents are computed again")
        _remove(place)
    return None


def _is_whole(place: Path) -> bool:
    """Say whether all files written are there unchanged, and no others."""
    try:
        sums = json.loads((place / _MANIFEST).read_bytes())
        names = {path.name for path in place.iterdir()} - {_MANIFEST}
        return names == set(sums) and all(hub.sha256(place / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


@contextmanager
def filling(kind: str, key: str) -> Iterator[Path]:
    """Yield a new folder to write files to; at the end of the block it is kept under the key, for `find`.

    Nothing is kept if the block raises. OSError if the disk is full or cannot be written.
    """
    place = folder() / kind / key
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place.parent)
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=place.parent))
    try:
        yield part
        sums = {file.name: hub.sha256(file) for file in sorted(part.iterdir())}
        (part / _MANIFEST).write_text(json.dumps(sums))
        _put(part, place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _trim(keep=place)


def _put(part: Path, place: Path) -> None:
    """Give a filled folder its name, unless another process was faster: the same key is the same content."""
    if not (place / _MANIFEST).is_file():
        _remove(place)  # without a manifest it is useless
    with suppress(OSError):
        os.replace(part, place)
    if not place.is_dir():
        raise OSError(f"{place} cannot be made")


def _remove(place: Path) -> None:
    """Remove an entry: a folder, or what somebody put in its place; it stays if removing is forbidden."""
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):
        place.unlink()


def limit_bytes() -> int:
    """Return the most that the folder may hold: $SUBMILLION_CACHE_GIB, else 20 GiB."""
    limit = os.environ.get("SUBMILLION_CACHE_GIB", str(_DEFAULT_GIB))
    try:
        return int(float(limit) * 2**30)
    except (ValueError, OverflowError):
        raise ConfigError(f"$SUBMILLION_CACHE_GIB is {limit}: give a number of GiB, such as 20") from None


def _remove_abandoned(kind: Path) -> None:
    """Remove what a killed process left half filled: nothing was written to it for an hour."""
    for part in kind.glob(f"{_PART}*"):
        with suppress(OSError):  # its process has just finished it, or removed it
            if time.time() - max(path.stat().st_mtime for path in (part, *part.iterdir())) > _ABANDONED_S:
                shutil.rmtree(part, ignore_errors=True)


def _trim(keep: Path) -> None:
    """Remove the least recently used until the rest, `keep` included, is within the limit."""
    entries: list[tuple[float, int, Path]] = []
    for manifest in folder().glob(f"*/[!.]*/{_MANIFEST}"):
        with suppress(OSError):  # another process has just removed it
            size = sum(file.stat().st_size for file in manifest.parent.iterdir())
            entries.append((manifest.parent.stat().st_mtime, size, manifest.parent))
    excess = sum(size for _, size, _ in entries) - limit_bytes()
    for _, size, entry in sorted(entries):
        if excess <= 0:
            return
        if entry != keep:
            shutil.rmtree(entry, ignore_errors=True)
            excess -= size
