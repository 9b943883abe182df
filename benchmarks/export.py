"""Exports beside the model they come from: milliseconds for one text, texts a second for many.

`python -m benchmarks.export [ROUNDS] [ENCODER ...]` measures MiniLM, and the encoder in the folder $SUBMILLION_MPNET
where that is set, or those of them that are named, at one and two threads, into results/export.json, and prints its
table. All contestants work in turn, round by round, in one process; tokenising is included. Their weights are
untrained, which costs what trained ones cost. OpenVINO works beside them where it is installed. A quiet machine is
wanted: about 8 minutes at the default of 7 rounds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Spec, classifier
from benchmarks.kinds import Predict, by_submillion
from benchmarks.material import MINILM, texts
from benchmarks.results import keep, kept, measured, shown, spread, table
from submillion.data.long_texts import Reading

THREADS = (1, 2)
N_ALONE = 10  # texts that come one at a time, a round
N_TOGETHER = 64  # texts that come at once, a round
BATCH_ROWS = 32
MAX_LENGTH = 128
_PAUSE_S = 0.2  # onnxruntime's idle threads spin for a while, in the next contestant's time


def contestants(encoder: str, folder: Path) -> dict[str, Callable[[int], Predict]]:
    """Return, for each contestant, what makes its prediction with so many threads; files go to `folder`."""
    from submillion.exports import formats
    from submillion.model import adapters, backbone

    spec = Spec("submillion", encoder, rank=8, device="cpu")
    with backbone.quiet():
        fp32, bf16, int8 = (classifier(replace(spec, precision=precision)) for precision in ("fp32", "bf16", "int8"))
    for name in ("merged", "onnx", "onnx-int8"):
        (folder / name).mkdir()
        formats.write_tokenizer(fp32.tokenizer, Reading(MAX_LENGTH), folder / name)
    model = adapters.merged(fp32.model)
    formats.write_merged(model, folder / "merged")
    formats.write_graph(model, folder / "onnx" / formats.GRAPH, has_types=True)
    formats.quantize(folder / "onnx" / formats.GRAPH, folder / "onnx-int8" / formats.GRAPH)
    return {
        "transformers, merged": lambda _: _batched(_transformers(folder / "merged")),
        "submillion fp32": lambda _: by_submillion(fp32),
        "submillion bf16": lambda _: by_submillion(bf16),
        "submillion int8": lambda _: by_submillion(int8),
        "onnx": lambda n: _batched(_onnxruntime(folder / "onnx", n)),
        "onnx-int8": lambda n: _batched(_onnxruntime(folder / "onnx-int8", n)),
        **({"openvino": lambda n: _batched(_openvino(folder / "onnx", n))} if find_spec("openvino") else {}),
    }


def _batched(predict: Predict) -> Predict:
    """Batches of texts of similar length, as little padding as there can be."""

    def batched(given: list[str]) -> np.ndarray:
        given = sorted(given, key=len)
        return np.concatenate([predict(given[i : i + BATCH_ROWS]) for i in range(0, len(given), BATCH_ROWS)])

    return batched


def _transformers(folder: Path) -> Predict:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from submillion.model import backbone

    with backbone.quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def predict(given: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return model(**tokenizer(given, truncation=True, padding=True, return_tensors="pt")).logits.numpy()

    return predict


def _onnxruntime(folder: Path, n_threads: int) -> Predict:
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda given: np.asarray(session.run(["logits"], _inputs(tokenizer, names, given))[0])


def _openvino(folder: Path, n_threads: int) -> Predict:
    """The graph in OpenVINO, which computes in bf16 where the processor has it."""
    import openvino
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    hints = {"INFERENCE_NUM_THREADS": n_threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(folder / "model.onnx", "CPU", hints)
    names = [each.get_any_name() for each in model.inputs]
    return lambda given: np.asarray(model(_inputs(tokenizer, names, given))["logits"])


def _inputs(tokenizer: Any, names: list[str], given: list[str]) -> dict[str, np.ndarray]:
    found = tokenizer.encode_batch(given)
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(each, columns[name]) for each in found], np.int64) for name in names}


def measure(encoder: str, n_rounds: int) -> dict[str, Any]:
    """Return {contestant: {threads: latency and throughput, each with median, low and high over the rounds}} and the
    sizes of the files in MiB. A first round is not counted."""
    import torch

    alone, together = texts(N_ALONE, 3), texts(N_TOGETHER, 3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = contestants(encoder, folder)
        predicts = {(name, n): make(n) for name, make in made.items() for n in THREADS}
        seconds: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in predicts}
        for number in range(n_rounds + 1):
            for (name, n), predict in predicts.items():
                torch.set_num_threads(n)
                time.sleep(_PAUSE_S)
                timed = _seconds(predict, [[text] for text in alone]), _seconds(predict, [together])
                if number > 0:
                    seconds[name, n].append(timed)
            print(f"    round {number} of {n_rounds}", file=sys.stderr, flush=True)
        sizes = {file.parent.name: round(file.stat().st_size / 2**20, 1) for file in folder.glob("*/model.*")}
    found = {name: {str(n): _summary(seconds[name, n]) for n in THREADS} for name in made}
    return {"contestants": found, "mib": sizes}


def _seconds(predict: Predict, calls: list[list[str]]) -> float:
    began = time.perf_counter()
    for given in calls:
        predict(given)
    return time.perf_counter() - began


def _summary(rounds: list[tuple[float, float]]) -> dict[str, Any]:
    return {
        "latency_ms": spread((1000 * alone_s / N_ALONE for alone_s, _ in rounds), 2),
        "texts_per_s": spread((N_TOGETHER / together_s for _, together_s in rounds), 2),
    }


def lines(results: dict[str, Any]) -> list[str]:
    """Return the results as docs/export.md shows them: medians, lowest and highest round in brackets."""
    rows = [
        (encoder, name, n, shown(values["latency_ms"], ",.1f"), shown(values["texts_per_s"]))
        for encoder, found in results.items()
        for name, by_threads in found["results"]["contestants"].items()
        for n, values in by_threads.items()
    ]
    return table("| encoder | what | threads | ms a text, alone | texts/s, 64 at once |", rows)


def main() -> None:
    """Measure, write the JSON, print the table."""
    n_rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    encoders = {"all-MiniLM-L6-v2": MINILM}
    if "SUBMILLION_MPNET" in os.environ:
        encoders["all-mpnet-base-v2"] = os.environ["SUBMILLION_MPNET"]
    results = kept("export")
    for name in sys.argv[2:] or encoders:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measured(measure(encoders[name], n_rounds), n_rounds=n_rounds)
        keep("export", results)
    print("\n".join(lines(results)))


if __name__ == "__main__":
    main()
