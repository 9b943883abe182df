"""Scores of saved predictions, each with its 95 % interval: pure functions of whole arrays.

`scores` has what every run is judged by, and the confusion matrix; `classes` what is said of one class; `calibration`
whether confidence can be believed; `coverage` what is gained by answering only what is sure.
"""

from submillion.judging.metrics.calibration import Bin, Scaling, calibrated, reliability, safe_log, scaled, temperature
from submillion.judging.metrics.classes import ClassScores, class_scores
from submillion.judging.metrics.coverage import Coverage, coverage
from submillion.judging.metrics.scores import (
    Z_95,
    Predictions,
    Score,
    confusion,
    ece,
    log_loss,
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
    "Scaling",
    "Score",
    "calibrated",
    "class_scores",
    "confusion",
    "coverage",
    "ece",
    "log_loss",
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
