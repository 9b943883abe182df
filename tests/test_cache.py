"""The cache gives back what was put in, or nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from submillion.data import cache
from submillion.errors import ConfigError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(key: str, content: bytes = b"some bytes") -> None:
    with cache.filling("tokens", key) as folder:
        (folder / "data.bin").write_bytes(content)


def test_what_was_put_in_is_found_under_its_key_alone():
    fill("one")
    found = cache.find("tokens", "one")
    assert found is not None
    assert (found / "data.bin").read_bytes() == b"some bytes"
    assert cache.find("tokens", "two") is None
    assert cache.find("prefix", "one") is None


def test_nothing_stands_there_when_filling_fails(place):
    def fail() -> None:
        with cache.filling("tokens", "one") as folder:
            (folder / "data.bin").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert cache.find("tokens", "one") is None
    assert list((place / "tokens").iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"other bytes"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
        lambda file: file.with_name("submillion-cache.json").write_text("{"),
        lambda file: file.with_name("submillion-cache.json").write_text("[]"),
        lambda file: file.with_name("submillion-cache.json").unlink(),
    ],
)
def test_a_damaged_folder_is_not_found_and_can_be_filled_again(damage, place):
    fill("one")
    damage(place / "tokens" / "one" / "data.bin")
    assert cache.find("tokens", "one") is None
    fill("one")
    assert cache.find("tokens", "one") is not None


def test_the_second_of_two_writers_keeps_what_the_first_wrote():
    with cache.filling("tokens", "one") as folder:
        (folder / "data.bin").write_bytes(b"some bytes")
        fill("one")
    assert cache.find("tokens", "one") is not None


def test_what_was_used_longest_ago_goes_first_when_there_is_too_much(monkeypatch, place):
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", str(2_500 / 2**30))
    for age, key in enumerate(("old", "older", "oldest"), start=1):
        monkeypatch.setenv("SUBMILLION_CACHE_GIB", "1")
        fill(key, bytes(1_000))
        os.utime(place / "tokens" / key, (1_000 - age, 1_000 - age))
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", str(2_500 / 2**30))
    fill("new", bytes(1_000))
    assert {entry.name for entry in (place / "tokens").iterdir()} == {"new", "old"}


def test_a_folder_larger_than_the_limit_is_kept_while_it_is_new(monkeypatch):
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", "0")
    fill("one")
    assert cache.find("tokens", "one") is not None


def test_an_unwritable_place_is_an_os_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        fill("one")
    assert cache.find("tokens", "one") is None


def test_a_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", "much")
    with pytest.raises(ConfigError, match="SUBMILLION_CACHE_GIB is much"):
        fill("one")


def test_what_a_killed_process_left_half_filled_is_removed_after_an_hour(place):
    for name, age_s in ((".part-dead", 7_200), (".part-alive", 60)):
        part = place / "tokens" / name
        part.mkdir(parents=True)
        (part / "data.bin").write_bytes(b"half")
        then = time.time() - age_s
        os.utime(part / "data.bin", (then, then))
        os.utime(part, (then, then))
    fill("one")
    assert {entry.name for entry in (place / "tokens").iterdir()} == {"one", ".part-alive"}


def test_what_the_cache_did_not_make_is_never_removed(monkeypatch, place):
    thesis = place / "projects" / "thesis"
    thesis.mkdir(parents=True)
    (thesis / "chapter.txt").write_text("years of work")
    monkeypatch.setenv("SUBMILLION_CACHE_GIB", "0")
    fill("one")
    fill("two")
    assert (thesis / "chapter.txt").exists()
    assert [entry.name for entry in (place / "tokens").iterdir()] == ["two"]
