"""Runs of one encoder share its frozen weights, and their texts share batches.

An encoder is read once; each run on it is a model of its own, with its own adapter and head, around the same
parameters. Runs that train in the encoder itself (all of it, or its biases) have an encoder of their own. Which runs
are kept is the affair of `models`, which texts make a batch that of `queue`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from submillion import planning
from submillion.config import Precision
from submillion.model import backbone
from submillion.model.batching import TokenizedSplit
from submillion.model.classifier import Classifier, mixed_logits, precision_of
from submillion.model.packed import native
from submillion.planning.architectures import Architecture, files
from submillion.runs import Run
from submillion.serving.models import Encoder, Loaded, Tokenizer
from submillion.training import evaluation

_TOKENIZER_FILES = "adapter/tokenizer"  # tokenizer.json and tokenizer_config.json


@dataclass(frozen=True)
class Row:
    """A text for a run, as its token ids and token types [its tokens]."""

    loaded: Loaded
    tokens: np.ndarray
    token_types: np.ndarray


class Loader:
    """Loads runs in one precision, or each in its own, as `predict` does; not for several threads at once."""

    def __init__(self, precision: Precision | None = None) -> None:
        native.keep_few_kernels()
        self._precision: Precision | None = precision
        self._encoders: WeakValueDictionary[tuple[str | None, ...], Encoder] = WeakValueDictionary()
        self._tokenizers: WeakValueDictionary[tuple[str, ...], Tokenizer] = WeakValueDictionary()

    def find_encoder(self, run: Run) -> Encoder | None:
        """Return the loaded encoder that a run would share, None if it needs one of its own."""
        key = _encoder_key(run, self._precision_of(run))
        return None if key is None else self._encoders.get(key)

    def load(self, run: Run) -> Loaded:
        """Return a verified run, around the weights of a loaded encoder where that is its own."""
        precision = self._precision_of(run)
        key = _encoder_key(run, precision)
        encoder = self.find_encoder(run) or Encoder()

        def stock(architecture: Architecture, labels: Sequence[str], fused_attention: bool) -> PreTrainedModel:
            if encoder.stock is None:
                encoder.stock = backbone.load_model(architecture, labels, fused_attention=fused_attention)[0]
            return _around(encoder.stock, labels)

        if key is None:
            classifier = Classifier.load(run, precision=precision)
        else:
            classifier = Classifier.load(run, precision=precision, load_stock=stock)
            self._encoders[key] = encoder
        tokenizer = self._tokenizers.setdefault(_tokenizer_key(run), Tokenizer(classifier.tokenizer))
        classifier.tokenizer = tokenizer.tokenizer  # some 20 MiB each, and most runs have the same
        return Loaded(run, run.config(), run.classes(), classifier, encoder, tokenizer)

    def _precision_of(self, run: Run) -> Precision:
        return self._precision or precision_of(run, backbone.choose_device(None))


def probs(rows: Sequence[Row]) -> list[np.ndarray]:
    """Return the class probabilities of each row, float64 [its run's C], in the rows' order.

    Rows of several runs that share an encoder are computed together where their adapters allow it.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    by_encoder: dict[Encoder, dict[Loaded, list[int]]] = {}
    for place, row in enumerate(rows):
        by_encoder.setdefault(row.loaded.encoder, {}).setdefault(row.loaded, []).append(place)
    for by_run in by_encoder.values():
        several = len(by_run) > 1
        mixed = {loaded: places for loaded, places in by_run.items() if several and loaded.classifier.is_mixable}
        alone = {loaded: places for loaded, places in by_run.items() if loaded not in mixed}
        answers = [(places, _own_logits(loaded, [rows[i] for i in places])) for loaded, places in alone.items()]
        if mixed:
            answers += zip(mixed.values(), _mixed_logits(mixed, rows), strict=True)
        for places, logits in answers:
            for place, values in zip(places, torch.softmax(logits.double(), dim=-1).numpy(), strict=True):
                found[place] = values
    return found


def _own_logits(loaded: Loaded, rows: Sequence[Row]) -> torch.Tensor:
    size = loaded.settings.train.evaluation_batch_size
    return torch.from_numpy(evaluation.logits(loaded.classifier, _split(rows), size))


def _mixed_logits(by_run: dict[Loaded, list[int]], rows: Sequence[Row]) -> list[torch.Tensor]:
    """The logits of the places of each run, float32 [its rows, its C]."""
    chosen = [place for places in by_run.values() for place in places]
    split = _split([rows[place] for place in chosen])
    numbers = np.repeat(np.arange(len(by_run)), [len(places) for places in by_run.values()])
    classifiers = [loaded.classifier for loaded in by_run]
    batch = split.batch(np.arange(len(split))).to(classifiers[0].device)
    return [logits.cpu() for logits in mixed_logits(classifiers, batch, torch.from_numpy(numbers))]


def _split(rows: Sequence[Row]) -> TokenizedSplit:
    return TokenizedSplit(
        tokens=np.concatenate([row.tokens for row in rows]),
        token_types=np.concatenate([row.token_types for row in rows]),
        offsets=np.cumsum([0, *(len(row.tokens) for row in rows)], dtype=np.int64),
        label_ids=np.full(len(rows), -1, dtype=np.int64),
        example_ids=("",) * len(rows),
        n_truncated=0,
    )


def _around(stock: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """Return a new stock model around the same parameters, with a last layer of its own for these labels."""
    shared = {id(tensor): tensor for tensor in (*stock.parameters(), *stock.buffers())}
    model: Any = copy.deepcopy(stock, shared)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: number for number, label in enumerate(labels)}
    model.num_labels = len(labels)
    classifier = model.get_submodule("classifier")
    name = "classifier" if isinstance(classifier, nn.Linear) else "classifier.out_proj"
    model.set_submodule(name, nn.Linear(model.config.hidden_size, len(labels)))
    return model


def _encoder_key(run: Run, precision: Precision) -> tuple[str | None, ...] | None:
    """What decides a run's frozen encoder: its name, its commit, its weights' SHA-256, and the precision it is held in.

    None if the run trained in it, and of runs of before that have only its name on the Hub, which may mean any weights.
    """
    plan = planning.from_json((run.path / "plan.json").read_text(encoding="utf-8"))
    if plan.method == "none" or plan.bias != "none":
        return None
    adapter = run.read_json("adapter/adapter_config.json")
    base, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    sha256 = (run.environment() or {}).get("encoder_sha256")
    if revision is None and sha256 is None and not files.is_local(base):
        return None
    return base, revision, sha256, precision


def _tokenizer_key(run: Run) -> tuple[str, ...]:
    sealed = run.read_json("DONE")["files"]
    return tuple(f"{name} {sealed[name]}" for name in sorted(sealed) if name.startswith(_TOKENIZER_FILES))
