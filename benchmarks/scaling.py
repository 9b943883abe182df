"""docs/scaling.md, a simulation on paper: what this machine's measured speeds would come to at 10^9 texts.

Nothing is measured here. Speeds, lengths and memory come from results/speed.json; what is assumed stands in
`Assumptions` and is printed as such. `python -m benchmarks.scaling` writes the page; a test compares the two.
"""

from __future__ import annotations

import json
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
_SECTIONS = {"MiniLM": "MiniLM", "roberta-base": "roberta-base's size"}
_HOUR_S, _DAY_H = 3600, 24


@dataclass(frozen=True)
class Assumptions:
    """What was not measured: sizes of the work, prices, and what machines and networks are given."""

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
    """Texts a second on the measured machine: median, slowest and fastest round; tokens a text; peak memory, MiB."""

    median: float
    low: float
    high: float
    tokens: float
    peak_mib: float

    def hours(self, n_texts: float) -> tuple[float, float, float]:
        """Return the hours that so many texts take: at the median speed, the fastest and the slowest."""
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


def page(results: dict[str, Any], given: Assumptions) -> str:
    """Return the page's text."""
    predicting = {name: speed(results[f"prediction {name}"]["results"]["c"]) for name in _SECTIONS}
    training = {name: speed(results[f"training {name}"]["results"]["c"]) for name in _SECTIONS}
    machine = results["prediction MiniLM"]["machine"]
    price_h = machine["cores"] * given.price_core_h
    lines = [
        line if line.startswith("|") else _wrapped(line)
        for line in (
            *_head(machine, given, price_h),
            *("", f"## Predicting {_power(given.n_texts)} texts", "", *_predicting(predicting, given, price_h)),
            *("", f"## Training {given.n_adapters:,} adapters", "", *_training(training, results, given, price_h)),
            *("", "## One training on several machines", "", *_sharing(training, results, given)),
            *("", "## What breaks first", "", *_breaking(predicting["MiniLM"], given, machine["cores"])),
            "",
        )
    ]
    return "\n".join(lines)


def _head(machine: dict[str, Any], given: Assumptions, price_h: float) -> list[str]:
    return [
        "# On paper: 10⁹ texts",
        "",
        "Written by `python -m benchmarks.scaling` from `benchmarks/results/speed.json`. A calculation, not a "
        "measurement: nothing of this size was run.",
        "",
        f"**Measured**: speeds, tokens a text and peak memory, on {machine['processor']}, {machine['cores']} cores, "
        "bf16, texts as long as AG News' ([benchmarks](benchmarks.md)). In brackets: at the fastest and at the slowest "
        "round. The machine's speed drifts by up to 40 % within minutes, more than these brackets show. **No GPU was "
        "measured**, so none is in the tables.",
        "",
        f"**Assumed**: {given.price_core_h:.2f} dollars a core and hour, a round number and nobody's offer, so "
        f"{price_h:.2f} an hour for a machine like the measured one; all machines as fast as it, with "
        f"{given.memory_gib:g} GiB; {given.characters_a_token} characters a token; {given.n_labels} labels; a network "
        f"of {given.network_gbit_s:g} Gbit/s; machines do not wait for one another. Change `Assumptions` in "
        "`benchmarks/scaling.py` and write the page again.",
    ]


