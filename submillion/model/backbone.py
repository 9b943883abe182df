"""A stock model and its tokenizer, the device they work on, and keyed seeds.

Owns loading both from their folder, in float32 on the CPU, with every problem as a ConfigError. `architectures.files`
finds the folder; `adapters` sets what trains.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from submillion.errors import ConfigError
from submillion.planning import architectures
from submillion.planning.architectures import Architecture, files

Loaded = TypeVar("Loaded")


def seed_for(*parts: int | str) -> int:
    """Return the 63-bit seed that belongs to a key, such as ("dropout", seed, step).

    >>> seed_for("order", 0, 1) == seed_for("order", 0, 1) != seed_for("order", 0, 2)
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def public_name(name: str) -> str:
    """Return the name to publish with an adapter: a Hub id, or the absolute path of a local folder."""
    if (file := architectures.local_config(name)) is not None:
        return str(file.resolve().parent)
    return architectures.hub_id(name) or name


def weights_sha256(name: str, revision: str | None = None) -> str | None:
    """Return the SHA-256 of a model's weights, of several files that of their hashes; None if none are at hand."""
    folder = files.at_hand(name, revision)
    weights = [] if folder is None else files.shards(folder)
    if len(weights) <= 1:
        return files.sha256(weights[0]) if weights and weights[0].is_file() else None
    return hashlib.sha256("".join(files.sha256(file) for file in weights if file.is_file()).encode()).hexdigest()


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a model; ConfigError if there is none, or if it does not fit the model."""
    source = str(files.folder(name, revision))
    tokenizer = _loaded(name, lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=False))
    if tokenizer.init_kwargs.get("auto_map"):
        raise ConfigError(f"model.name is {name}: its tokenizer needs its own code (auto_map), which is never run")
    if not tokenizer.is_fast:
        raise ConfigError(f"model.name is {name}: it has no fast tokenizer (tokenizer.json), and no other kind is used")
    # Without its vocabulary file a tokenizer is still built, from special tokens alone.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ConfigError(f"model.name is {name}: {source} has no vocabulary; tokenizer.json or vocab.txt is missing")
    vocab_size = architectures.load(name, revision).vocab_size
    if len(tokenizer) > vocab_size:
        raise ConfigError(
            f"model.name is {name}: its tokenizer knows {len(tokenizer):,} tokens, its weights {vocab_size:,}; "
            "they belong to different models"
        )
    return tokenizer


def load_model(
    architecture: Architecture,
    labels: Sequence[str],
    seed: int = 0,
    dropout: float | None = None,
    fused_attention: bool = True,
) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the stock classifier in float32 on the CPU, and the names of the parameters that start random.

    These are the head's, drawn with `seed`; `dropout` (a probability) replaces the checkpoint's own. A finished
    classifier keeps its last layer if its label names are these, in any order; else the layer starts random too.
    `fused_attention` is transformers' default (MPNet has none). Weights are read from safetensors files only.
    ConfigError if they are missing or incomplete.
    """
    name, source = architecture.name, str(files.folder(architecture.name, architecture.revision))
    files.weights(name, Path(source))
    config: Any = _loaded(name, lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    checkpoint_labels = _label_names(config)
    config.num_labels = len(labels)  # first: this resets the names
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    if dropout is not None:
        _set_dropout(config, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("head", seed))
        model, report = _loaded(
            name,
            lambda: AutoModelForSequenceClassification.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,  # a pickle could run code
                trust_remote_code=False,  # None would ask at the terminal whether to run the repository's code
                ignore_mismatched_sizes=True,  # another head's classes; anything else is refused below
                attn_implementation="sdpa" if fused_attention and _has_fused_attention(config) else "eager",
                output_loading_info=True,
            ),
        )
        fresh = frozenset(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]}
        fresh |= _fit_last_layer(model, architectures.head_layers(architecture)[1], checkpoint_labels, labels, fresh)
    _refuse_random_encoder(architecture, source, fresh)
    if broken := not_finite(model.named_parameters()):
        raise ConfigError(
            f"model.name is {name}: {len(broken)} of the weights in {source} are NaN or infinite ({broken[0]}, ...): "
            "get the checkpoint again, or use another"
        )
    return model, fresh


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    # A sum is quick and needs no memory; it may overflow although every number is finite.
    return [name for name, tensor in tensors if not tensor.sum().isfinite() and not tensor.isfinite().all()]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, PEFT and the Hub's client: no progress bars, no reports of a new head or of retries."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 uses a name that transformers 5.23 deprecates.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # About PEFT's own conversion, which is not used: `adapters.saving` converts PiSSA and OLoRA itself.
            warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA with rank_pattern", UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def choose_device(device: str | None) -> torch.device:
    """Return the requested device, or for None the first of cuda, mps and cpu; ConfigError if it is missing."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is not None and not available[device]:
        names = ", ".join(name for name, is_there in available.items() if is_there)
        reason = f" ({_why_no_cuda()})" if device == "cuda" else ""
        raise ConfigError(f"device is {device}, which this machine does not have{reason}: set it to {names} or null")
    return torch.device(device or next(name for name, is_there in available.items() if is_there))


def _why_no_cuda() -> str:
    """Return why torch has no CUDA: its build, or the card and its driver."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA: see https://pytorch.org/get-started/locally"
    return f"torch is built for CUDA {torch.version.cuda} and finds no GPU: is the driver new enough? nvidia-smi tells"


