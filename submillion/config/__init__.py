"""The settings of a run, their loading, checking, dumping and hashing."""

from submillion.config.loading import (
    NOT_HASHED,
    commented,
    digest,
    load,
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
    DataConfig,
    DistillationConfig,
    Method,
    ModelConfig,
    Precision,
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
    "Method",
    "ModelConfig",
    "Precision",
    "TrainConfig",
    "commented",
    "digest",
    "load",
    "recipe_names",
    "recipe_text",
    "to_yaml",
    "validate",
]
