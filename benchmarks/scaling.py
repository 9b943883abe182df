"""docs/scaling.md, a simulation on paper: what this machine's measured speeds would come to at 10^9 texts.

Nothing is measured here. Speeds, lengths and memory come from results/speed/intel-xeon-amx-2-cores.json; what is
assumed is in `Assumptions` and is printed as such. `python -m benchmarks.scaling` writes the page; a test compares
the two.
"""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import DOCS, kept, table

PAGE = DOCS / "scaling.md"
SPEEDS = "speed/intel-xeon-amx-2-cores"
_SECTIONS = {"MiniLM": "MiniLM", "roberta-base": "roberta-base's size"}
_BATCH_ROWS = {"MiniLM": 32, "roberta-base": 16}
_HOUR_S, _DAY_H = 3600, 24


@dataclass(frozen=True)
class Assumptions:
    """What was not measured: sizes of the work, prices, machines and networks."""

    n_texts: int = 10**9
    n_adapters: int = 1000
    n_steps: int = 600
    characters_a_token: float = 4.5
    n_labels: int = 4
    price_core_h: float = 0.05
    network_gbit_s: float = 1.0
    budget: int = 1_000_000
    width: int = 768
    cache_gib: float = 20.0
    memory_gib: float = 32.0
    overhead_bytes: int = 468  # of an `Example`, its id and its text beyond the characters: sys.getsizeof, Python 3.11


@dataclass(frozen=True)
class Speed:
    """Texts per second on the measured machine: median, slowest, fastest round; tokens per text; peak memory, MiB."""

    median: float
    low: float
    high: float
    tokens: float
    peak_mib: float

    def hours(self, n_texts: float) -> tuple[float, float, float]:
        """Return the hours that n_texts texts take: at the median speed, the fastest and the slowest."""
        return n_texts / self.median / _HOUR_S, n_texts / self.high / _HOUR_S, n_texts / self.low / _HOUR_S


def speed(contestant: dict[str, Any]) -> Speed:
    """Return a contestant's speed in texts.

    >>> speed({"rounds": [{"rows": 4, "tokens": 8, "seconds": 2}, {"rows": 6, "tokens": 12, "seconds": 2}],
    ...        "peak_mib": 1.0})
    Speed(median=2.5, low=2.0, high=3.0, tokens=2.0, peak_mib=1.0)
    """
    rounds = contestant["rounds"]
    rates = [each["rows"] / each["seconds"] for each in rounds]
    tokens = sum(each["tokens"] for each in rounds) / sum(each["rows"] for each in rounds)
    return Speed(statistics.median(rates), min(rates), max(rates), tokens, contestant["peak_mib"])


def page(results: dict[str, Any], assumptions: Assumptions) -> str:
    """Return the page's text: `scaling.md`, whose paragraphs are lines, with its numbers and tables."""
    predicting = {name: speed(results[f"prediction {name}"]["results"]["c"]) for name in _SECTIONS}
    training = {name: speed(results[f"training {name}"]["results"]["c"]) for name in _SECTIONS}
    machine, layers = results["prediction MiniLM"]["machine"], {r["value"]: r for r in results["layers"]["results"]}
    price_h = machine["cores"] * assumptions.price_core_h
    moved_mb = 2 * assumptions.budget * 4 / 1e6
    sent_s = moved_mb * 8 / 1000 / assumptions.network_gbit_s
    text = Path(__file__).with_name("scaling.md").read_text(encoding="utf-8")
    tables = {"{predicting}": _predicting(predicting, assumptions, price_h), "{sharing}": _sharing(training, sent_s)}
    tables["{training}"] = _training(training, predicting, assumptions, price_h)
    values = {
        "given": assumptions,
        "machine": machine,
        "price_h": price_h,
        "texts": f"{_power(assumptions.n_texts)} texts",
        "prefix_ratio": speed(layers[4]["with"]).median / speed(layers[12]["without"]).median,
        "adapter_mb": assumptions.budget * 4 / 1e6,
        "adapters_gb": assumptions.n_adapters * assumptions.budget * 4 / 1e9,
        "moved_mb": moved_mb,
        "sent_ms": 1000 * sent_s,
        **_breaking(predicting["MiniLM"], assumptions, machine["cores"]),
    }
    lines = (tables.get(line) or [_wrapped(line.format(**values))] for line in text.splitlines())
    return "\n".join(line for part in lines for line in part) + "\n"


