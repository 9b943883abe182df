"""Files become examples: every format gives the same rows, and every bad row is named with its place."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion import data
from submillion.config import DataConfig
from submillion.data import Example, labels, sources
from submillion.errors import DataError


@pytest.fixture(autouse=True)
def _nothing_kept():
    """A Hub set is taken to be the same within a process; here each test makes another one."""
    data._read.cache_clear()


COLUMNS = DataConfig()
ROWS = [
    {"id": "a", "text": 'He said "no", twice', "label": "x"},
    {"id": "b", "text": "two\nlines", "label": "y"},
    {"id": "c", "text": "NA", "label": "x"},
    {"id": "d", "text": "été 😀 \u2028 ok", "label": "y"},
]
LABELS = ("x", "y")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the path's name."""
    frame = pd.DataFrame(rows)
    match path.name.removesuffix(".gz").partition(".")[2]:
        case "csv":
            frame.to_csv(path, index=False)
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case "parquet":
            frame.to_parquet(path)
        case _:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode()) if path.name.endswith("gz") else text.encode())
    return path


def rows_of(path: Path, settings: DataConfig = COLUMNS) -> list[Example]:
    return data.read_rows(path, settings, LABELS)


def problems_of(path: Path | str, settings: DataConfig = COLUMNS, labels: Any = LABELS) -> str:
    with pytest.raises(DataError) as caught:
        data.read_rows(path, settings, labels)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.parquet", "A.csv.gz", "a.jsonl.gz"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    found = rows_of(write(tmp_path / name, ROWS))
    assert found == [Example(row["id"], row["text"], row["label"]) for row in ROWS]


cells = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip())


@given(st.lists(cells, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_every_format(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": "x"} for text in texts]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "a.parquet", rows)
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert [example.text for example in rows_of(tmp_path / name)] == [text.strip() for text in texts]


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "jsonl", "parquet", "csv.gz"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"text,label\n" * (suffix != "parquet") + content)
    with suppress(DataError):
        assert {example.label for example in rows_of(path)} <= set(LABELS)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\r\nhello,x\r\n\r\nagain,y\r\n")
    assert [example.text for example in rows_of(path)] == ["hello", "again"]


def test_a_text_longer_than_csvs_limit_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path / "a.csv", [{"text": "word " * 50_000, "label": "x"}])
    assert len(rows_of(path)[0].text) == 249_999
    assert csv.field_size_limit() == limit


def test_columns_are_joined_by_a_blank_without_empty_parts(tmp_path: Path) -> None:
    rows = [{"title": "T", "body": "B"}, {"title": None, "body": " B"}, {"title": "T ", "body": ""}, {"body": "B"}]
    path = write(tmp_path / "a.jsonl", [row | {"label": "x"} for row in rows])
    found = rows_of(path, DataConfig(text=("title", "body")))
    assert [example.text for example in found] == ["T B", "B", "T", "B"]


def test_pairs(tmp_path: Path) -> None:
    rows = [{"text": "a", "other": "b", "label": "x"}, {"text": "a", "other": "", "label": "x"}]
    path = write(tmp_path / "a.jsonl", rows)
    assert "row 2 (line 2): the text (column 'other') is empty" in problems_of(path, DataConfig(text_pair="other"))
    path = write(tmp_path / "b.jsonl", rows[:1])
    assert rows_of(path, DataConfig(text_pair="other")) == [Example("0", "a", "x", "b")]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (["7", "8"], ["7", "8"]),
        ([7, 8], ["7", "8"]),
        ([7.0, 8.0], ["7", "8"]),
        (["1_1", "1.0"], ["1_1", "1.0"]),
        (["7", "7"], ["0", "1"]),
        (["7", None], ["0", "1"]),
        (["7", " "], ["0", "1"]),
    ],
)
@pytest.mark.parametrize("column", ["id", "ID", "Id"])
def test_ids_are_kept_if_there_is_one_for_each_row(tmp_path: Path, column: str, ids: list[Any], found: Any) -> None:
    rows = [{column: row_id, "text": f"text {i}", "label": "x"} for i, row_id in enumerate(ids)]
    assert [example.id for example in rows_of(write(tmp_path / "a.jsonl", rows))] == found


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 0, 10], ["1", "0", "10"]),
        ([1.0, 0.0, 2.0], ["1", "0", "2"]),
        (["1.0", "0", "2."], ["1", "0", "2"]),
        ([" World", "Sci/Tech ", "a|b"], ["World", "Sci/Tech", "a|b"]),
        (["[urgent]", "(none)", "a, b"], ["[urgent]", "(none)", "a, b"]),
        ([True, False, True], ["True", "False", "True"]),
        (["v2.7", "3.5", "x"], ["v2.7", "3.5", "x"]),
        ([-1, -2, 3], ["-1", "-2", "3"]),
    ],
)
def test_labels_become_names(tmp_path: Path, values: list[Any], labels: list[str]) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"text {i}", "label": value} for i, value in enumerate(values)])
    assert [example.label for example in data.read_rows(path, COLUMNS, labels)] == labels


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([["x"], ["x", "y"]], "multi-label"),
        (["x", "y", "x|y"], "multi-label"),
        (["x", "y", "y; x"], "multi-label"),
        (["['x', 'y']", "['x']"], "multi-label"),
        (["[0 1 0]", "[1 0 0]"], "multi-label"),
        (['["x"]', "[]"], "multi-label"),
        ([{"x": 1}, {"y": 1}], "multi-label"),
        ([0.5, 1, 2], "regression"),
        (["0.5", "1", "2"], "regression"),
        ([1e-3, 2.0], "regression"),
    ],
)
def test_multi_label_and_regression_are_refused_by_name(tmp_path: Path, values: list[Any], kind: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"text {i}", "label": value} for i, value in enumerate(values)])
    assert kind in problems_of(path, labels=["x", "y", "0", "1", "2"])


