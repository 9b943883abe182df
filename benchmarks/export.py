"""Exports against the model they come from: ms for one text, texts per second for many, at one and two threads.

They are sections of `benchmarks.speed`. All contestants work in turn, round by round, in one process; tokenising is
included. Their weights are untrained, which cost what trained ones cost. OpenVINO takes part if it is installed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Spec, classifier
from benchmarks.kinds import Predict, by_submillion
from benchmarks.material import texts
from benchmarks.results import shown, spread, table
from submillion.config import Precision
from submillion.data.long_texts import Reading

THREADS = (1, 2)
N_ALONE = 10  # texts that come one at a time, per round
N_TOGETHER = 64  # texts that come at once, per round
BATCH_ROWS = 32
MAX_LENGTH = 128
ASKED = {
    "MiniLM, prediction, int8 against ONNX Runtime int8, 2 threads": "≥ 1.5 (aim 2)",
    "MiniLM, one text, ms over ONNX Runtime's, fp32, 1 thread": "≤ 1.0 (aim 0.7)",
    "MiniLM, one text, ms over ONNX Runtime's, int8, 1 thread": "≤ 1.0 (aim 0.7)",
}
_PAUSE_S = 0.2  # onnxruntime's idle threads spin for a while, in the next contestant's time


def contestants(encoder: str, usual: Precision, folder: Path) -> dict[str, Callable[[int], Predict]]:
    """Return, for each contestant, what makes its prediction with n threads; files go to `folder`.

    Submillion predicts in fp32, in int8, and in the precision that is usual on this processor.
    """
    from submillion.exports import formats
    from submillion.model import adapters, backbone

    spec = Spec("submillion", encoder, rank=8, device="cpu")
    with backbone.quiet():
        # As in a finished run nothing trains: notes are kept of such layers.
        ours = {
            each: classifier(replace(spec, precision=each)).requires_grad_(False)
            for each in dict.fromkeys(("fp32", usual, "int8"))
        }
    for name in ("merged", "onnx", "onnx-int8"):
        (folder / name).mkdir()
        formats.write_tokenizer(ours["fp32"].tokenizer, Reading(MAX_LENGTH), folder / name)
    model = adapters.merged(ours["fp32"].model)
    formats.write_merged(model, folder / "merged")
    formats.write_graph(model, folder / "onnx" / formats.GRAPH, has_types=True)
    formats.quantize(folder / "onnx" / formats.GRAPH, folder / "onnx-int8" / formats.GRAPH)
    return {
        "transformers, merged": lambda _: _batched(_transformers(folder / "merged")),
        **{f"submillion {each}": lambda _, built=built: by_submillion(built) for each, built in ours.items()},
        "onnx": lambda n: _batched(_onnxruntime(folder / "onnx", n)),
        "onnx-int8": lambda n: _batched(_onnxruntime(folder / "onnx-int8", n)),
        **({"openvino": lambda n: _batched(_openvino(folder / "onnx", n))} if find_spec("openvino") else {}),
    }


def _batched(predict: Predict) -> Predict:
    """Batches of texts of similar length, with as little padding as possible."""

    def batched(batch: list[str]) -> np.ndarray:
        batch = sorted(batch, key=len)
        return np.concatenate([predict(batch[i : i + BATCH_ROWS]) for i in range(0, len(batch), BATCH_ROWS)])

    return batched


def _transformers(folder: Path) -> Predict:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from submillion.model import backbone

    with backbone.quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def predict(batch: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return model(**tokenizer(batch, truncation=True, padding=True, return_tensors="pt")).logits.numpy()

    return predict


def _onnxruntime(folder: Path, n_threads: int) -> Predict:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda batch: np.asarray(session.run(["logits"], _inputs(tokenizer, names, batch))[0])


def _openvino(folder: Path, n_threads: int) -> Predict:
    """The graph in OpenVINO, which computes in bf16 if the processor has it."""
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    hints = {"INFERENCE_NUM_THREADS": n_threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(folder / "model.onnx", "CPU", hints)
    names = [each.get_any_name() for each in model.inputs]
    return lambda batch: np.asarray(model(_inputs(tokenizer, names, batch))["logits"])


def _inputs(tokenizer: Any, names: list[str], batch: list[str]) -> dict[str, np.ndarray]:
    encodings = tokenizer.encode_batch(batch)
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(each, columns[name]) for each in encodings], np.int64) for name in names}


def measure(encoder: str, usual: Precision, n_rounds: int) -> dict[str, Any]:
    """Return {contestant: {threads: latency and throughput, each with median, low and high over the rounds}}, with the
    rounds, and the sizes of the files in MiB. A first round is not counted."""
    import torch

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # n threads are n threads for all of them
    alone, together, n_threads = texts(N_ALONE, 3), texts(N_TOGETHER, 3), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        makers = contestants(encoder, usual, folder)
        predicts = {(name, n): make(n) for name, make in makers.items() for n in THREADS}
        seconds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in predicts}
        for number in range(n_rounds + 1):
            for (name, n), predict in predicts.items():
                torch.set_num_threads(n)
                time.sleep(_PAUSE_S)
                timed = _seconds(predict, [[text] for text in alone]), _seconds(predict, [together])
                if number > 0:
                    seconds[name, n].append(timed)
            print(f"    round {number} of {n_rounds}", file=sys.stderr, flush=True)
        torch.set_num_threads(n_threads)
        sizes = {file.parent.name: round(file.stat().st_size / 2**20, 1) for file in folder.glob("*/model.*")}
    summaries = {name: {str(n): _summary(seconds[name, n]) for n in THREADS} for name in makers}
    return {"contestants": summaries, "mib": sizes}


def _seconds(predict: Predict, calls: list[list[str]]) -> float:
    began = time.perf_counter()
    for batch in calls:
        predict(batch)
    return time.perf_counter() - began


def _summary(rounds: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "latency_ms": spread((1000 * alone_s / N_ALONE for alone_s, _ in rounds), 2),
        "texts_per_s": spread((N_TOGETHER / together_s for _, together_s in rounds), 2),
        "rounds": rounds,
    }


def reached(results: dict[str, Any]) -> Iterator[str]:
    """Yield what a machine's results come to for each line of `ASKED`."""

    def ratios(one: str, other: str, threads: str) -> Iterator[tuple[float, float]]:
        rounds = (results["contestants"][name][threads]["rounds"] for name in (one, other))
        return ((ours[0] / theirs[0], theirs[1] / ours[1]) for ours, theirs in zip(*rounds, strict=True))

    yield shown(spread(many for _, many in ratios("submillion int8", "onnx-int8", "2")), ".2f")
    for ours, theirs in (("fp32", "onnx"), ("int8", "onnx-int8")):
        yield shown(spread(alone for alone, _ in ratios(f"submillion {ours}", theirs, "1")), ".2f")


def tables(machines: dict[str, dict[str, Any]]) -> list[str]:
    """Return a table for each machine that has sections of exports: medians, lowest and highest round in brackets."""
    parts = []
    for machine, sections in machines.items():
        by_encoder = {name.removeprefix("exports "): sections[name] for name in sections if name.startswith("exports ")}
        rows = [
            (encoder, name, n, shown(values["latency_ms"], ",.1f"), shown(values["texts_per_s"]))
            for encoder, section in by_encoder.items()
            for name, by_threads in section["results"]["contestants"].items()
            for n, values in by_threads.items()
        ]
        head = "| encoder | what | threads | ms a text, alone | texts/s, 64 at once |"
        parts += [f"{machine}:", "", *table(head, rows), ""] if rows else []
    return parts[:-1] or ["Not measured."]
