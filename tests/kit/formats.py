"""Rows in files of every format."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
from openpyxl.utils.escape import escape

TEXTS = ["a film", "zwei\nZeilen", 'it said "no"', "naïve café", "x, y", "a\r\nb", "team", "   the game", "ende"]


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(path: Path, texts: list[str] = TEXTS, ids: list[str] | None = None) -> Path:
    """Write rows with their ids (r0, r1, ... by default) in the format of the name."""
    ids = [f"r{i}" for i in range(len(texts))] if ids is None else ids
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.table({"id": ids, "text": texts}), path, row_group_size=4)
            return path
        case ".feather":
            pf.write_feather(pa.table({"id": ids, "text": texts}), path, chunksize=4)
            return path
        case ".arrow":
            write_stream(path, pa.table({"id": ids, "text": texts}))
            return path
        case ".xlsx":
            return write_sheets(path, {"rows": [("id", "text"), *zip(ids, map(escape, texts), strict=True)]})
        case ".sqlite":
            return write_tables(path, {"rows": [("id", "text"), *zip(ids, texts, strict=True)]})
        case ".zip":
            rows = write(path.with_suffix(""), texts, ids)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(rows, rows.name)
            return path
    if "json" in path.name:
        content = "".join(json.dumps({"id": i, "text": t}) + "\n\n" for i, t in zip(ids, texts, strict=True))
    else:
        mark = "\t" if ".tsv" in path.name else ","
        cells = [("id", "text"), *((i, '"{}"'.format(t.replace('"', '""'))) for i, t in zip(ids, texts, strict=True))]
        content = "\ufeff" + "\n".join(mark.join(row) for row in cells)
    data = content.encode()
    path.write_bytes(pa.compress(data, "zstd", asbytes=True) if path.suffix == ".zst" else data)
    if path.suffix in PACKED:
        path.write_bytes(PACKED[path.suffix](data))
    return path


def write_stream(path: Path, table: pa.Table) -> None:
    """Write a stream of record batches, as `datasets` does."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=4)


def write_sheets(path: Path, sheets: dict[str, list], merged: str | None = None) -> Path:
    """Write an Excel file with these sheets of rows; `merged` are cells of the last one."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    if merged is not None:
        sheet.merge_cells(merged)
    book.save(path)
    return path


def write_tables(path: Path, tables: dict[str, list]) -> Path:
    """Write a SQLite database with these tables, whose first rows name the columns."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, (header, *rows) in tables.items():
            connection.execute(f"CREATE TABLE {name} ({', '.join(header)})")
            connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(header))})", rows)
    return path