def config_of(architecture: Architecture) -> Any:
    """Return transformers' config of a checkpoint."""
    source = str(files.folder(architecture.name, architecture.revision))
    return _loaded(architecture.name, lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))


def label_names(architecture: Architecture) -> tuple[str, ...] | None:
    """Return the labels, in their order, of a checkpoint that is a finished classifier; None for any other."""
    return _label_names(config_of(architecture))


def _label_names(config: Any) -> tuple[str, ...] | None:
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    return tuple(map(str, config.id2label.values())) if is_classifier else None


def _fit_last_layer(
    model: PreTrainedModel,
    name: str,
    checkpoint_labels: Sequence[str] | None,
    labels: Sequence[str],
    fresh: frozenset[str],
) -> set[str]:
    """Order the rows of a checkpoint's last layer by `labels`, or draw it anew; return the drawn parameters' names.

    A layer whose labels the checkpoint does not name is drawn anew too.
    """
    layer = cast("nn.Linear", model.get_submodule(name))
    if f"{name}.weight" in fresh:  # the checkpoint has none, or one of another shape
        return set()
    with torch.no_grad():
        if checkpoint_labels is not None and set(checkpoint_labels) == set(labels):
            order = [checkpoint_labels.index(label) for label in labels]
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            return set()
        layer.weight.normal_(std=model.config.initializer_range)  # as the stock classes do
        layer.bias.zero_()
    return {f"{name}.weight", f"{name}.bias"}


def _set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout of a config, under its family's names."""
    usual = ("classifier_dropout",) if config.model_type != "distilbert" else ()  # None in many: then another's counts
    named = (key for key, value in config.to_dict().items() if "drop" in key and isinstance(value, (int, float)))
    for key in {*usual, *named}:
        setattr(config, key, dropout)


def _has_fused_attention(config: Any) -> bool:
    """Return whether transformers' class has torch's fused attention; MPNet's and DeBERTa's have only their own."""
    return bool(getattr(AutoModelForSequenceClassification._model_mapping[type(config)], "_supports_sdpa", False))


def _refuse_random_encoder(architecture: Architecture, source: str, fresh: frozenset[str]) -> None:
    heads = tuple(f"{module}." for module in architectures.head_modules(architecture))
    missing = sorted(key for key in fresh if not key.startswith(heads))
    if missing:
        raise ConfigError(
            f"model.name is {architecture.name}: {source} lacks {len(missing)} of the encoder's weights, or has them "
            f"in other shapes ({missing[0]}, ...); give a pretrained checkpoint of this architecture"
        )


def _loaded(name: str, load: Callable[[], Loaded]) -> Loaded:
    """Return what `load` returns, quietly; raise ConfigError for what transformers and safetensors raise."""
    try:
        with quiet():
            return load()
    except SafetensorError as error:
        raise ConfigError(f"model.name is {name}: model.safetensors is damaged ({error}); get it again") from None
    except Exception as error:  # transformers checks no shapes, and tokenizers raises plain Exception
        raise ConfigError(f"model.name is {name}: it cannot be loaded: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (AttributeError, LookupError, TypeError)):
        return f"its JSON files are not those of a transformers model ({type(error).__name__}); get them again"
    if "sentencepiece" in text.lower() or "tiktoken" in text:  # transformers tries the second without the first
        return (
            "its vocabulary is a SentencePiece model, which needs another package: pip install sentencepiece protobuf"
        )
    if "trust_remote_code" in text:
        return "it needs its own code, and code from a model's folder is never run; use one that transformers supports"
    return text[:300] or type(error).__name__
