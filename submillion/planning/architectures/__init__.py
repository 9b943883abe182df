"""What the encoders look like: families, shapes, module names, and facts of common checkpoints.

`families` owns the structure of the model types that are counted from their config; `built` asks transformers for any
other encoder; `checkpoints` turns a name, a folder or a config.json into an `Architecture`; `files` finds a
checkpoint's files, those of the Hub at one commit. Only `built` needs torch and transformers.
"""

from submillion.planning.architectures import files
from submillion.planning.architectures.checkpoints import load
from submillion.planning.architectures.families import (
    FAMILIES,
    SEPARATE_SITES,
    SITES,
    Architecture,
    Linear,
    Site,
    dense_bias,
    encoder_biases,
    encoder_parameters,
    has_walk,
    head_layers,
    head_modules,
    head_parameters,
    is_fused,
    layer_name,
    linears,
    longest_tokens,
    module_name,
    n_parameters,
    site_shape,
)
from submillion.planning.architectures.files import local_config, pinned
from submillion.planning.architectures.known import hub_id, known

__all__ = [
    "FAMILIES",
    "SEPARATE_SITES",
    "SITES",
    "Architecture",
    "Linear",
    "Site",
    "dense_bias",
    "encoder_biases",
    "encoder_parameters",
    "files",
    "has_walk",
    "head_layers",
    "head_modules",
    "head_parameters",
    "hub_id",
    "is_fused",
    "known",
    "layer_name",
    "linears",
    "load",
    "local_config",
    "longest_tokens",
    "module_name",
    "n_parameters",
    "pinned",
    "site_shape",
]
