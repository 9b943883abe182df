"""Files that hold several tables: which one is read, what its cells are, and what is said where it cannot be read."""

from __future__ import annotations

import sqlite3
import sys
import zipfile
from contextlib import closing
from datetime import date, datetime
from pathlib import Path

import pytest

from submillion import data
from submillion.config import DataConfig
from submillion.data import containers
from submillion.data.formats import read_table, tables
from submillion.data.tables import Layout, Table
from submillion.errors import DataError
from tests.kit.formats import write, write_sheets, write_tables

WANTED = {"id", "text", "label"}
ROWS = [("text", "label"), ("good", 1), ("bad", 0)]


def problem_of(place: Path | str, layout: Layout | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_table(Path(place), WANTED, layout or Layout())
    (problem,) = caught.value.problems
    return problem


def archive(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


# Which table ----------------------------------------------------------------------------------------------------------


def test_the_first_sheet_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "a.xlsx", {"New": ROWS, "Old rows": [("text",), ("x",)]})
    table = read_table(path, WANTED)
    assert table.columns == {"text": ["good", "bad"], "label": [1, 0]}
    assert table.notes == (f"{path}: its first sheet, 'New', is read; {path}::Old rows names the next",)
    assert read_table(Path(f"{path}::Old rows"), WANTED).columns == {"text": ["x"]}
    assert problem_of(f"{path}::Old") == f"{path} has no sheet 'Old': allowed: New, Old rows"
    assert "has no sheet 'new': did you mean 'New'?" in problem_of(f"{path}::new")


@pytest.mark.parametrize("suffix", [".db", ".sqlite", ".sqlite3", ".DB"])
def test_of_several_tables_one_must_be_named(tmp_path: Path, suffix: str) -> None:
    path = write_tables(tmp_path / f"a{suffix}", {"reviews": ROWS})
    assert read_table(path, WANTED).columns == {"text": ["good", "bad"], "label": [1, 0]}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute('CREATE VIEW "well ""liked""" AS SELECT text FROM reviews WHERE label = 1')
    assert "holds 2 tables ('reviews', 'well \"liked\"'): name one, " in problem_of(path)
    assert read_table(Path(f'{path}::well "liked"'), WANTED).columns == {"text": ["good"]}
    assert "did you mean 'reviews'?" in problem_of(f"{path}::review")


def test_rows_of_a_database_come_as_they_were_written(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "a.db", {"rows": [("text", "label"), *((f"{9 - i}", "x") for i in range(10))]})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE INDEX by_text ON rows (text)")
        connection.execute("CREATE TABLE keyed (text PRIMARY KEY) WITHOUT ROWID")
    assert read_table(Path(f"{path}::rows"), {"text"}).columns["text"] == [f"{9 - i}" for i in range(10)]
    assert read_table(Path(f"{path}::keyed"), {"text"}).columns["text"] == []


def test_an_archive_may_hold_one_table_or_its_parts(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"d/rows.csv": "text\na\n", "__MACOSX/d/._rows.csv": "x", "d/README.txt": "x"})
    table = read_table(path, WANTED)
    assert (table.columns["text"], table.lines) == (["a"], [2])
    assert table.notes == (f"{path}: d/rows.csv is read, and d/README.txt is not",)
    parts = {f"d/part-{i}.csv": f"text\nfirst of {i}\nx,y,z\n" for i in (10, 9)}
    path = archive(tmp_path / "b.zip", parts)
    for n_rows in (None, 1, 3):
        found = list(tables(path, WANTED, n_rows))
        assert [text for each in found for text in each.columns["text"]] == ["first of 9", "first of 10"]
        assert [number for each in found for number in each.numbers] == [1, 3]
        bad = [each for table in found for each in table.bad]
        assert [each.numbers for each in bad] == [(2,), (4,)]
        assert [
            f"{path}::d/part-{i}.csv, row 2 (line 3)" in each.sentence for i, each in zip((9, 10), bad, strict=True)
        ]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"train.csv": "", "test.csv": ""}, "holds 2 tables (train.csv, test.csv): name one, "),
        ({"a-00000-of-00003.csv": "", "a-00002-of-00003.csv": ""}, "holds 2 of the 3 files of the table"),
        ({"a.txt": ""}, "holds a.txt, and no table: allowed are .csv"),
        ({}, "is empty, and no table"),
        ({"a.xlsx": ""}, ".xlsx files are not read inside an archive: unpack it, and give the .xlsx file"),
        ({"a.zip": ""}, "unpack it, and give the .zip file"),
        ({"a.csv": b"text\n" + bytes(9_000_000)}, "and unpacked more than 100 times as many"),
        ({"a.csv.gz": b"no gzip"}, "a.zip::a.csv.gz cannot be unpacked"),
    ],
)
def test_archives_that_hold_no_table_or_several_are_refused(tmp_path: Path, files: dict, told: str) -> None:
    assert told in problem_of(archive(tmp_path / "a.zip", files))


def test_a_file_in_an_archive_has_a_place(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"train.csv": "text\na\n", "d/test.tsv": "text\tlabel\nb\tc\n"})
    assert read_table(Path(f"{path}::d/test.tsv"), WANTED).columns == {"text": ["b"], "label": ["c"]}
    assert problem_of(f"{path}::test.tsv") == f"{path} holds no 'test.tsv': did you mean 'd/test.tsv'?"


# Cells ----------------------------------------------------------------------------------------------------------------


