"""Malformed rows and files: `train` refuses each by the law of `malformed`; no run is begun."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion import config, data
from submillion.data.formats import tables
from submillion.errors import DataError, SubmillionError
from tests.malformed import assert_sentences, in_time, inside, refused

N_ROWS = 20
TEXTS = [f"text {i}" for i in range(N_ROWS)]
LABELS = ["a", "b"] * (N_ROWS // 2)
CSV = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
JSONL = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(TEXTS, LABELS, strict=True))


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def twice() -> bytes:
    buffer = io.BytesIO()
    columns = [pa.array(TEXTS), pa.array(TEXTS), pa.array(LABELS)]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "text", "label"]), buffer)
    return buffer.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def bombed(line: bytes, n_mib: int) -> bytes:
    """A packed file of thousands of bytes that unpacks to millions."""
    return gzip.compress(b"text,label\n" + line * (n_mib * 2**20 // len(line)))


class Trap:
    """A pickle of it writes a file when it is read."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, ("trapped",)


GOOD = parquet(text=TEXTS, label=LABELS)
WHOLE = gzip.compress(CSV.encode())

# The file's name → what it holds, and what is named beside it.
FILES: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", "is empty"),
    "lines.csv": ("\n\n\n", "empty"),
    "blanks.csv": ("   \n  \n", "column"),
    "header.csv": ("text,label\n", "no rows"),
    "header-alone.csv": ("text,label", "no rows"),
    "no-names.csv": (",\n,\n", "no column 'text'"),
    "no-text.csv": (CSV.replace("text,", "", 1), "no column 'text'"),
    "text-twice.csv": (CSV.replace("text,label", "text,text"), "'text' more than once"),
    "label-twice.csv": ("text,label,label\na,b,c\n", "'label' more than once"),
    "columns.csv": (",".join(f"c{i}" for i in range(20_000)) + "\n1\n", "no column 'text'"),
    "long-name.csv": ("x" * 500_000 + ",label\na,b\n", "no column 'text'"),
    "ragged.csv": (CSV + "a,b,c\nd\n", "row"),
    "open-quote.csv": (CSV + '"open, a, b\n', "line 22"),
    "half-quote.csv": (CSV + '"a, b"c,a\n', "line 22"),
    "one-class.csv": (CSV.replace(",b", ",a"), "every row has the label 'a'"),
    "fractions.csv": (CSV.replace(",b", ",0.5").replace(",a", ",1.5"), "regression"),
    "vectors.csv": (CSV.replace(",b", ',"[0, 1]"').replace(",a", ',"[1, 0]"'), "without label names"),
    "a-list.csv": (CSV + 'c,"[1, 2]"\n', "multi-label"),
    "joined.csv": (CSV + "c,a|b\n", "multi-label"),
    "no-labels.csv": (CSV.replace(",b", ","), "missing"),
    "no-texts.csv": (CSV.replace("text 3", "  "), "row 4"),
    "classes.csv": ("text,label\n" + "".join(f"t{i},l{i}\n" for i in range(3000)), "is data.label the right column?"),
    "binary.csv": (bytes(range(256)) * 10, "UTF-8"),
    "zeros.csv": (bytes(10_000), "no column 'text'"),
    "latin.csv": (CSV.replace("text 3", "café").encode("latin-1"), "line 5"),
    "mixed.csv": (CSV.encode() + "né,a\n".encode("latin-1") + "né,b\n".encode(), "line 22"),
    "surrogate.csv": (CSV.encode() + b"\xed\xa0\x80,a\n", "line 22"),
    "ebcdic.csv": (CSV.encode("cp500"), "UTF-8"),
    "escapes.csv": ("\x1b[31mtext\x1b[0m,label\na,b\n", "\\x1b[31m"),
    "cut.csv.gz": (WHOLE[:-6], "unpacked"),
    "two-bytes.csv.gz": (b"\x1f\x8b", "unpacked"),
    "plain.csv.gz": (CSV, "unpacked"),
    "nothing.csv.gz": (b"", "is empty"),
    "tail.csv.gz": (WHOLE + b"junk", "unpacked"),
    "flipped.csv.gz": (flipped(WHOLE, len(WHOLE) // 2), "flipped.csv.gz"),
    "sum.csv.gz": (flipped(WHOLE, -8 + len(WHOLE)), "unpacked"),
    "cut.csv.bz2": (bz2.compress(CSV.encode())[:-6], "unpacked"),
    "cut.csv.xz": (lzma.compress(CSV.encode())[:-6], "unpacked"),
    "plain.csv.xz": (CSV, "unpacked"),
    "cut.csv.zst": (b"\x28\xb5\x2f\xfd\0\0", "cut.csv.zst"),
    "plain.csv.zst": (CSV, "unpacked"),
    "line-bomb.csv.gz": (bombed(b"a" * 2**20, 80), "line 2"),
    "row-bomb.csv.gz": (bombed(b"a" * 999 + b",b\n", 10), "100 times"),
    "cell-bomb.csv.gz": (bombed(b'"' + b"a" * 998 + b"\n", 10), "cell-bomb.csv.gz"),
    "row-bomb.jsonl.xz": (lzma.compress((b'{"text": "' + b"a" * 999 + b'"}\n') * 10_000), "100 times"),
    "rows.parquet": (parquet(text=pa.array(["a"]).take(pa.array([0] * (2**23 + 1)))), "100 times"),
    "empty.jsonl": ("", "no rows"),
    "null.jsonl": ("null\n", "row 1 (line 1)"),
    "list.jsonl": ("[1]\n", "row 1 (line 1)"),
    "nothing.jsonl": ("{}\n" * 5, "no column 'text'"),
    "cut.jsonl": (JSONL[:-9], "line 20"),
    "deep.jsonl": ("[" * 100_000, "line 1"),
    "deep-object.jsonl": ('{"text": ' + '{"a": ' * 50_000, "line 1"),
    "lone.jsonl": ('{"text": "\\ud800", "label": "a"}\n', "surrogate"),
    "lone-label.jsonl": (JSONL + '{"text": "b", "label": "\\ud83d"}\n', "row 21"),
    "lone-name.jsonl": ('{"\\ud800": "a"}\n', "no column 'text'"),
    "object.jsonl": ('{"text": {"a": 1}, "label": "a"}\n', "a list or an object"),
    "labels.jsonl": ('{"text": "a", "label": ["x"]}\n', "multi-label"),
    "digits.jsonl": ('{"text": ' + "9" * 5000 + "}\n", "line 1"),
    "nan.jsonl": ('{"text": "a", "label": NaN}\n', "missing"),
    "python.jsonl": ("{'text': 'a'}\n", "line 1"),
    "one-list.jsonl": ('[{"text": "a", "label": "b"}]', "is one JSON value"),
    "two-a-line.jsonl": ('{"text": "a"} {"text": "b"}\n', "line 1"),
    "latin.jsonl": (b'{"text": "\xff", "label": "a"}\n', "line 1"),
    "twice.parquet": (twice(), "'text' more than once"),
    "instants.parquet": (parquet(text=pa.array([2**61], pa.timestamp("us")), label=["a"]), "column 'text'"),
    "days.parquet": (parquet(text=pa.array([2**30], pa.date32()), label=["a"]), "column 'text'"),
    "structs.parquet": (parquet(text=[{"a": 1}] * 4, label=LABELS[:4]), "a list or an object"),
    "lists.parquet": (parquet(text=TEXTS, label=[[1]] * N_ROWS), "'1' is the only label"),
    "objects.parquet": (parquet(text=TEXTS, label=[{"a": 1}] * N_ROWS), "not a list of names"),
    "nulls.parquet": (parquet(text=pa.nulls(4), label=LABELS[:4]), "is empty"),
    "no-labels.parquet": (parquet(text=TEXTS, label=pa.nulls(N_ROWS)), "missing"),
    "fractions.parquet": (parquet(text=TEXTS, label=[0.5, 1.0] * 10), "regression"),
    "bytes.parquet": (parquet(text=[b"\xff"] * 4, label=LABELS[:4]), "UTF-8"),
    "no-columns.parquet": (parquet(), "no rows"),
    "no-rows.parquet": (parquet(text=pa.array([], pa.string()), label=pa.array([], pa.string())), "no rows"),
    "cut.parquet": (GOOD[: len(GOOD) // 2], "cut.parquet"),
    "end.parquet": (GOOD[:-3], "end.parquet"),
    "nothing.parquet": (b"", "0 bytes"),
    "marks.parquet": (b"PAR1" + bytes(20) + b"PAR1", "marks.parquet"),
    "footer.parquet": (b"PAR1" + b"\xff\xff\xff\x7fPAR1", "footer"),
    "csv.parquet": (CSV, "csv.parquet"),
    "packed.parquet.gz": (gzip.compress(GOOD), "unknown kind"),
    "rows.pkl": (pickle.dumps(Trap()), "pickle"),
    "rows.csv.pkl": (pickle.dumps(Trap()), "pickle"),
    "rows.npy": (pickle.dumps(Trap()), "pickle"),
    "rows.bin": (pickle.dumps(Trap()), "pickle"),
    "rows.pt": (pickle.dumps(Trap()), "pickle"),
    "pickle.csv": (pickle.dumps(Trap()), "pickle.csv"),
    "pickle.parquet": (pickle.dumps(Trap()), "pickle.parquet"),
    "pickle.jsonl": (pickle.dumps(Trap()), "line 1"),
    "rows.xlsx": (b"PK\x03\x04", "Excel"),
    "rows.xls": (b"\xd0\xcf\x11\xe0", "spreadsheet"),
    "rows.json": ("[]", "JSON Lines"),
    "rows.zip": (b"PK\x03\x04", "not a zip file"),
    "rows.tar.gz": (b"\x1f\x8b", "unpack it"),
    "rows.arrow": (b"ARROW1", "Arrow"),
    "rows.sqlite": (b"SQLite format 3", "SQLite"),
    "rows.duckdb": (b"", "pandas.read_sql"),
    "rows.txt": ("text,label\n", "rename it .tsv or .csv"),
    "rows": ("text,label\n", "unknown kind"),
}


Refuses = Callable[..., str]


@pytest.fixture
def train_refuses(encoders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> Refuses:
    """`refused` by `train` with an encoder that is at hand: it is looked for before rows are."""

    def check(*words: str | Path, named: tuple[str, ...]) -> str:
        return refused(capsys, "train", "--set", f"model.name={encoders['bert']}", *words, "--json", named=named)

    return check


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_file_is_refused_and_no_run_is_begun(
    name: str, tmp_path: Path, train_refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, named = FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    before = inside(tmp_path)
    train_refuses("--data", f"./{name}", named=(name, named))
    assert inside(tmp_path) == before


def _folder(path: Path) -> None:
    path.mkdir()


PLACES: dict[str, Callable[[Path], object]] = {
    "folder.csv": _folder,
    "pipe.csv": os.mkfifo,
    "device.csv": lambda path: path.symlink_to("/dev/zero"),
    "circle.csv": lambda path: path.symlink_to(path.name),
    "nowhere.csv": lambda path: path.symlink_to("/no/such/file.csv"),
    "terminal.jsonl": lambda path: path.symlink_to("/dev/tty"),
    "pipe.parquet": os.mkfifo,
    "n" * 300 + ".csv": lambda path: None,
}


@pytest.mark.parametrize("name", PLACES, ids=lambda name: name[:20])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path, train_refuses: Refuses) -> None:
    PLACES[name](tmp_path / name)
    train_refuses("--data", tmp_path / name, "--out", tmp_path / "runs", named=(name,))
    assert not (tmp_path / "runs").exists()


SOURCES = {
    "a device": ("/dev/zero", "unknown kind"),
    "a process's memory": ("/proc/self/mem", "/proc/self/mem"),
    "a URL": ("https://user:geheim@example.org/rows.csv", "://***@example.org"),
    "a token in a URL": ("https://example.org/rows.csv?token=geheim", "token=***"),
    "a Hub's token": ("hf_abcdefghijklmnopqrstuvwx", "***"),
    "up": ("../../../../../nowhere.csv", "no such file"),
    "an unknown package": ("packaged:../../etc", "packaged:"),
    "nothing": ("", "data.source is empty"),
    "a tilde of nobody": ("~nobody-is-here/rows.csv", "no such file"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_is_none_is_refused(case: str, tmp_path: Path, train_refuses: Refuses) -> None:
    source, named = SOURCES[case]
    sentences = train_refuses("--data", source, "--out", tmp_path / "runs", named=(named,))
    assert "geheim" not in sentences
    assert not (tmp_path / "runs").exists()


SPLITS = {
    "all of it": ("data.validation=20", "validation"),
    "more than all": ("data.validation=1.0e+300", "validation"),
    "less than a row": ("data.validation=-1.0e-300", "validation"),
    "more than is left": ("data.test=19", "data.test is 19"),
    "a file that is not there": ("data.test=gone.csv", "gone.csv"),
    "a folder": ("data.test=.", "folder"),
    "the same file": ("data.validation=ROWS", "rows.csv"),
    "a column that is not there": ("data.text=[text, title]", "'title'"),
    "text and label in one": ("data.label=text", "is data.label the right column?"),
    "a pair that is not there": ("data.text_pair=other", "'other'"),
    "fewer rows than none": ("data.train_rows=-3", "train_rows"),
}


@pytest.mark.parametrize("case", SPLITS)
def test_settings_that_do_not_fit_the_rows_are_refused(case: str, tmp_path: Path, train_refuses: Refuses) -> None:
    override, named = SPLITS[case]
    rows = tmp_path / "rows.csv"
    rows.write_text(CSV)
    override = override.replace("ROWS", str(rows))
    train_refuses("--data", rows, "--set", override, "--out", tmp_path / "runs", named=(named,))
    assert not (tmp_path / "runs").exists()


_CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.lists(st.integers(), max_size=2)
)


def _taken_or_refused(path: Path) -> None:
    for read in (lambda: data.read(config.load(overrides=[f"data.source={path}"]).data), lambda: _in_parts(path)):
        try:
            with in_time():
                read()
        except SubmillionError as error:
            assert_sentences(str(error))


def _in_parts(path: Path) -> None:
    for table in tables(path, {"text", "label"}, n_rows=3):
        if table.bad:
            raise DataError(*(each.sentence for each in table.bad))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["text", "label", "id", ""]), _CELLS), max_size=6))
def test_any_objects_are_taken_or_refused(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _taken_or_refused(path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_bytes_changed_is_taken_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    name, content = data.draw(st.sampled_from([("a.csv", CSV.encode()), ("a.parquet", GOOD), ("a.csv.gz", WHOLE)]))
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(bytes(changed)[: data.draw(st.integers(0, len(changed)))])
    _taken_or_refused(path)
