"""The settings of a run, their loading, checking, dumping and hashing."""

from submillion.config.data import DataConfig, Labels
from submillion.config.encoder import MAX_WINDOWS, Head, LongTexts, ModelConfig, Pooling
from submillion.config.keys import as_text, flat
from submillion.config.loading import (
    NOT_HASHED,
    changed,
    commented,
    digest,
    load,
    parse_overrides,
    read_mapping,
    recipe_names,
    recipe_text,
    to_yaml,
    validate,
)
from submillion.config.settings import (
    AdapterConfig,
    AugmentationConfig,
    AugmentationKind,
    Config,
    DistillationConfig,
    Method,
    Metric,
    Precision,
    Tracker,
    TrainConfig,
)

__all__ = [
    "MAX_WINDOWS",
    "NOT_HASHED",
    "AdapterConfig",
    "AugmentationConfig",
    "AugmentationKind",
    "Config",
    "DataConfig",
    "DistillationConfig",
    "Head",
    "Labels",
    "LongTexts",
    "Method",
    "Metric",
    "ModelConfig",
    "Pooling",
    "Precision",
    "Tracker",
    "TrainConfig",
    "as_text",
    "changed",
    "commented",
    "digest",
    "flat",
    "load",
    "parse_overrides",
    "read_mapping",
    "recipe_names",
    "recipe_text",
    "to_yaml",
    "validate",
]
