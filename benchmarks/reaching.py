"""Contestants that train on AG News until the validation split's accuracy is at least 0.90, from the file on.

Both take the same rows, recipe, seed and evaluations: 1,000 validation rows every 50 steps of 32.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.contestants import Spec

_WANTED, _EVERY, _N_VALIDATION = 0.90, 50, 1000


def reach(spec: Spec) -> None:
    """Train when told to; answer with seconds (reading and tokenising included), steps and the accuracy reached."""
    from benchmarks.contestants import answer, requests

    answer()
    for seed in requests():
        started = time.perf_counter()
        steps, accuracy = (_trainer if spec.kind == "trainer-reach" else _submillion)(spec, seed)
        answer(seconds=time.perf_counter() - started, steps=steps, accuracy=accuracy, seed=seed)


def _settings(spec: Spec, seed: int) -> Any:
    from submillion.config import validate

    data = {"source": str(Path(os.environ["SUBMILLION_AGNEWS"]) / "train.parquet"), "text": ["title", "description"]}
    train = {"epochs": 1, "evaluate_every": _EVERY, "precision": "bf16", "seed": seed}
    return validate(
        {
            "out": tempfile.mkdtemp(),
            "model": {"name": spec.encoder},
            "adapter": {"sites": spec.sites, "rank": spec.rank},
            "data": {**data, "validation": _N_VALIDATION},
            "train": {**train, "batch_size": spec.batch_size},
        }
    )


def _submillion(spec: Spec, seed: int) -> tuple[int, float]:
    from submillion.training import workflow

    os.environ["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # nothing of an earlier round is found
    reached: list[tuple[int, float]] = []

    def watch(record: Any) -> bool:
        if record.kind == "eval":
            reached.append((record.step, record.scores["accuracy"].value))
        return bool(reached) and reached[-1][1] >= _WANTED

    workflow.train(_settings(spec, seed), watch)
    return reached[-1]


def _trainer(spec: Spec, seed: int) -> tuple[int, float]:
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments, set_seed

    from benchmarks.contestants import stock
    from benchmarks.material import as_dicts
    from submillion import data
    from submillion.model import backbone, batching

    settings = _settings(spec, seed)
    splits = data.read(settings.data)
    tokenizer = backbone.load_tokenizer(spec.encoder)
    os.environ["SUBMILLION_CACHE"] = tempfile.mkdtemp()
    train, validation = (
        as_dicts(batching.tokenize(rows, tokenizer, splits.labels, settings.model.max_length))
        for rows in (splits.train, splits.validation)
    )

    class UntilReached(TrainerCallback):
        def on_evaluate(self, _: Any, state: Any, control: Any, metrics: dict[str, float], **__: Any) -> None:
            self.result = (state.global_step, metrics["eval_accuracy"])
            control.should_training_stop = metrics["eval_accuracy"] >= _WANTED

    set_seed(seed)
    until = UntilReached()
    Trainer(
        model=stock(spec),
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=spec.batch_size,
            per_device_eval_batch_size=128,
            num_train_epochs=1,
            learning_rate=settings.train.learning_rate,
            warmup_steps=settings.train.warmup,
            weight_decay=settings.train.weight_decay,
            bf16=True,
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            eval_strategy="steps",
            eval_steps=_EVERY,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        ),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
        processing_class=tokenizer,
        callbacks=[until],
    ).train()
    return until.result
