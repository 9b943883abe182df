"""Predicted rows as files: CSV, TSV, JSON Lines and Parquet, compressed or not, a chunk at a time.

Owns the columns and what may be written where. A file is written under a temporary name and renamed when complete.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from submillion.data import Label
from submillion.data.chunks import Kind
from submillion.data.kinds import WRITTEN, WRITTEN_SUFFIXES, is_in_archive, packing_of, parted, suffix_of
from submillion.data.naming import is_missing
from submillion.errors import ConfigError
from submillion.judging.confidence import AS_TRAINED, RAW, Answering, Rules
from submillion.prediction.ensemble import given, named
from submillion.runs import Output, refuse_run_folder
from submillion.runs.files import reported

_ROW_GROUP_ROWS = 2**17
_JOINING = "|;,\t"
_TYPES = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}  # of Parquet's label column
_KEPT_TYPES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
Kept = tuple[tuple[str, Kind], ...]  # columns copied from the input, and the kinds of their cells
Rows = tuple[Sequence[str], np.ndarray, Sequence[Sequence[Any]]]  # ids, probabilities [N, C], cells of kept columns


@dataclass(frozen=True)
class Form:
    """The columns: id and label, with `probabilities` also prob_<label>; with `label_ids` ID and Label, a number.

    If rows have several labels, that column holds lists, or in CSV and TSV their names, joined (`joining`). force: the
    output may replace a file that no earlier call wrote · id: the input's id column, whose name the output uses; None
    for `id`, if there is one · keep: input columns that are copied · answering: with `max_error` a row's label may be
    empty, and `answered` says if it is not; with `coverage` there is `labels`, those that the row may have, in lists or
    joined. ConfigError for calibrated probabilities that are not written.
    """

    probabilities: bool = False
    label_ids: bool = False
    force: bool = False
    id: str | None = None
    keep: tuple[str, ...] = ()
    answering: Answering = AS_TRAINED

    def __post_init__(self) -> None:
        if self.answering.calibrated and not self.probabilities:
            raise ConfigError(
                "--calibrated (calibrated) changes only probabilities, and none are written: add --probabilities (in "
                "Python Form(probabilities=True))"
            )

    def columns(self, labels: Sequence[Label]) -> list[str]:
        """Return the names of the output's columns; ConfigError if two would be the same."""
        names = ["ID", "Label"] if self.label_ids else ["id", "label"]
        names = [self.id or names[0], *self.keep, names[1]]
        names += ["answered"] * (self.answering.max_error is not None) + ["labels"] * (
            self.answering.coverage is not None
        )
        names += [f"prob_{label}" for label in labels if self.probabilities]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ConfigError(
                f"the output would have two columns {', '.join(map(repr, twice))}: leave it out of --keep and --id, or "
                "rename it in the input"
            )
        return names


def check_output(output: Output, source: Path | str | None = None) -> None:
    """Raise a ConfigError if predictions cannot be written to `output`, or would overwrite `source`, a run, or what
    this command did not write."""
    file, path = output.path, None if source is None else Path(os.path.expanduser(source))
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file.absolute().parent}: no such folder; make it first")
    if path is not None and _same(file, path):
        raise ConfigError(f"{file} is also the input: give another name, to keep its texts")
    refuse_run_folder(file)
    if path is not None and path.is_dir():
        _check_folder(file, path)
        return
    if file.is_dir():
        raise ConfigError(f"{file} is a folder, and {source} a file: give a file's name")
    if not _is_written(file):
        raise ConfigError(
            f"{file}: predictions are not written as {suffix_of(file) or 'files without a suffix'}; the name decides "
            f"the format; give one that ends in {WRITTEN.replace(' and', ' or')}"
        )
    output.check()


def _is_written(file: Path) -> bool:
    """Return whether predictions can be written to a file of this name."""
    is_packed_twice = suffix_of(file) == ".parquet" and bool(packing_of(file))
    return suffix_of(file) in WRITTEN_SUFFIXES and not is_packed_twice and parted(file)[1] is None


def part_name(name: str) -> str:
    """Return the name of the output of a folder's file: the file's, with .csv appended if its kind is not written.

    >>> part_name("new/a.jsonl.gz"), part_name("new/a.xlsx")
    ('new/a.jsonl.gz', 'new/a.xlsx.csv')
    """
    return name if _is_written(Path(name)) else f"{name}.csv"


