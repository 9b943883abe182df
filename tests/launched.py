"""What the launched processes of tests/test_processes.py run: `torchrun tests/launched.py FILE`.

FILE holds lists of overrides, each a run; one torch import serves them all.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import submillion
from submillion import config, reports
from submillion.errors import DataError
from submillion.model import batching, processes
from submillion.runs import Run
from submillion.training import workflow

WENT_ON = "what was killed went on"


def main(file: Path) -> None:
    torch.set_num_threads(1)
    reports.write = lambda *_: []  # longer than a tiny training
    job: dict[str, Any] = json.loads(file.read_text())
    for overrides in job["runs"]:
        run = workflow.train(config.load(overrides=overrides))
        assert (run.path / "DONE").exists()
    stopped_at_7(job["stopped"], job["rows"])
    found = submillion.train(config.load(overrides=job["folded"]), folds=2, watch=lambda _: None)
    assert found.predictions is not None
    _go_on(job["killed"])
    _fail(job["fails"])


def stopped_at_7(overrides: list[str], rows: str) -> Run:
    """Train on rows in memory, until a watcher stops it."""

    def watch(record: Any) -> str | None:
        return "stop" if record.kind == "step" and record.step == 7 else None

    others = [override for override in overrides if not override.startswith("data.source=")]
    return submillion.train(pd.read_csv(rows), watch=watch, overrides=others)


def _go_on(words: list[str]) -> None:
    """Type the command whose first processes were killed; both have come to its end when the main one says so."""
    from submillion import cli

    with suppress(SystemExit):
        cli.main(words)
    if os.environ["RANK"] == "0":
        sys.stderr.write(f"{WENT_ON}\n")
        sys.stderr.flush()


def _fail(overrides: list[str]) -> None:
    """Train by the command line, where the second process meets a bad row in its third micro-batch."""
    from submillion import cli

    if os.environ["RANK"] == "1":
        real, calls = batching.TokenizedSplit.batch, 0

        def bad(split: batching.TokenizedSplit, rows: Any) -> batching.Batch:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise DataError("row r17 has a label that nobody knows")
            return real(split, rows)

        batching.TokenizedSplit.batch = bad
    assert processes.count() == 1  # the last run's launch is over, the next one's has not begun
    cli.main(["train", *(word for override in overrides for word in ("--set", override))])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