def test_cells_of_a_sheet_are_what_other_files_hold(tmp_path: Path) -> None:
    cells = [1.0, 2.5, True, "007", datetime(2024, 1, 5), date(2024, 1, 6), datetime(2024, 1, 5, 10, 30), "  ", None]
    expected = [1, 2.5, True, "007", "2024-01-05", "2024-01-06", "2024-01-05T10:30:00", None, None]
    rows = [("text", "label"), *((f"r{i}", cell) for i, cell in enumerate(cells))]
    found = read_table(write_sheets(tmp_path / "a.xlsx", {"S": rows}), WANTED).columns["label"]
    assert (found, list(map(type, found))) == (expected, list(map(type, expected)))


def test_labels_and_ids_of_a_sheet_are_whole_numbers(tmp_path: Path) -> None:
    rows = [("id", "text", "label"), *((float(i), f"text {i}", float(i % 2)) for i in range(20))]
    splits = data.read(DataConfig(source=str(write_sheets(tmp_path / "a.xlsx", {"S": rows}))))
    assert (splits.classes, {example.id for example in splits.train} < {f"{i}" for i in range(20)}) == ((0, 1), True)


def test_blank_rows_are_no_rows_and_lines_are_those_of_the_sheet(tmp_path: Path) -> None:
    rows = [(), ("text", "label"), (), ("a", 1, "a remark"), (None, None), (None, None, "another"), ("b", 2)]
    table = read_table(write_sheets(tmp_path / "a.xlsx", {"S": rows}), WANTED)
    assert (table.names, table.columns["text"]) == (("text", "label"), ["a", "b"])
    assert (list(table.numbers), table.lines) == ([1, 2], [4, 7])


def test_a_sheet_without_a_header_is_read_as_asked(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "a.xlsx", {"S": [("a", 1), ("b", 2)]})
    assert read_table(path, {"0"}, Layout(header=False)).columns == {"0": ["a", "b"]}
    assert read_table(path, {"text"}, Layout(header=("text", "label"))).columns == {"text": ["a", "b"]}
    path = write_sheets(tmp_path / "a.xlsx", {"S": ROWS})
    assert read_table(path, {"text"}, Layout(header=("text", "label"))).columns == {"text": ["good", "bad"]}


def test_texts_of_a_database_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "a.db", {"rows": [("text", "label"), ("é", "ü"), (b"\xe9", "x")]})
    table = read_table(path, WANTED)
    assert table.columns == {"text": ["é"], "label": ["ü"]}
    assert [(each.numbers, "is not UTF-8" in each.sentence) for each in table.bad] == [((2,), True)]


# What cannot be read --------------------------------------------------------------------------------------------------


def bad_of(table: Table) -> list[tuple[tuple[int, ...], str]]:
    return [(each.numbers, each.sentence.partition(": ")[2]) for each in table.bad]


def test_merged_cells_and_formulas_without_a_value_are_named(tmp_path: Path) -> None:
    rows = [*ROWS, ("c", "#N/A"), ("d", "x"), ("e", None)]
    table = read_table(write_sheets(tmp_path / "a.xlsx", {"S": rows}, "B5:B6"), WANTED)
    assert table.columns["text"] == ["good", "bad", "d"]
    assert bad_of(table) == [
        ((5,), "the cell of column 'label' is empty, as part of merged cells: unmerge them and fill in each one"),
        ((3,), "the cell of column 'label' is #N/A, a formula without a value: fix it, or empty the cell"),
    ]


@pytest.mark.parametrize(
    ("rows", "merged", "told"),
    [
        ([("text", None, "label"), ("a", "b", "c")], "A1:B1", "cells of the first row are merged (A1:B1)"),
        ([("Report of May",), (), *ROWS], None, "row 3 names the columns, but the first row must"),
        ([], None, "the sheet 'S' is empty: its first row must name the columns"),
        ([("text", "text"), ("a", "b")], None, "the header names 'text' more than once"),
    ],
)
def test_sheets_that_do_not_name_their_columns_are_refused(
    tmp_path: Path, rows: list, merged: str | None, told: str
) -> None:
    assert told in problem_of(write_sheets(tmp_path / "a.xlsx", {"S": rows}, merged))


def test_a_sheet_without_texts_says_what_it_has(tmp_path: Path) -> None:
    path = write_sheets(tmp_path / "a.xlsx", {"S": [("name", "score"), ("x", 1.5)]})
    with pytest.raises(DataError, match="has no column 'text' and no column 'label'; it has name, score"):
        data.read(DataConfig(source=str(path)))


def test_a_workbook_that_unpacks_to_too_much_is_not_opened(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.xlsx", {"xl/workbook.xml": bytes(9_000_000)})
    assert "unpacked more than 100 times as many" in problem_of(path)


def test_without_openpyxl_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sheets(tmp_path / "a.xlsx", {"S": ROWS})
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert "[excel]'; or save it as 'CSV UTF-8'" in problem_of(path)


def test_a_database_in_use_is_named_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tables(tmp_path / "a.db", {"rows": ROWS})
    before = path.read_bytes()
    monkeypatch.setattr(containers, "_WAIT_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "(database is locked): another program is writing to it" in problem_of(path)
    assert read_table(path, WANTED).columns["label"] == [1, 0]
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"]


def test_a_view_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE VIEW v AS WITH RECURSIVE n(text) AS (SELECT 1 UNION ALL SELECT text + 1 FROM n) SELECT text FROM n"
        )
    monkeypatch.setattr(containers, "most_unpacked", lambda path: 100)
    assert "made to fill memory" in problem_of(path)


def test_a_file_that_is_not_there_is_named_without_its_table(tmp_path: Path) -> None:
    write(tmp_path / "rows.xlsx")
    assert problem_of(f"{tmp_path}/row.xlsx::S") == f"{tmp_path}/row.xlsx: no such file: did you mean 'rows.xlsx'?"
