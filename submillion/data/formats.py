"""Files become tables, whole or some rows at a time.

Owns JSON Lines, Parquet and Arrow; CSV and TSV are left to `delimited`, workbooks, databases and what archives hold to
`containers`, bytes and encodings to `files`, what columns mean to `reading`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from submillion.data.containers import database, members, sheet
from submillion.data.delimited import batches, delimited
from submillion.data.files import Lines, bomb, most_unpacked, read_errors, refuse_disguised, seekable
from submillion.data.kinds import ARROW, EXCEL, SQLITE, refuse, suffix_of
from submillion.data.tables import (
    AS_NAMED,
    BadRows,
    Layout,
    Table,
    decoded,
    encoding_notes,
    joined,
    last_number,
    numbered_on,
    place,
    refuse_repeated,
    unread_rows,
)
from submillion.errors import DataError
from submillion.text import first_line, shown

_PARQUET_BUFFER_BYTES = 2**20
_ARROW_MARK = b"ARROW1"  # of a file that may be read in any order; a stream has none


def read_table(path: Path, wanted: Collection[str], layout: Layout = AS_NAMED) -> Table:
    """Return a file's table with the `wanted` columns; DataError if the file cannot be read at all."""
    (table,) = tables(path, wanted, layout=layout)
    return table


def tables(
    path: Path, wanted: Collection[str], n_rows: int | None = None, layout: Layout = AS_NAMED
) -> Iterator[Table]:
    """Yield a file's rows as tables with the `wanted` columns; all in one if `n_rows` is None.

    Each table has the next `n_rows` rows, the last what is left; broken ones count and are left out. The first
    table comes even if there are no rows. `names` are those seen so far: a JSON Lines file may have new ones at any
    row. DataError if the file cannot be read.
    """
    refuse(path)
    refuse_disguised(path)
    match suffix_of(path):
        case ".parquet":
            parts = _parquet(path, wanted, n_rows)
        case suffix if suffix in ARROW:
            parts = _arrow(path, wanted, n_rows)
        case ".csv" | ".tsv":
            parts = delimited(path, wanted, n_rows, layout)
        case suffix if suffix in EXCEL:
            parts = sheet(path, wanted, n_rows, layout)
        case suffix if suffix in SQLITE:
            parts = database(path, wanted, n_rows)
        case ".zip":
            parts = _archive(path, wanted, n_rows, layout)
        case _:
            parts = _json_lines(path, wanted, n_rows, layout)
    yield next(parts)
    yield from (table for table in parts if table.numbers or table.bad)


def _archive(path: Path, wanted: Collection[str], n_rows: int | None, layout: Layout) -> Iterator[Table]:
    """Yield the rows of the file in an archive, or of the parts of one table, one after the other."""
    places, notes = members(path)
    if n_rows is None:
        whole = joined(str(path), [read_table(place, wanted, layout) for place in places])
        yield replace(whole, notes=(*notes, *whole.notes))
        return
    before = last = 0
    for member in places:
        for table in tables(member, wanted, n_rows, layout):
            renumbered = numbered_on(table, before) if before else table
            last = max(last, last_number(renumbered))
            yield replace(renumbered, notes=(*notes, *table.notes))
        before = last


def _json_lines(path: Path, wanted: Collection[str], n_rows: int | None, layout: Layout) -> Iterator[Table]:
    lines, names = Lines(path, "\n", layout.encoding), dict[str, None]()
    filled = ((line, content) for line, content in enumerate(lines, start=1) if content.strip())
    for first, batch in batches(filled, n_rows):
        rows, broken, reason = dict[int, dict[str, Any]](), [], ""
        for number, (_, content) in enumerate(batch, start=first):
            try:
                rows[number] = _json_object(content.rstrip("\n"))
            except (ValueError, RecursionError) as error:
                broken.append(number)
                reason = reason or _why(error)
        starts = {number: line for number, (line, _) in enumerate(batch, start=first)}
        bad = unread_rows(lines.problem(), list(starts), list(starts.values()), layout)
        if broken:
            where = place(str(path), broken, [starts[number] for number in broken])
            bad.append(BadRows(tuple(broken), f"{where}: not a JSON object ({reason}): write one object per line"))
        names |= {name: None for row in rows.values() for name in row}
        columns = {name: [row.get(name) for row in rows.values()] for name in names if name in wanted}
        where = {"numbers": list(rows), "lines": [starts[number] for number in rows], "path": path, "layout": layout}
        table = Table(str(path), tuple(names), columns, **where, bad=tuple(bad), notes=encoding_notes(lines))
        yield table.without({number for each in bad for number in each.numbers})


