"""docs/scaling.md is what its script makes of the committed measurements."""

from __future__ import annotations

from benchmarks import scaling
from benchmarks.results import kept


def test_the_page_holds_the_measured_numbers() -> None:
    assert scaling.PAGE.read_text(encoding="utf-8") == scaling.page(kept(scaling.SPEEDS), scaling.Assumptions())


def test_hours_follow_from_the_slowest_and_the_fastest_round() -> None:
    rounds = [{"rows": 100, "tokens": 500, "seconds": seconds} for seconds in (1, 2, 4)]
    hours = scaling.speed({"rounds": rounds, "peak_mib": 1.0}).hours(360_000)
    assert hours == (2.0, 1.0, 4.0)
