"""The worker's end of `contestants`: each kind of contestant is a function that serves rounds of its work.

`python -m benchmarks.kinds SPEC` reads a number of steps per line and answers with a line of JSON. Each kind imports
what it needs itself: another one's libraries are not in its memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import Kind, Spec, classifier, place, records, stock

Predict = Callable[[list[str]], Any]
_WANTED, _EVERY, _N_VALIDATION = 0.90, 50, 1000  # accuracy, steps, rows, of those that train until they reach it


def _requests() -> Iterator[int]:
    """The other end's requests, until it ends."""
    for line in sys.stdin:
        yield int(line)
    sys.exit()


def _answer(**values: Any) -> None:
    """Send a line to the other end, with the most memory held so far."""
    memory = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if (cuda := _cuda()) is not None:
        memory["gpu_mib"] = cuda.max_memory_allocated() / 2**20
        memory["gpu_reserved_mib"] = cuda.max_memory_reserved() / 2**20  # what graphs keep for their replays, too
    print(json.dumps({**values, **memory}), flush=True)


def _cuda() -> Any:
    """torch.cuda if this process works with it, else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _now() -> float:
    """The clock, in seconds, once the device has done all its work."""
    if (cuda := _cuda()) is not None:
        cuda.synchronize()
    return time.perf_counter()


def _serve(work: Callable[[int], dict[str, Any]], **ready: Any) -> None:
    """Say that the work can begin, and answer each request with what it gives and the seconds it took."""
    _answer(**ready)
    for n_steps in _requests():
        start = _now()
        _answer(**work(n_steps), seconds=_now() - start)


def trainer(spec: Spec) -> None:
    """The Trainer, stopped between rounds by a callback."""
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback

    from benchmarks.material import as_dicts, rows
    from submillion.planning.architectures import files

    requests = _requests()
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
            seconds = _now() - self.start
            done = sizes[self.first : self.last]
            _answer(rows=sum(n for n, _ in done), tokens=sum(n for _, n in done), seconds=seconds)
            self.begin()

        def begin(self) -> None:
            n_steps = next(requests)
            self.first = getattr(self, "last", 0)
            self.last = self.first + n_steps
            self.start = _now()

    order = "random" if spec.padded else "group_by_length"
    training = Trainer(
        model=stock(spec),
        args=_arguments(spec, max_steps=100_000, learning_rate=5e-5, train_sampling_strategy=order),
        train_dataset=as_dicts(rows(spec.n_rows, 0, spec.length)),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[Rounds()],
    )
    _answer()
    training.train()


def submillion(spec: Spec) -> None:
    """`loop.fit`, as `submillion train` calls it."""
    from benchmarks.material import rows

    model = classifier(spec)
    split = rows(spec.n_rows, 0, spec.length)
    build_s, mib = 0.0, 0.0
    if spec.prefix == "kept":
        started = time.perf_counter()
        mib = model.prefix_mib(split)
        split, _ = model.with_prefix(split, lambda _: None)
        build_s = time.perf_counter() - started
    steps = records(spec, model, split)

    def work(n_steps: int) -> dict[str, Any]:
        return {"rows": n_steps * spec.batch_size, "tokens": sum(next(steps).tokens for _ in range(n_steps))}

    _serve(work, prefix_build_s=build_s, prefix_mib=mib)


def limit(spec: Spec) -> None:
    """The step's required products of frozen weights alone, at the row counts of the batches that training sees."""
    from benchmarks.limit import steps

    _serve(steps(spec))


def predicting(load: Callable[[Spec, Any], Predict], spec: Spec) -> None:
    """Class probabilities of n_batches times 64 texts, tokenising included."""
    import numpy as np

    from benchmarks.material import rows, texts
    from submillion.model import backbone

    tokenizer = backbone.load_tokenizer(spec.encoder)
    lengths, known = rows(spec.n_rows, 2, spec.length).lengths, texts(spec.n_rows, 2, spec.length)
    rng = np.random.default_rng(2)
    predict = load(spec, tokenizer)

    def work(n_batches: int) -> dict[str, Any]:
        chosen = rng.integers(0, len(known), n_batches * 64)
        os.environ["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # each round tokenises
        predict([known[i] for i in chosen])
        return {"rows": len(chosen), "tokens": int(lengths[chosen].sum())}

    _serve(work)


def _by_pipeline(spec: Spec, tokenizer: Any) -> Predict:
    import torch
    from transformers import TextClassificationPipeline

    model = stock(spec).merge_and_unload().eval().to(torch.bfloat16 if spec.precision == "bf16" else torch.float32)
    own = {"device": place(spec), "batch_size": spec.batch_size}
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, **own)
    return lambda batch: pipeline(batch, truncation=True, max_length=128)


def _by_trainer(spec: Spec, tokenizer: Any) -> Predict:
    from transformers import Trainer

    arguments = _arguments(spec, per_device_eval_batch_size=spec.batch_size)
    predicting = Trainer(model=stock(spec), args=arguments, processing_class=tokenizer)

    def predict(batch: list[str]) -> Any:
        encodings = tokenizer(batch, truncation=True, max_length=128)
        return predicting.predict([{"input_ids": ids} for ids in encodings["input_ids"]]).predictions

    return predict