def _why(error: Exception) -> str:
    """Return why a line is not read; the decoder's own words count it as line 1."""
    is_syntax = isinstance(error, json.JSONDecodeError)
    return f"{error.msg} at character {error.colno}" if is_syntax else str(error)


def _json_object(content: str) -> dict[str, Any]:
    value = json.loads(content, object_pairs_hook=_with_each_key_once)
    if not isinstance(value, dict):
        raise ValueError(f"it is {shown(content)}")
    return value


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; Python would take the last value of a repeated key."""
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"a key is there twice, of {', '.join(key for key, _ in pairs[:10])}")
    return record


def _parquet(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    import pyarrow.parquet as pq

    # Read through a small buffer: a row group may be as large as the file.
    with (
        _arrow_errors(path, "a Parquet"),
        seekable(path) as source,
        pq.ParquetFile(source, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file,
    ):
        names = tuple(file.schema_arrow.names)
        chosen = _chosen(path, names, wanted)
        if file.metadata.num_rows > most_unpacked(path):
            raise DataError(bomb(path))
        if n_rows is None:
            arrow_tables = iter([file.read(columns=chosen)])
        else:
            slices = file.iter_batches(batch_size=n_rows, columns=chosen)
            arrow_tables = _sliced(file.schema_arrow.empty_table().select(chosen), slices, n_rows)
        yield from _tables_of(path, names, arrow_tables)


def _arrow(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    """An Arrow file (Feather), or a stream of record batches, as `datasets` keeps its rows."""
    import pyarrow as pa

    with (
        _arrow_errors(path, "an Arrow (Feather)"),
        seekable(path) as content,
        pa.memory_map(str(path)) if content == path else pa.PythonFile(content) as source,
    ):
        is_file = source.read(len(_ARROW_MARK)) == _ARROW_MARK
        source.seek(0)
        with pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source) as file:
            names = tuple(file.schema.names)
            chosen = _chosen(path, names, wanted)
            record_batches = (file.get_batch(i) for i in range(file.num_record_batches)) if is_file else iter(file)
            kept = _counted(path, (batch.select(chosen) for batch in record_batches))
            empty = file.schema.empty_table().select(chosen)
            whole = (pa.concat_tables([empty, *map(_table, kept)]) for _ in range(1))
            yield from _tables_of(path, names, whole if n_rows is None else _sliced(empty, kept, n_rows))


def _chosen(path: Path, names: Sequence[str], wanted: Collection[str]) -> list[str]:
    chosen = [name for name in names if name in wanted]
    refuse_repeated(str(path), chosen)
    return chosen


def _counted(path: Path, record_batches: Iterable[Any]) -> Iterator[Any]:
    n_rows, most = 0, most_unpacked(path)
    for batch in record_batches:
        n_rows += batch.num_rows
        if n_rows > most:
            raise DataError(bomb(path))
        yield batch


@contextmanager
def _arrow_errors(path: Path, kind: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        with read_errors(path):
            yield
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as {kind} file: {first_line(error)}") from None


def _tables_of(path: Path, names: tuple[str, ...], arrow_tables: Iterable[Any]) -> Iterator[Table]:
    """Yield Arrow's tables, one after the other, as ours."""
    first = 1
    for arrow_table in arrow_tables:
        columns = {name: _values(path, name, arrow_table[name]) for name in arrow_table.column_names}
        numbers = range(first, first + arrow_table.num_rows)
        first += arrow_table.num_rows
        yield decoded(Table(str(path), names, columns, numbers, path=path))


def _sliced(empty: Any, record_batches: Iterable[Any], n_rows: int) -> Iterator[Any]:
    """Yield record batches, whatever their sizes, as Arrow tables of n_rows; the last one may be empty."""
    import pyarrow as pa

    buffered = empty
    for batch in record_batches:
        buffered = pa.concat_tables([buffered, _table(batch)])
        while buffered.num_rows >= n_rows:
            yield buffered.slice(0, n_rows)
            buffered = buffered.slice(n_rows)
    yield buffered


def _table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _values(path: Path, name: str, column: Any) -> list[Any]:
    """A column's values; texts that are not UTF-8 as bytes."""
    import pyarrow as pa

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return column.cast(pa.large_binary()).to_pylist()
    except (OverflowError, ValueError) as error:  # a day beyond the year 9999, say
        raise DataError(
            f"{path}: column {name!r} ({column.type}) holds values that are not text ({error}): write text"
        ) from None
