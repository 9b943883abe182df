"""Files become tables, whole or some rows at a time.

Owns JSON Lines and Parquet; CSV and TSV are left to `delimited`, bytes and encodings to `files`, what columns mean to
`reading`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from submillion.data.delimited import batches, delimited
from submillion.data.files import Lines, bomb, most_unpacked, read_errors, refuse, refuse_disguised, suffix_of
from submillion.data.tables import (
    AS_NAMED,
    BadRows,
    Layout,
    Table,
    decoded,
    encoding_notes,
    place,
    refuse_repeated,
    unread_rows,
)
from submillion.errors import DataError
from submillion.text import shown

_PARQUET_BUFFER_BYTES = 2**20


def read_table(path: Path, wanted: Collection[str], layout: Layout = AS_NAMED) -> Table:
    """Return a file's table with the `wanted` columns; DataError if the file cannot be read at all."""
    (table,) = tables(path, wanted, layout=layout)
    return table


def tables(
    path: Path, wanted: Collection[str], n_rows: int | None = None, layout: Layout = AS_NAMED
) -> Iterator[Table]:
    """Yield a file's rows as tables with the `wanted` columns; for None all of them in one.

    Each table is of the next `n_rows` rows, the last of what is left; broken ones count and are left out. The first
    table comes even if there are no rows. `names` are those seen so far: a JSON Lines file may have new ones at any
    row. DataError if the file cannot be read.
    """
    refuse(path)
    refuse_disguised(path)
    match suffix_of(path):
        case ".parquet":
            found = _parquet(path, wanted, n_rows)
        case ".csv" | ".tsv":
            found = delimited(path, wanted, n_rows, layout)
        case _:
            found = _json_lines(path, wanted, n_rows, layout)
    yield next(found)
    yield from (table for table in found if table.numbers or table.bad)


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
                reason = reason or str(error)
        starts = {number: line for number, (line, _) in enumerate(batch, start=first)}
        bad = unread_rows(lines.problem(), list(starts), list(starts.values()), layout)
        if broken:
            where = place(str(path), broken, [starts[number] for number in broken])
            bad.append(BadRows(tuple(broken), f"{where}: not a JSON object ({reason}): write one object a line"))
        names |= {name: None for row in rows.values() for name in row}
        columns = {name: [row.get(name) for row in rows.values()] for name in names if name in wanted}
        where = {"numbers": list(rows), "lines": [starts[number] for number in rows], "path": path, "layout": layout}
        table = Table(str(path), tuple(names), columns, **where, bad=tuple(bad), notes=encoding_notes(lines))
        yield table.without({number for each in bad for number in each.numbers})


def _json_object(content: str) -> dict[str, Any]:
    value = json.loads(content, object_pairs_hook=_with_each_key_once)
    if not isinstance(value, dict):
        raise ValueError(f"it is {shown(content)}")
    return value


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object; Python would take the last value of a key that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice, of {', '.join(key for key, _ in pairs[:10])}")
    return found


def _parquet(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        # Read through a small buffer: a row group may be as large as the file.
        with (
            read_errors(path),
            pq.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file,
        ):
            names = tuple(file.schema_arrow.names)
            refuse_repeated(str(path), [name for name in names if name in wanted])
            if file.metadata.num_rows > most_unpacked(path):
                raise DataError(bomb(path))
            chosen = [name for name in names if name in wanted]
            whole = (file.read(columns=chosen) for _ in range(1))
            for found in whole if n_rows is None else _sliced(file, chosen, n_rows):
                columns = {name: _values(path, name, found[name]) for name in found.column_names}
                numbers = range(first, first + found.num_rows)
                first += found.num_rows
                yield decoded(Table(str(path), names, columns, numbers, path=path))
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None


def _sliced(file: Any, columns: list[str], n_rows: int) -> Iterator[Any]:
    """A Parquet file's rows in Arrow tables of n_rows, whatever its row groups are; the last one may be empty."""
    import pyarrow as pa

    held = file.schema_arrow.empty_table().select(columns)
    for batch in file.iter_batches(batch_size=n_rows, columns=columns):
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= n_rows:
            yield held.slice(0, n_rows)
            held = held.slice(n_rows)
    yield held


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
