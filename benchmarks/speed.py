"""Submillion beside what people use today, and beside the processor's limit: `make bench`.

Contestants are processes of their own that work in turn, round by round, since a machine's speed drifts: only what
was measured in one run is compared. `python -m benchmarks.speed [SECTION ...]` measures the sections named, or all,
into results/speed.json; `python -m benchmarks.page` makes docs/benchmarks.md of it. A quiet machine is wanted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant, Spec, in_turn
from benchmarks.material import MINILM, random_encoder, roberta_base
from benchmarks.results import keep, kept, measured, spread

Rows = dict[str, dict[str, Any]]


def compare(specs: dict[str, Spec], n_steps: dict[str, int] | int, n_rounds: int, n_warm: int | None = None) -> Rows:
    """Return for each contestant real tokens/s (median, lowest, highest round), rows/s, peak memory, and the rounds.

    All are warmed up by one round, or by `n_warm` steps; then each round is one turn of every contestant. `n_steps` a
    round may differ.
    """
    steps = n_steps if isinstance(n_steps, dict) else dict.fromkeys(specs, n_steps)

    def work(contestants: dict[str, Contestant]) -> Rows:
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in specs}
        for number in range(n_rounds + 1):
            for name, contestant in contestants.items():
                is_varied = n_warm is not None and number == 0 and not contestant.spec.padded
                answers[name].append(contestant.round(n_warm if is_varied and n_warm else steps[name]))
            print(f"    round {number} of {n_rounds}", file=sys.stderr, flush=True)
        return {name: summary(rounds[1:]) | _extra(contestants[name]) for name, rounds in answers.items()}

    return in_turn(specs, work)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a contestant's rounds come to."""
    return {
        "tokens_per_s": spread(answer["tokens"] / answer["seconds"] for answer in rounds),
        "rows_per_s": statistics.median(answer["rows"] / answer["seconds"] for answer in rounds),
        "peak_mib": rounds[-1]["peak_mib"],
        "rounds": [{key: answer[key] for key in ("seconds", "tokens", "rows")} for answer in rounds],
    }


def _extra(contestant: Contestant) -> dict[str, Any]:
    keys = ("prefix_build_s", "prefix_mib")
    return {key: contestant.ready[key] for key in keys if contestant.ready.get(key)}


def training(base: Spec, n_steps: int, n_slow: int) -> Rows:
    """Return the contestants of a training step: a, b with both attentions, c, c without the model's dropout, d."""
    trainer = replace(base, kind="trainer")
    specs = {
        "a": replace(trainer, precision="fp32", padded=True, attention="sdpa"),
        "b eager": trainer,
        "b sdpa": replace(trainer, attention="sdpa"),
        "c": base,
        "c model.dropout 0": replace(base, model_dropout=0.0),
        "d": replace(base, kind="limit"),
    }
    # Grouping by length goes through 50 batches from long to short: after them no length is new.
    return compare(specs, dict.fromkeys(specs, n_steps) | {"a": n_slow}, 5, n_warm=50)


def prediction(base: Spec, n_batches: int) -> Rows:
    """Return the contestants of prediction, batches of 64 texts, tokenising included."""
    kinds = {"pipeline": "pipeline", "b": "trainer-predict", "c": "submillion-predict"}
    specs = {name: replace(base, kind=kind) for name, kind in kinds.items()}
    specs["pipeline sdpa"] = replace(specs["pipeline"], attention="sdpa")
    specs["b sdpa predict"] = replace(specs["b"], attention="sdpa")
    return compare(specs, n_batches, 5)


def over(values: list[Any], change: Callable[[Spec, Any], Spec], base: Spec, n_steps: Callable[[Any], int]) -> Any:
    """Return b and c for each value of a setting."""
    found = []
    for value in values:
        spec = change(base, value)
        specs = {"b": replace(spec, kind="trainer"), "c": spec}
        found.append({"value": value, **compare(specs, n_steps(value), 5)})
    return found


def layers(base: Spec) -> Any:
    """Return c with 12, 8 and 4 layers adapted, without the prefix and with it (its second epoch)."""
    found = []
    for top in (12, 8, 4):
        spec = replace(base, layers=f"top:{top}", n_rows=640)
        computed, kept = replace(spec, prefix="computed"), replace(spec, prefix="kept")
        specs = {"without": spec} if top == 12 else {"without": computed, "with": kept}
        found.append({"value": top, **compare(specs, 6, 7)})
    return found


def row_counts(base: Spec) -> Any:
    """Return c on splits of 1,000 to 60,000 rows, in turn."""
    found = compare({str(n): replace(base, n_rows=n) for n in (1000, 8000, 60000)}, 8, 7)
    return [{"value": int(n), "c": row} for n, row in found.items()]


def reaching(base: Spec) -> Any:
    """Return the time from AG News' file to validation accuracy 0.90 for b and c, one seed; None without it."""
    if "SUBMILLION_AGNEWS" not in os.environ:
        return None
    spec = replace(base, dropout=0.0)
    specs = {"b": replace(spec, kind="trainer-reach"), "c": replace(spec, kind="submillion-reach")}
    return in_turn(specs, lambda contestants: [{name: each.round(0) for name, each in contestants.items()}])


def padded(base: Spec) -> Any:
    """Return b with both attentions, and c, for encoders that the packed pass does not know."""
    found = []
    for family, attentions in (("modernbert", ("eager", "sdpa")), ("deberta-v2", ("eager",))):
        with tempfile.TemporaryDirectory() as folder:
            spec = replace(base, encoder=str(random_encoder(family, Path(folder))), sites="qkv", rank=8)
            trainer = replace(spec, kind="trainer")
            specs = {f"b {attention}": replace(trainer, attention=attention) for attention in attentions}
            found.append({"value": family, **compare({**specs, "c": spec}, 4, 5)})
    return found


def sections(roberta: str) -> dict[str, Callable[[], Any]]:
    """Return what can be measured, by name."""
    base = Spec("submillion", roberta)
    small = Spec("submillion", MINILM, sites="all-linear", rank=20, batch_size=32)
    return {
        "training roberta-base": lambda: training(base, 6, 2),
        "training MiniLM": lambda: training(small, 12, 4),
        "prediction roberta-base": lambda: prediction(base, 4),
        "prediction MiniLM": lambda: prediction(small, 16),
        "layers": lambda: layers(base),
        "rows": lambda: row_counts(base),
        "batch": lambda: over(
            [8, 16, 32, 64, 128], lambda s, n: replace(s, batch_size=n), base, lambda n: 64 // n or 1
        ),
        "length": lambda: over(
            [32, 64, 128, 256, 512],
            lambda s, n: replace(s, length=n, n_rows=400, batch_size=8),
            base,
            lambda n: 256 // n or 1,
        ),
        "padded": lambda: padded(base),
        "reaching": lambda: reaching(small),
    }


def main() -> None:
    """Measure the sections named on the command line, or all; each is written when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        known = sections(str(roberta_base(Path(folder) / "roberta-base")))
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("section", nargs="*", help=f"of {', '.join(known)}; all if none is named")
        chosen = parser.parse_args().section or list(known)
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed are {', '.join(known)}")
        results = kept("speed")
        for name in chosen:
            started = time.perf_counter()
            print(f"{name} ...", file=sys.stderr, flush=True)
            found = known[name]()
            results[name] = measured(found, took_s=round(time.perf_counter() - started))
            keep("speed", results)


if __name__ == "__main__":
    main()
