"""The run folder: everything a training leaves behind, written so that a crash never leaves a lie."""

from submillion.runs.facts import COLUMNS, facts
from submillion.runs.files import locked, write_atomically
from submillion.runs.finding import create, find, list_runs, load, locate, remove, verify
from submillion.runs.folder import Run, State
from submillion.runs.records import EvalRecord, Record, StepRecord, packed_rows, unpacked_rows
from submillion.runs.seal import append_test_read, count_test_reads

__all__ = [
    "COLUMNS",
    "EvalRecord",
    "Record",
    "Run",
    "State",
    "StepRecord",
    "append_test_read",
    "count_test_reads",
    "create",
    "facts",
    "find",
    "list_runs",
    "load",
    "locate",
    "locked",
    "packed_rows",
    "remove",
    "unpacked_rows",
    "verify",
    "write_atomically",
]
