"""The finished part of an output, in `OUTPUT.partial/`: a file per chunk, and what they were predicted with.

A chunk's file is named by the chunk's key and its own content's hash and written whole or not at all: a killed command
loses at most its current chunks, a chunk whose rows have changed is not taken for another, and one damaged on the disk
is predicted again.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from submillion import runs
from submillion.data import cache
from submillion.data.chunks import Chunk
from submillion.errors import ConfigError, RunError
from submillion.runs.files import read_bytes, reported
from submillion.runs.predictions import from_parquet, to_parquet
from submillion.runs.records import dumps

FORMAT = 2
_BLANK = "is_blank"
_MANIFEST, _SEAL = "manifest.json", "sha256"
_CHUNK = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})\.parquet")
_OURS = re.compile(r"[0-9a-f-]+\.parquet|\.[^/]*\.tmp|\.lock|manifest\.json|joined-.*")


@dataclass(frozen=True)
class Journal:
    """An opened journal; `facts` are what its chunks were predicted with, `files` their files by key, `notes` its
    findings."""

    folder: Path
    facts: Mapping[str, Any]
    files: dict[str, Path]
    notes: tuple[str, ...] = ()

    def write(self, key: str, content: bytes) -> None:
        """Keep a chunk's predictions, as `packed` gives them."""
        path = self.folder / f"{key}-{cache.key_of(content)}.parquet"
        runs.write_atomically(path, content)
        self.files[key] = path

    def read(self, chunk: Chunk) -> tuple[list[str], np.ndarray, int]:
        """Return a chunk's ids, probabilities, float64 [N, C], and number of blank rows; RunError if it is damaged."""
        path = self.files[chunk.key]
        content = _content(path)
        if content is None:
            raise RunError(f"{path} is damaged: run the same command again to predict its rows again")
        (ids, is_blank), probs = from_parquet(io.BytesIO(content), ["id", _BLANK])
        return ids.to_pylist(), probs, sum(is_blank.to_pylist())

    def note(self, **facts: Any) -> None:
        """Add facts for later sessions."""
        facts = {**self.facts, **facts}
        runs.write_atomically(self.folder / _MANIFEST, dumps({**facts, _SEAL: _seal(facts)}, indent=2) + "\n")

    def remove(self) -> None:
        """Remove the folder, its manifest last: killed here, the same command makes again what is gone."""
        with reported(self.folder, "removed"):
            for path in sorted(self.folder.iterdir(), key=lambda path: (path.name == ".lock", path.name == _MANIFEST)):
                path.unlink()
            with suppress(OSError):  # another command has begun the next one
                self.folder.rmdir()


def packed(ids: list[str], probs: np.ndarray, is_blank: np.ndarray) -> bytes:
    """Return a chunk's ids, probabilities, float64 [N, C], and blank rows, bool [N], as the bytes of its file."""
    return to_parquet({"id": ids, _BLANK: is_blank}, list(map(str, range(probs.shape[1]))), probs)


@contextmanager
def opened(output: Path, facts: Mapping[str, Any]) -> Iterator[Journal]:
    """Yield the journal of an output, new or begun by the same command; no other process writes it meanwhile.

    ConfigError if another command began it, RunError if another process uses it.
    """
    folder = output.with_name(f"{output.name}.partial")
    with reported(folder, "made"):
        folder.mkdir(exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if strange := sorted(name for name in names if not _OURS.fullmatch(name)):
        raise ConfigError(f"{folder} is needed for the finished part of {output.name}, but holds {strange[0]}: move it")
    with runs.locked(folder):
        facts = {"format": FORMAT, **facts}
        if any(folder.glob("*.parquet")):
            facts = _begun(folder, facts)
        kept = Journal(folder, facts, *_whole(folder))
        try:
            yield kept
        except BaseException:
            if not any(folder.glob("*.parquet")):  # nothing is finished from which the same command could continue
                with suppress(RunError):
                    kept.remove()
            raise


def _whole(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the files of whole chunks by key, and a note on damaged ones, which are removed."""
    files, n_damaged = dict[str, Path](), 0
    for path in sorted(folder.glob("*.parquet")):
        name = _CHUNK.fullmatch(path.name)
        if name is not None and _content(path) is not None:
            files[name[1]] = path
            continue
        n_damaged += 1
        with reported(path, "removed"):
            path.unlink()
    note = (
        f"{n_damaged:,} of {len(files) + n_damaged:,} finished chunks in {folder} are damaged (their SHA-256 differs): "
        "their rows are predicted again"
    )
    return files, (note,) * bool(n_damaged)


def _content(path: Path) -> bytes | None:
    """Return a chunk's file; None if it is not what was written."""
    content = read_bytes(path)
    return content if path.stem.endswith(cache.key_of(content)) else None


def _seal(facts: Mapping[str, Any]) -> str:
    return cache.key_of(dumps(facts))


def _begun(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the folder's manifest; ConfigError if it is another command's."""
    try:
        began = json.loads((folder / _MANIFEST).read_bytes())
        if not isinstance(began, dict):
            raise ValueError("it holds no table")
        if began.pop(_SEAL, None) != _seal(began) and began.get("format") == FORMAT:
            raise ValueError("its SHA-256 differs")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder / _MANIFEST} is damaged ({error}): remove {folder}, and start again") from None
    if began.get("format") == 1:
        raise RunError(
            f"{folder} was started by an older submillion: finish it with that version, or remove it and start again"
        )
    if isinstance(began.get("format"), int) and began["format"] > FORMAT:
        raise RunError(
            f"{folder / _MANIFEST} has format {began['format']}; this version reads {FORMAT}: update submillion, or "
            f"remove {folder}, and start again"
        )
    problems = [
        f"its {name} {'were' if isinstance(value, list) else 'was'} {_shown(began.get(name))}, not {_shown(value)}"
        for name, value in facts.items()
        if began.get(name) != value
    ]
    if problems:
        raise ConfigError(
            f"{folder} is another command's unfinished output: {'; '.join(problems)}. Finish that one, "
            "remove the folder, or give another --output"
        )
    return began


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
