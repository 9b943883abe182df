"""Submillion against what people use today, and against the processor's limit: `make bench`.

Contestants are processes of their own, except exports, that work in turn, round by round, since a machine's speed
drifts: only what was measured in one run is compared. `python -m benchmarks.speed [SECTION ...]` measures the sections
named, or all of the processor's, into results/speed/<processor>.json; `python -m benchmarks.page` makes
docs/benchmarks.md from it. It needs a quiet machine. `python -m benchmarks.speed gpu` measures those of the graphics
card into results/gpu.json, in about 4 minutes or in `--seconds`. `--folder` names another folder for the files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import export
from benchmarks.contestants import Contestant, ContestantError, Spec, started
from benchmarks.material import minilm, random_encoder, roberta_base
from benchmarks.results import FOLDER, here, keep, kept, measured, spread
from submillion.config import Precision
from submillion.model import precisions

Rows = dict[str, dict[str, Any]]
_FEW_STEPS = 5
_WARM_SHARE = 0.6  # of a limited time; a contestant that is not warm by then is left out
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 10
MPNET = os.environ.get("SUBMILLION_MPNET", "")  # the folder of an encoder
_HAS_GPU = torch.cuda.is_available()
_CYCLE = 50  # batches in which the Trainer's grouping by length goes once from long to short


def compare(
    specs: dict[str, Spec],
    n_steps: dict[str, int] | int,
    n_rounds: int,
    n_warm: dict[str, int] | int | None = None,
    seconds: float | None = None,
) -> Rows:
    """Return for each contestant real tokens/s (median, lowest, highest round), rows/s, peak memory, and the rounds.

    All are warmed up by one round, or by `n_warm` steps; then each round is one turn of every contestant. `n_steps`
    per round may differ. With `seconds`, they are warmed up all at once, since compiling takes long and little of the
    device; those that are not ready in time, or fail, are left out, with the reason; there are as many rounds as there
    is time for, at least 3.
    """
    steps = n_steps if isinstance(n_steps, dict) else dict.fromkeys(specs, n_steps)
    if not isinstance(n_warm, dict):
        n_warm = {name: steps[name] if n_warm is None or spec.padded else n_warm for name, spec in specs.items()}
    start = time.perf_counter()
    with started(specs) as contestants:
        answers, left_out = _warmed_up(contestants, n_warm, None if seconds is None else start + _WARM_SHARE * seconds)
        for number in range(1, n_rounds + 1):
            began = time.perf_counter()
            for name in [name for name in specs if name not in left_out]:
                with _leaving_out(left_out, name, contestants[name], seconds):
                    contestants[name].ask(steps[name])
                    answers[name].append(contestants[name].answer(None if seconds is None else start + 2 * seconds))
            print(f"    round {number} of {n_rounds}", file=sys.stderr, flush=True)
            next_end = 2 * time.perf_counter() - began
            if seconds is not None and number >= _FEWEST_ROUNDS and next_end > start + seconds:
                break
    return {name: {"left_out": left_out[name]} if name in left_out else summary(answers[name]) for name in specs}


def _warmed_up(
    contestants: dict[str, Contestant], n_steps: dict[str, int], until: float | None
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """What the contestants answered when they were ready and when they were warm, and why some never were."""
    answers: dict[str, list[dict[str, Any]]] = {}
    left_out: dict[str, str] = {}
    if until is not None:
        for name, contestant in contestants.items():
            contestant.ask(n_steps[name])
    for name, contestant in contestants.items():
        with _leaving_out(left_out, name, contestant, until):
            ready = contestant.answer(until)
            if until is None:
                contestant.ask(n_steps[name])
            answers[name] = [ready, contestant.answer(until)]
            print(f"    {name} is warm after {answers[name][1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    return answers, left_out


@contextmanager
def _leaving_out(left_out: dict[str, str], name: str, contestant: Contestant, limit: float | None) -> Iterator[None]:
    """If time is limited, end a contestant that fails, and note why."""
    try:
        yield
    except ContestantError as error:
        if limit is None:
            raise
        left_out[name] = str(error)
        contestant.close()
        print(f"    {name} is left out: {error}", file=sys.stderr, flush=True)


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of a contestant's answers: that it is ready, that it is warm, and its rounds."""
    ready, warm, *rounds = answers
    extra = {key: ready[key] for key in ("prefix_build_s", "prefix_mib") if ready.get(key)}
    extra |= {key: rounds[-1][key] for key in ("gpu_mib", "gpu_reserved_mib") if key in rounds[-1]}
    return {
        "tokens_per_s": spread(answer["tokens"] / answer["seconds"] for answer in rounds),
        "rows_per_s": statistics.median(answer["rows"] / answer["seconds"] for answer in rounds),
        "warm_s": warm["seconds"],
        "peak_mib": rounds[-1]["peak_mib"],
        **extra,
        "rounds": [{key: answer[key] for key in ("seconds", "tokens", "rows")} for answer in rounds],
    }


