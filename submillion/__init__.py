"""Fine-tune a pretrained encoder for text classification inside a budget of trainable parameters.

The Python API. Names load their modules when first used, so that importing submillion is quick and
planning never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from submillion.classifier import Classifier
    from submillion.comparison import compare
    from submillion.config import Config
    from submillion.config import load as load_config
    from submillion.planning import plan
    from submillion.prediction import evaluate, predict
    from submillion.sweeps.sitting import sweep
    from submillion.workflow import train

__all__ = ["Classifier", "Config", "compare", "evaluate", "load_config", "plan", "predict", "sweep", "train"]

_HOMES = {
    "Classifier": ("submillion.classifier", "Classifier"),
    "Config": ("submillion.config", "Config"),
    "load_config": ("submillion.config", "load"),
    "plan": ("submillion.planning", "plan"),
    "train": ("submillion.workflow", "train"),
    "evaluate": ("submillion.prediction", "evaluate"),
    "predict": ("submillion.prediction", "predict"),
    "sweep": ("submillion.sweeps.sitting", "sweep"),
    "compare": ("submillion.comparison", "compare"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'submillion' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
