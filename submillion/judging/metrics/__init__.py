"""Scores of saved predictions, each with its 95 % interval: pure functions of whole arrays.

`predictions` has what is scored; `scores` the scores of rows with one label, the confusion matrix, and what is said of
one class; `several` those of rows with several labels; `thresholds`, imported by its name, from which probability on a
label is predicted; `chosen` the scores that may choose a checkpoint; `calibration` whether confidence can be believed,
and what is gained by answering only what is sure.
"""

from submillion.judging.metrics.calibration import (
    Bin,
    Coverage,
    calibrated,
    confidence_gap,
    coverage,
    ece_change,
    reliability,
    safe_log,
    scaled,
    temperature,
)
from submillion.judging.metrics.chosen import (
    LOSSES,
    NAMES,
    allowed_metrics,
    correlation,
    height,
    is_better,
    key_of,
    label_precisions,
    leading,
    precision_parts,
    score,
    score_by,
    usual_metric,
)
from submillion.judging.metrics.predictions import Z_95, Predictions, Score, equal_rows, wilson, wilson_ends
from submillion.judging.metrics.scores import (
    ClassScores,
    class_scores,
    confusion,
    log_loss,
    macro_f1,
    mean_f1,
    row_losses,
)
from submillion.judging.metrics.several import clustered, ece, label_scores, scores_of_several, together

__all__ = [
    "LOSSES",
    "NAMES",
    "Z_95",
    "Bin",
    "ClassScores",
    "Coverage",
    "Predictions",
    "Score",
    "allowed_metrics",
    "calibrated",
    "class_scores",
    "clustered",
    "confidence_gap",
    "confusion",
    "correlation",
    "coverage",
    "ece",
    "ece_change",
    "equal_rows",
    "height",
    "is_better",
    "key_of",
    "label_precisions",
    "label_scores",
    "leading",
    "log_loss",
    "macro_f1",
    "mean_f1",
    "precision_parts",
    "reliability",
    "row_losses",
    "safe_log",
    "scaled",
    "score",
    "score_by",
    "scores_of_several",
    "temperature",
    "together",
    "usual_metric",
    "wilson",
    "wilson_ends",
]
