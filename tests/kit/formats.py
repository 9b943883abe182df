"""Rows in files of every format."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = ["a film", "zwei\nZeilen", 'it said "no"', "naïve café", "x, y", "a\r\nb", "team", "   the game", "ende"]


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(path: Path, texts: list[str] = TEXTS, ids: list[str] | None = None) -> Path:
    """Write rows with their ids (r0, r1, ... by default) in the format of the name."""
    ids = [f"r{i}" for i in range(len(texts))] if ids is None else ids
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "text": texts}), path, row_group_size=4)
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
