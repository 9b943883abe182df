"""Laws of reading by chunks: the same rows as at once, every problem found, a key that knows its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion.config import DataConfig
from submillion.data import chunks, read_rows
from submillion.data.chunks import Reader, survey
from submillion.data.formats import read_table, tables
from submillion.errors import DataError
from tests.kit.formats import TEXTS, write

COLUMNS = DataConfig(text="text")


def read(source: Path, n_rows: int) -> list[tuple[str, str]]:
    """The ids and texts of all chunks of a source."""
    reader = Reader([COLUMNS], n_rows)
    parts = survey(str(source), [COLUMNS], n_rows)
    return [(e.id, e.text) for part in parts for chunk in part.chunks for e in reader.read(chunk)[0]]


def problems_of(source: Path, n_rows: int = 3) -> str:
    with pytest.raises(DataError) as caught:
        survey(str(source), [COLUMNS], n_rows)
    return str(caught.value)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 9, 100])
@pytest.mark.parametrize(
    "name",
    "a.csv a.tsv a.jsonl a.parquet a.csv.gz a.jsonl.bz2 a.csv.xz a.jsonl.zst a.feather a.arrow a.xlsx a.sqlite "
    "a.csv.zip a.parquet.zip a.jsonl.gz.zip".split(),
)
def test_chunks_hold_the_rows_of_the_whole_file(tmp_path: Path, name: str, n_rows: int) -> None:
    path = write(tmp_path / name)
    whole = read_table(path, {"id", "text"})
    assert whole.columns["text"] == TEXTS
    pieces = list(tables(path, {"id", "text"}, n_rows))
    assert [len(piece.numbers) for piece in pieces[:-1]] == [n_rows] * (len(pieces) - 1)
    for what in ("numbers", "lines"):
        found = [getattr(piece, what) for piece in pieces]
        expected = getattr(whole, what)
        assert expected is None or [one for piece in found for one in piece] == list(expected)
    assert [text for piece in pieces for text in piece.columns["text"]] == TEXTS
    assert read(path, n_rows) == [(example.id, example.text) for example in read_rows(path, COLUMNS)]


def test_a_reader_may_go_back_and_leave_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv.gz")
    (part,) = survey(str(path), [COLUMNS], 2)
    reader = Reader([COLUMNS], 2)
    for number in (1, 3, 0, 0, 4):
        assert [e.id for e in reader.read(part.chunks[number])[0]] == [f"r{i}" for i in range(9)][2 * number :][:2]


def test_keys_follow_texts_ids_and_place(tmp_path: Path) -> None:
    def keys(texts: list[str], ids: list[str] | None = None, name: str = "a.csv") -> list[str]:
        return [chunk.key for chunk in survey(str(write(tmp_path / name, texts, ids)), [COLUMNS], 3)[0].chunks]

    usual = keys(TEXTS)
    assert len(set(usual)) == 3
    assert keys(TEXTS, name="a.jsonl") == usual, "the format is not what is predicted from"
    assert [a == b for a, b in zip(keys([*TEXTS[:4], "new", *TEXTS[5:]]), usual, strict=True)] == [True, False, True]
    assert keys(TEXTS, [f"{i}" for i in range(9)])[0] != usual[0]


def test_numbers_are_the_ids_of_rows_that_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(7)))
    assert read(path, 3) == [(f"{i}", f"row {i}") for i in range(7)]


def test_all_bad_rows_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\na,fine\nb,\nc,caf\xe9\nd,x,y\ne,fine\nf, \na,fine\n,fine\n")
    found = problems_of(path).splitlines()[1:]
    assert [line.removeprefix(f"  - {path}, ").split(":")[0] for line in found] == [
        "line 4",
        "row 2 (line 3)",
        "row 4 (line 5)",
        "row 6 (line 7)",
        "rows 7, 8 (lines 8, 9)",
    ]
    assert "the id is missing or repeats an earlier row's" in found[-1]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,x\n" + ",y\n" * 100)
    found = problems_of(path, 2)
    assert len(found.splitlines()) == 22
    assert "and 30 more" in found


@pytest.mark.parametrize("n_rows", [1, 2, 100])
def test_an_id_that_comes_late_is_missing_before(tmp_path: Path, n_rows: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"id": 1, "text": "c"}\n')
    assert "rows 1, 2 (lines 1, 2): the id is missing" in problems_of(path, n_rows)


def test_equal_hashes_are_not_equal_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "hash", lambda name: 0, raising=False)
    assert len(read(write(tmp_path / "a.csv"), 2)) == 9


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'text,x\nfine,y\n"never, closed,y\nfine,y\n', "row 2 (line 3): a quote opens here and never closes"),
        (b'text,x\nfine,y\n"a, b" c,y\nfine,y\n', "row 2 (line 3): text follows a closing quote"),
        (b"text\n", "has no rows"),
        (b"", "is empty"),
        (b"other,x\na,b\n", "has no column 'text'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert found in problems_of(tmp_path / "a.csv", 2)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
def test_a_cut_archive_is_named(tmp_path: Path, packing: str) -> None:
    path = write(tmp_path / f"a.jsonl{packing}", [f"row {i * i}" for i in range(2000)])
    path.write_bytes(path.read_bytes()[:-12])
    assert f"{path} cannot be unpacked" in problems_of(path, 100)


def test_rows_that_change_after_the_survey_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    (part,) = survey(str(path), [COLUMNS], 4)
    write(path, [*TEXTS[:-1], "other"])
    reader = Reader([COLUMNS], 4)
    assert len(reader.read(part.chunks[0])[0]) == 4
    with pytest.raises(DataError, match="changed while it was being read"):
        reader.read(part.chunks[2])


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "rows" / "day=2").mkdir(parents=True)
    for name in ("part-1.csv", "day=2/part-0.parquet", "part-0.jsonl.gz"):
        write(tmp_path / "rows" / name)
    for name in ("_SUCCESS", ".part-1.csv.crc"):
        (tmp_path / "rows" / name).write_bytes(b"\0")
    (tmp_path / "rows" / "part-2.csv").write_text("id,text\n")
    parts = survey(str(tmp_path / "rows"), [COLUMNS], 4)
    assert [part.name for part in parts] == ["day=2/part-0.parquet", "part-0.jsonl.gz", "part-1.csv", "part-2.csv"]
    assert [part.n_rows for part in parts] == [9, 9, 9, 0]
    write(tmp_path / "rows" / "part-3.csv", ["fine", ""])
    (tmp_path / "rows" / "notes.md").touch()
    found = problems_of(tmp_path / "rows")
    assert "part-3.csv, row 2 (line 3): the text" in found
    assert "notes.md: unknown kind of file" in found
    (tmp_path / "none").mkdir()
    assert "holds no files" in problems_of(tmp_path / "none")
