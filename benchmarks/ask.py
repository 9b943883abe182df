"""What the labels that `submillion ask` asks for are worth: `python -m benchmarks.ask simulate|know|learn [OUT]`.

simulate: how often the interval of the accuracy holds it, and how narrow it is compared with Wilson's for a plain
sample of as many rows, on rows whose truth is drawn: if confidence is right, too sure, or useless. know: the same on
the shifts of `shifts`. learn: accuracy after 60 more labels, those asked for to learn from or random ones, on four sets
with three seeds each. The latter two train all-MiniLM-L6-v2 in run folders under OUT, and resume when they are started
again; they need $SUBMILLION_AGNEWS, whose test file is not opened. All write results/ask.json.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import shifts
from benchmarks.material import MINILM
from benchmarks.results import keep, kept
from benchmarks.shift import AGNEWS, command, probs_of, shifts_of

SOURCES = ("tweets", "news", "amazon", "films", "agnews")
SIZES, N_DRAWS = (30, 60, 150), 200
N_ROWS = 1_000  # of a shift
# Of AG News' shifts, those that take longest to predict are left out.
_OF_AGNEWS = ("none", "priors 45 45 5 5", "last 8 words", "title missing", "another class's text behind")
SETS, SEEDS = ("tweets", "films", "amazon", "agnews"), (0, 1, 2)
N_START, N_MORE, N_POOL, N_TEST = 80, 60, 700, 800
_SETTINGS = {
    "data.validation": 20,
    "model.max_length": 64,
    "model.prefix": True,
    "adapter.layers": "top:2",
    "budget": 200_000,
    "train.steps": 50,
    "train.batch_size": 16,
    "train.evaluate_every": 50,
}


KINDS, ACCURACIES = ("right", "too sure", "useless"), (0.7, 0.9, 0.95, 0.99)
N_POPULATION, N_SIMULATED = 2_000, 400


def simulate() -> None:
    """Measure on rows whose truth is drawn."""
    from submillion.judging import sampling

    rows = []
    for kind in KINDS:
        for accuracy in ACCURACIES:
            drawn = [population(kind, accuracy, N_POPULATION, seed) for seed in range(N_SIMULATED)]
            for n in SIZES:
                scores, plain, truths = [], [], []
                for seed, (confidence, is_right) in enumerate(drawn):
                    design = sampling.design(confidence, n)
                    places = design.draw(seed)
                    scores.append(sampling.accuracy(confidence, design.stratum, places, is_right[places]))
                    plain.append(_plain(is_right, n, seed))
                    truths.append(float(is_right.mean()))
                facts = {"kind": kind, "accuracy": accuracy, "n": n}
                rows.append({**facts, **_summary("asked", scores, truths), **_summary("plain", plain, truths)})
            keep("ask", {**kept("ask"), "simulated": rows})
            print(kind, accuracy, file=sys.stderr, flush=True)


def population(kind: str, accuracy: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and truth of n rows; log-odds of being right are normal, with a standard deviation of 2.

    kind: confidence is right, too sure, or useless, that is, unrelated to the truth.
    """
    from scipy import optimize, special

    rng = np.random.default_rng(seed)
    spread = 2 * rng.normal(size=n)
    log_odds = spread + optimize.brentq(lambda shift: special.expit(spread + shift).mean() - accuracy, -20, 20)
    is_right = rng.random(n) < special.expit(log_odds)
    match kind:
        case "too sure":
            log_odds = 1.5 * log_odds + 1.5
        case "useless":
            log_odds = rng.permutation(log_odds)
    return np.clip(special.expit(log_odds), 1 / 3, 1), is_right


def trained(source: str, out: str) -> Any:
    """Return the run of a source of shifts, trained now if it was not: in 150 steps, except for tweets."""
    import json
    import subprocess

    from submillion import runs

    words = [*command(source, out), *([] if source == "tweets" else ["--set", "train.steps=150"])]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return runs.load(Path(json.loads(done.stdout)["run"]))


def known(run: Any, shift: shifts.Shift) -> list[dict[str, Any]]:
    """Return what labels say about a shift's accuracy, for each number of them, over many draws of the sample."""
    from submillion.judging import metrics, sampling

    probs = metrics.scaled(probs_of(run, shift), run.temperature())
    labels = np.array([run.labels().index(str(one.label)) for one in shift.rows])
    confidence, is_right, rows = probs.max(axis=1), probs.argmax(axis=1) == labels, []
    for n in SIZES:
        design, truth = sampling.design(confidence, n), float(is_right.mean())
        drawn = [design.draw(seed) for seed in range(N_DRAWS)]
        scores = [sampling.accuracy(confidence, design.stratum, each, is_right[each]) for each in drawn]
        plain = [_plain(is_right, n, seed) for seed in range(N_DRAWS)]
        rows.append(
            {
                "shift": shift.name,
                "source": shift.source,
                "n": n,
                "truth": truth,
                "expected": sampling.worth(confidence, n).half_width,
                "bias": float(np.mean([each.value for each in scores]) - truth),
                **_summary("asked", scores, [truth] * N_DRAWS),
                **_summary("plain", plain, [truth] * N_DRAWS),
            }
        )
    return rows


