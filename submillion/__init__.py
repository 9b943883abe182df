"""Fine-tune a pretrained encoder for text classification inside a budget of trainable parameters.

The Python API. Names load their modules when first used, so importing submillion is quick and
planning never imports torch.

    import submillion

    run = submillion.train("reviews.csv", model="all-MiniLM-L6-v2", budget=200_000)
    print(run.scores()["validation"]["accuracy"])
    print(submillion.predict(run, ["Lovely!", "Never again."]).labels)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# OpenMP reads it when torch is imported. Otherwise threads that wait for each other spin, and a second program on the
# same cores makes each wait last until the system stops it: a training then takes several times as long (decision 028).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from submillion.api import export, predict, shift, train
    from submillion.api.answered import evaluate
    from submillion.api.asking import ask
    from submillion.api.estimator import SubmillionClassifier
    from submillion.cli.progress import View as progress  # noqa: N813 - it is called as a function is
    from submillion.config import Config
    from submillion.config import load as load_config
    from submillion.errors import (
        BudgetError,
        ConfigError,
        DataError,
        DivergedError,
        ExportError,
        HubError,
        RunError,
        SubmillionError,
    )
    from submillion.judging.comparison.rows import rows_for_points
    from submillion.judging.metrics import Score
    from submillion.model.classifier import Classifier
    from submillion.planning import plan
    from submillion.prediction.robustness import measure as robustness
    from submillion.reports import report
    from submillion.reports.comparing import compare
    from submillion.runs import Run
    from submillion.runs import load as load_run
    from submillion.sweeps.sitting import sweep

    __version__: str

__all__ = [
    "BudgetError",
    "Classifier",
    "Config",
    "ConfigError",
    "DataError",
    "DivergedError",
    "ExportError",
    "HubError",
    "Run",
    "RunError",
    "Score",
    "SubmillionClassifier",
    "SubmillionError",
    "__version__",
    "ask",
    "compare",
    "evaluate",
    "export",
    "load_config",
    "load_run",
    "plan",
    "predict",
    "progress",
    "report",
    "robustness",
    "rows_for_points",
    "shift",
    "sweep",
    "train",
]

_HOMES = {
    "Classifier": ("submillion.model.classifier", "Classifier"),
    "Config": ("submillion.config", "Config"),
    "Run": ("submillion.runs", "Run"),
    "Score": ("submillion.judging.metrics", "Score"),
    "SubmillionClassifier": ("submillion.api.estimator", "SubmillionClassifier"),
    "ask": ("submillion.api.asking", "ask"),
    "compare": ("submillion.reports.comparing", "compare"),
    "evaluate": ("submillion.api.answered", "evaluate"),
    "export": ("submillion.api", "export"),
    "load_config": ("submillion.config", "load"),
    "load_run": ("submillion.runs", "load"),
    "plan": ("submillion.planning", "plan"),
    "predict": ("submillion.api", "predict"),
    "progress": ("submillion.cli.progress", "View"),
    "report": ("submillion.reports", "report"),
    "robustness": ("submillion.prediction.robustness", "measure"),
    "rows_for_points": ("submillion.judging.comparison.rows", "rows_for_points"),
    "shift": ("submillion.api", "shift"),
    "sweep": ("submillion.sweeps.sitting", "sweep"),
    "train": ("submillion.api", "train"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("submillion")
    if name not in __all__:
        raise AttributeError(f"module 'submillion' has no attribute {name!r}")
    module, attribute = _HOMES.get(name, ("submillion.errors", name))
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return list(__all__)
