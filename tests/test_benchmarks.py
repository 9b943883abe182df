"""The benchmarks' page says of a graphics card what was measured on one, and what was left out; the limit's replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import limit, page
from benchmarks.contestants import Spec
from tests.tiny import make_encoder

MACHINE = {
    "gpu": "Card 9000",
    "cuda": "13.0",
    "processor": "P",
    "cores": 16,
    "python": "3.12",
    "packages": {"torch": "2"},
}


def row(*tokens: int) -> dict[str, Any]:
    """What a contestant's rounds of one second come to."""
    rounds = [{"seconds": 1.0, "tokens": n, "rows": 1} for n in tokens]
    spread = {"median": tokens[1], "low": tokens[0], "high": tokens[2]}
    return {"tokens_per_s": spread, "warm_s": 40.0, "gpu_mib": 10.0, "gpu_reserved_mib": 20.0, "rounds": rounds}


def results(section: str, *groups: dict[str, Any], **machine: Any) -> dict[str, Any]:
    """What results/gpu.json holds after one section."""
    return {section: {"measured": "2026-01-01T00:00", "machine": MACHINE | machine, "results": list(groups)}}


def test_the_card_is_named_and_ours_is_set_against_the_faster_trainer_and_the_limit() -> None:
    rows = {
        "b sdpa": row(90, 100, 110),
        "b compiled": row(180, 200, 220),
        "c": row(720, 800, 880),
        "d": row(*3 * [1600]),
    }
    text = "\n".join(page._gpu(results("gpu training MiniLM", {"value": 128, **rows})))
    assert "Card 9000" in text
    assert "| MiniLM, batch 128, c against the faster b | ≥ 2 (aim 3) | 4.00 [4.00, 4.00] |" in text
    assert "| MiniLM, batch 128, c against the limit d | ≥ 0.5 | 0.50 [0.45, 0.55] |" in text
    assert "| MiniLM, batch 16, c against the faster b | ≥ 3 (aim 6) | not measured |" in text
    assert "| 128 | b. the same, with `torch.compile` | 200 [180, 220] | 4.00 [4.00, 4.00] | 40.0 | 10 / 20 |" in text


@pytest.mark.parametrize("lost", ["c", "b sdpa"])
def test_a_contestant_that_was_left_out_says_why_and_costs_no_other_its_row(lost: str) -> None:
    rows = {"b sdpa": row(90, 100, 110), "c": row(720, 800, 880)} | {lost: {"left_out": "out of memory"}}
    text = "\n".join(page._gpu(results("gpu training MiniLM", {"value": 16, **rows})))
    assert "| left out: out of memory |" in text
    assert text.count("| 16 |") == 2
    assert "batch 16, c against the faster b | ≥ 3 (aim 6) | not measured |" in text


@pytest.mark.parametrize("found", [{}, results("gpu prediction", {"value": "MiniLM"}, gpu=None)])
def test_without_a_card_nothing_is_claimed(found: dict[str, Any]) -> None:
    assert "".join(page._gpu(found)).startswith("Not measured: ")


def test_the_limit_replays_the_batches_of_training(tmp_path: Path) -> None:
    spec = Spec(
        "limit", str(make_encoder("bert", tmp_path)), rank=2, batch_size=8, precision="fp32", n_rows=24, length=5
    )
    assert limit.steps(spec)(4) == {"rows": 32, "tokens": 160}