def _plain(is_right: np.ndarray, n: int, seed: int) -> Any:
    """Wilson's interval for rows drawn at random, at the number that they are worth in a finite file."""
    from submillion.judging.metrics import Score
    from submillion.judging.metrics.predictions import wilson_ends

    share = float(np.random.default_rng(seed).choice(is_right, n, replace=False).mean())
    return Score(share, *wilson_ends(share, n / (1 - n / len(is_right))), n)


def _summary(name: str, scores: list[Any], truths: list[float]) -> dict[str, float]:
    held = [each.low <= truth <= each.high for each, truth in zip(scores, truths, strict=True)]
    widths = [(each.high - each.low) / 2 for each in scores]
    return {f"{name} holds": float(np.mean(held)), f"{name} half-width": float(np.median(widths))}


def know(out: str, sources: tuple[str, ...]) -> None:
    """Measure what a sample's labels say, one source after the other."""
    shifts.N_ROWS = N_ROWS
    rows = [row for row in kept("ask").get("know", []) if row["source"] not in sources]
    for source in sources:
        run = trained(source, out)
        for shift in shifts_of(source, run):
            if source != "agnews" or shift.name in _OF_AGNEWS:
                rows += known(run, shift)
                print(f"{source}: {shift.name}", file=sys.stderr, flush=True)
        keep("ask", {**kept("ask"), "know": rows})


def learn(out: str) -> None:
    """Measure what 60 more labels add, asked for and random, set by set and seed by seed."""
    rows = kept("ask").get("learn", [])
    for seed in SEEDS:
        for name in SETS:
            if not any((row["set"], row["seed"]) == (name, seed) for row in rows):
                rows.append({"set": name, "seed": seed, **learned(name, seed, Path(out) / f"learn-{name}-{seed}")})
                keep("ask", {**kept("ask"), "learn": rows})
                print(rows[-1], file=sys.stderr, flush=True)


def learned(name: str, seed: int, folder: Path) -> dict[str, float]:
    """Return the accuracy of a run on 80 random labels, and of two that continue it with 60 more."""
    import submillion

    folder.mkdir(parents=True, exist_ok=True)
    start, pool, test = _parts(name, seed)
    _write(folder / "start.csv", start)
    _write(folder / "pool.csv", pool)
    overrides = {**_SETTINGS, "model.name": MINILM, "train.seed": seed}
    run = submillion.train(folder / "start.csv", as_trial=True, out=str(folder / "runs"), overrides=overrides)
    submillion.ask(run, folder / "pool.csv", N_MORE, "learn", output=folder / "asked.csv", seed=seed, force=True)
    with open(folder / "asked.csv", newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    by_id = {row["id"]: row for row in pool}
    chosen = {
        "asked": [by_id[row_id] for row_id in ids],
        "random": [pool[i] for i in np.random.default_rng(seed).choice(len(pool), N_MORE, replace=False)],
    }
    accuracies = {"start": _accuracy(run, test)}
    for kind, rows in chosen.items():
        _write(folder / f"{kind}-labelled.csv", rows)
        accuracies[kind] = _accuracy(
            submillion.train(start=run, data=folder / f"{kind}-labelled.csv", as_trial=True), test
        )
    return accuracies


def _parts(name: str, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]], list[dict[str, str]]]:
    """Rows of a set to start with, to ask about and to test on, drawn by the seed."""
    from submillion import data
    from submillion.config import DataConfig

    settings = DataConfig(text=("title", "description")) if name == "agnews" else DataConfig()
    labels = ("Business", "Sci/Tech", "Sports", "World") if name == "agnews" else shifts.SENTIMENTS
    examples = data.read_rows(AGNEWS if name == "agnews" else f"packaged:{name}", settings, labels)
    different = list({" ".join(one.text.lower().split()): one for one in examples}.values())
    drawn = np.random.default_rng(seed).permutation(len(different))[: N_START + N_POOL + N_TEST]
    rows = [{"id": f"r{i}", "text": different[i].text, "label": str(different[i].label)} for i in drawn]
    return rows[:N_START], rows[N_START : N_START + N_POOL], rows[N_START + N_POOL :]


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _accuracy(run: Any, rows: list[dict[str, str]]) -> float:
    import submillion

    return submillion.evaluate(run, rows)["accuracy"].value


def main() -> None:
    """Measure one of the three; `know` for the sources that are named, or for all."""
    match sys.argv[1:]:
        case ["simulate"]:
            simulate()
        case ["know", out, *sources]:
            know(out, tuple(sources) or SOURCES)
        case ["learn", out]:
            learn(out)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
