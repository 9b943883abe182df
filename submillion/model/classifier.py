"""An encoder with its adapters and its head: `classifier(batch)` gives logits.

Owns the choice between the packed pass and the stock padded one, and the dtypes of both; building
from settings and a plan, saving, and loading from a finished run. What trains is decided by the plan
and set up in `adapters`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from submillion import planning, runs
from submillion.config import Config, ModelConfig, Pooling, Precision
from submillion.errors import ConfigError, RunError
from submillion.model import adapters, backbone, packed, precisions, prefix
from submillion.model.batching import Batch, Fitting, TokenizedSplit, pooled
from submillion.model.packed import native
from submillion.model.replays import Recorder
from submillion.planning import Plan
from submillion.planning.architectures import Architecture, files
from submillion.runs import Run
from submillion.runs.files import read_bytes, read_json

LoadStock = Callable[[Architecture, Sequence[str], bool], PreTrainedModel]  # with fused attention, or not
# Of rows; int8 applies only to products with frozen weights.
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}


def _load_stock(architecture: Architecture, labels: Sequence[str], fused_attention: bool) -> PreTrainedModel:
    return backbone.load_model(architecture, labels, fused_attention=fused_attention)[0]


class Classifier(nn.Module):
    """A classifier over `labels`: the model, its tokenizer and its plan, in one precision.

    `has_several`: a row may have any number of the labels. `packed` says whether batches take the packed pass; it may
    be switched off at any time. `notes` are sentences worth printing. `fresh` names the parameters that started random.
    `fitting` is for evaluations. `pooling` combines the logits of a text's windows, if it has several.
    """

    def __init__(
        self,
        model: nn.Module,
        labels: Sequence[str],
        plan: Plan,
        precision: Precision,
        tokenizer_of: tuple[str, str | None],
        has_several: bool = False,
    ) -> None:
        super().__init__()
        native.keep_freed()
        self.model = model
        self.has_several = has_several
        # For readers of config.json: transformers' pipeline then takes the sigmoid of each logit.
        adapters.stock(model).config.problem_type = "multi_label_classification" if has_several else None
        self._tokenizer_of = tokenizer_of
        self.labels = tuple(labels)
        self.plan = plan
        self.architecture = plan.architecture
        self.precision: Precision = precision
        self.checkpointing = False
        self.pooling: Pooling = "mean"
        self.fresh: frozenset[str] = frozenset()
        self.notes: tuple[str, ...] = ()
        self.fitting = Fitting()
        reason = packed.supported(adapters.stock(model).config, self.architecture)
        self.packed = reason is None
        if reason is not None:
            self.notes = (f"the stock padded forward pass is used, which is slower: {reason}",)
        self._walk: packed.Packed | None = None
        self._has_prefix = False
        if precision == "int8" and not self.is_mixable:
            reason = reason or f"adapter.method is {plan.method}"
            raise ConfigError(f"train.precision is int8, which needs plain LoRA's frozen weights: {reason}; use bf16")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which prepares its own parameters, as products in int8 need."""
        return {**self.__dict__, "_walk": None}

    @classmethod
    def build(
        cls,
        settings: Config,
        plan: Plan,
        labels: Sequence[str],
        total_steps: int,
        precision: Precision,
        device: torch.device,
    ) -> Classifier:
        """Return the classifier that training starts from; total_steps are optimiser steps.

        Initial weights follow `train.seed`. ConfigError if the checkpoint or `adapter.start_from` cannot be used,
        BudgetError if what trains is not what the plan counted.
        """
        _refuse_loss_scale(plan, precision)
        seed, arch = settings.train.seed, plan.architecture
        fused = _attention_is_fused(device, precision)
        model, fresh = backbone.load_model(arch, labels, seed, settings.model.dropout, fused)
        model = adapters.inject(model, plan, settings.adapter, total_steps, seed)
        adapters.verify(model, plan)
        adapters.refuse_unsaved(model, fresh)
        notes = (*_head_notes(arch, labels), *_start(model, settings, labels))
        adapters.hold_frozen_in(model, _DTYPES[precision])
        prefix.without_dropout(model, plan.architecture, plan.n_prefix_layers)
        place = (arch.name, arch.revision)
        has_several = settings.data.labels == "several"
        classifier = cls(cast("nn.Module", model).to(device), labels, plan, precision, place, has_several)
        classifier.fresh, classifier.pooling = fresh, _pooling(settings.model)
        classifier.notes += notes
        if settings.train.gradient_checkpointing:
            classifier.checkpoint_layers()
        return classifier

    @classmethod
    def load(
        cls,
        run: Run,
        device: str | None = None,
        precision: Precision | None = None,
        load_stock: LoadStock = _load_stock,
    ) -> Classifier:
        """Return a finished run's classifier, for evaluation; nothing in it trains.

        device None: the best available. precision None: the run's own on the same kind of device, else the one chosen
        here. `load_stock` returns the stock model for the adapter, which may share its frozen weights with others.
        RunError if the run's files are damaged.
        """
        place = backbone.choose_device(device)
        precision = precision_of(run, place) if precision is None else precisions.choose_precision(precision, place)[0]
        plan = planning.from_json(read_bytes(run.path / "plan.json"))
        folder, labels = run.path / "adapter", run.labels()
        if len(labels) != plan.n_classes:
            raise RunError(
                f"{run.path / 'labels.json'} has {len(labels)} labels, and plan.json {plan.n_classes} classes"
            )
        base, revision = encoder_of(run)
        fused = _attention_is_fused(place, precision)
        model = load_stock(replace(plan.architecture, name=base, revision=revision), labels, fused)
        loaded = model.requires_grad_(False) if plan.method == "none" else adapters.load(model, folder)
        adapters.hold_frozen_in(loaded, _DTYPES[precision])
        tokenizer_of, has_several = (str(folder), None), run.has_several()
        classifier = cls(cast("nn.Module", loaded).to(place), labels, plan, precision, tokenizer_of, has_several).eval()
        classifier.pooling = _pooling(run.config().model)
        classifier.tokenizer = backbone.load_tokenizer(str(folder))  # now: a damaged one is an error at once
        return classifier

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, loaded at its first use unless it was set before."""
        return backbone.load_tokenizer(*self._tokenizer_of)

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        return next(self.parameters()).device

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits of a batch that is on the model's device, float32 [B, C]."""
        if self.architecture.built is not None:
            return pooled(self._padded_logits(batch), batch.n_windows, self.pooling)
        if not self.packed:
            first = self._padded_first(batch)
        else:
            if not self._has_prefix:  # another model's rows, such as a student's if this one is its teacher
                batch = replace(batch, hidden=None)
            first = packed.encode(self._prepared(), batch, checkpoint=self.checkpointing and self.training)
        return self.logits_of(first, batch.n_windows)

    def logits_of(self, first: torch.Tensor, n_windows: torch.Tensor | None) -> torch.Tensor:
        """Return the logits of texts, float32 [B, C], from what the head reads of their windows, [W, D]; `n_windows` as
        in a batch."""
        logits = adapters.head_logits(adapters.stock(self.model), self.architecture, first)
        return pooled(logits, n_windows, self.pooling)

    def save(self, folder: Path) -> None:
        """Write the adapter's folder, or the full model's, for plain transformers and PEFT."""
        base, revision = backbone.public_name(self.architecture.name), self.architecture.revision
        adapters.save(self.model, folder, self.tokenizer, self.labels, base, self.fresh, revision)

    def checkpoint_layers(self) -> None:
        """Recompute each layer in the backward pass, to save memory; for MPNet in the packed pass only."""
        self.checkpointing = True
        stock = adapters.stock(self.model)
        if stock.supports_gradient_checkpointing:
            # transformers before 5.23 has only the old name.
            enable = getattr(stock, "activation_checkpointing_enable", None) or stock.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            # Only reentrant checkpointing needs inputs with gradients; they would run the backward pass to the bottom.
            stock.disable_input_require_grads()

    def prefix_mib(self, split: TokenizedSplit) -> float:
        """Return the size of what `with_prefix` keeps of a split."""
        return len(split.tokens) * self.architecture.width * _DTYPES[self.precision].itemsize / 2**20

    def with_prefix(self, split: TokenizedSplit, watch: Callable[[int], object]) -> tuple[TokenizedSplit, str]:
        """Return the split with the output of the plan's frozen layers, from the cache or computed now, and a note.

        `watch` is called with the number of rows computed, of the splits that these were taken from, if any. If the
        output cannot be kept, it is missing and the note says why.
        """
        if not self.packed:
            return split, "not kept: the stock padded forward pass computes every layer"
        self._has_prefix = True
        return prefix.kept(self._prepared(), adapters.stock(self.model).config, split, watch)

    @property
    def is_mixable(self) -> bool:
        """Return whether rows of this classifier and of another that shares its encoder may be in one batch."""
        return self.packed and packed.mixable(self._prepared())

    def recorder(self, say: Callable[[str], object]) -> Recorder | None:
        """Return the recorder of this model's work as graphs, None if that cannot be recorded: see `replays`."""
        if not self.packed or self.checkpointing or self.device.type != "cuda":
            return None
        if packed.attention_kernels(self._prepared(), self.device) is None:
            say("no kernel computes this model's attention: kernels are launched one by one, which is slower")
            return None
        return Recorder(self.device, say)

    def _prepared(self) -> packed.Packed:
        if self._walk is None:
            dtype, in_int8 = _DTYPES[self.precision], self.precision == "int8"
            self._walk = packed.prepare(self.model, self.architecture, dtype, self.plan.n_prefix_layers, in_int8)
        return self._walk

    def _padded_first(self, batch: Batch) -> torch.Tensor:
        """The first tokens' hidden states by the stock model over padded rows, under autocast in lower precision."""
        stock = adapters.stock(self.model)
        inputs = self._padded(batch)
        with self._autocast():
            hidden = getattr(stock, stock.base_model_prefix)(**inputs)[0]
        if getattr(stock.config, "classifier_pooling", "cls") != "mean":
            return hidden[:, 0].float()
        mask = inputs["attention_mask"].unsqueeze(-1)
        return (hidden.float() * mask).sum(1) / mask.sum(1)

    def _padded_logits(self, batch: Batch) -> torch.Tensor:
        """The stock model's logits over padded rows, its head included: what lies between is unknown here."""
        with self._autocast():
            return adapters.stock(self.model)(**self._padded(batch)).logits.float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision], enabled=self.precision != "fp32")

    def _padded(self, batch: Batch) -> dict[str, torch.Tensor]:
        lengths = batch.offsets.diff()

        def padded(flat: torch.Tensor, value: int) -> torch.Tensor:
            return pad_sequence(list(flat.split(lengths.tolist())), batch_first=True, padding_value=value)

        tokens = padded(batch.tokens, cast("int", self.tokenizer.pad_token_id))
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        inputs = {"input_ids": tokens, "attention_mask": mask.long().to(tokens.device)}
        if self.architecture.n_types > 1:
            inputs["token_type_ids"] = padded(batch.token_types, 0)
        return inputs