def test_lists_in_parquet_are_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": ["x"]}])
    assert "rows 1, 2: the label (column 'label') is a list" in problems_of(path)


def test_label_order() -> None:
    assert labels.in_order(["10", "9", "-1"]) == ("-1", "9", "10")
    assert labels.in_order(["b", "10", "a", "9"]) == ("10", "9", "a", "b")


def test_everything_is_reported_together_with_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = 'text,label\ngood,x\n,x\n"two\nlines",y\nmissing,\nodd,z\none,two,three\n  ,\nfine,y\n'
    path.write_bytes(text.encode() + b"lonely\ncaf\xe9,x\n")
    problems = problems_of(path).splitlines()[1:]
    assert problems == [
        f"  - {path}, line 12: not UTF-8 (byte 4 of line 12 is 0xE9; as cp1252 it reads 'café,x'): save the file as "
        "UTF-8 (iconv -f cp1252 -t UTF-8), or train on it with --set data.encoding=cp1252",
        f"  - {path}, row 6 (line 8): 3 cells where the header has 2 (text, label): put texts that contain the "
        "separator in double quotes, and double the quotes inside them",
        f"  - {path}, row 9 (line 11): 1 cell where the header has 2 (text, label): separate the cells with ',', fill "
        "in the missing ones, or delete the row",
        f"  - {path}, rows 2, 7 (lines 3, 9): the text (column 'text') is empty: fill it in or delete the row",
        f"  - {path}, rows 4, 7 (lines 6, 9): the label (column 'label') is missing: give one or delete the row",
        f"  - {path}, row 5 (line 7): label 'z' is not a training label: allowed: x, y",
    ]


def test_many_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "", "label": "x"}] * 2000)
    assert "rows 1, 2, 3, 4, 5, 6, 7, 8 and 1,992 more (lines 1, 2, 3, 4, 5, 6, 7, 8 and 1,992 more)" in problems_of(
        path
    )


def test_missing_columns_are_named_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"txt": "a", "lable": "x"}])
    assert problems_of(path) == (
        f"{path} has no column 'text' and no column 'label'; it has txt, lable; the run reads only "
        "these: rename 'txt' to 'text' and 'lable' to 'label'"
    )


def test_malformed_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n\n{"text": "b"\n[1]\n{"text": "c", "label": "y"}\n')
    assert "rows 2, 3 (lines 3, 4): not a JSON object (Expecting ',' delimiter at character 13): write" in problems_of(
        path
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('text,label\na,x\n"never, closed,x\nb,y\n', "row 2 (line 3): a quote opens here and never closes"),
        ('text,label\n"a, b" c,x\nb,y\n', "row 1 (line 2): text follows a closing quote"),
        ("text,text,label\na,b,x\n", "the header names 'text' more than once"),
        ("", "is empty: the first line must name the columns"),
        ("text,label\n", "has no rows"),
    ],
)
def test_broken_csv_is_named(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert f"{path}" in problems_of(path)
    assert found in problems_of(path)


def test_broken_text_in_parquet_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": pa.array([b"ok", b"caf\xe9"]), "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "row 2: column 'text' is not UTF-8" in problems_of(tmp_path / "a.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "b.parquet")
    assert rows_of(tmp_path / "b.parquet")[0].text == "ok"


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a \\ud800", "label": "x"}\n{"text": "b", "label": "\\ud800"}\n')
    found = problems_of(path)
    assert "row 1 (line 1): the text (column 'text') holds half a surrogate pair" in found
    assert "row 2 (line 2): the label (column 'label') is missing" in found


def test_texts_that_are_lists_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": ["a", "b"], "label": "x"}, {"text": 3, "label": "x"}])
    assert "row 1 (line 1): the text (column 'text') is a list or an object" in problems_of(path)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".bin", ".npy", ".joblib"])
