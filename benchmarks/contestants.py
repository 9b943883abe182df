"""One contestant in a process of its own: it does a round of work on request, and says how long that took.

So several contestants can be timed in turn, and their memory measured apart. `Contestant` is this end of it, `kinds`
the other one. Also here: what a `Spec` means, for Submillion and for plain transformers and PEFT.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Literal

Kind = Literal[
    *("trainer", "submillion", "limit"),
    *("pipeline", "trainer-predict", "submillion-predict"),
    *("trainer-reach", "submillion-reach"),
]


@dataclass(frozen=True)
class Spec:
    """What a contestant does. `sites` and `layers` as in the config's adapter section.

    device: None = the best there is · precision: of the Trainer's autocast, too · compiled: by torch.compile,
    for any shape · batch_size: of training, or of prediction · padded: the Trainer pads every text to 128, Submillion
    takes the stock padded pass · length: of all texts, in tokens, None = AG News' lengths · dropout: of the
    adapters · model_dropout: None = the checkpoint's 0.1 · attention: the stock model's · prefix: no dropout in the
    frozen layers, whose output is computed in every step, or kept.
    """

    kind: Kind
    encoder: str
    sites: str = "value"
    rank: int = 22
    layers: str | None = None
    batch_size: int = 16
    device: Literal["cpu", "cuda"] | None = None
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "bf16"
    attention: Literal["eager", "sdpa"] = "eager"
    compiled: bool = False
    padded: bool = False
    dropout: float = 0.1
    model_dropout: float | None = None
    n_rows: int = 4000
    length: int | None = None
    prefix: Literal["computed", "kept"] | None = None


class ContestantError(Exception):
    """A contestant failed, or did not answer in time: the text says which."""


class Contestant:
    """A contestant's process, which gets ready on its own."""

    def __init__(self, spec: Spec) -> None:
        command = [sys.executable, "-m", "benchmarks.kinds", json.dumps(asdict(spec))]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        environment["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # nothing that another run left is found
        if not spec.kind.startswith("submillion"):
            environment.setdefault("GOMP_SPINCOUNT", "300000")  # libgomp's own, which `import submillion` would change
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        self._began = time.perf_counter()
        self._answers: Queue[dict[str, Any]] = Queue()
        Thread(target=self._read, daemon=True).start()
        self.spec = spec

    def round(self, n_steps: int) -> dict[str, Any]:
        """Return what a round of work took: seconds, tokens (real ones), rows, and the most memory held so far."""
        self.ask(n_steps)
        return self.answer()

    def ask(self, n_steps: int) -> None:
        """Begin a round; each needs its `answer`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer says why
            self._process.stdin.write(f"{n_steps}\n".encode())
            self._process.stdin.flush()

    def answer(self, until: float | None = None) -> dict[str, Any]:
        """Return the next answer; the first one says that the work can begin.

        ContestantError if it failed, or there is none before `until`, by time.perf_counter.
        """
        try:
            answer = self._answers.get(timeout=None if until is None else max(0.0, until - time.perf_counter()))
        except Empty:
            raise ContestantError(f"not done within the time there was, {until - self._began:.0f} s") from None
        if "failed" in answer:
            raise ContestantError(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process, and those that it started: torch.compile's would continue compiling."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b'{"'):
                self._answers.put(json.loads(line))
        self._answers.put({"failed": f"its process ended with {self._process.wait()}"})


@contextmanager
def started(specs: dict[str, Spec]) -> Iterator[dict[str, Contestant]]:
    """Give the contestants, whose processes start all at once, and end with the block."""
    contestants = {name: Contestant(spec) for name, spec in specs.items()}
    try:
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.close()


def place(spec: Spec) -> Any:
    """Return the torch.device that a contestant works on; ConfigError if there is none, or it lacks the precision."""
    from submillion.model import backbone, precisions

    device = backbone.choose_device(spec.device)
    precisions.choose_precision(spec.precision, device)
    return device


def settings(spec: Spec) -> Any:
    """Return the Submillion config of a contestant."""
    from submillion.config import validate

    model = {"name": spec.encoder, "dropout": spec.model_dropout, "prefix": spec.prefix is not None}
    adapter = {"sites": spec.sites, "rank": spec.rank, "layers": spec.layers, "dropout": spec.dropout}
    train = {"batch_size": spec.batch_size, "steps": 100_000, "checkpoint_every": 100_000, "precision": spec.precision}
    return validate({"budget": 100_000_000, "model": model, "adapter": adapter, "train": train})


def classifier(spec: Spec) -> Any:
    """Return Submillion's classifier, as `submillion train` builds it."""
    from benchmarks.material import LABELS
    from submillion import planning
    from submillion.model.classifier import Classifier

    config = settings(spec)
    plan = planning.plan(config, len(LABELS))
    built = Classifier.build(config, plan, LABELS, 100_000, spec.precision, place(spec))
    built.packed = built.packed and not spec.padded
    return built


def records(spec: Spec, model: Any, split: Any) -> Any:
    """Return the steps of `loop.fit`, as `submillion train` calls it."""
    from benchmarks.material import rows
    from submillion.training import loop, losses, steps
    from submillion.training.checkpoints import Checkpoints

    train, validation = settings(spec).train, rows(1, 1)
    length = steps.length(train, split.lengths, len(validation))
    checkpoints = Checkpoints(Path(tempfile.mkdtemp()))

    def loss(logits: Any, batch: Any) -> Any:
        return losses.supervised(logits, batch.label_ids, 0.0, None)

    return loop.fit(loop.Job(model, split, validation, train, length, loss, checkpoints, time.perf_counter()))


def stock(spec: Spec) -> Any:
    """Return the same model as plain transformers and PEFT make it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from benchmarks.material import LABELS
    from submillion import planning
    from submillion.planning import architectures
    from submillion.planning.architectures import files

    config = AutoConfig.from_pretrained(files.folder(spec.encoder), num_labels=len(LABELS))
    if spec.model_dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = spec.model_dropout
    config.problem_type = "single_label_classification"  # else the first batch sets it, and all is compiled twice
    model = AutoModelForSequenceClassification.from_pretrained(
        files.folder(spec.encoder), config=config, attn_implementation=spec.attention
    )
    plan = planning.plan(settings(spec), len(LABELS))
    lora = LoraConfig(
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        lora_dropout=spec.dropout,
        target_modules=[target.module for target in plan.targets],
        modules_to_save=list(architectures.head_modules(plan.architecture)),
        task_type="SEQ_CLS",
    )
    return get_peft_model(model, lora)
