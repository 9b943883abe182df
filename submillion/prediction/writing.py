"""Predicted rows as files: CSV, TSV, JSON Lines and Parquet, packed or not, a chunk at a time.

Owns the columns and what may be written where. A file is written under a temporary name and renamed when it is whole.
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
from submillion.data.files import ALLOWED, SUFFIXES, packing_of, suffix_of
from submillion.errors import ConfigError
from submillion.runs import Output, refuse_run_folder
from submillion.runs.files import reported

_ROW_GROUP_ROWS = 2**17
_TYPES = {str: pa.string(), int: pa.int64(), bool: pa.bool_()}  # of Parquet's column of labels
Rows = tuple[Sequence[str], np.ndarray]  # ids and probabilities, float64 [N, C]


@dataclass(frozen=True)
class Form:
    """The columns: id and label, with `probabilities` also prob_<label>; with `label_ids` ID and Label, a number.

    force: it may replace a file that an earlier call did not write.
    """

    probabilities: bool = False
    label_ids: bool = False
    force: bool = False


def check_output(output: Output, source: Path | str | None = None) -> None:
    """Raise a ConfigError if predictions cannot be written to `output`, or something would be lost: `source`, a run, or
    what this command did not write."""
    file, path = output.path, None if source is None else Path(os.path.expanduser(source))
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file.absolute().parent}: no such folder; make it first")
    if path is not None and _same(file, path):
        raise ConfigError(f"{file} is the input too: give another name, so that its texts are kept")
    refuse_run_folder(file)
    if path is not None and path.is_dir():
        _check_folder(file, path)
        return
    if file.is_dir():
        raise ConfigError(f"{file} is a folder, and {source} a file: give a file's name")
    if suffix_of(file) not in SUFFIXES or (suffix_of(file) == ".parquet" and packing_of(file)):
        raise ConfigError(f"{file}: the name decides the format; give one that ends in {ALLOWED}")
    output.check()


def _check_folder(output: Path, source: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ConfigError(f"{output} is a file, and {source} a folder: give the name of a folder for its parts")
    inner, outer = output.resolve(), source.resolve()
    if outer in inner.parents or inner in outer.parents:
        raise ConfigError(
            f"{output} and {source} are inside one another: give a folder beside, so that parts stay apart"
        )


def check_parts(output: Output, names: Iterable[str]) -> None:
    """Raise a ConfigError if a folder holds files other than the parts to be written, for they would pass for it, or
    parts that this command did not write."""
    known, folder = set(names), output.path
    found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if strange := [name for name in found if name not in known]:
        more = f" and {len(strange) - 1:,} other files" if len(strange) > 1 else ""
        raise ConfigError(f"{folder} holds {strange[0]}{more}, no part of the input: give another folder, or empty it")
    for name in found:
        replace(output, path=folder / name).check()


def write(
    output: Output, temporary: Path, labels: Sequence[Label], form: Form, chunks: Iterable[Rows], codec: str
) -> Counter[str]:
    """Write chunks of rows to one file by way of `temporary`, on the same disk; return the count of each label's name.

    Labels that are numbers or truth values stay so in JSON Lines and Parquet. codec: a Parquet file's. RunError if the
    disk does not take it; the old file then stays.
    """
    counts: Counter[str] = Counter()
    with reported(output.path, "written"):
        with _writer(output.path, temporary, labels, form, codec) as add:
            for ids, probs in chunks:
                chosen = probs.argmax(axis=1)
                counts.update([str(labels[int(i)]) for i in chosen])
                add(ids, chosen, probs)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    output.take(temporary)
    return counts


def write_rows(output: Output, labels: Sequence[Label], rows: Rows, form: Form) -> None:
    """Write rows that are in memory to one file, as `write` does."""
    temporary = output.path.with_name(f".{output.path.name}.{os.getpid()}")
    try:
        write(output, temporary, labels, form, [rows], "snappy")
    finally:
        temporary.unlink(missing_ok=True)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def codec_of(path: Path) -> str:
    """Return the compression of a Parquet file's first column; "snappy", the usual one, for another file."""
    if suffix_of(path) != ".parquet":
        return "snappy"
    with pq.ParquetFile(path) as file:
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression.lower() if groups else "snappy"
    return "none" if codec == "uncompressed" else codec


Add = Callable[[Sequence[str], np.ndarray, np.ndarray], None]


@contextmanager
def _writer(output: Path, temporary: Path, labels: Sequence[Label], form: Form, codec: str) -> Iterator[Add]:
    suffix = suffix_of(output)
    if suffix == ".parquet":
        with _parquet(temporary, labels, form, codec) as add:
            yield add
        return
    with _packed(temporary, packing_of(output)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        match suffix:
            case ".csv" | ".tsv":
                yield _delimited(text, "," if suffix == ".csv" else "\t", labels, form)
            case _:
                yield _json_lines(text, labels, form)
        text.flush()
        text.detach()


def _header(labels: Sequence[Label], form: Form) -> list[str]:
    names = ["ID", "Label"] if form.label_ids else ["id", "label"]
    return [*names, *(f"prob_{label}" for label in labels if form.probabilities)]


def _delimited(text: IO[str], delimiter: str, labels: Sequence[Label], form: Form) -> Add:
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(_header(labels, form))

    def add(ids: Sequence[str], chosen: np.ndarray, probs: np.ndarray) -> None:
        names = chosen if form.label_ids else [labels[i] for i in chosen]
        for row_id, name, row in zip(ids, names, probs, strict=True):
            writer.writerow([row_id, name, *(f"{p:.6f}" for p in row if form.probabilities)])

    return add


def _json_lines(text: IO[str], labels: Sequence[Label], form: Form) -> Add:
    names = _header(labels, form)

    def add(ids: Sequence[str], chosen: np.ndarray, probs: np.ndarray) -> None:
        for row_id, label_id, row in zip(ids, chosen.tolist(), probs, strict=True):
            label = label_id if form.label_ids else labels[label_id]
            values = [row_id, label, *(round(float(p), 6) for p in row if form.probabilities)]
            text.write(json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False) + "\n")

    return add


@contextmanager
def _parquet(path: Path, labels: Sequence[Label], form: Form, codec: str) -> Iterator[Add]:
    """Rows are held until they make a row group of use; probabilities are not rounded."""
    names = _header(labels, form)
    types = [pa.string(), pa.int64() if form.label_ids else _TYPES[type(labels[0])], *(pa.float64() for _ in names[2:])]
    schema = pa.schema(list(zip(names, types, strict=True)))
    held: list[pa.Table] = []
    with pq.ParquetWriter(path, schema, compression=codec) as writer:

        def add(ids: Sequence[str], chosen: np.ndarray, probs: np.ndarray) -> None:
            label = chosen if form.label_ids else [labels[i] for i in chosen]
            columns = [ids, label, *probs.T[: len(names) - 2]]
            held.append(pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], schema=schema))
            if sum(table.num_rows for table in held) >= _ROW_GROUP_ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.concat_tables(held))
            held.clear()

        yield add
        if held:
            flush()


@contextmanager
def _packed(path: Path, packing: str) -> Iterator[Any]:
    """A file to write bytes to, which are packed; equal bytes give equal files: no name and no time are in them."""
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
