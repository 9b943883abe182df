"""The worker's end of `contestants`: a round of work when told to.

`python -m benchmarks.worker SPEC` reads a number of steps a line and answers with a line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contestants import Spec, answer, classifier, requests, settings, stock


def _trainer(spec: Spec) -> None:
    """The Trainer, stopped between rounds by a callback."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    from benchmarks.material import as_dicts, rows
    from submillion.planning.architectures import files

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
    """`loop.fit`, as `submillion train` calls it."""
    from benchmarks.material import rows
    from submillion.training import loop, losses
    from submillion.training.checkpoints import Checkpoints

    model, config = classifier(spec), settings(spec)
    split = rows(spec.n_rows, 0, spec.length)
    build_s, mib = 0.0, 0.0
    if spec.prefix == "kept":
        started = time.perf_counter()
        mib = model.prefix_mib(split)
        split, _ = model.with_prefix(split, lambda _: None)
        build_s = time.perf_counter() - started
    validation = rows(1, 1)
    length = loop.length(config.train, split.lengths, len(validation))
    checkpoints = Checkpoints(Path(tempfile.mkdtemp()))
    job = loop.Job(
        model,
        split,
        validation,
        config.train,
        length,
        lambda logits, batch: losses.supervised(logits, batch.label_ids, 0.0, None),
        checkpoints,
        time.perf_counter(),
    )
    records = loop.fit(job)

    def work(n_steps: int) -> tuple[int, int]:
        tokens = [next(records).tokens for _ in range(n_steps)]
        return n_steps * spec.batch_size, sum(tokens)

    answer(prefix_build_s=build_s, prefix_mib=mib)
    _serve(work)


def _limit(spec: Spec) -> None:
    """The step's required products of frozen weights alone, at the row counts of the batches that training sees."""
    from benchmarks.limit import steps  # imports torch: the others' memory is told without it

    work = steps(spec)
    answer()
    _serve(work)


def _serve(work: Callable[[int], tuple[int, int]]) -> None:
    for n_steps in requests():
        start = time.perf_counter()
        n_rows, n_tokens = work(n_steps)
        answer(seconds=time.perf_counter() - start, rows=n_rows, tokens=n_tokens)


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
