"""Runs of one encoder share its frozen weights: an encoder is read once, however many runs are loaded.

Each run is a separate model, with its own adapter and head, around the same parameters. Runs that trained the encoder
itself (all of it, or its biases) have their own encoder. The caller decides which runs are kept.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from submillion import planning
from submillion.config import Config, Precision
from submillion.data import Label
from submillion.judging.confidence import Answering, Rules
from submillion.model import backbone
from submillion.model.classifier import Classifier, base_of, precision_of
from submillion.model.packed import native
from submillion.planning.architectures import Architecture, files
from submillion.planning.architectures.built import last_layer_name
from submillion.runs import Run

_TOKENIZER_FILES = "adapter/tokenizer"  # tokenizer.json and tokenizer_config.json


@dataclass(eq=False)
class Tokenizer:
    """A tokenizer that runs share: hold `lock` while using it."""

    tokenizer: PreTrainedTokenizerBase
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Encoder:
    """A frozen encoder, held by a stock model on it that is never run; it lives as long as a run that shares it."""

    stock: PreTrainedModel | None = None


@dataclass(eq=False)
class Loaded:
    """A run ready to classify; hold `tokenizer.lock` while using its tokenizer, which other runs share.

    thresholds: of each of several labels, float64 [C]; None if rows have one label · rules: learnt so far.
    """

    run: Run
    settings: Config
    classes: tuple[Label, ...]
    classifier: Classifier
    encoder: Encoder
    tokenizer: Tokenizer
    thresholds: np.ndarray | None = None
    rules: dict[Answering, Rules] = field(default_factory=dict)


class Loader:
    """Loads runs in one precision, None for each run's own, as in `predict`, on one device, None for the best.

    Not thread-safe.
    """

    def __init__(self, precision: Precision | None = None, device: str | None = None) -> None:
        native.keep_few_kernels()
        self._precision: Precision | None = precision
        self._device = device
        self._encoders: WeakValueDictionary[tuple[str | None, ...], Encoder] = WeakValueDictionary()
        self._tokenizers: WeakValueDictionary[tuple[str, ...], Tokenizer] = WeakValueDictionary()

    def find_encoder(self, run: Run) -> Encoder | None:
        """Return the loaded encoder that a run would share, None if it needs its own."""
        key = _encoder_key(run, self._precision_of(run))
        return None if key is None else self._encoders.get(key)

    def load(self, run: Run) -> Loaded:
        """Return a verified run, around the weights of a loaded encoder if that is the run's."""
        precision = self._precision_of(run)
        key = _encoder_key(run, precision)
        encoder = self.find_encoder(run) or Encoder()

        def stock(architecture: Architecture, labels: Sequence[str], fused_attention: bool) -> PreTrainedModel:
            if encoder.stock is None:
                encoder.stock = backbone.load_model(architecture, labels, fused_attention=fused_attention)[0]
            return _around(encoder.stock, labels)

        if key is None:
            classifier = Classifier.load(run, self._device, precision)
        else:
            classifier = Classifier.load(run, self._device, precision, stock)
            self._encoders[key] = encoder
        tokenizer = self._tokenizers.setdefault(_tokenizer_key(run), Tokenizer(classifier.tokenizer))
        classifier.tokenizer = tokenizer.tokenizer  # some 20 MiB each, and most runs have the same
        return Loaded(run, run.config(), run.classes(), classifier, encoder, tokenizer, run.thresholds())

    def _precision_of(self, run: Run) -> Precision:
        return self._precision or precision_of(run, backbone.choose_device(self._device))


def _around(stock: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """Return a new stock model around the same parameters, with its own last layer for these labels."""
    shared = {id(tensor): tensor for tensor in (*stock.parameters(), *stock.buffers())}
    model: Any = copy.deepcopy(stock, shared)
    name = last_layer_name(model, int(model.config.num_labels or 0))
    assert name is not None, "an encoder without one is refused when it is planned"
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: number for number, label in enumerate(labels)}
    model.num_labels = len(labels)
    model.set_submodule(name, nn.Linear(model.get_submodule(name).in_features, len(labels)))
    return model


def _encoder_key(run: Run, precision: Precision) -> tuple[str | None, ...] | None:
    """Return what decides a run's frozen encoder: its name, commit, weights' SHA-256, and the precision it is held in.

    None if the run trained it, and for old runs that have only its name on the Hub, which may mean any weights.
    """
    plan = planning.from_json((run.path / "plan.json").read_text(encoding="utf-8"))
    if plan.method == "none" or plan.bias != "none":
        return None
    base, revision = base_of(run.path / "adapter")
    sha256 = (run.environment() or {}).get("encoder_sha256")
    if revision is None and sha256 is None and not files.is_local(base):
        return None
    return base, revision, sha256, precision


def _tokenizer_key(run: Run) -> tuple[str, ...]:
    sealed = run.read_json("DONE")["files"]
    return tuple(f"{name} {sealed[name]}" for name in sorted(sealed) if name.startswith(_TOKENIZER_FILES))
