"""The files of each format, written from the merged float32 model.

Every format has config.json with the label names, and a tokenizer that cuts and pads as the run did. The ONNX graph is
traced from the stock model; `checking` finds what tracing may get wrong.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, install_line
from submillion.exports.manifest import Format
from submillion.model import adapters
from submillion.model.backbone import quiet
from submillion.model.batching import gives_types
from submillion.model.classifier import Classifier
from submillion.runs import Run

OPSET = 17  # the first with LayerNormalization as one operator
WEIGHTS, GRAPH = "model.safetensors", "model.onnx"
_MAX_GRAPH_BYTES = 2**31 - 2**20  # protobuf's limit for one file, less room for the graph itself
_EXAMPLE_SHAPE = (2, 8)


def refuse_missing(kind: Format) -> None:
    """Raise a ConfigError with the line that installs what the format needs, if that is missing."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if kind != "merged" and missing:
        raise ConfigError(f"--format {kind} needs {' and '.join(missing)}: {install_line('onnx')}")


def write(kind: Format, run: Run, folder: Path) -> None:
    """Write the run's model, config and tokenizer into an existing folder; OSError if that fails."""
    classifier = Classifier.load(run, "cpu", "fp32")
    model = adapters.merged(classifier.model)
    write_tokenizer(classifier.tokenizer, Reading.of(run.config().model), folder)
    has_types = gives_types(classifier.tokenizer)
    match kind:
        case "merged":
            write_merged(model, folder)
        case "onnx":
            write_config(model, folder)
            write_graph(model, folder / GRAPH, has_types)
        case "onnx-int8":
            write_config(model, folder)
            full = folder / f".{GRAPH}"
            write_graph(model, full, has_types)
            quantize(full, folder / GRAPH)
            full.unlink()


def write_tokenizer(tokenizer: Any, reading: Reading, folder: Path) -> None:
    """Write the tokenizer files; `tokenizers` alone then cuts at max_length, or into windows, and pads to the longest.

    If a run reads both ends of texts, it leaves them whole.
    """
    tokenizer.model_max_length = reading.max_length
    tokenizer.padding_side = "right"
    backend, n_special = tokenizer.backend_tokenizer, tokenizer.num_special_tokens_to_add(False)
    if reading.long_texts == "head-tail":
        backend.no_truncation()
    else:
        stride = reading.overlap(n_special) if reading.long_texts == "windows" else 0
        backend.enable_truncation(reading.max_length, stride=stride, direction=tokenizer.truncation_side)
    backend.enable_padding(
        pad_id=tokenizer.pad_token_id, pad_type_id=tokenizer.pad_token_type_id, pad_token=tokenizer.pad_token
    )
    tokenizer.save_pretrained(folder)


def write_merged(model: PreTrainedModel, folder: Path) -> None:
    """Write the model as a stock checkpoint, with the permissions of config.json: safetensors makes it owner-only."""
    with quiet():
        model.save_pretrained(folder)
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)


def write_config(model: PreTrainedModel, folder: Path) -> None:
    """Write the stock config.json, which carries the label names."""
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def write_graph(model: PreTrainedModel, file: Path, has_types: bool) -> None:
    """Write the model as an ONNX graph: int64 [batch, sequence] inputs, float32 `logits` [batch, classes].

    has_types: the run gives the model token types, if that has any; else the graph has no such input, so that a pair's
    second text gets the types it had in training. ConfigError if its weights exceed what one ONNX file holds.
    """
    n_bytes = sum(parameter.nbytes for parameter in model.parameters())
    if n_bytes > _MAX_GRAPH_BYTES:
        raise ConfigError(
            f"the model has {n_bytes / 2**30:.1f} GiB of weights, and an ONNX file holds 2 GiB: use --format merged"
        )
    names = ["input_ids", "attention_mask"]
    if has_types and getattr(model.config, "type_vocab_size", 1) > 1:
        names.append("token_type_ids")
    model.set_attn_implementation("eager")  # plain products: the fused one branches in Python on its inputs
    with _quietly():
        torch.onnx.export(
            _Logits(model, names).eval(),
            _example(model, names),
            str(file),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def quantize(full: Path, file: Path) -> None:
    """Write a float32 graph with int8 weights, a scale per column; activations are quantised at run time. OSError if
    that fails.

    Weights take 7 of the 8 bits: products of 8-bit ones saturate on x86 processors without VNNI, and the accuracy
    measured here would not be theirs (docs/decisions/019-exports.md).
    """
    from google.protobuf.message import DecodeError
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with _quietly():
            quantize_dynamic(full, file, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    except DecodeError:  # it writes a copy of the graph first, and does not notice if that is truncated
        raise OSError("the quantiser cannot read its own copy of the graph: no space left on device") from None


class _Logits(nn.Module):
    """The model as a function of positional tensors that returns only logits; tracing takes nothing else."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def _example(model: PreTrainedModel, names: list[str]) -> tuple[torch.Tensor, ...]:
    """Return inputs to trace with, each [2, 8]; one row is padded, or the graph would have no mask."""
    config: Any = model.config
    tokens = torch.full(_EXAMPLE_SHAPE, 5 if config.pad_token_id != 5 else 6)
    mask = torch.ones_like(tokens)
    tokens[1, 5:], mask[1, 5:] = config.pad_token_id, 0
    columns = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros_like(tokens)}
    return tuple(columns[name] for name in names)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter's and the quantiser's warnings about themselves and about what `checking` checks."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