def _check_folder(output: Path, source: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, and {source} a folder: give the name of a folder for its parts")
    inner, outer = output.resolve(), source.resolve()
    if outer in inner.parents or inner in outer.parents:
        raise ConfigError(f"{output} and {source} are inside one another: give a separate folder")


def check_parts(output: Output, names: Iterable[str]) -> None:
    """Raise a ConfigError if a folder holds files other than the parts to be written, which would pass for output, or
    parts that this command did not write."""
    part_names, folder = set(names), output.path
    existing = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if strange := [name for name in existing if name not in part_names]:
        more = f" and {len(strange) - 1:,} others" if len(strange) > 1 else ""
        raise ConfigError(
            f"{folder} holds {strange[0]}{more}, not part of this output: give another folder, or empty it"
        )
    for name in existing:
        replace(output, path=folder / name).check()


@dataclass(frozen=True)
class Layout:
    """The layout of a file: labels as in the training rows, the kinds of the kept columns' cells, a Parquet file's
    codec, thresholds for several labels, float64 [C], and the rules for probabilities."""

    labels: tuple[Label, ...]
    form: Form
    kept: Kept = ()
    codec: str = "snappy"
    thresholds: np.ndarray | None = None
    rules: Rules = RAW

    @property
    def has_lists(self) -> bool:
        """Return whether a column has several labels."""
        return self.thresholds is not None or self.rules.sets is not None

    def chosen(self, probs: np.ndarray) -> list[list[Any]]:
        """Return the columns between the kept ones and probabilities, from raw ones, float64 [N, C]: each row's label,
        or a list of several; then which rows are answered, or the list of labels that each may have."""
        values = tuple(range(len(self.labels))) if self.form.label_ids else self.labels
        answered, sets = self.rules.answered(probs), self.rules.members(probs)
        columns: list[list[Any]] = [[*given(probs, values, self.thresholds, answered)]]
        columns += [] if answered is None else [answered.tolist()]
        columns += [] if sets is None else [[*named(sets, values)]]
        return [[list(cell) if isinstance(cell, tuple) else cell for cell in column] for column in columns]

    def types(self) -> list[pa.DataType]:
        """Return the types of these columns in Parquet."""
        one = pa.int64() if self.form.label_ids else _TYPES[type(self.labels[0])]
        types = [one if self.thresholds is None else pa.list_(one)]
        types += [pa.bool_()] * (self.rules.selection is not None)
        return types + [pa.list_(one)] * (self.rules.sets is not None)


def joining(output: Path, layout: Layout) -> str:
    """Return what joins several labels in a text file: the first of | ; , tab that is in none of their names.

    ConfigError if each of these is.
    """
    names = "".join(map(str, layout.labels))
    separator = next((mark for mark in _JOINING if mark not in names), None)
    if separator is None and layout.has_lists and suffix_of(output) in (".csv", ".tsv"):
        raise ConfigError(
            f"{output}: label names contain all of {' '.join(_JOINING[:3])} and tab, so none of these can join "
            "them in a cell: give a name that ends in .jsonl or .parquet, whose cells hold lists"
        )
    return separator or _JOINING[0]


def write(output: Output, temporary: Path, layout: Layout, chunks: Iterable[Rows]) -> Counter[str]:
    """Write chunks of rows to one file via `temporary`, on the same disk; return how many rows got each label, by name.

    Labels that are numbers or truth values stay so in JSON Lines and Parquet, and so do kept cells. RunError if writing
    fails; the old file then stays.
    """
    counts: Counter[str] = Counter()
    with reported(output.path, "written"):
        with _writer(output.path, temporary, layout) as add:
            for rows in chunks:
                answered = layout.rules.answered(rows[1])
                names = given(rows[1], tuple(map(str, layout.labels)), layout.thresholds, answered)
                all_names = (name for row in names for name in (row if isinstance(row, tuple) else (row,)))
                counts.update(str(name) for name in all_names if name is not None)
                ids, probs, kept = rows
                add(layout.chosen(probs), (ids, layout.rules.probs(probs), kept))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    output.take(temporary)
    return counts


def write_rows(output: Output, layout: Layout, ids: Sequence[str], probs: np.ndarray) -> None:
    """Write rows in memory to one file, as `write` does."""
    temporary = output.path.with_name(f".{output.path.name}.{os.getpid()}")
    try:
        write(output, temporary, layout, [(ids, probs, ())])
    finally:
        temporary.unlink(missing_ok=True)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def codec_of(path: Path) -> str:
    """Return the compression of a Parquet file's first column; "snappy", the usual one, for another file."""
    if suffix_of(path) != ".parquet" or is_in_archive(path):
        return "snappy"
    with pq.ParquetFile(path) as file:
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression.lower() if groups else "snappy"
    return "none" if codec == "uncompressed" else codec


Add = Callable[[list[list[Any]], Rows], None]  # the chosen columns, and the rows as shown


@contextmanager
def _writer(output: Path, temporary: Path, layout: Layout) -> Iterator[Add]:
    suffix = suffix_of(output)
    if suffix == ".parquet":
        with _parquet(temporary, layout) as add:
            yield add
        return
    with _packed(temporary, packing_of(output)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        match suffix:
            case ".csv" | ".tsv":
                between = joining(output, layout)
                yield _delimited(text, "," if suffix == ".csv" else "\t", layout, between)
            case _:
                yield _json_lines(text, layout)
        text.flush()
        text.detach()


def _delimited(text: IO[str], delimiter: str, layout: Layout, between: str) -> Add:
    form = layout.form
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(form.columns(layout.labels))

    def add(chosen: list[list[Any]], rows: Rows) -> None:
        ids, probs, kept = rows
        cells = [[_as_text(cell) for cell in column] for column in kept]
        cells += [[between.join(map(str, c)) if isinstance(c, list) else c for c in column] for column in chosen]
        for row_id, row, *values in zip(ids, probs, *cells, strict=True):
            writer.writerow([row_id, *values, *(f"{p:.6f}" for p in row if form.probabilities)])

    return add


def _json_lines(text: IO[str], layout: Layout) -> Add:
    form = layout.form
    names = form.columns(layout.labels)

    def add(chosen: list[list[Any]], rows: Rows) -> None:
        ids, probs, kept = rows
        cells = [[None if is_missing(cell) else cell for cell in column] for column in kept]
        for row_id, row, *copied in zip(ids, probs, *cells, *chosen, strict=True):
            values = [row_id, *copied, *(round(float(p), 6) for p in row if form.probabilities)]
            line = json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False, default=str)
            text.write(line + "\n")

    return add


@contextmanager
def _parquet(path: Path, layout: Layout) -> Iterator[Add]:
    """Yield a writer of Parquet rows, held until they make a useful row group; probabilities are not rounded."""
    form, labels = layout.form, layout.labels
    names = form.columns(labels)
    copied = [_KEPT_TYPES[kind] for _, kind in layout.kept]
    n_probs = len(labels) if form.probabilities else 0
    types = [pa.string(), *copied, *layout.types(), *[pa.float64()] * n_probs]
    schema = pa.schema(list(zip(names, types, strict=True)))
    held: list[pa.Table] = []
    with pq.ParquetWriter(path, schema, compression=layout.codec) as writer:

        def add(chosen: list[list[Any]], rows: Rows) -> None:
            ids, probs, kept = rows
            cells = [_typed(column, kind) for column, (_, kind) in zip(kept, layout.kept, strict=True)]
            columns = [ids, *cells, *chosen, *probs.T[:n_probs]]
            held.append(pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], schema=schema))
            if sum(table.num_rows for table in held) >= _ROW_GROUP_ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.concat_tables(held))
            held.clear()

        yield add
        if held:
            flush()


def _typed(column: Sequence[Any], kind: Kind) -> list[Any]:
    """Return cells as a Parquet column of this kind takes them."""
    if kind == "text":
        return [None if is_missing(cell) else _as_text(cell) for cell in column]
    return [None if is_missing(cell) else cell for cell in column]


def _as_text(cell: Any) -> str:
    """Return a cell of any kind as text: "" if it is missing, lists and objects as JSON."""
    if is_missing(cell):
        return ""
    if isinstance(cell, list | tuple | dict):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)


@contextmanager
def _packed(path: Path, packing: str) -> Iterator[Any]:
    """Yield a file that compresses bytes; equal bytes give equal files, which hold no name or time."""
    with open(path, "wb") as raw:
        match packing:
            case ".gz":
                packer: Any = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
            case ".bz2":
                packer = bz2.BZ2File(raw, "wb")
            case ".xz":
                packer = lzma.LZMAFile(raw, "wb")  # noqa: SIM115 - closed below
            case ".zst":
                packer = pa.CompressedOutputStream(cast("Any", raw), "zstd")
            case _:
                packer = nullcontext(raw)
        with packer as file:
            yield file
