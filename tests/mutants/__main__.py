"""Plant each fault in a copy of the repository and run its tests there: caught, missed, or stale (the line is gone).

python -m tests.mutants [WORD ...]      only faults whose tests or lines hold one of the words
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parents[2]


def outcome(fault: Fault, copy: Path) -> str:
    """Plant a fault, run its tests and take it out again."""
    sources = {file: file.read_text(encoding="utf-8") for file in (copy / "submillion").rglob("*.py")}
    (file, *others) = [file for file, text in sources.items() if fault.old in text] or [None]
    if file is None or others or sources[file].count(fault.old) > 1:
        return "stale"
    file.write_text(sources[file].replace(fault.old, fault.new), encoding="utf-8")
    try:
        files = [f"tests/test_{name}.py" for name in fault.tests.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    finally:
        file.write_text(sources[file], encoding="utf-8")
    # 2 and more: pytest itself could not run, which proves nothing
    return {0: "missed", 1: "caught"}.get(done.returncode, f"not run ({done.stdout.strip()[-200:]})")


def main(words: list[str]) -> int:
    """Print what became of each fault; return how many were not caught."""
    chosen = [fault for fault in FAULTS if not words or any(word in " ".join(fault) for word in words)]
    n_bad = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        left_out = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", ".*_cache", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=left_out, symlinks=True)
        for fault in chosen:
            began = time.monotonic()
            found = outcome(fault, copy)
            n_bad += found != "caught"
            print(f"{found:8} {time.monotonic() - began:4.0f} s  {fault.tests}: {fault.new}", flush=True)
    print(f"{len(chosen) - n_bad} of {len(chosen)} caught")
    return n_bad


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