@torch.no_grad()
def several_logits(classifiers: Sequence[Classifier], batch: Batch) -> list[torch.Tensor]:
    """Return the logits of each classifier for all rows of a batch, float32 [B, C] each, equal to its own to the bit.

    Several classifiers must share one encoder: the layers that none of them adapts are computed once.
    """
    if len(classifiers) == 1 or not all(each.packed for each in classifiers):
        return [each(batch) for each in classifiers]
    firsts = packed.encode_several([each._prepared() for each in classifiers], replace(batch, hidden=None))
    return [each.logits_of(first, batch.n_windows) for each, first in zip(classifiers, firsts, strict=True)]


@torch.no_grad()
def mixed_logits(
    classifiers: Sequence[Classifier], batch: Batch, text_of: torch.Tensor, model_of: torch.Tensor
) -> list[torch.Tensor]:
    """Return the logits of each classifier's rows, float32 [its rows, its C].

    Row i is text `text_of[i]` of the batch for classifier `model_of[i]`, int64 [R] each, on the CPU. The classifiers
    share one encoder and are all mixable.
    """
    first = packed.encode_mixed([each._prepared() for each in classifiers], batch, text_of, model_of)
    of_rows = model_of.to(first.device)
    n_windows = None if batch.n_windows is None else batch.n_windows[text_of.to(first.device)]
    of_windows = of_rows if n_windows is None else of_rows.repeat_interleave(n_windows)
    return [
        each.logits_of(first[of_windows == number], None if n_windows is None else n_windows[of_rows == number])
        for number, each in enumerate(classifiers)
    ]


