"""The run folder: everything a training leaves behind, written so that a crash never falsifies it."""

from submillion.runs.continued import continued
from submillion.runs.facts import COLUMNS, KEYS, examined, facts
from submillion.runs.files import locked, write_atomically
from submillion.runs.finding import (
    Which,
    create,
    discard,
    find,
    folder,
    is_run,
    list_runs,
    load,
    load_several,
    locate,
    remove,
    run_around,
    verify,
)
from submillion.runs.folder import Run
from submillion.runs.outputs import Output, refuse_run_folder
from submillion.runs.predictions import load_unlabelled, save_unlabelled
from submillion.runs.records import (
    EvalRecord,
    Record,
    StepRecord,
    Stopped,
    dumps,
    noted,
    packed_losses,
    packed_rows,
    unpacked_losses,
    unpacked_rows,
)
from submillion.runs.seal import (
    append_test_read,
    count_test_reads,
    count_trained_on,
    note_trained_on,
    seen_warnings,
    times,
    trained_on,
)

__all__ = [
    "COLUMNS",
    "KEYS",
    "EvalRecord",
    "Output",
    "Record",
    "Run",
    "StepRecord",
    "Stopped",
    "Which",
    "append_test_read",
    "continued",
    "count_test_reads",
    "count_trained_on",
    "create",
    "discard",
    "dumps",
    "examined",
    "facts",
    "find",
    "folder",
    "is_run",
    "list_runs",
    "load",
    "load_several",
    "load_unlabelled",
    "locate",
    "locked",
    "note_trained_on",
    "noted",
    "packed_losses",
    "packed_rows",
    "refuse_run_folder",
    "remove",
    "run_around",
    "save_unlabelled",
    "seen_warnings",
    "times",
    "trained_on",
    "unpacked_losses",
    "unpacked_rows",
    "verify",
    "write_atomically",
]