def compare_groups(groups: dict[Any, dict[str, Spec]], n_steps: int, seconds: float) -> list[dict[str, Any]]:
    """Return the rows of several groups of contestants, all of which work in the same turns."""
    specs = {f"{value} {name}": spec for value, group in groups.items() for name, spec in group.items()}
    # Texts that are all padded to one length need no whole cycle of lengths.
    steps = {name: -(-n_steps // 4) if spec.padded else n_steps for name, spec in specs.items()}
    # c records a graph for each new number of rows, in whatever order they come; a compiled b sees a whole cycle.
    warm = {name: 4 * n_steps if spec.kind == "submillion" else _FEW_STEPS for name, spec in specs.items()}
    warm |= {name: n_steps for name, spec in specs.items() if spec.compiled}
    rows = compare(specs, steps, _MOST_ROUNDS, warm, seconds)
    return [{"value": value, **{name: rows[f"{value} {name}"] for name in group}} for value, group in groups.items()]


def training(base: Spec, n_steps: int, n_slow: int) -> Rows:
    """Return the contestants of a training step: a, b with both attentions, c, c in int8 and without dropout, d."""
    trainer = replace(base, kind="trainer")
    specs = {
        "a": replace(trainer, precision="fp32", padded=True, attention="sdpa"),
        "b eager": trainer,
        "b sdpa": replace(trainer, attention="sdpa"),
        "c": base,
        "c int8": replace(base, precision="int8"),
        "c model.dropout 0": replace(base, model_dropout=0.0),
        "d": replace(base, kind="limit"),
    }
    # After a whole cycle no length is new.
    return compare(specs, dict.fromkeys(specs, n_steps) | {"a": n_slow}, 5, n_warm=_CYCLE)


def prediction(base: Spec, n_batches: int) -> Rows:
    """Return the contestants of prediction, batches of 64 texts, tokenising included."""
    kinds = {"pipeline": "pipeline", "b": "trainer-predict", "c": "submillion-predict"}
    specs = {name: replace(base, kind=kind, batch_size=64) for name, kind in kinds.items()}
    specs["c"] = replace(specs["c"], batch_size=128)
    specs["c int8"] = replace(specs["c"], precision="int8")
    specs["pipeline sdpa"] = replace(specs["pipeline"], attention="sdpa")
    specs["b sdpa predict"] = replace(specs["b"], attention="sdpa")
    return compare(specs, n_batches, 5)


def gpu_training(base: Spec, n_steps: int, seconds: float) -> Any:
    """Return the contestants of a training step on a graphics card, for each batch size."""
    groups = {}
    for size in (16, 32, 128) if _HAS_GPU else (16,):
        spec = replace(base, batch_size=size, n_rows=_CYCLE * 4 * 128)
        trainer = replace(spec, kind="trainer", attention="sdpa")
        groups[size] = {
            "a fp16": replace(trainer, precision="fp16", padded=True),
            "b sdpa": trainer,
            "b compiled": replace(trainer, compiled=True),
            "c": spec,
            "d": replace(spec, kind="limit"),
        }
    return compare_groups(groups, n_steps, seconds)


def gpu_prediction(bases: dict[str, Spec], n_batches: int, seconds: float) -> Any:
    """Return the contestants of prediction on a graphics card, tokenising included, for each encoder."""
    groups = {}
    for encoder, base in bases.items():
        spec = replace(base, attention="sdpa")
        pipelines = {f"pipeline {n}": replace(spec, kind="pipeline", batch_size=n) for n in (16, 64, 256)}
        trainer = {"b predict 256": replace(spec, kind="trainer-predict", batch_size=256)}
        ours = {f"c {n}": replace(spec, kind="submillion-predict", batch_size=n) for n in (128, 512)}
        groups[encoder] = pipelines | trainer | ours
    return compare_groups(groups, n_batches, seconds)


def gpu_compiling(bases: dict[str, Spec], seconds: float) -> Any:
    """Return what the first step of b costs with an empty cache of torch.compile, for each encoder.

    The sections that follow find it filled.
    """
    spec = {"kind": "trainer", "attention": "sdpa", "compiled": True}
    return compare_groups({name: {"b compiled": replace(base, **spec)} for name, base in bases.items()}, 1, seconds)


def over(values: list[Any], change: Callable[[Spec, Any], Spec], base: Spec, n_steps: Callable[[Any], int]) -> Any:
    """Return b and c for each value of a setting."""
    points = []
    for value in values:
        spec = change(base, value)
        specs = {"b": replace(spec, kind="trainer"), "c": spec}
        points.append({"value": value, **compare(specs, n_steps(value), 5)})
    return points


def layers(base: Spec) -> Any:
    """Return c with 12, 8 and 4 layers adapted, without the prefix and with it (its second epoch)."""
    points = []
    for top in (12, 8, 4):
        spec = replace(base, layers=f"top:{top}", n_rows=640)
        computed, kept = replace(spec, prefix="computed"), replace(spec, prefix="kept")
        specs = {"without": spec} if top == 12 else {"without": computed, "with": kept}
        points.append({"value": top, **compare(specs, 6, 7)})
    return points


def row_counts(base: Spec) -> Any:
    """Return c on splits of 1,000 to 60,000 rows, in turn."""
    rows = compare({str(n): replace(base, n_rows=n) for n in (1000, 8000, 60000)}, 8, 7)
    return [{"value": int(n), "c": row} for n, row in rows.items()]


def reaching(base: Spec) -> Any:
    """Return the time from AG News' file to validation accuracy 0.90 for b and c, one seed; None without it."""
    if "SUBMILLION_AGNEWS" not in os.environ:
        return None
    spec = replace(base, dropout=0.0)
    specs = {"b": replace(spec, kind="trainer-reach"), "c": replace(spec, kind="submillion-reach")}
    with started(specs) as contestants:
        for each in contestants.values():
            each.answer()
        return [{name: each.round(0) for name, each in contestants.items()}]


def padded(base: Spec) -> Any:
    """Return b with its attentions, and c by its packed pass and by the padded one, for newer encoders."""
    points = []
    for family, attentions in (
        ("modernbert", ("eager", "sdpa")),
        ("deberta-v2", ("eager",)),
        ("albert", ("eager", "sdpa")),
    ):
        with tempfile.TemporaryDirectory() as folder:
            spec = replace(base, encoder=str(random_encoder(family, Path(folder))), sites="qkv", rank=8)
            trainer = replace(spec, kind="trainer")
            specs = {f"b {attention}": replace(trainer, attention=attention) for attention in attentions}
            specs |= {"c": spec, "c padded": replace(spec, padded=True)}
            points.append({"value": family, **compare(specs, 4, 5, n_warm=12)})
    return points


def gpu_sections(roberta: str, small: str) -> dict[str, tuple[float, Callable[[float], Any]]]:
    """Return what can be measured on a graphics card, by name: the seconds it needs, and what measures it within some.

    On a CPU rounds have two steps, and there is one batch size: only a trial of what would be done.
    """
    n_steps = _CYCLE if _HAS_GPU else 2
    both = {
        "roberta-base": Spec("submillion", roberta),
        "MiniLM": Spec("submillion", small, sites="all-linear", rank=20),
    }
    return {
        "gpu compiling": (80, lambda seconds: gpu_compiling(both, seconds)),
        "gpu training roberta-base": (75, lambda seconds: gpu_training(both["roberta-base"], n_steps, seconds)),
        "gpu training MiniLM": (50, lambda seconds: gpu_training(both["MiniLM"], n_steps, seconds)),
        "gpu prediction": (40, lambda seconds: gpu_prediction(both, n_steps // 2, seconds)),
    }


def sections(roberta: str, small: str) -> dict[str, Callable[[], Any]]:
    """Return what can be measured on the processor, by name."""
    usual = usual_precision()
    base = Spec("submillion", roberta, device="cpu", precision=usual)
    minilm = Spec("submillion", small, sites="all-linear", rank=20, batch_size=32, device="cpu", precision=usual)
    return {
        "training roberta-base": lambda: training(base, 6, 2),
        "training MiniLM": lambda: training(minilm, 12, 4),
        "prediction roberta-base": lambda: prediction(base, 4),
        "prediction MiniLM": lambda: prediction(minilm, 16),
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
        **{
            f"exports {name}": lambda encoder=encoder: export.measure(encoder, usual, 5)
            for name, encoder in (("MiniLM", small), ("all-mpnet-base-v2", MPNET))
            if encoder and find_spec("onnxruntime")
        },
        "padded": lambda: padded(base),
        "reaching": lambda: reaching(minilm),
    }


def usual_precision() -> Precision:
    """Return the precision that is faster on this processor, int8 aside: that of all contestants but a."""
    return precisions.choose_precision(None, torch.device("cpu"))[0]


def measure(
    chosen: list[str], known: dict[str, Callable[[], Any]], gpu: dict[str, Any], seconds: float | None, folder: Path
) -> None:
    """Measure sections by name, those of the graphics card in about `seconds`; write each when it is done."""
    needed = sum(gpu[name][0] for name in chosen if name in gpu)
    for name in chosen:
        started = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        if name in gpu:
            results = gpu[name][1](gpu[name][0] * (1 if seconds is None else seconds / needed))
        else:
            results = known[name]()
        file = "gpu" if name in gpu else f"speed/{here()}"
        facts = {} if name in gpu else {"precision": usual_precision()}
        section = measured(results, took_s=round(time.perf_counter() - started), **facts)
        keep(file, {**kept(file, folder), name: section}, folder)


def main() -> None:
    """Measure what the command line names."""
    with tempfile.TemporaryDirectory() as place:
        encoders = str(roberta_base(Path(place) / "roberta-base")), minilm(Path(place) / "MiniLM")
        known, gpu = sections(*encoders), gpu_sections(*encoders)
        names = ", ".join([*known, "gpu", *gpu])
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("section", nargs="*", help=f"of {names}; all of the processor's if none is named")
        parser.add_argument("--seconds", type=float, help="for all named sections of the graphics card")
        parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
        arguments = parser.parse_args()
        wanted = arguments.section or list(known)
        chosen = [name for each in wanted for name in (gpu if each == "gpu" else [each])]
        if unknown := set(chosen) - {*known, *gpu}:
            parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed are {names}")
        measure(chosen, known, gpu, arguments.seconds, arguments.folder)


if __name__ == "__main__":
    main()
