"""One contestant in a process of its own: it does a round of work when told to, and says how long that took.

`python -m benchmarks.contestants SPEC` reads a number of steps a line and answers with a line of JSON, so that
several contestants can be timed in turn and the memory of each be told apart. `Contestant` is the other end.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    *("trainer", "submillion", "limit"),
    *("pipeline", "trainer-predict", "submillion-predict"),
    *("trainer-reach", "submillion-reach"),
]


@dataclass(frozen=True)
class Spec:
    """What a contestant does. `sites` and `layers` as in the config's adapter section.

    padded: the Trainer pads every text to 128 · length: all texts have so many tokens, None = AG News' lengths ·
    dropout: of the adapters · model_dropout: None = the checkpoint's 0.1 · attention: the stock model's · prefix: no
    dropout in the frozen layers, whose output is computed in every step, or kept.
    """

    kind: Kind
    encoder: str
    sites: str = "value"
    rank: int = 22
    layers: str | None = None
    batch_size: int = 16
    precision: Literal["fp32", "bf16"] = "bf16"
    attention: Literal["eager", "sdpa"] = "eager"
    padded: bool = False
    dropout: float = 0.1
    model_dropout: float | None = None
    n_rows: int = 4000
    length: int | None = None
    prefix: Literal["computed", "kept"] | None = None


class Contestant:
    """A contestant's process. `setup_s` is the time until it was ready."""

    def __init__(self, spec: Spec) -> None:
        started = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.contestants", json.dumps(asdict(spec))]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
        environment["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # nothing is found that another run left
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.spec = spec
        self.ready = self._answer()
        self.setup_s = time.perf_counter() - started

    def round(self, n_steps: int) -> dict[str, Any]:
        """Return what a round of work took: seconds, tokens (real ones), rows."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{n_steps}\n".encode())
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b'{"'):
                return json.loads(line)
        raise RuntimeError(f"{self.spec} ended with {self._process.wait()}")


def settings(spec: Spec) -> Any:
    """Return the Submillion config of a contestant."""
    from submillion.config import validate

    model = {"name": spec.encoder, "dropout": spec.model_dropout, "prefix": spec.prefix is not None}
    adapter = {"sites": spec.sites, "rank": spec.rank, "layers": spec.layers, "dropout": spec.dropout}
    train = {"batch_size": spec.batch_size, "steps": 100_000, "checkpoint_every": 100_000, "precision": spec.precision}
    return validate({"budget": 100_000_000, "model": model, "adapter": adapter, "train": train})


def classifier(spec: Spec) -> Any:
    """Return Submillion's classifier, as `submillion train` builds it."""
    import torch

    from benchmarks.material import LABELS
    from submillion import planning
    from submillion.classifier import Classifier

    config = settings(spec)
    plan = planning.plan(config, len(LABELS))
    return Classifier.build(config, plan, LABELS, 100_000, spec.precision, torch.device("cpu"))


def stock(spec: Spec) -> Any:
    """Return the same model as plain transformers and PEFT make it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from benchmarks.material import LABELS
    from submillion import architectures, planning
    from submillion.architectures import files

    config = AutoConfig.from_pretrained(files.folder(spec.encoder), num_labels=len(LABELS))
    if spec.model_dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = spec.model_dropout
    model = AutoModelForSequenceClassification.from_pretrained(
        files.folder(spec.encoder), config=config, attn_implementation=spec.attention
    )
    plan = planning.plan(settings(spec), len(LABELS))
    lora = LoraConfig(
        r=spec.rank,
        lora_alpha=2 * spec.rank,
        lora_dropout=spec.dropout,
        target_modules=[target.module for target in plan.targets],
        modules_to_save=list(architectures.head_modules(plan.architecture.family)),
        task_type="SEQ_CLS",
    )
    return get_peft_model(model, lora)


def _trainer(spec: Spec) -> None:
    """The Trainer, stopped between rounds by a callback."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    from benchmarks.material import as_dicts, rows
    from submillion.architectures import files

    asked = requests()
    tokenizer = AutoTokenizer.from_pretrained(files.folder(spec.encoder))
    pad = DataCollatorWithPadding(tokenizer, **({"padding": "max_length", "max_length": 128} if spec.padded else {}))
    sizes: list[tuple[int, int]] = []  # rows and tokens of each batch, in the order in which they are collated

    def collate(examples: list[dict[str, Any]]) -> Any:
        sizes.append((len(examples), sum(len(example["input_ids"]) for example in examples)))
        return pad(examples)

    class Rounds(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begin()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step < self.last:
                return
            seconds = time.perf_counter() - self.start
            done = sizes[self.first : self.last]
            answer(seconds=seconds, rows=sum(n for n, _ in done), tokens=sum(n for _, n in done))
            self.begin()

        def begin(self) -> None:
            n_steps = next(asked)
            self.first = getattr(self, "last", 0)
            self.last = self.first + n_steps
            self.start = time.perf_counter()

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=spec.batch_size,
        max_steps=100_000,
        learning_rate=5e-5,
        bf16=spec.precision == "bf16",
        use_cpu=True,
        train_sampling_strategy="random" if spec.padded else "group_by_length",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=stock(spec),
        args=arguments,
        train_dataset=as_dicts(rows(spec.n_rows, 0, spec.length)),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[Rounds()],
    )
    answer()
    trainer.train()


def _submillion(spec: Spec) -> None:
    """`training.fit`, as `submillion train` calls it."""
    from benchmarks.material import rows
    from submillion import losses, training
    from submillion.checkpoints import Checkpoints

    model, config = classifier(spec), settings(spec)
    split = rows(spec.n_rows, 0, spec.length)
    build_s, mib = 0.0, 0.0
    if spec.prefix == "kept":
        started = time.perf_counter()
        mib = model.prefix_mib(split)
        split, _ = model.with_prefix(split, lambda _: None)
        build_s = time.perf_counter() - started
    validation = rows(1, 1)
    length = training.length(config.train, split.lengths, len(validation))
    checkpoints = Checkpoints(Path(tempfile.mkdtemp()))
    job = training.Job(
        model,
        split,
        validation,
        config.train,
        length,
        lambda logits, batch: losses.supervised(logits, batch.label_ids, 0.0, None),
        checkpoints,
        time.perf_counter(),
    )
    records = training.fit(job)

    def work(n_steps: int) -> tuple[int, int]:
        tokens = [next(records).tokens for _ in range(n_steps)]
        return n_steps * spec.batch_size, sum(tokens)

    answer(prefix_build_s=build_s, prefix_mib=mib)
    _serve(work)


def _limit(spec: Spec) -> None:
    """The step's required products of frozen weights alone, at the row counts of the batches that training sees."""
    from benchmarks.limit import steps

    work = steps(spec)
    answer()
    _serve(work)


def _serve(work: Callable[[int], tuple[int, int]]) -> None:
    for n_steps in requests():
        start = time.perf_counter()
        n_rows, n_tokens = work(n_steps)
        answer(seconds=time.perf_counter() - start, rows=n_rows, tokens=n_tokens)


def requests() -> Iterator[int]:
    """Yield what the other end asks for, until it ends."""
    for line in sys.stdin:
        yield int(line)
    sys.exit()


def answer(**values: Any) -> None:
    """Send a line to the other end, the most memory held so far included."""
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**values, "peak_mib": peak_mib}), flush=True)


def _main(spec: Spec) -> None:
    from benchmarks import predicting, reaching

    match spec.kind:
        case "trainer":
            _trainer(spec)
        case "submillion":
            _submillion(spec)
        case "limit":
            _limit(spec)
        case "trainer-reach" | "submillion-reach":
            reaching.reach(spec)
        case kind:
            _serve(predicting.worker(kind, spec))


if __name__ == "__main__":
    _main(Spec(**json.loads(sys.argv[1])))
