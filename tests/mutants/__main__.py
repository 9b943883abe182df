"""Plant each fault in a copy of the repository and run its tests there: caught, missed, or stale (the line is gone).

    python -m tests.mutants [WORD ...]      only faults whose tests or lines hold one of the words

Tests that fail without the fault catch nothing: each fault's files are run once as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]


def passes(tests: str, copy: Path) -> bool:
    """Say whether the test files pass in the copy as it is; RuntimeError if pytest could not run them."""
    files = [f"tests/test_{name}.py" for name in tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"{' '.join(command)} ends with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-500:]}"
        )
    return done.returncode == 0


passes_without_fault = cache(passes)


def outcome(fault: Fault, copy: Path) -> str:
    """Plant a fault, run its tests and take it out again."""
    sources = {file: file.read_text(encoding="utf-8") for file in (copy / "submillion").rglob("*.py")}
    places = [file for file, text in sources.items() if fault.old in text]
    if len(places) != 1 or sources[places[0]].count(fault.old) != 1:
        return "stale"
    if not passes_without_fault(fault.tests, copy):
        return "broken"
    places[0].write_text(sources[places[0]].replace(fault.old, fault.new), encoding="utf-8")
    try:
        return "missed" if passes(fault.tests, copy) else "caught"
    finally:
        places[0].write_text(sources[places[0]], encoding="utf-8")


def main(words: list[str]) -> int:
    """Print what became of each fault; return how many were not caught."""
    chosen = [fault for fault in FAULTS if not words or any(word in " ".join(fault) for word in words)]
    n_bad = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("submillion", "tests", "benchmarks", "docs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "Makefile"):
            shutil.copy(ROOT / name, copy)
        for fault in chosen:
            began = time.monotonic()
            found = outcome(fault, copy)
            n_bad += found != "caught"
            print(f"{found} {time.monotonic() - began:4.0f} s  {fault.tests}: {fault.new}", flush=True)
    print(f"{len(chosen) - n_bad} of {len(chosen)} caught")
    return n_bad


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
