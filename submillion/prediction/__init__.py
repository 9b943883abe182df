"""Finished runs at work: labels and probabilities for texts and files of any size, scores for labelled files.

`ensemble`: rows in memory, by one run or several together · `streaming`: files, chunk by chunk, here or elsewhere ·
`journal`: the finished part of an output · `writing`: its formats.
"""

from submillion.judging.confidence import Answering, AnsweringScores
from submillion.prediction.ensemble import Evaluation, Labelled, Sample, evaluate, open_labelled, predict, scored
from submillion.prediction.streaming import How, Progress, predict_file
from submillion.prediction.writing import Form, Layout, check_output, write_rows

__all__ = [
    "Answering",
    "AnsweringScores",
    "Evaluation",
    "Form",
    "How",
    "Labelled",
    "Layout",
    "Progress",
    "Sample",
    "check_output",
    "evaluate",
    "open_labelled",
    "predict",
    "predict_file",
    "scored",
    "write_rows",
]
