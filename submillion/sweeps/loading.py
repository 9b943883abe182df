"""Finding and reading study files, shipped ones by their names."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from submillion import config
from submillion.errors import ConfigError
from submillion.sweeps.space import Study, parse
from submillion.text import did_you_mean


def study_names() -> list[str]:
    """Return the names of the studies that ship with the package, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _studies().iterdir() if f.name.endswith(".yaml"))


def study_text(name: str) -> str:
    """Return a shipped study's YAML."""
    return (_studies() / f"{name}.yaml").read_text(encoding="utf-8")


def load_study(which: Path | str) -> tuple[Study, Path]:
    """Return a study, by its file or a shipped one's name, and the folder that its files count from.

    ConfigError lists every problem of the file.
    """
    path = Path(which).expanduser()
    if not path.is_file() and str(which).removesuffix(".yaml") in study_names():
        path = Path(str(_studies() / f"{str(which).removesuffix('.yaml')}.yaml"))
    if not path.is_file():
        raise ConfigError(f"{which}: no such file, and no shipped study; {did_you_mean(which, study_names())}")
    return parse(config.read_mapping(path), path.name), path.parent


def _studies() -> Any:
    return resources.files("submillion") / "studies"
