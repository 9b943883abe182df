"""docs/benchmarks.md and its charts, made from results/speed/*.json and results/{gpu,accuracy}.json: `python -m
benchmarks.page`. If several processors were measured, the targets are shown for all, the rest for the one with most
sections.

Nothing is measured here. Ratios are medians over rounds of the two contestants' rates in the same round. `page.md` and
`page_gpu.md` have the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks import export
from benchmarks.results import DOCS, by_processor, kept, shown, spread, table

mpl.use("Agg")
from matplotlib import pyplot as plt

_OURS, _THEIRS, _GREY = "#1f6f8b", "#c8553d", "#8a8f98"
_NAMES = {
    "a": "a. Trainer + PEFT, fp32, padded to 128",
    "b eager": "b. Trainer + PEFT, bf16, dynamic padding, grouped by length, eager",
    "b sdpa": "b. Trainer + PEFT, bf16, dynamic padding, grouped by length, sdpa",
    "c": "c. Submillion",
    "c int8": "c. Submillion, `train.precision: int8`",
    "c model.dropout 0": "c. Submillion, `model.dropout: 0`",
    "d": "d. limit: the frozen layers' products alone",
    "pipeline": "`transformers.pipeline`, bf16, batch 64, eager",
    "pipeline sdpa": "`transformers.pipeline`, bf16, batch 64, sdpa",
    "b": "b's model in `Trainer.predict`, bf16 autocast, batch 64, eager",
    "b sdpa predict": "b's model in `Trainer.predict`, bf16 autocast, batch 64, sdpa",
    "a fp16": "a. Trainer + PEFT, fp16 autocast, padded to 128, sdpa",
    "b compiled": "b. the same, with `torch.compile`",
    "b predict 256": "b's model in `Trainer.predict`, bf16 autocast, batch 256, sdpa",
    **{f"pipeline {n}": f"`transformers.pipeline`, bf16, batch {n}, sdpa" for n in (16, 64, 256)},
    **{f"c {n}": f"c. Submillion, at most {n} in a batch" for n in (128, 512)},
}
Rows = dict[str, dict[str, Any]]  # a contestant's measurements by its name


def _best(rows: Rows, kind: str) -> str:
    """The faster of a kind's variants; KeyError if none was measured."""
    variants = [name for name in rows if name.startswith(kind) and "rounds" in rows[name]]
    if not variants:
        raise KeyError(kind)
    return max(variants, key=lambda name: rows[name]["tokens_per_s"]["median"])


def _ratio(rows: Rows, one: str, other: str) -> str:
    """How many times as fast `one` is as `other`: median, lowest and highest round.

    >>> rows = {"x": {"rounds": [{"tokens": 4, "seconds": 1}]}, "y": {"rounds": [{"tokens": 2, "seconds": 1}]}}
    >>> _ratio(rows, "x", "y")
    '2.00 [2.00, 2.00]'
    """
    pairs = zip(rows[one]["rounds"], rows[other]["rounds"], strict=True)
    return shown(spread((p["tokens"] / p["seconds"]) / (q["tokens"] / q["seconds"]) for p, q in pairs), ".2f")


def _median(row: dict[str, Any]) -> str:
    return f"{row['tokens_per_s']['median']:,.0f}"


def _rates(rows: Rows) -> list[str]:
    return table(
        "| | real tokens/s: median [rounds] | c is × as fast | peak memory, MiB |",
        [
            (
                _NAMES[name],
                shown(row["tokens_per_s"]),
                "" if name == "c" else _ratio(rows, "c", name),
                f"{row['peak_mib']:,.0f}",
            )
            for name, row in rows.items()
        ],
    )


def _targets(machines: list[dict[str, Any]]) -> list[str]:
    """The targets, next to what was measured on each machine."""
    columns = [dict(_measured({name: section["results"] for name, section in each.items()})) for each in machines]
    names = [_processor(each) for each in machines]
    targets = dict(_ASKED)
    rows = [
        (what, targets[what], *(column.get(what, "not measured") for column in columns))
        for what in targets
        if any(what in column for column in columns)
    ]
    return table(f"| | asked | {' | '.join(f'{name}: median [rounds]' for name in names)} |", rows)


