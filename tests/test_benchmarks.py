"""The benchmarks' page says of a graphics card what was measured on one, and what was left out; the limit's replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import export, limit, page
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


def test_each_processor_has_its_column_and_what_was_not_measured_on_one_says_so() -> None:
    def machine(processor: str, **sections: Any) -> dict[str, Any]:
        facts = {"processor": processor, "cores": 2, "tiles": processor == "X"}
        return {
            name.replace("_", " "): {"measured": "2026-01-01", "machine": facts, "results": found}
            for name, found in sections.items()
        }

    rows = {name: row(rate - 1, rate, rate + 1) | {"peak_mib": 100.0} for name, rate in (("a", 10), ("b sdpa", 50))}
    ours = {"c": row(99, 100, 101) | {"peak_mib": 60.0}, "c int8": row(149, 150, 151) | {"peak_mib": 50.0}}
    both = {"training_roberta-base": {**rows, **ours, "d": row(199, 200, 201)}}
    lines = page._targets(
        [machine("X", **both), machine("Y", **{"training_roberta-base": {**rows, "c": ours["c"], "d": ours["c"]}})]
    )
    assert lines[0] == "| | asked | X, 2 cores with AMX: median [rounds] | Y, 2 cores: median [rounds] |"
    cells = {line.split(" | ")[0]: line.split(" | ")[2:] for line in lines[2:]}
    assert cells["| c against a"] == ["10.00 [9.18, 11.00]", "10.00 [9.18, 11.00] |"]
    assert cells["| c in int8 against b"] == ["3.00 [2.96, 3.04]", "not measured |"]
    assert cells["| peak memory, c in int8 over b"] == ["0.50", "not measured |"]
    assert "| MiniLM, c against b" not in cells, "measured nowhere"


def test_exports_are_shown_for_the_machines_that_measured_them() -> None:
    seconds = {
        "submillion fp32": (3.0, 1.0),
        "submillion int8": (2.0, 0.5),
        "onnx": (2.0, 2.0),
        "onnx-int8": (1.0, 1.0),
    }
    found = {"contestants": {name: {n: export._summary([each] * 2) for n in "12"} for name, each in seconds.items()}}
    section = {"exports MiniLM": {"measured": "2026-01-01", "results": found}}
    assert list(export.reached(found)) == ["2.00 [2.00, 2.00]", "1.50 [1.50, 1.50]", "2.00 [2.00, 2.00]"]
    lines = export.tables({"X": section, "Y": {"batch": {}}})
    assert lines[0] == "X:"
    assert "| MiniLM | submillion int8 | 2 | 200.0 [200.0, 200.0] | 128 [128, 128] |" in lines
    assert "Y:" not in lines
    assert export.tables({"Y": {"batch": {}}}) == ["Not measured."]
