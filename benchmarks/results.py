"""What measurements have in common: the machine, the files they are kept in, and how tables show them."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
DOCS = FOLDER.parent.parent / "docs"


def kept(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return what the folder's `<name>.json` holds; empty if it was not measured."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def keep(name: str, values: Any, folder: Path = FOLDER) -> None:
    """Write the folder's `<name>.json`."""
    file = folder / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=1) + "\n")


def here() -> str:
    """Return the name of this machine's file in `results/speed`: processor, cores, and whether it has matrix tiles."""
    from submillion.model.packed import native

    words = re.sub(r"\(r\)|\(tm\)|processor|cpu", " ", native.processor().lower())
    name = "-".join(re.findall(r"[a-z0-9.]+", words))
    return f"{name}{'-amx' if native.has_tiles() else ''}-{os.cpu_count()}-cores"


def by_processor(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Return the speeds of each measured machine, the one with the most sections first, of equals the latest."""
    speeds = {file.stem: kept(file.stem, file.parent) for file in (folder / "speed").glob("*.json")}
    rank = {name: (len(each), max(section["measured"] for section in each.values())) for name, each in speeds.items()}
    return {name: speeds[name] for name in sorted(speeds, key=lambda name: rank[name], reverse=True)}


def measured(results: Any, **facts: Any) -> dict[str, Any]:
    """Return results with when, and on what machine, they were measured."""
    when = datetime.now(UTC).isoformat(timespec="minutes")
    return {"measured": when, **facts, "machine": machine(), "results": results}


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    import torch

    from submillion.model.packed import native

    commit = ""
    with suppress(OSError, subprocess.CalledProcessError):  # no git, or a copy without history
        commit = subprocess.check_output(
            ["git", "describe", "--always", "--dirty"], text=True, stderr=subprocess.DEVNULL
        )
    return {
        "processor": native.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "tiles": native.has_tiles(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": commit.strip(),
        "packages": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "numpy")},
    }


def spread(values: Iterable[float], digits: int | None = None) -> dict[str, float]:
    """Return the median, the lowest and the highest of some rounds, rounded if digits are given."""
    values = list(values)
    summary = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return summary if digits is None else {name: round(value, digits) for name, value in summary.items()}


def shown(each: dict[str, float], form: str = ",.0f", middle: str = "median") -> str:
    """Return a value with its range.

    >>> shown({"median": 2000.4, "low": 1999.0, "high": 2001.0})
    '2,000 [1,999, 2,001]'
    """
    return f"{each[middle]:{form}} [{each['low']:{form}}, {each['high']:{form}}]"


def table(head: str, rows: Iterable[Sequence[object]], n_numbers: int = 0, start: int = 1) -> list[str]:
    """Return the lines of a Markdown table; `head` names its columns, between bars.

    From column `start` on, `n_numbers` columns are right-aligned.

    >>> table("| a | b |", [(1, 2)], n_numbers=1)
    ['| a | b |', '|---|---:|', '| 1 | 2 |']
    """
    rights = range(start, start + n_numbers)
    rule = "|".join("---:" if number in rights else "---" for number in range(head.count("|") - 1))
    return [head, f"|{rule}|", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
