"""The settings of a run, their loading, checking, dumping and hashing."""

from submillion.config.data import DataConfig, Labels
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
    ModelConfig,
    Precision,
    Tracker,
    TrainConfig,
)

__all__ = [
    "NOT_HASHED",
    "AdapterConfig",
    "AugmentationConfig",
    "AugmentationKind",
    "Config",
    "DataConfig",
    "DistillationConfig",
    "Labels",
    "Method",
    "Metric",
    "ModelConfig",
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
