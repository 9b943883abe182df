"""The rows that an export is checked on: the run's validation split, read again, or a file.

Owns the proof that they are the same rows; how they are read is left to `data`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from submillion import data, runs
from submillion.data import Example
from submillion.errors import DataError, SubmillionError
from submillion.runs import Run

VALIDATION = "validation"


@dataclass(frozen=True)
class Rows:
    """Rows with the name they are spoken of by, and their fingerprint; `labelled` says whether labels were read."""

    name: str
    examples: list[Example]
    fingerprint: str
    labelled: bool


def validation(run: Run) -> Rows:
    """Return the run's validation rows, read again by its config.

    DataError if they cannot be read or are not those that the run's checkpoint was chosen on.
    """
    settings, facts = run.config(), run.read_json("data.json")
    instead = "put them back, or give other rows with --data FILE"
    try:
        examples = data.read(settings.data).validation
    except SubmillionError as error:
        raise DataError(
            f"the export is checked on the run's validation rows, and they cannot be read again: {error.problems[0]}; "
            f"{instead}"
        ) from None
    found, expected = data.fingerprint(examples), facts.get("validation_fingerprint")
    same_ids = [example.id for example in examples] == run.load_predictions(VALIDATION).ids
    if found != (expected or found) or not same_ids:
        raise DataError(
            f"{settings.data.source} no longer gives the run's validation rows (fingerprint {found[:8]}, was "
            f"{str(expected)[:8]}): {instead}"
        )
    return Rows(VALIDATION, examples, found, labelled=True)


def of_file(run: Run, file: Path, labelled: bool) -> Rows:
    """Return the rows of a file, by the run's columns; with `labelled` each needs one of the run's labels.

    Reading labels is noted in `test-reads.jsonl` beside the run: the file may hold its test rows. DataError lists
    everything that is wrong.
    """
    examples = data.read_rows(file, run.config().data, labels=run.labels() if labelled else None)
    fingerprint = data.fingerprint(examples)
    if labelled:
        runs.append_test_read(run.path.parent, fingerprint, run, "export")
    return Rows(file.name, examples, fingerprint, labelled)
