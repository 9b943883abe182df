"""The law of malformed inputs: each is refused in time, in a few plain sentences, and leaves nothing."""

from __future__ import annotations

import json
import signal
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from submillion.cli import main

LIMIT_S = 20  # of what takes far less than one, on a machine that does other things
MAX_LINES, MAX_CHARACTERS = 25, 6000  # twenty problems and a heading; a long path in each
_OUR_FAULT = ("internal error", "Traceback", "object has no attribute", "NoneType")


class LateError(BaseException):
    """No handler of the code under test takes it for one of its own."""


@contextmanager
def in_time(limit_s: int = LIMIT_S) -> Iterator[None]:
    """Fail if the block takes longer."""

    def late(*_: object) -> None:
        raise LateError(f"not answered within {limit_s} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(limit_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def assert_sentences(text: str, *named: str) -> None:
    """A refusal is short, plain, printable, ours, and says what it is about."""
    assert text.strip(), "refused without a word"
    assert text.count("\n") <= MAX_LINES
    assert len(text) <= MAX_CHARACTERS
    assert not any(words in text for words in _OUR_FAULT), text
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in text if character not in "\n\t")
    for name in named:
        assert name in text, f"{name!r} is not named: {text}"


def called(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code, stdout and stderr."""
    capsys.readouterr()
    with in_time(), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code if isinstance(stop.value.code, int) else 0, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, named: tuple[str, ...] = ()) -> str:
    """Assert the law of a command; return its sentences."""
    code, out, err = called(capsys, *arguments)
    assert code in (1, 2), (code, out[:300], err)
    assert not out or ("--json" in arguments and json.loads(out) is not None), out[:300]
    assert_sentences(err, *named)
    return err


def inside(folder: Path) -> dict[str, int]:
    """Every path below a folder, with its size: equal before and after where nothing was written."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in sorted(folder.rglob("*"))}
