"""Finished runs at work: labels and probabilities for texts and files of any size, scores for labelled files.

`scoring`: rows in memory · `ensemble`: runs that predict together · `streaming`: files, chunk by chunk · `executors`:
where chunks are predicted · `journal`: what is finished of an output · `writing`: its formats.
"""

from submillion.prediction.ensemble import Ensemble, Members, members
from submillion.prediction.executors import How
from submillion.prediction.scoring import (
    Evaluation,
    Labelled,
    evaluate,
    load,
    open_labelled,
    open_test,
    predict,
    predictions_of,
)
from submillion.prediction.streaming import Progress, Written, predict_file
from submillion.prediction.writing import Form, check_output, write_rows

__all__ = [
    "Ensemble",
    "Evaluation",
    "Form",
    "How",
    "Labelled",
    "Members",
    "Progress",
    "Written",
    "check_output",
    "evaluate",
    "load",
    "members",
    "open_labelled",
    "open_test",
    "predict",
    "predict_file",
    "predictions_of",
    "write_rows",
]