_ASKED = (
    ("c against a", "≥ 10 to 14, by the processor"),
    ("c in int8 against a", "≥ 10 to 14"),
    ("c against b", "≥ 2.3 to 3"),
    ("c in int8 against b", "≥ 2.3 to 3"),
    ("c against the limit d", "≥ 0.55 (aim 0.70)"),
    ("MiniLM, c against b", "≥ 4 to 5"),
    ("MiniLM, c in int8 against b", "≥ 4 to 5"),
    ("prediction, c against `transformers.pipeline`", "≥ 3.5 to 4"),
    ("prediction, c in int8 against `transformers.pipeline`", "≥ 3.5 to 4"),
    *export.ASKED.items(),
    ("prefix, second epoch, top 8 layers", "≥ 1.15 (limit 1.28)"),
    ("prefix, second epoch, top 4 layers", "≥ 1.9 (limit 2.26)"),
    ("peak memory, c over b", "≤ 0.6 (aim 0.4)"),
    ("peak memory, c in int8 over b", "≤ 0.6 (aim 0.4)"),
    ("tokens/s at rows 60,000 over 1,000", "flat or rising"),
    ("tokens/s at batch 128 over 16", "flat or rising"),
)


_OURS_NAMED = (("c", "c"), ("c int8", "c in int8"))