def precision_of(run: Run, device: torch.device) -> Precision:
    """Return a finished run's precision on a device: its own, or on another kind of device the one chosen here."""
    environment = run.environment() or {}
    if environment.get("device") == device.type and environment.get("precision") in get_args(Precision):
        return environment["precision"]
    return precisions.choose_precision(None, device)[0]


def encoder_of(run: Run) -> tuple[str, str | None]:
    """Return the name and commit of a finished run's encoder; the run's own folder if it trained all of it.

    It is downloaded if it is missing. Errors are those of `refuse_another_encoder`: call this before long work.
    """
    adapter = run.path / "adapter"
    if run.config().adapter.method == "none":
        return str(adapter), None
    base, revision = base_of(adapter)
    folder = files.folder(base, revision)  # weights that are not at hand are not compared
    refuse_another_encoder(run, base, revision)
    files.weights(base, folder)
    return base, revision


def refuse_another_encoder(run: Run, name: str, revision: str | None = None) -> None:
    """Raise a RunError if the encoder's files hold other weights than the run began with.

    Not compared: weights that are not at hand, and those of runs from before Hub weights were recorded.
    """
    began = (run.environment() or {}).get("encoder_sha256")
    if began is None or backbone.weights_sha256(name, revision) in (began, None):
        return
    raise RunError(
        f"{files.at_hand(name, revision)} does not hold the weights that {run.path} was trained on: "
        + (
            "put them back, or give the changed encoder another folder, which makes another run"
            if files.is_local(name)
            else "remove that folder, and the commit is downloaded again"
        )
    )


