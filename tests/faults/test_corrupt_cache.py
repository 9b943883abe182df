"""A damaged cache: what it held is computed again, and a line says so; a result is never another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from submillion import config
from submillion.model.batching import tokens
from submillion.runs import Run
from submillion.training import workflow
from tests.data import write_csv

KINDS = {"tokens", "prefix", "teacher-logits"}
MANIFEST = "submillion-cache.json"


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_entry(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_text("a file in place of a folder")


DAMAGES = {
    "cut": cut,
    "a bit flipped": flip,
    "emptied": lambda file: file.write_bytes(b""),
    "a folder in its place": make_folder,
    "the entry is a file": replace_entry,
    "nothing is named": lambda file: file.with_name(MANIFEST).write_text("{}"),
    "a file too many": lambda file: file.with_name("more.npy").write_bytes(b"more"),
}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    """A student whose layers below the top are kept, and the finished run that teaches it."""
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 90)
    base = [f"data.source={rows}", f"model.name={encoders['bert']}", "train.steps=3", "train.precision=fp32"]
    teacher = workflow.train(config.load(overrides=[*base, f"out={tmp_path_factory.mktemp('teacher')}"]))
    return [*base, "adapter.layers=top:1", "model.prefix=true", f"distillation.teacher={teacher.path}"]


@pytest.fixture(autouse=True)
def _all_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_CACHED_ROWS", 1)


@pytest.fixture(scope="module")
def whole(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The run of an empty cache, and that cache."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tokens, "_CACHED_ROWS", 1)
        return train(overrides, folder / "runs", folder / "cache"), folder / "cache"


def train(overrides: list[str], out: Path, cache: Path) -> Run:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SUBMILLION_CACHE", str(cache))
        return workflow.train(config.load(overrides=[*overrides, f"out={out}"]))


def entries(cache: Path) -> list[Path]:
    return sorted(path.relative_to(cache) for kind in KINDS for path in (cache / kind).iterdir())


def assert_same(one: Run, other: Run) -> None:
    for file in ("predictions-validation.parquet", "scores.json", "adapter/adapter_model.safetensors"):
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_damaged_is_computed_again_and_said(
    overrides: list[str],
    whole: tuple[Run, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
) -> None:
    run, kept = whole
    cache = shutil.copytree(kept, tmp_path / "cache")
    assert {entry.parent.name for entry in entries(kept)} == KINDS
    for entry in entries(cache):
        files = [file for file in (cache / entry).iterdir() if file.name != MANIFEST]
        damage(max(files, key=lambda file: file.stat().st_size))
    assert_same(train(overrides, tmp_path / "runs", cache), run)
    said = [message for message in caplog.messages if "is damaged: its contents are computed again" in message]
    assert len(said) == len(entries(kept))
    assert entries(cache) == entries(kept)


def test_a_cache_whose_kinds_are_files_stops_nothing(
    overrides: list[str], whole: tuple[Run, Path], tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    for kind in KINDS:
        (tmp_path / "cache" / kind).write_text("")
    assert_same(train(overrides, tmp_path / "runs", tmp_path / "cache"), whole[0])
