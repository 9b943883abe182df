"""Scores of saved predictions, each with its 95 % interval: pure functions of whole arrays.

`scores` has what every run is judged by, the confusion matrix, and what is said of one class; `calibration` whether
confidence can be believed, and what is gained by answering only what is sure.
"""

from submillion.judging.metrics.calibration import (
    Bin,
    Coverage,
    calibrated,
    coverage,
    reliability,
    safe_log,
    scaled,
    temperature,
)
from submillion.judging.metrics.scores import (
    Z_95,
    ClassScores,
    Predictions,
    Score,
    class_scores,
    confusion,
    ece,
    macro_f1,
    mean_f1,
    row_losses,
    score,
    wilson,
)

__all__ = [
    "Z_95",
    "Bin",
    "ClassScores",
    "Coverage",
    "Predictions",
    "Score",
    "calibrated",
    "class_scores",
    "confusion",
    "coverage",
    "ece",
    "macro_f1",
    "mean_f1",
    "reliability",
    "row_losses",
    "safe_log",
    "scaled",
    "score",
    "temperature",
    "wilson",
]
