"""An exported folder's description, `manifest.json`: its run, its checks, files with their hashes.

It is written last: a folder without it is not an export.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from submillion.errors import ConfigError, RunError
from submillion.runs.files import read_json, sha256
from submillion.runs.records import dumps

Format = Literal["merged", "onnx", "onnx-int8"]
FILE = "manifest.json"
_VERSION = 1  # of the manifest; raised when an older version could no longer read it


@dataclass(frozen=True)
class Question:
    """The request; equal questions have the same export.

    identity: of the run's weights, tokenizer, labels and max_length · rows: "validation", or a file's fingerprint ·
    margin: a share of rows, for onnx-int8 only.
    """

    format: Format
    identity: str
    rows: str
    margin: float | None


@dataclass(frozen=True)
class Manifest:
    """An export: its question, its run, its checks' measurements (plain values), {file: its SHA-256 and bytes}."""

    question: Question
    run: str
    checks: Mapping[str, Any]
    facts: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]

    def values(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"version": _VERSION, **asdict(self)}


def write(folder: Path, question: Question, run: str, checks: Mapping[str, Any], facts: Mapping[str, Any]) -> Manifest:
    """Hash the folder's files, each synced to the disk first, and write the manifest; OSError if that fails."""
    files = {file.name: _sealed(file) for file in sorted(folder.iterdir()) if not file.name.startswith(".")}
    manifest = Manifest(question, run, checks, facts, files)
    (folder / FILE).write_text(dumps(manifest.values(), indent=2) + "\n", encoding="utf-8")
    _synced(folder / FILE)
    return manifest


def find(folder: Path, question: Question, thresholds: Sequence[float] | None = None) -> Manifest | None:
    """Return the folder's export if it answers the question, None if the folder is absent or empty.

    thresholds: the run's, for several labels: runs with equal weights may differ in them, and a folder's code reads
    them. ConfigError if it holds anything else, RunError if its files do not match its manifest.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / FILE).is_file():
        content = "holds files that are not an export" if folder.is_dir() else "is a file"
        raise ConfigError(f"{folder} {content}: give a new folder with --output")
    manifest = _read(folder)
    if manifest.question != question or manifest.facts.get("thresholds") != thresholds:
        raise ConfigError(f"{folder} holds {_difference(manifest, question)}: give another folder, or remove it")
    damaged = [name for name, facts in manifest.files.items() if not _is_whole(folder / name, str(facts["sha256"]))]
    if damaged:
        raise RunError(f"{folder} was changed or truncated since the export ({', '.join(damaged)}): remove it")
    return manifest


def _read(folder: Path) -> Manifest:
    values = read_json(folder / FILE)
    try:
        if values["version"] > _VERSION:
            raise RunError(f"{folder} was exported by a newer version of submillion: update, or remove it")
        question = Question(**values["question"])
        return Manifest(question, values["run"], values["checks"], values["facts"], values["files"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / FILE} is damaged ({error}): remove the folder and export again") from None


def _difference(manifest: Manifest, question: Question) -> str:
    """Return how the existing export differs from the requested one."""
    old = manifest.question
    if old.identity != question.identity:
        return f"the export of another run, {manifest.run}"
    if old.format != question.format:
        return f"this run as {old.format}, not as {question.format}"
    if old.margin != question.margin:
        return f"this export, tested with --margin {old.margin:g}, not {question.margin:g}"
    if old.rows != question.rows:
        return "this export, checked on other rows"
    return f"the export of another run, {manifest.run}, with other thresholds"


def _is_whole(file: Path, expected: str) -> bool:
    return file.is_file() and sha256(file) == expected


def _sealed(file: Path) -> dict[str, Any]:
    _synced(file)
    return {"sha256": sha256(file), "bytes": file.stat().st_size}


def _synced(file: Path) -> None:
    """Sync a file to the disk: a full one reports that now at the latest."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
