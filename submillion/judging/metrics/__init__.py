"""Scores of saved predictions, each with its 95 % interval: pure functions of whole arrays.

`scores` has what every run is judged by, the confusion matrix, and what is said of one class; `chosen` the scores
that may choose a checkpoint; `calibration` whether confidence can be believed, and what is gained by answering only
what is sure.
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
from submillion.judging.metrics.chosen import (
    NAMES,
    correlation,
    height,
    is_better,
    key_of,
    leading,
    precision_parts,
    score_by,
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
    "NAMES",
    "Z_95",
    "Bin",
    "ClassScores",
    "Coverage",
    "Predictions",
    "Score",
    "calibrated",
    "class_scores",
    "confusion",
    "correlation",
    "coverage",
    "ece",
    "height",
    "is_better",
    "key_of",
    "leading",
    "macro_f1",
    "mean_f1",
    "precision_parts",
    "reliability",
    "row_losses",
    "safe_log",
    "scaled",
    "score",
    "score_by",
    "temperature",
    "wilson",
]
