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
    open_labelled,
    predict,
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
    "members",
    "open_labelled",
    "predict",
    "predict_file",
    "write_rows",
]