def _measured(by_section: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured on a machine for the targets of `_ASKED`."""
    for section, theirs, words in (
        ("training roberta-base", "a", "{} against a"),
        ("training roberta-base", "b ", "{} against b"),
        ("training MiniLM", "b ", "MiniLM, {} against b"),
        ("prediction roberta-base", "pip", "prediction, {} against `transformers.pipeline`"),
    ):
        rows = by_section.get(section, {})
        yield from (
            (words.format(name), _ratio(rows, ours, _best(rows, theirs))) for ours, name in _OURS_NAMED if ours in rows
        )
    if "exports MiniLM" in by_section:
        yield from zip(export.ASKED, export.reached(by_section["exports MiniLM"]), strict=True)
    yield from _memory(by_section.get("training roberta-base", {}))
    for row in by_section.get("layers", ()):
        if "with" in row:
            yield f"prefix, second epoch, top {row['value']} layers", _ratio(row, "with", "without")
    for section, first, last in (("rows", 1000, 60000), ("batch", 16, 128)):
        rate = {point["value"]: point["c"]["tokens_per_s"]["median"] for point in by_section.get(section, ())}
        if rate:
            yield f"tokens/s at {section} {last:,} over {first:,}", f"{rate[last] / rate[first]:.2f}"


def _memory(rows: Rows) -> Iterator[tuple[str, str]]:
    if rows:
        yield "c against the limit d", _ratio(rows, "c", "d")
    for ours, name in _OURS_NAMED:
        if ours in rows:
            yield f"peak memory, {name} over b", f"{rows[ours]['peak_mib'] / rows[_best(rows, 'b ')]['peak_mib']:.2f}"


def _processor(machine: dict[str, Any]) -> str:
    section = next(iter(machine.values()))
    facts = section["machine"]
    kind = " with AMX" if facts.get("tiles", True) else ", no bf16" if section.get("precision") == "fp32" else ""
    return f"{facts['processor']}, {facts['cores']} cores{kind}"


def _points(points: list[dict[str, Any]], label: str) -> list[str]:
    return table(
        f"| {label} | b, tokens/s | c, tokens/s | c against b | c, MiB |",
        [
            (f"{p['value']:,}", _median(p["b"]), _median(p["c"]), _ratio(p, "c", "b"), f"{p['c']['peak_mib']:,.0f}")
            for p in points
        ],
    )


def _layers(points: list[dict[str, Any]]) -> list[str]:
    def row(point: dict[str, Any]) -> list[str]:
        without = f"{_median(point['without'])} tokens/s"
        if "with" not in point:
            return [f"{point['value']} (all)", without, "no layer is frozen | | |"]
        prefixed = point["with"]
        ratio, built = _ratio(point, "with", "without"), f"{prefixed['prefix_build_s']:.1f} s, 640 texts"
        rate = f"{_median(prefixed)} tokens/s"
        return [f"top {point['value']}", without, rate, ratio, built, f"{prefixed['prefix_mib']:.0f} MiB"]

    return table("| adapted layers | without | with | with against without | built in | size |", map(row, points))


def _reached(rounds: list[dict[str, Any]] | None) -> list[str]:
    def cell(each: dict[str, Any]) -> str:
        return f"{each['seconds']:.0f} s, {each['steps']} steps, {each['accuracy']:.3f}"

    rows = [
        (each["c"]["seed"], cell(each["b"]), cell(each["c"]), f"{each['b']['seconds'] / each['c']['seconds']:.1f}")
        for each in rounds or ()
    ]
    return table("| seed | b | c | c against b |", rows)


def _accuracy(results: dict[str, Any]) -> list[str]:
    if not results:
        return ["Not measured."]
    rows: list[tuple[object, ...]] = []
    for compared in results["comparisons"].values():
        for each in compared["settings"]:
            accuracy = shown(each["scores"]["accuracy"], ".4f", "value")
            rows.append((each["setting"], each["n_seeds"], accuracy, f"{each['training_s']:,.0f}"))
        for pair in compared["against_best"]:
            each = pair["differences"]["accuracy"]
            verdict = "a tie" if pair["is_tied"] else "a difference"
            text = f"difference {shown(each, '+.4f', 'value')}, p {each['p']:.2f}: {verdict} |"
            rows.append((f"↳ {pair['setting']} minus the one above |", text))
    n_rows = next(iter(results["comparisons"].values()))["n_rows"]
    return [
        f"MiniLM on AG News, {results['n_steps']} steps of 32, {len(results['seeds'])} seeds per setting, {n_rows:,}",
        f"validation rows, the last checkpoint; threads: {results['machine']['threads']}. Compared over seeds and "
        "rows: [how](comparison.md).",
        "",
        *table("| setting | seeds | accuracy, mean | training s |", rows),
    ]


def _machine(results: dict[str, Any]) -> list[str]:
    facts = results["training roberta-base"]["machine"]
    commits = sorted({section["machine"]["commit"].removesuffix("-dirty") for section in results.values()})
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    gpu = facts["gpu"] or "none: no GPU was available, and nothing here says how fast one would be"
    return [
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['capability']}, "
        f"{facts['memory_gib']} GiB; GPU: {gpu}. Python {facts['python']}, {packages}. Commits {', '.join(commits)}, "
        f"{results['training roberta-base']['measured'][:10]}."
    ]


def _gpu(results: dict[str, Any]) -> list[str]:
    """The text on the graphics card; a note if none was measured."""
    machine = next((section["machine"] for section in results.values()), {"gpu": None})
    if machine["gpu"] is None:
        return [
            "Not measured: `python -m benchmarks.speed gpu` does it in about 4 minutes, where there is a CUDA card."
        ]
    by_section = {name: section["results"] for name, section in results.items()}
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    parts = {
        "machine": [
            f"{machine['gpu']}, CUDA {machine['cuda']}; {machine['processor']}, {machine['cores']} cores. Python "
            f"{machine['python']}, {packages}. {min(section['measured'] for section in results.values())[:10]}."
        ],
        "targets": _gpu_targets(by_section),
        "compiling": _gpu_compiling(by_section.get("gpu compiling", [])),
        **{
            part: _gpu_rates(by_section.get(f"gpu {name}", []), label)
            for part, name, label in (
                ("roberta", "training roberta-base", "rows per batch"),
                ("minilm", "training MiniLM", "rows per batch"),
                ("prediction", "prediction", "encoder"),
            )
        },
    }
    text = Path(__file__).with_name("page_gpu.md").read_text()
    return [text.format(**{name: "\n".join(lines) for name, lines in parts.items()}).rstrip()]


def _gpu_targets(by_section: dict[str, Any]) -> list[str]:
    def measured(section: str, value: object, theirs: str) -> str:
        rows = next((_rows(group) for group in by_section.get(f"gpu {section}", ()) if group["value"] == value), {})
        try:
            return _ratio(rows, _best(rows, "c"), _best(rows, theirs))
        except KeyError:
            return "not measured"

    rows = []
    for encoder in ("roberta-base", "MiniLM"):
        training = f"training {encoder}"
        rows += [
            (f"{encoder}, batch 16, c against the faster b", "≥ 3 (aim 6)", measured(training, 16, "b")),
            (f"{encoder}, batch 128, c against the faster b", "≥ 2 (aim 3)", measured(training, 128, "b")),
            (f"{encoder}, batch 128, c against the limit d", "≥ 0.5", measured(training, 128, "d")),
            (f"{encoder}, prediction, c against the fastest pipeline", "≥ 3", measured("prediction", encoder, "pip")),
        ]
    return table("| | asked | measured: median [rounds] |", rows)


def _gpu_compiling(groups: list[dict[str, Any]]) -> list[str]:
    times = []
    for group in groups:
        row = group["b compiled"]
        times.append(f"{group['value']}: " + (row.get("left_out") or f"{row['warm_s']:.0f} s"))
    return ["; ".join(times) or "not measured"]


def _gpu_rates(groups: list[dict[str, Any]], label: str) -> list[str]:
    """A table of the contestants of each group, in which c is the faster variant of c."""

    def row(rows: Rows, name: str) -> tuple[str, ...]:
        values = rows[name]
        if "left_out" in values:
            return (_NAMES[name], f"left out: {values['left_out']}", "", "", "")
        is_ours = name.startswith("c") or not any("rounds" in rows[other] for other in rows if other.startswith("c"))
        return (
            _NAMES[name],
            shown(values["tokens_per_s"]),
            "" if is_ours else _ratio(rows, _best(rows, "c"), name),
            f"{values['warm_s']:.1f}",
            f"{values['gpu_mib']:,.0f} / {values['gpu_reserved_mib']:,.0f}",
        )

    return table(
        f"| {label} | | real tokens/s: median [rounds] | c is × as fast | first steps, s | GPU memory, MiB |",
        [(group["value"], *row(_rows(group), name)) for group in groups for name in _rows(group)],
    )


def _rows(group: dict[str, Any]) -> Rows:
    return {name: row for name, row in group.items() if name != "value"}


def _bars(rows: Rows, title: str, file: str) -> None:
    names = [name for name in rows if name != "d"]
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(rows) + 0.9))
    for place, name in enumerate(reversed(names)):
        rate = rows[name]["tokens_per_s"]
        spans = [[rate["median"] - rate["low"]], [rate["high"] - rate["median"]]]
        colour = _OURS if name.startswith("c") else _THEIRS
        axes.barh(place, rate["median"], xerr=spans, color=colour, ecolor="black", capsize=3)
    axes.set_yticks(range(len(names)), [_NAMES[name].replace("`", "") for name in reversed(names)], fontsize=8)
    if "d" in rows:
        limit = rows["d"]["tokens_per_s"]["median"]
        axes.axvline(limit, color=_GREY, linestyle="--")
        axes.text(limit, len(names) - 0.45, "limit d", ha="right", fontsize=8, color=_GREY)
    axes.set_xlabel("real tokens/s; bars: median, whiskers: slowest and fastest round")
    axes.set_title(title, fontsize=10)
    _save(figure, axes, file)


def _curve(points: list[dict[str, Any]], label: str, file: str, names: dict[str, str]) -> None:
    figure, axes = plt.subplots(figsize=(6, 3))
    for name, text in names.items():
        there = [point for point in points if name in point]
        rates = [point[name]["tokens_per_s"] for point in there]
        errors = [[r["median"] - r["low"] for r in rates], [r["high"] - r["median"] for r in rates]]
        colour = _OURS if name in ("c", "with") else _THEIRS
        places, middles = [point["value"] for point in there], [r["median"] for r in rates]
        axes.errorbar(places, middles, yerr=errors, marker="o", capsize=3, label=text, color=colour)
    values = [point["value"] for point in points]
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("real tokens/s")
    axes.legend(fontsize=8)
    _save(figure, axes, file)


def _save(figure: Any, axes: Any, file: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    mpl.rcParams["svg.hashsalt"] = "submillion"  # the same results give the same file
    figure.savefig(DOCS / "benchmarks" / file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def page(machines: list[dict[str, Any]], accuracy: dict[str, Any], gpu: dict[str, Any]) -> str:
    """Return the page's text; machines: the last one first."""
    results = machines[0]
    by_section = {name: section["results"] for name, section in results.items()}
    n_rows = ((f"{point['value']:,}", shown(point["c"]["tokens_per_s"])) for point in by_section["rows"])
    parts = {
        "targets": _targets(machines),
        "machine": _machine(results),
        "training_roberta": _rates(by_section["training roberta-base"]),
        "training_minilm": _rates(by_section["training MiniLM"]),
        "prediction_roberta": _rates(by_section["prediction roberta-base"]),
        "prediction_minilm": _rates(by_section["prediction MiniLM"]),
        "exports": export.tables({_processor(each): each for each in machines}),
        "layers": _layers(by_section["layers"]),
        "batch": _points(by_section["batch"], "rows per batch"),
        "rows": table("| training rows | c, tokens/s: median [rounds] |", n_rows),
        "length": _points(by_section["length"], "tokens per text"),
        "reaching": _reached(by_section["reaching"]),
        "accuracy": _accuracy(accuracy),
        "gpu": _gpu(gpu),
    }
    text = Path(__file__).with_name("page.md").read_text()
    return text.format(**{name: "\n".join(lines) for name, lines in parts.items()})


def main() -> None:
    """Write the page and its charts."""
    machines = [*by_processor().values()]
    results = machines[0]
    by_section = {name: section["results"] for name, section in results.items()}
    _bars(by_section["training roberta-base"], "Training, roberta-base's size", "training-roberta.svg")
    _bars(by_section["training MiniLM"], "Training, MiniLM, all linear sites", "training-minilm.svg")
    _bars(by_section["prediction roberta-base"], "Prediction, roberta-base's size", "prediction.svg")
    both = {"b": "b. Trainer + PEFT, eager", "c": "c. Submillion"}
    _curve(by_section["batch"], "rows per batch", "batch.svg", both)
    _curve(by_section["length"], "tokens per text", "length.svg", both)
    _curve(by_section["layers"], "adapted layers", "layers.svg", {"without": "without prefix", "with": "with prefix"})
    (DOCS / "benchmarks.md").write_text(page(machines, kept("accuracy"), kept("gpu")))


if __name__ == "__main__":
    main()
