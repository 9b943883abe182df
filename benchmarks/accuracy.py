"""What speed costs in accuracy: bf16 against fp32, no dropout in the model against the checkpoint's own.

`SUBMILLION_AGNEWS=… python -m benchmarks.accuracy OUT` trains all-MiniLM-L6-v2 on AG News' training file, three
seeds per setting, in run folders under OUT, and compares them on the validation rows; the test file is not opened.
Started again, it resumes. The result goes to results/accuracy.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.material import MINILM
from benchmarks.results import keep, machine

SETTINGS = {
    "bf16": ["train.precision=bf16"],
    "fp32": ["train.precision=fp32"],
    "bf16, model.dropout 0": ["train.precision=bf16", "model.dropout=0"],
}
SEEDS = (0, 1, 2)
N_STEPS = 150


def command(overrides: list[str], seed: int, out: str) -> list[str]:
    """Return the command of one run."""
    own = [
        f"model.name={MINILM}",
        "data.text=[title,description]",
        f"train.steps={N_STEPS}",
        f"train.seed={seed}",
        "data.validation=3000",
    ]
    sets = [part for override in [*own, *overrides] for part in ("--set", override)]
    data = str(Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet")
    return [sys.executable, "-m", "submillion", "train", "--data", data, *sets, "--out", out, "--json"]


def _output(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return json.loads(done.stdout)


def main() -> None:
    """Train what is not trained yet, then compare."""
    out = sys.argv[1]
    runs: dict[str, list[str]] = {name: [] for name in SETTINGS}
    for seed in SEEDS:
        for name, overrides in SETTINGS.items():
            runs[name].append(_output(command(overrides, seed, out))["run"])
            print(f"{name}, seed {seed}: {runs[name][-1]}", file=sys.stderr, flush=True)
    compared = {
        f"{one} | {other}": _output([sys.executable, "-m", "submillion", "compare", *runs[one], *runs[other], "--json"])
        for one, other in (("bf16", "fp32"), ("bf16", "bf16, model.dropout 0"))
    }
    keep("accuracy", {"machine": machine(), "n_steps": N_STEPS, "seeds": SEEDS, "comparisons": compared})


if __name__ == "__main__":
    main()
