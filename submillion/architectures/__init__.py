"""What the encoders look like: families, shapes, module names, and facts of common checkpoints.

`families` owns the structure of the six supported model types; `checkpoints` turns a name, a folder
or a config.json into an `Architecture`. Nothing here needs weights, torch or transformers.
"""

from submillion.architectures.checkpoints import hub_id, known, load, local_config
from submillion.architectures.families import (
    FAMILIES,
    SITES,
    Architecture,
    Family,
    Site,
    encoder_biases,
    encoder_parameters,
    head_layers,
    head_modules,
    head_parameters,
    layer_name,
    linear_modules,
    module_name,
    n_parameters,
    site_shape,
)

__all__ = [
    "FAMILIES",
    "SITES",
    "Architecture",
    "Family",
    "Site",
    "encoder_biases",
    "encoder_parameters",
    "head_layers",
    "head_modules",
    "head_parameters",
    "hub_id",
    "known",
    "layer_name",
    "linear_modules",
    "load",
    "local_config",
    "module_name",
    "n_parameters",
    "site_shape",
]
