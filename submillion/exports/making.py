"""The order of the steps behind `export`: read rows, the run's logits, write, load again, judge, seal, rename.

Everything is written into a folder next to the requested one, and renamed when nothing is left to do: what fails, or is
killed, leaves no export.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from submillion import data, runs
from submillion.data import Example, groups_of
from submillion.errors import ConfigError, DataError, ExportError, SubmillionError
from submillion.exports import card, checking, formats, manifest
from submillion.exports.manifest import Format, Manifest, Question
from submillion.model.batching import label_ids
from submillion.model.classifier import encoder_of
from submillion.reports.usage import reads_of
from submillion.runs import Run
from submillion.training import distillation

Watch = Callable[[str, int, int], object]  # the current step, rows done, rows in all (0 if it has none)
_LOCK, _VALIDATION = ".lock", "validation"


@dataclass(frozen=True)
class Written:
    """A finished export: its folder, its manifest, and whether it is new or was found."""

    folder: Path
    manifest: Manifest
    is_new: bool


@dataclass(frozen=True)
class _Rows:
    """Rows with their name in messages, and their fingerprint; `labelled` says whether labels were read."""

    name: str
    examples: list[Example]
    fingerprint: str
    labelled: bool


def write(
    run: Run,
    kind: Format,
    output: Path | None = None,
    file: Path | None = None,
    margin: float | None = None,
    watch: Watch = lambda *_: None,
) -> Written:
    """Return the export of a finished run, made and checked now, or found in its folder.

    output None: `exports/<format>` in the run's folder · file: rows to check on instead of the validation split,
    labelled for onnx-int8 · margin: the most accuracy that onnx-int8 may lose, a share of rows; None is 0.01.
    ExportError if the export is not as good as its run; ConfigError, DataError or RunError says what is wrong with the
    input. Nothing is then left behind.
    """
    formats.refuse_missing(kind)
    margin = _margin(kind, margin)
    run = runs.load(run.path)
    runs.verify(run)
    encoder_of(run)
    folder = run.path / "exports" / kind if output is None else Path(os.path.expanduser(output))
    if output is not None and (run.path / "exports").resolve() not in folder.resolve().parents:
        runs.refuse_run_folder(folder)
    file_rows = None if file is None else _rows_of(run, file, labelled=kind == "onnx-int8")
    question = Question(kind, distillation.identity(run), file_rows.fingerprint if file_rows else _VALIDATION, margin)
    if (existing := manifest.find(folder, question, _thresholds(run))) is not None:
        return Written(folder, existing, is_new=False)
    with _filling(folder) as part:
        export = _make(run, question, file_rows, part, watch)
    return Written(folder, export, is_new=True)


def _margin(kind: Format, margin: float | None) -> float | None:
    if kind != "onnx-int8":
        if margin is not None:
            raise ConfigError(f"--margin is for onnx-int8; {kind} is float32 and must give the run's own logits")
        return None
    if margin is not None and not 0 < margin < 1:
        raise ConfigError(f"--margin is {margin:g}: allowed is a share of rows above 0 and below 1, such as 0.01")
    return checking.MARGIN if margin is None else margin


def _make(run: Run, question: Question, file_rows: _Rows | None, part: Path, watch: Watch) -> Manifest:
    kind, labels = question.format, run.labels()
    watch("reading the validation rows" if file_rows is None else f"reading {file_rows.name}", 0, 0)
    checked = _validation_rows(run) if file_rows is None else file_rows
    n_rows = len(checked.examples)
    say = "computing the run's logits in float32"
    watch(say, 0, n_rows)
    place = (torch.device("cpu"), "fp32")
    reference, _ = distillation.logits(run, checked.examples, labels, place, lambda n: watch(say, n, n_rows))
    watch(f"writing {kind}", 0, 0)
    with _reported(part):
        formats.write(kind, run, part)
    say = "computing the export's logits"
    watch(say, 0, n_rows)
    exported = checking.logits(kind, part, checked.examples, reads_of(run), lambda n: watch(say, n, n_rows))
    truth, groups = _label_ids(checked, labels), groups_of(checked.examples)
    checks = checking.judge(kind, checked.name, exported, reference, truth, run.thresholds(), groups)
    checking.refuse(kind, checks, question.margin)
    watch("writing the model card", 0, 0)
    with _reported(part):
        text = card.markdown(run, kind, checks, question.margin)
        (part / "README.md").write_text(text, encoding="utf-8")
        return manifest.write(part, question, run.name, checks.values(), _facts(run, kind))


def _label_ids(checked: _Rows, labels: tuple[str, ...]) -> np.ndarray | None:
    if not checked.labelled:
        return None
    return label_ids([example.label for example in checked.examples], labels)


def _facts(run: Run, kind: Format) -> dict[str, Any]:
    packages = ("submillion", "torch", "transformers", *(() if kind == "merged" else ("onnx", "onnxruntime")))
    thresholds = _thresholds(run)
    return {
        "labels": list(run.labels()),
        **({} if thresholds is None else {"thresholds": thresholds}),
        "max_length": run.config().model.max_length,
        "long_texts": reads_of(run).values(),
        "opset": None if kind == "merged" else formats.OPSET,
        "versions": {name: version(name) for name in packages},
        "machine": {"architecture": platform.machine(), "capability": torch.backends.cpu.get_cpu_capability()},
    }


def _thresholds(run: Run) -> list[float] | None:
    """Return the thresholds of several labels, in the labels' order, as JSON values."""
    thresholds = run.thresholds()
    return None if thresholds is None else thresholds.tolist()


