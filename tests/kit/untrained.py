"""Runs that were not trained: finished folders in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from submillion import config, planning
from submillion.model.classifier import Classifier
from submillion.runs import Run
from tests.adapted import shaken
from tests.tiny import settings

THREE, TWO = ("bad", "fine", "good"), ("no", "yes")


def make_run(
    folder: Path,
    encoder: Path,
    labels: tuple[str, ...] = THREE,
    head: str = "full",
    pairs: bool = False,
    thresholds: tuple[float, ...] | None = None,
    model: dict[str, Any] | None = None,
    **adapter: Any,
) -> Run:
    """A run that was not trained, but shaken: a finished folder in a moment. Where there are thresholds, rows have
    several labels."""
    own = settings(encoder, head, **adapter)
    own = own.model_copy(update={"model": own.model.model_copy(update=model or {})})
    if pairs:
        own = own.model_copy(update={"data": own.data.model_copy(update={"text_pair": "second"})})
    if thresholds is not None:
        own = config.changed(own, {"data.labels": "several", "train.metric": "micro-f1"})
    plan = planning.plan(own, len(labels))
    classifier = Classifier.build(own, plan, labels, 20, "fp32", torch.device("cpu"))
    shaken(classifier.model, seed=len(list(folder.iterdir())))
    run = Run(folder / f"run{len(list(folder.iterdir()))}-00000000")
    run.path.mkdir()
    classifier.save(run.path / "adapter")
    run.write("config.yaml", config.to_yaml(own))
    run.write("plan.json", planning.to_json(plan))
    run.write_labels(labels, thresholds is not None)
    if thresholds is not None:
        run.write_thresholds(np.array(thresholds))
    run.write_json("environment.json", {"device": "cpu", "precision": "fp32"})
    run.write_json("data.json", {})
    run.write_json("scores.json", {})
    run.mark_done()
    return run
