"""What the encoders look like: families, shapes, module names, and facts of common checkpoints.

`families` owns the structure of the six supported model types; `checkpoints` turns a name, a folder
or a config.json into an `Architecture`; `files` finds a checkpoint's files, those of the Hub at one commit. Nothing
here needs torch or transformers.
"""

from submillion.planning.architectures import files
from submillion.planning.architectures.checkpoints import load
from submillion.planning.architectures.families import (
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
from submillion.planning.architectures.files import local_config, pinned
from submillion.planning.architectures.known import hub_id, known

__all__ = [
    "FAMILIES",
    "SITES",
    "Architecture",
    "Family",
    "Site",
    "encoder_biases",
    "encoder_parameters",
    "files",
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
    "pinned",
    "site_shape",
]