def _predicting(speeds: dict[str, Speed], assumptions: Assumptions, price_h: float) -> list[str]:
    rows = []
    for name, each in speeds.items():
        hours = each.hours(assumptions.n_texts)
        spans = [_range(hours), _range(tuple(hour * price_h for hour in hours))]
        machines = [f"{-(-hours[0] // _DAY_H):,.0f}", f"{-(-hours[0] // 1):,.0f}"]
        rows.append([_SECTIONS[name], f"{each.median:,.0f}", f"{1000 / each.median:.1f}", *spans, *machines])
    heads = "encoder | texts/s per machine | ms per text | machine hours | dollars | machines for a day | for an hour"
    return table(f"| {heads} |", rows)


def _training(
    speeds: dict[str, Speed], reading: dict[str, Speed], assumptions: Assumptions, price_h: float
) -> list[str]:
    rows = []
    for name, each in speeds.items():
        n_rows = assumptions.n_steps * _BATCH_ROWS[name]
        pairs = zip(each.hours(n_rows), reading[name].hours(n_rows / 4), strict=True)
        hours = tuple(one + other for one, other in pairs)
        every = tuple(hour * assumptions.n_adapters for hour in hours)
        spans = [_range(every), _range(tuple(hour * price_h for hour in every))]
        rows.append([f"{_SECTIONS[name]}, {_BATCH_ROWS[name]}", f"{each.median:,.0f}", f"{hours[0]:.3f}", *spans])
    return table("| encoder, rows per batch | texts/s | hours per adapter | machine hours in total | dollars |", rows)


def _sharing(speeds: dict[str, Speed], sent_s: float) -> list[str]:
    rows = []
    for name, n_rows in _BATCH_ROWS.items():
        step_s = n_rows / speeds[name].median
        rows.append((_SECTIONS[name], n_rows, f"{1000 * step_s:.0f}", f"{100 * step_s / (step_s + sent_s):.0f} %"))
    return table("| encoder | rows per process and step | computing, ms | its share of a step |", rows)


def _breaking(minilm: Speed, assumptions: Assumptions, n_cores: int) -> dict[str, Any]:
    """The numbers of what breaks first, by their names on the page."""
    n, n_characters = assumptions.n_texts, round(minilm.tokens * assumptions.characters_a_token)
    held, token_bytes = n_characters + assumptions.overhead_bytes, minilm.tokens * 2 + 8
    prefix_bytes, output_bytes = minilm.tokens * assumptions.width * 2, 20 + 8 * assumptions.n_labels
    machine_kb_s = minilm.median * (n_characters + output_bytes) / 1e3
    return {
        "minilm": minilm,
        "held_bytes": held,
        "token_bytes": token_bytes,
        "all_tb": n * (held + token_bytes) / 1e12,
        "fitting_m": assumptions.memory_gib * 2**30 / (held + token_bytes) / 1e6,
        "million_gb": (held + token_bytes) / 1e3,
        "tokens_gb": n * token_bytes / 1e9,
        "in_cache_m": assumptions.cache_gib * 2**30 / token_bytes / 1e6,
        "prefix_kb": prefix_bytes / 1e3,
        "in_prefix": assumptions.cache_gib * 2**30 / prefix_bytes,
        "core_ms": n_cores * 1000 / minilm.median,
        "input_gb": n * n_characters / 1e9,
        "output_gb": n * output_bytes / 1e9,
        "machine_kb_s": machine_kb_s,
        "n_machines": assumptions.network_gbit_s * 1e9 / 8 / (machine_kb_s * 1e3),
    }


def _range(values: tuple[float, ...]) -> str:
    middle, low, high = (f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in values)
    return f"{middle} [{low}, {high}]"


def _wrapped(line: str) -> str:
    indent = "   " if line[:1].isdigit() else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _power(n: int) -> str:
    """The number as a power of ten, if it is one.

    >>> _power(10**9), _power(5000)
    ('10⁹', '5,000')
    """
    digits = str(n)
    is_power = set(digits[1:]) == {"0"} and digits[0] == "1"
    return f"10{str(len(digits) - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}" if is_power else f"{n:,}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(kept(SPEEDS), Assumptions()), encoding="utf-8")


if __name__ == "__main__":
    main()