def _predicting(speeds: dict[str, Speed], given: Assumptions, price_h: float) -> list[str]:
    lines = [
        "Tokenising included. Machines share nothing, so that hours divide by their number.",
        "",
        "| encoder | texts/s a machine | ms a text | machine hours | dollars | machines for a day | for an hour |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in speeds.items():
        hours = each.hours(given.n_texts)
        cells = [
            _SECTIONS[name],
            f"{each.median:,.0f}",
            f"{1000 / each.median:.1f}",
            _range(hours),
            _range(tuple(hour * price_h for hour in hours)),
            f"{-(-hours[0] // _DAY_H):,.0f}",
            f"{-(-hours[0] // 1):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _training(speeds: dict[str, Speed], results: dict[str, Any], given: Assumptions, price_h: float) -> list[str]:
    batches = {"MiniLM": 32, "roberta-base": 16}
    lines = [
        f"Each {given.n_steps} steps, adapters in all layers; evaluations read a quarter as many rows again, at the "
        "speed of predicting. Reading, tokenising and loading are not in it.",
        "",
        "| encoder, rows a batch | texts/s | hours an adapter | machine hours in all | dollars |",
        "|---|---|---|---|---|",
    ]
    for name, each in speeds.items():
        n_rows = given.n_steps * batches[name]
        reading = speed(results[f"prediction {name}"]["results"]["c"])
        pairs = zip(each.hours(n_rows), reading.hours(n_rows / 4), strict=True)
        hours = tuple(one + other for one, other in pairs)
        every = tuple(hour * given.n_adapters for hour in hours)
        cells = [f"{_SECTIONS[name]}, {batches[name]}", f"{each.median:,.0f}", f"{hours[0]:.3f}", _range(every)]
        lines.append(f"| {' | '.join(cells)} | {_range(tuple(hour * price_h for hour in every))} |")
    layers = {row["value"]: row for row in results["layers"]["results"]}
    ratio = speed(layers[4]["with"]).median / speed(layers[12]["without"]).median
    disk_gb = given.n_adapters * given.budget * 4 / 1e9
    return [
        *lines,
        "",
        f"With adapters in the top 4 layers alone and the prefix kept, roberta-base's size trains {ratio:.1f} times as "
        f"fast. Adapters of {given.budget:,} parameters in float32 take {given.budget * 4 / 1e6:.0f} MB "
        f"each, {disk_gb:,.0f} GB in all; a checkpoint, with AdamW's state three times that, is removed when "
        "its run is done. "
        "Trainings share nothing but the cache, so that a sweep over machines divides the hours as well.",
    ]


def _sharing(speeds: dict[str, Speed], results: dict[str, Any], given: Assumptions) -> list[str]:
    step_s = {name: rows / speeds[name].median for name, rows in (("MiniLM", 32), ("roberta-base", 16))}
    moved_mb = 2 * given.budget * 4 / 1e6
    sent_s = moved_mb * 8 / 1000 / given.network_gbit_s
    lines = [
        f"`torchrun` over several machines adds up gradients once a step: at most {given.budget:,} numbers, about "
        f"{moved_mb:.0f} MB in and out of each process (a ring moves them nearly twice), {1000 * sent_s:.0f} ms at "
        f"{given.network_gbit_s:g} Gbit/s. Nothing of it overlaps with computing, so the share of a step "
        "that computes is:",
        "",
        "| encoder | a process' rows a step | computing, ms | its share of a step |",
        "|---|---|---|---|",
    ]
    for name, rows in (("MiniLM", 32), ("roberta-base", 16)):
        share = step_s[name] / (step_s[name] + sent_s)
        lines.append(f"| {_SECTIONS[name]} | {rows} | {1000 * step_s[name]:.0f} | {100 * share:.0f} % |")
    lines += [
        "",
        "That is for as many rows a *process* as one has alone: the batch grows with the processes, and with it what "
        "is learnt from a step. With the same total batch each has fewer rows, and the share falls. Where many "
        "adapters are to be trained, one machine an adapter wastes nothing.",
    ]
    return lines


def _breaking(minilm: Speed, given: Assumptions, n_cores: int) -> list[str]:
    n_characters = round(minilm.tokens * given.characters_a_token)
    held = n_characters + given.overhead_bytes
    token_bytes = minilm.tokens * 2 + 8
    prefix_bytes = minilm.tokens * given.width * 2
    output_bytes = 20 + 8 * given.n_labels
    n = given.n_texts
    per_machine_kb_s = minilm.median * (n_characters + output_bytes) / 1e3
    machines = given.network_gbit_s * 1e9 / 8 / (per_machine_kb_s * 1e3)
    in_cache = given.cache_gib * 2**30 / token_bytes
    fitting = given.memory_gib * 2**30 / (held + token_bytes)
    return [
        f"For MiniLM, {minilm.tokens:.0f} tokens a text, in this order:",
        "",
        f"1. **Memory, of one process that holds all rows.** A text is {held} bytes as Python objects and "
        f"{token_bytes:.0f} as token ids: {n * (held + token_bytes) / 1e12:.1f} TB for all; {given.memory_gib:g} GiB "
        f"hold {fitting / 1e6:,.0f} million. So files of a million texts, {(held + token_bytes) / 1e3:.2f} GB each "
        f"beside the {minilm.peak_mib:,.0f} MiB that predicting peaked at, libraries included.",
        f"2. **The cache's disk.** Token ids kept are {n * token_bytes / 1e9:,.0f} GB; the cache may have "
        f"{given.cache_gib:g} GiB, which is {in_cache / 1e6:,.0f} million texts; what was used longest ago is removed, "
        f"nothing stops. In training the prefix is larger: {prefix_bytes / 1e3:.0f} kB a text at width {given.width}, "
        f"so that {given.cache_gib * 2**30 / prefix_bytes:,.0f} texts fill the cache; beyond that it is not kept, and "
        "each pass computes it.",
        f"3. **Computing, as money**: all of the first table. One text costs {n_cores * 1000 / minilm.median:.1f} "
        "ms of a core, tokenising included; tokenising alone was not measured.",
        f"4. **Disk of input and output**: {n * n_characters / 1e9:,.0f} GB of texts, {n * output_bytes / 1e9:,.0f} GB "
        "of probabilities.",
        f"5. **Network, last.** A machine reads and writes {per_machine_kb_s:,.0f} kB/s; {machines:,.0f} machines "
        f"fill one link of {given.network_gbit_s:g} Gbit/s to a shared store.",
    ]


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
    PAGE.write_text(page(json.loads((FOLDER / "speed.json").read_text()), Assumptions()), encoding="utf-8")


if __name__ == "__main__":
    main()