def test_pickles_are_refused_unopened(tmp_path: Path, suffix: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / f"rows{suffix}"
    path.write_bytes(pickle.dumps(Trap()))
    for found in (problems_of(path), problems_of(tmp_path / f"none{suffix}")):
        assert "reading one runs any code in it" in found
        assert "to_parquet" in found
    assert not (tmp_path / "sprung").exists()
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    assert "pickle" in problems_of(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.xlsx", "is not an Excel file that can be read (File is not a zip file): open it, and save it as .xlsx"),
        ("a.xls", "save it as .xlsx, and give that"),
        ("a.feather", "cannot be read as an Arrow (Feather) file"),
        ("a.db", "(file is not a database)"),
        ("a.zip", "cannot be read: File is not a zip file"),
        ("a.json", "convert it to JSON Lines"),
        ("a.doc", "unknown kind of file '.doc'; allowed are .csv, .tsv"),
        ("a.parquet.gz", "unknown kind of file"),
        ("b.csv.gz", "cannot be unpacked"),
        ("b.parquet", "cannot be read as a Parquet file"),
    ],
)
def test_other_files_are_refused_with_the_way_out(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    assert found in problems_of(tmp_path / name)


def test_a_missing_file_gets_a_hint(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS)
    assert "no such file: did you mean 'train.csv'?" in problems_of(tmp_path / "trian.csv")
    assert f"no folder {tmp_path / 'no'} either" in problems_of(tmp_path / "no" / "a.csv")
    (tmp_path / "empty").mkdir()
    assert "holds no data file" in problems_of(tmp_path / "empty" / "a.csv")
    assert "is a folder" in problems_of(tmp_path)
    assert "give a file, or packaged:NAME" in problems_of("ag_news")


def test_labels_are_not_looked_at_without_need(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": ["x", "y"]}, {"text": "b"}])
    assert data.read_rows(path, COLUMNS) == [Example("0", "a", None), Example("1", "b", None)]
    path = write(tmp_path / "b.csv", [{"text": "a"}])
    assert data.read_rows(path, COLUMNS) == [Example("0", "a", None)]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("ag_news", "hub"),
        ("org/name.v2", "hub"),
        ("train.csv", "file"),
        ("x/train.pkl", "file"),
        ("../rows", "file"),
        ("a/b/c", "file"),
        ("packaged:x", "packaged"),
        (".", "folder"),
    ],
)
def test_kinds_of_sources(source: str, kind: str) -> None:
    assert sources.kind_of(source) == kind


def test_a_folder_s_files_are_its_splits(tmp_path: Path) -> None:
    for split, suffix, word in (("train", "csv", "one"), ("validation", "jsonl", "two"), ("test", "parquet", "six")):
        write(
            tmp_path / f"{split}.{suffix}", [{"text": f"{word} {i} {i * i}", "label": LABELS[i % 2]} for i in range(6)]
        )
    splits = data.read(DataConfig(source=str(tmp_path)))
    texts = [{example.text.split()[0] for example in part} for part in (splits.train, splits.validation, splits.test)]
    assert texts == [{"one"}, {"two"}, {"six"}]
    asked = data.read(DataConfig(source=str(tmp_path), validation=2, test=2))
    assert [len(part) for part in (asked.train, asked.validation, asked.test)] == [4, 6, 2]
    assert {example.text.split()[0] for example in asked.test} == {"one"}, "data.test goes before the folder's own"
    assert any("data.validation is 2 and not used" in warning for warning in asked.warnings)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    settings = DataConfig(source=str(tmp_path))
    with pytest.raises(DataError, match=r"holds no train file .*: it holds notes\.md"):
        data.read(settings)
    (tmp_path / "train.pkl").touch()
    with pytest.raises(DataError, match="pickle"):
        data.read(settings)
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"holds train\.csv, train\.jsonl: keep one"):
        data.read(settings)


def test_problems_of_several_files_come_together(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [*ROWS, {"text": "", "label": "x"}])
    write(tmp_path / "test.csv", [{"text": "new", "label": "w"}])
    settings = DataConfig(source=str(tmp_path), validation=str(tmp_path / "none.csv"))
    with pytest.raises(DataError) as caught:
        data.read(settings)
    found = str(caught.value)
    assert "none.csv: no such file" in found
    assert "train.csv, row 5 (line 7): the text" in found
    assert "test.csv, row 1 (line 2): label 'w'" in found


def test_no_source_is_named() -> None:
    with pytest.raises(DataError, match=r"data\.source is empty"):
        data.read(DataConfig())


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "folder"])
def test_classes_are_counted_from_labels_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / ("folder/train.csv" if name == "folder" else name), [*ROWS, {"text": "", "label": "z"}])
    assert data.count_classes(DataConfig(source=str(tmp_path / name))) == 3


def test_classes_are_counted_without_a_network() -> None:
    assert data.count_classes(DataConfig(source="packaged:films")) == 3
    assert data.count_classes(DataConfig(source="ag_news")) is None
    assert data.count_classes(DataConfig()) is None


def test_counting_refuses_what_reading_refuses(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"text": "a", "lable": "x"}])
    with pytest.raises(DataError, match=r"give --set data\.label=lable"):
        data.count_classes(DataConfig(source=str(path)))
    path = write(tmp_path / "b.csv", [{"text": "a", "label": 0.5}, {"text": "b", "label": 0.7}])
    with pytest.raises(DataError, match="regression"):
        data.count_classes(DataConfig(source=str(path)))
