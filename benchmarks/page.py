"""docs/benchmarks.md and its charts, made of results/speed.json and results/accuracy.json: `python -m benchmarks.page`.

Nothing is measured here. Ratios are medians over rounds of the two contestants' rates in the same round.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
CHARTS = PAGE.parent / "benchmarks"
_OURS, _THEIRS, _GREY = "#1f6f8b", "#c8553d", "#8a8f98"
_NAMES = {
    "a": "a. Trainer + PEFT, fp32, padded to 128",
    "b eager": "b. Trainer + PEFT, bf16, dynamic padding, grouped by length, eager",
    "b sdpa": "b. Trainer + PEFT, bf16, dynamic padding, grouped by length, sdpa",
    "c": "c. Submillion",
    "c model.dropout 0": "c. Submillion, `model.dropout: 0`",
    "d": "d. limit: the frozen layers' products alone",
    "pipeline": "`transformers.pipeline`, bf16, batch 64, eager",
    "pipeline sdpa": "`transformers.pipeline`, bf16, batch 64, sdpa",
    "b": "b's model in `Trainer.predict`, bf16 autocast, batch 64, eager",
    "b sdpa predict": "b's model in `Trainer.predict`, bf16 autocast, batch 64, sdpa",
}


def ratios(rows: dict[str, Any], one: str, other: str) -> tuple[float, float, float]:
    """Return how many times as fast `one` is as `other`: median, lowest and highest round.

    >>> rows = {"x": {"rounds": [{"tokens": 4, "seconds": 1}]}, "y": {"rounds": [{"tokens": 2, "seconds": 1}]}}
    >>> ratios(rows, "x", "y")
    (2.0, 2.0, 2.0)
    """
    found = [
        (p["tokens"] / p["seconds"]) / (q["tokens"] / q["seconds"])
        for p, q in zip(rows[one]["rounds"], rows[other]["rounds"], strict=True)
    ]
    return statistics.median(found), min(found), max(found)


def best(rows: dict[str, Any], kind: str) -> str:
    """Return the faster of a kind's variants."""
    return max((name for name in rows if name.startswith(kind)), key=lambda name: rows[name]["tokens_per_s"]["median"])


def _ratio(rows: dict[str, Any], one: str, other: str) -> str:
    middle, low, high = ratios(rows, one, other)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _rates(rows: dict[str, Any]) -> list[str]:
    lines = ["| | real tokens/s: median [rounds] | c is × as fast | peak memory, MiB |", "|---|---|---|---|"]
    for name, row in rows.items():
        rate = row["tokens_per_s"]
        ratio = "" if name == "c" else _ratio(rows, "c", name)
        rates = f"{rate['median']:,.0f} [{rate['low']:,.0f}, {rate['high']:,.0f}]"
        lines.append(f"| {_NAMES[name]} | {rates} | {ratio} | {row['peak_mib']:,.0f} |")
    return lines