def _validation_rows(run: Run) -> _Rows:
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
    fingerprint, expected = data.fingerprint(examples), facts.get("validation_fingerprint")
    same_ids = [example.id for example in examples] == run.load_predictions(_VALIDATION).ids
    if fingerprint != (expected or fingerprint) or not same_ids:
        raise DataError(
            f"{settings.data.source} no longer gives the run's validation rows (fingerprint {fingerprint[:8]}, was "
            f"{str(expected)[:8]}): {instead}"
        )
    return _Rows(_VALIDATION, examples, fingerprint, labelled=True)


def _rows_of(run: Run, file: Path, labelled: bool) -> _Rows:
    """Return the rows of a file, by the run's columns; with `labelled` each needs one of the run's labels.

    Reading labels is recorded in `test-reads.jsonl` next to the run: the file may hold its test rows. The name says how
    many rows `data.drop` leaves out, and with `labelled` how many were trained on. DataError lists everything that is
    wrong.
    """
    notes = list[str]()
    examples = data.read_rows(file, run.config().data, run.labels() if labelled else None, notes)
    fingerprint, name = (
        data.fingerprint(examples),
        "; ".join((file.name, *(note.removeprefix(f"{file}: ") for note in notes))),
    )
    if labelled:
        runs.append_test_read(run.path.parent, fingerprint, run, "export")
        seen = runs.seen_warnings(runs.count_trained_on(run, examples), len(examples))
        name = "; ".join((name, *seen))
    return _Rows(name, examples, fingerprint, labelled)


@contextmanager
def _filling(folder: Path) -> Iterator[Path]:
    """Yield a new folder next to `folder`, which takes its name if the block succeeds, and is removed if it fails.

    What a killed process left there is removed first; RunError if a living one uses it.
    """
    part, is_new = folder.with_name(f".{folder.name}.part"), not folder.parent.exists()
    with _reported(folder):
        part.mkdir(parents=True, exist_ok=True)
    with runs.locked(part):
        try:
            with _reported(folder):
                _empty(part)
            yield part
            with _reported(folder):
                if folder.exists():  # it is empty, `manifest.find` checked; another process may have been faster
                    folder.rmdir()
                os.rename(part, folder)
                (folder / _LOCK).unlink()
        finally:
            shutil.rmtree(part, ignore_errors=True)
            with suppress(OSError):  # it holds the export
                if is_new:
                    folder.parent.rmdir()


def _empty(part: Path) -> None:
    for path in part.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Turn what writing raises into an ExportError; the libraries wrap a full disk in their own classes."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, SafetensorError)) and "os error" not in str(error):  # tokenizers' bare one
            raise
        raise ExportError(f"{folder} cannot be written: {error}; nothing of the export is left behind") from None