def _pooling(model: ModelConfig) -> Pooling:
    return model.window_pooling or "mean"


def _head_notes(arch: Architecture, labels: Sequence[str]) -> tuple[str, ...]:
    """Return what happens to the last layer of a checkpoint that is already a finished classifier."""
    checkpoint_labels = backbone.label_names(arch)
    if checkpoint_labels is None:
        return ()
    if set(checkpoint_labels) == set(labels):
        return (f"{arch.name} is a classifier with the same labels: its last layer is kept as the start",)
    shown = ", ".join(checkpoint_labels[:5]) + (", ..." if len(checkpoint_labels) > 5 else "")
    return (f"{arch.name} is a classifier with other labels ({shown}): its last layer is initialised anew",)


def _start(model: nn.Module, settings: Config, labels: Sequence[str]) -> tuple[str, ...]:
    source = settings.adapter.start_from
    if source is None:
        return ()
    folder, moved = Path(os.path.expanduser(source)), ""
    if (folder / "config.yaml").exists():
        runs.verify(runs.load(folder))
        folder /= "adapter"
    if (folder / "adapter_config.json").is_file():
        (base, commit), own_base = base_of(folder), backbone.public_name(settings.model.name)
        if base != own_base:
            raise ConfigError(f"adapter.start_from is {source}: it adapts {base}, not model.name, which is {own_base}")
        if commit and settings.model.revision and commit != settings.model.revision:
            # No error: most commits leave the weights as they were.
            moved = f"; it was trained on {base} at commit {commit[:12]}, not at {settings.model.revision[:12]} as here"
    with_head = adapters.start_from(model, folder, labels)
    parts = "adapter and head" if with_head else "the adapter alone; the head is new, since labels or its kind differ"
    return (f"training starts from {source}: {parts}{moved}",)


def _refuse_loss_scale(plan: Plan, precision: Precision) -> None:
    if plan.method == "adalora" and precision == "fp16":
        raise ConfigError(
            "train.precision is fp16 and adapter.method adalora: its importance scores do not survive the overflows "
            "that fp16's loss scale provokes; use bf16 or fp32"
        )


def _attention_is_fused(device: torch.device, precision: Precision) -> bool:
    """Return whether the padded pass uses fused attention: its backward is 8 times slower on CPUs below fp32."""
    return device.type != "cpu" or precision == "fp32"


def base_of(folder: Path) -> tuple[str, str | None]:
    """Return the name and commit of an adapter's base model; RunError if its folder names none.

    A path is absolute, unlike one in the config.
    """
    values = read_json(folder / "adapter_config.json")
    values = values if isinstance(values, dict) else {}
    name, revision = values.get("base_model_name_or_path"), values.get("revision")
    if not isinstance(name, str):
        raise RunError(f"{folder / 'adapter_config.json'} names no base model: the run is damaged; train again")
    return name, revision if isinstance(revision, str) else None