def by_submillion(model: Any, batch_size: int = 128) -> Predict:
    """Return Submillion's probabilities of texts, tokenising included."""
    from submillion.data import Example
    from submillion.data.long_texts import Reading
    from submillion.model import batching
    from submillion.training import evaluation

    def predict(batch: list[str]) -> Any:
        examples = [Example(str(i), text, None) for i, text in enumerate(batch)]
        split = batching.tokenize(examples, model.tokenizer, model.labels, Reading(128))
        return evaluation.predict(model, split, batch_size).probs

    return predict


def reaching(train: Callable[[Spec, Any], tuple[int, float]], spec: Spec) -> None:
    """Train on AG News with the requested seed, from the file on, until validation accuracy is at least 0.90.

    Both take the same rows, recipe, seed and evaluations: 1,000 validation rows every 50 steps of 32.
    """
    from submillion.config import validate

    file = Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet"

    def work(seed: int) -> dict[str, Any]:
        os.environ["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # nothing of an earlier round is found
        values = {
            "out": tempfile.mkdtemp(),
            "device": spec.device,
            "model": {"name": spec.encoder},
            "adapter": {"sites": spec.sites, "rank": spec.rank},
            "data": {"source": str(file), "text": ["title", "description"], "validation": _N_VALIDATION},
            "train": {"epochs": 1, "evaluate_every": _EVERY, "precision": spec.precision, "seed": seed},
        }
        values["train"]["batch_size"] = spec.batch_size
        steps, accuracy = train(spec, validate(values))
        return {"steps": steps, "accuracy": accuracy, "seed": seed}

    _serve(work)


def _submillion_until(_: Spec, config: Any) -> tuple[int, float]:
    from submillion.training import workflow

    reached: list[tuple[int, float]] = []

    def watch(record: Any) -> bool:
        if record.kind == "eval":
            reached.append((record.step, record.scores["accuracy"].value))
        return bool(reached) and reached[-1][1] >= _WANTED

    workflow.train(config, watch)
    return reached[-1]


def _trainer_until(spec: Spec, config: Any) -> tuple[int, float]:
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, set_seed

    from benchmarks.material import as_dicts
    from submillion import data
    from submillion.data.long_texts import Reading
    from submillion.model import backbone, batching

    splits, tokenizer = data.read(config.data), backbone.load_tokenizer(spec.encoder)
    train, validation = (
        as_dicts(batching.tokenize(rows, tokenizer, splits.labels, Reading.of(config.model)))
        for rows in (splits.train, splits.validation)
    )

    class UntilReached(TrainerCallback):
        def on_evaluate(self, _: Any, state: Any, control: Any, metrics: dict[str, float], **__: Any) -> None:
            self.result = (state.global_step, metrics["eval_accuracy"])
            control.should_training_stop = metrics["eval_accuracy"] >= _WANTED

    set_seed(config.train.seed)
    until = UntilReached()
    own = {"learning_rate": config.train.learning_rate, "warmup_steps": config.train.warmup}
    own |= {"weight_decay": config.train.weight_decay, "seed": config.train.seed, "num_train_epochs": 1}
    own |= {"train_sampling_strategy": "group_by_length", "eval_strategy": "steps", "eval_steps": _EVERY}
    Trainer(
        model=stock(spec),
        args=_arguments(spec, per_device_eval_batch_size=128, **own),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda output: {"accuracy": float((output.predictions.argmax(1) == output.label_ids).mean())},
        processing_class=tokenizer,
        callbacks=[until],
    ).train()
    return until.result


def _arguments(spec: Spec, **own: Any) -> Any:
    """The Trainer's settings: as people write them if it pads, else those with which it is at its best."""
    import torch
    from transformers import TrainingArguments

    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    of_spec = {"per_device_train_batch_size": spec.batch_size, "use_cpu": place(spec).type == "cpu"}
    of_spec |= {"bf16": spec.precision == "bf16", "fp16": spec.precision == "fp16"}
    of_spec |= {"logging_nan_inf_filter": spec.padded, "torch_compile": spec.compiled}  # the filter waits in each step
    if spec.compiled:
        os.environ["ACCELERATE_DYNAMO_USE_DYNAMIC"] = "true"
        # Else a batch of 128 texts of 128 tokens would be compiled as a square, and the next one again.
        torch.fx.experimental._config.use_duck_shape = False
    arguments = TrainingArguments(output_dir=tempfile.mkdtemp(), **of_spec, **quiet, **own)
    if not spec.padded:
        # tf32. After the arguments, which set it for torch.compile by torch's new names only: torch refuses a mixture.
        torch.set_float32_matmul_precision("high")
    return arguments


KINDS: dict[Kind, Callable[[Spec], None]] = {
    "trainer": trainer,
    "submillion": submillion,
    "limit": limit,
    "pipeline": partial(predicting, _by_pipeline),
    "trainer-predict": partial(predicting, _by_trainer),
    "submillion-predict": partial(predicting, lambda spec, _: by_submillion(classifier(spec), spec.batch_size)),
    "trainer-reach": partial(reaching, _trainer_until),
    "submillion-reach": partial(reaching, _submillion_until),
}


def main() -> None:
    """Work as the spec on the command line says; errors are sent to the other end, too."""
    spec = Spec(**json.loads(sys.argv[1]))
    try:
        place(spec)
        KINDS[spec.kind](spec)
    except Exception as error:
        traceback.print_exc()
        _answer(failed=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        sys.exit(1)


if __name__ == "__main__":
    main()
