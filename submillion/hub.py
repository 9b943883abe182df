"""The Hugging Face Hub: a name becomes one repository at one commit, and its files come down where somebody can watch.

Owns every request for files of models and data sets, and the sentence for everything that the Hub may answer instead.
What the files mean is left to those who ask for them. The token belongs to the Hub's client: it is neither read nor
kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class File:
    """A file of a repository: its path there, bytes, and SHA-256 where the Hub knows it (large files)."""

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at one commit.

    id: its name today, organisation/name, after a renaming too · commit: 40 hex digits · files: None where the answer
    comes from the local cache alone.
    """

    kind: Kind
    id: str
    commit: str
    files: tuple[File, ...] | None


@dataclass(frozen=True)
class Download:
    """How far a download is, in bytes; total is None where the Hub does not say."""

    repository: str
    done: int
    total: int | None


def resolve(name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Return the repository that a name means now (of a bare name too), at a branch, tag or commit; None is main.

    HubError says what stands in the way and what to type.
    """
    raise NotImplementedError


def fetch(repository: Repository, names: list[str], watch: Callable[[Download], object] = lambda _: None) -> Path:
    """Return the folder of the local cache that holds these files at the repository's commit; HubError as `resolve`."""
    raise NotImplementedError
