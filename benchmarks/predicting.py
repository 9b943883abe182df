"""Contestants that predict: texts in, class probabilities out, tokenising included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.contestants import Kind, Spec

WORDS = "market team world new software player government price game plan report year oil web record".split()


def worker(kind: Kind, spec: Spec) -> Callable[[int], tuple[int, int]]:
    """Return what predicts so many batches of 64 texts, and returns their rows and tokens."""
    from benchmarks.contestants import answer
    from benchmarks.material import rows
    from submillion.model import backbone

    tokenizer = backbone.load_tokenizer(spec.encoder)
    lengths = rows(spec.n_rows, 2, spec.length).lengths
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(WORDS, n - 2)) for n in lengths]  # each word is one token; two are special
    predict = {"pipeline": _pipeline, "trainer-predict": _trainer, "submillion-predict": _submillion}[kind](
        spec, tokenizer
    )
    answer()

    def work(n_batches: int) -> tuple[int, int]:
        chosen = rng.integers(0, len(texts), n_batches * 64)
        os.environ["SUBMILLION_CACHE"] = tempfile.mkdtemp()  # each round tokenises
        predict([texts[i] for i in chosen])
        return len(chosen), int(lengths[chosen].sum())

    return work


def _pipeline(spec: Spec, tokenizer: Any) -> Callable[[list[str]], Any]:
    import torch
    from transformers import TextClassificationPipeline

    from benchmarks.contestants import stock

    model = stock(spec).merge_and_unload().eval().to(torch.bfloat16 if spec.precision == "bf16" else torch.float32)
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu", batch_size=64)
    return lambda texts: pipeline(texts, truncation=True, max_length=128)


def _trainer(spec: Spec, tokenizer: Any) -> Callable[[list[str]], Any]:
    from transformers import Trainer, TrainingArguments

    from benchmarks.contestants import stock

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_eval_batch_size=64,
        bf16=spec.precision == "bf16",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model=stock(spec), args=arguments, processing_class=tokenizer)

    def predict(texts: list[str]) -> Any:
        encodings = tokenizer(texts, truncation=True, max_length=128)
        return trainer.predict([{"input_ids": ids} for ids in encodings["input_ids"]]).predictions

    return predict


def _submillion(spec: Spec, tokenizer: Any) -> Callable[[list[str]], Any]:
    from benchmarks.contestants import classifier
    from submillion.data import Example
    from submillion.model import batching
    from submillion.training import evaluation

    model = classifier(spec)

    def predict(texts: list[str]) -> Any:
        examples = [Example(str(i), text, None) for i, text in enumerate(texts)]
        split = batching.tokenize(examples, tokenizer, model.labels, 128)
        return evaluation.predict(model, split, 128)

    return predict