def _targets(results: dict[str, Any]) -> list[str]:
    """What was asked for, beside what was measured."""
    big, small = results["training roberta-base"]["results"], results["training MiniLM"]["results"]
    predicted = results["prediction roberta-base"]["results"]
    layers = {row["value"]: row for row in results["layers"]["results"]}
    b, small_b = best(big, "b "), best(small, "b ")
    rows = [
        ("c against a", "≥ 8 (aim 10)", _ratio(big, "c", "a")),
        ("c against b", "≥ 3 (aim 4)", _ratio(big, "c", b)),
        ("c against the limit d", "≥ 0.55 (aim 0.70)", _ratio(big, "c", "d")),
        ("MiniLM, all linear sites, c against b", "≥ 3 (aim 5)", _ratio(small, "c", small_b)),
        (
            "prediction, c against `transformers.pipeline`",
            "≥ 3 (aim 5)",
            _ratio(predicted, "c", best(predicted, "pip")),
        ),
        *(
            (f"prefix, second epoch, top {top} layers", asked, _ratio(layers[top], "with", "without"))
            for top, asked in ((8, "≥ 1.15 (limit 1.28)"), (4, "≥ 1.9 (limit 2.26)"))
        ),
        ("peak memory, c over b", "≤ 1.0 (aim 0.7)", f"{big['c']['peak_mib'] / big[b]['peak_mib']:.2f}"),
        ("tokens/s at 60,000 rows over 1,000", "flat or rising", _over(results["rows"]["results"], 1000, 60000)),
        ("tokens/s at batch 128 over 16", "flat or rising", _over(results["batch"]["results"], 16, 128)),
    ]
    return ["| | asked | measured: median [rounds] |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _over(points: list[dict[str, Any]], first: int, last: int) -> str:
    rate = {point["value"]: point["c"]["tokens_per_s"]["median"] for point in points}
    return f"{rate[last] / rate[first]:.2f}"


def _bars(rows: dict[str, Any], title: str, file: str) -> None:
    names = [name for name in rows if name != "d"]
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(rows) + 0.9))
    for place, name in enumerate(reversed(names)):
        rate = rows[name]["tokens_per_s"]
        spread = [[rate["median"] - rate["low"]], [rate["high"] - rate["median"]]]
        colour = _OURS if name.startswith("c") else _THEIRS
        axes.barh(place, rate["median"], xerr=spread, color=colour, ecolor="black", capsize=3)
    axes.set_yticks(range(len(names)), [_NAMES[name].replace("`", "") for name in reversed(names)], fontsize=8)
    if "d" in rows:
        axes.axvline(rows["d"]["tokens_per_s"]["median"], color=_GREY, linestyle="--")
        axes.text(
            rows["d"]["tokens_per_s"]["median"], len(names) - 0.45, "limit d", ha="right", fontsize=8, color=_GREY
        )
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
        places = [point["value"] for point in there]
        axes.errorbar(
            places, [r["median"] for r in rates], yerr=errors, marker="o", capsize=3, label=text, color=colour
        )
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
    CHARTS.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "submillion"  # the same results give the same file
    figure.savefig(CHARTS / file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _points(points: list[dict[str, Any]], label: str) -> list[str]:
    lines = [f"| {label} | b, tokens/s | c, tokens/s | c against b | c, MiB |", "|---|---|---|---|---|"]
    for point in points:
        rates = (f"{point[name]['tokens_per_s']['median']:,.0f}" for name in ("b", "c"))
        lines.append(
            f"| {point['value']:,} | {' | '.join(rates)} | {_ratio(point, 'c', 'b')} | {point['c']['peak_mib']:,.0f} |"
        )
    return lines


def _layers(points: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| adapted layers | without | with | with against without | built in | size |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        without = f"{point['without']['tokens_per_s']['median']:,.0f} tokens/s"
        if "with" not in point:
            lines.append(f"| {point['value']} (all) | {without} | no layer is frozen | | | |")
            continue
        row = point["with"]
        rate = f"{row['tokens_per_s']['median']:,.0f} tokens/s"
        built = f"{row['prefix_build_s']:.1f} s, 640 texts | {row['prefix_mib']:.0f} MiB"
        lines.append(f"| top {point['value']} | {without} | {rate} | {_ratio(point, 'with', 'without')} | {built} |")
    return lines


def _rows(points: list[dict[str, Any]]) -> list[str]:
    lines = ["| training rows | c, tokens/s: median [rounds] |", "|---|---|"]
    for point in points:
        rate = point["c"]["tokens_per_s"]
        lines.append(f"| {point['value']:,} | {rate['median']:,.0f} [{rate['low']:,.0f}, {rate['high']:,.0f}] |")
    return lines


def _reached(rounds: list[dict[str, Any]]) -> list[str]:
    lines = ["MiniLM, all linear sites, rank 20, batch 32, learning rate 5e-4, from the file on: reading, checking,"]
    lines += ["tokenising, loading, training, evaluating 1,000 rows every 50 steps. Same rows, recipe and seed.", ""]
    lines += ["| seed | b | c | c against b |", "|---|---|---|---|"]
    for each in rounds:
        cells = (f"{each[n]['seconds']:.0f} s, {each[n]['steps']} steps, {each[n]['accuracy']:.3f}" for n in ("b", "c"))
        lines.append(
            f"| {each['c']['seed']} | {' | '.join(cells)} | {each['b']['seconds'] / each['c']['seconds']:.1f} |"
        )
    return lines


def _accuracy(found: dict[str, Any]) -> list[str]:
    n_rows = next(iter(found["comparisons"].values()))["n_rows"]
    lines = [f"MiniLM on AG News, {found['n_steps']} steps of 32, {len(found['seeds'])} seeds a setting, {n_rows:,}"]
    lines += [
        f"validation rows, the last checkpoint; threads: {found['machine']['threads']}. Compared over seeds and rows: "
        "[how](comparison.md).",
        "",
    ]
    lines += ["| setting | seeds | accuracy, mean | training s |", "|---|---|---|---|"]
    for compared in found["comparisons"].values():
        for setting in compared["settings"]:
            score = setting["scores"]["accuracy"]
            row = f"| {setting['setting']} | {setting['n_seeds']} | {score['value']:.4f} [{score['low']:.4f}, "
            lines.append(row + f"{score['high']:.4f}] | {setting['training_s']:,.0f} |")
        for pair in compared["against_best"]:
            each = pair["differences"]["accuracy"]
            verdict = "a tie" if pair["is_tied"] else "a difference"
            interval = f"{each['value']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
            text = f"difference {interval}, p {each['p']:.2f}: {verdict}"
            lines.append(f"| ↳ {pair['setting']} minus the one above | | {text} | |")
    return lines


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


def page(results: dict[str, Any], accuracy: dict[str, Any] | None) -> str:
    """Return the page's text."""
    found = {name: section["results"] for name, section in results.items()}
    parts = [
        (Path(__file__).with_name("page.md")).read_text().rstrip(),
        *("", "## What was asked for, and what was measured", "", *_targets(results)),
        *("", *_machine(results)),
        *("", "## A training step, roberta-base's size", ""),
        *("Value projections, rank 22, batch 16, dropout 0.1 in the model and in the adapters.", ""),
        *("![training, roberta-base](benchmarks/training-roberta.svg)", "", *_rates(found["training roberta-base"])),
        *("", "## A training step, MiniLM", "", "All linear sites, rank 20, batch 32, dropout 0.1 in both.", ""),
        *("![training, MiniLM](benchmarks/training-minilm.svg)", "", *_rates(found["training MiniLM"])),
        *("", "## Prediction", "", "roberta-base's size, tokenising included:", ""),
        *("![prediction](benchmarks/prediction.svg)", "", *_rates(found["prediction roberta-base"])),
        *("", "MiniLM, adapters on all linear sites, which the pipeline has merged and c has not:", ""),
        *_rates(found["prediction MiniLM"]),
        *("", "## Fewer layers, and the prefix", "", "roberta-base's size, second epoch.", ""),
        *("![layers](benchmarks/layers.svg)", "", *_layers(found["layers"])),
        *("", "## Against batch size, length and rows", "", "roberta-base's size. Batches of AG News' lengths:", ""),
        *("![batch](benchmarks/batch.svg)", "", *_points(found["batch"], "rows a batch")),
        *("", "Batches of 16 from splits of different sizes:", "", *_rows(found["rows"])),
    ]
    if "length" in found:
        parts += ["", "Batches of 8 texts of one length:", ""]
        parts += ["![length](benchmarks/length.svg)", "", *_points(found["length"], "tokens a text")]
    if found.get("reaching"):
        parts += ["", "## Time to validation accuracy 0.90 on AG News", "", *_reached(found["reaching"])]
    if accuracy:
        parts += ["", "## What it costs in accuracy", "", *_accuracy(accuracy)]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the page and its charts."""
    results = json.loads((FOLDER / "speed.json").read_text())
    accuracy = FOLDER / "accuracy.json"
    found = {name: section["results"] for name, section in results.items()}
    _bars(found["training roberta-base"], "Training, roberta-base's size", "training-roberta.svg")
    _bars(found["training MiniLM"], "Training, MiniLM, all linear sites", "training-minilm.svg")
    _bars(found["prediction roberta-base"], "Prediction, roberta-base's size", "prediction.svg")
    both = {"b": "b. Trainer + PEFT, eager", "c": "c. Submillion"}
    _curve(found["batch"], "rows a batch", "batch.svg", both)
    if "length" in found:
        _curve(found["length"], "tokens a text", "length.svg", both)
    _curve(found["layers"], "adapted layers", "layers.svg", {"without": "without prefix", "with": "with prefix"})
    PAGE.write_text(page(results, json.loads(accuracy.read_text()) if accuracy.exists() else None))


if __name__ == "__main__":
    main()
