"""CSV and TSV files as people have them: separators, quotes, headers, encodings; no row is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion import data
from submillion.config import DataConfig
from submillion.data.formats import read_table, tables
from submillion.data.long_texts import Reading
from submillion.data.tables import Layout
from submillion.errors import DataError

ROWS = [(f"text {i} and more", "ab"[i % 2]) for i in range(12)]
WANTED = {"text", "label", "id"}
LABELLED = Layout(label="label")


def lines_of(separator: str = ",", header: str | None = "text,label") -> list[str]:
    rows = [f"{text}{separator}{label}" for text, label in ROWS]
    return rows if header is None else [header.replace(",", separator), *rows]


def write(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


# Quotes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [4, 5, 9])
@pytest.mark.parametrize("text_first", [True, False])
def test_a_quote_that_swallows_rows_of_a_tsv_file_is_text(tmp_path: Path, last: int, text_first: bool) -> None:
    rows = [list(row if text_first else row[::-1]) for row in ROWS]
    where = 0 if text_first else 1
    rows[3][where] = f'"{rows[3][where]}'
    rows[last][where] += '"'
    header = ["text", "label"] if text_first else ["label", "text"]
    path = write(tmp_path / "a.tsv", ["\t".join(row) for row in [header, *rows]])
    table = read_table(path, WANTED, LABELLED)
    assert table.columns["text"] == [row[where] for row in rows]
    assert not table.bad
    (note,) = table.notes
    assert note.startswith(f"{path}, row 4 (line 5): quotes are read as text")


@pytest.mark.parametrize("last", [4, 9])
def test_a_quote_that_swallows_rows_of_a_csv_file_is_named(tmp_path: Path, last: int) -> None:
    lines = lines_of()
    lines[4] = f'"{lines[4]}'
    lines[last + 1] = lines[last + 1].replace(",", '",')
    table = read_table(write(tmp_path / "a.csv", lines), WANTED, LABELLED)
    (bad,) = table.bad
    assert bad.numbers == (4,)
    assert (
        "row 4 (line 5): a quote opens there and closes lines later, which puts whole rows in one cell" in bad.sentence
    )


@pytest.mark.parametrize(
    "columns", [("text", "label"), ("label", "text"), ("id", "label", "text"), ("text", "label", "x")]
)
@pytest.mark.parametrize("last", [4, 9])
def test_rows_whose_texts_hold_commas_are_not_swallowed_either(
    tmp_path: Path, columns: tuple[str, ...], last: int
) -> None:
    rows = [{"text": f"fine, or not, {i}", "label": "ab"[i % 2], "id": str(i), "x": "u"} for i in range(12)]
    lines = [",".join(f'"{row[name]}"' if "," in row[name] else row[name] for name in columns) for row in rows]
    lines[3] = lines[3].replace('3"', "3")  # opens and does not close, so that the next quote closes it
    lines[last] = lines[last].replace('"fine', "fine")
    lines[4:last] = [line.replace('"', "").replace(", or not,", "") for line in lines[4:last]]
    table = read_table(write(tmp_path / "a.csv", [",".join(columns), *lines]), WANTED, LABELLED)
    assert [bad.numbers for bad in table.bad] == [(4,)]


def test_a_quote_that_swallows_nearly_all_rows_is_named(tmp_path: Path) -> None:
    lines = ["text,label", "one,b", '"two,a', *(f"text {i},{'ab'[i % 2]}" for i in range(20)), 'three",a']
    table = read_table(write(tmp_path / "a.csv", lines), WANTED, LABELLED)
    assert [bad.numbers for bad in table.bad] == [(2,)]


def test_texts_of_several_lines_stay_whole(tmp_path: Path) -> None:
    texts = ["Great, really.\nWould go, again", "one\ntwo", "a, b\nc, d\ne, f", "x\n\ny", "a, no, it is\nnot, one, bit"]
    lines = ["text,label", *(f'"{text}",a' for text in texts), "z,b"]
    table = read_table(write(tmp_path / "a.csv", lines), WANTED, LABELLED)
    assert table.columns["text"] == [*texts, "z"]
    assert (table.bad, table.notes) == ((), ())
    lines = ["text\tlabel", *(f'"{text}"\ta' for text in texts), "z\tb"]
    table = read_table(write(tmp_path / "a.tsv", lines), WANTED, LABELLED)
    assert table.columns["text"] == [*texts, "z"]


def test_where_labels_are_not_read_a_cell_of_whole_rows_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["text", "one", '"two', 'three"', "four"])
    table = read_table(path, WANTED)
    assert table.columns["text"] == ["one", "two\nthree", "four"]
    assert "row 2 (line 3): a quoted cell spans several lines" in table.notes[0]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"A text" she said,a', '"A text" she said'),
        ('"open,a', '"open'),
        ('He said "no" twice,a', 'He said "no" twice'),
        ('"He said ""no"", twice",a', 'He said "no", twice'),
    ],
)
@pytest.mark.parametrize("n_rows", [None, 2])
def test_a_quote_that_opens_no_cell_is_text(tmp_path: Path, line: str, text: str, n_rows: int | None) -> None:
    lines = lines_of()
    lines[5] = line
    found = list(tables(write(tmp_path / "a.csv", lines), WANTED, n_rows))
    texts = [cell for table in found for cell in table.columns["text"]]
    assert texts == [*(text for text, _ in ROWS[:4]), text, *(text for text, _ in ROWS[5:])]
    assert not any(table.bad for table in found)


def test_an_ambiguous_quote_is_one_problem_and_later_rows_are_read(tmp_path: Path) -> None:
    lines = lines_of()
    lines[5] = '"one, two" three,a'
    path = write(tmp_path / "a.csv", lines)
    (problem,) = data.survey(DataConfig(source=str(path)), Reading(8)).problems
    assert "row 5 (line 6): text follows a closing quote" in problem
    assert len(read_table(path, WANTED).numbers) == len(ROWS) - 1


cells = st.text(st.sampled_from('ab "\t,\n'), max_size=6)


@given(st.lists(st.tuples(cells, st.sampled_from("xy")), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_of_a_tsv_file_of_plain_cells_is_lost(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """Whatever quotes are in them: cells without tabs and line ends are as many rows as lines, or are named."""
    rows = [(text.replace("\t", "").replace("\n", ""), label) for text, label in rows]
    path = write(tmp_path / "a.tsv", ["text\tlabel", *("\t".join(row) for row in rows)])
    table = read_table(path, WANTED, LABELLED)
    assert len(table.numbers) + sum(len(each.numbers) for each in table.bad) == len(rows)


# Blank lines, cells that are empty or too many ------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [None, 1, 2, 3])
def test_a_blank_line_of_one_column_is_an_empty_text(tmp_path: Path, n_rows: int | None) -> None:
    path = write(tmp_path / "a.csv", ["text", "one", "", "two", "", "", "three", "", ""])
    found = list(tables(path, WANTED, n_rows))
    assert [cell for table in found for cell in table.columns["text"]] == ["one", "", "two", "", "", "three"]
    assert [line for table in found for line in table.lines or ()] == [2, 3, 4, 5, 6, 7]


def test_a_blank_line_of_several_columns_is_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["text,label", "", "one,a", "", "two,b", ""])
    table = read_table(path, WANTED)
    assert (table.columns["text"], table.numbers, table.lines) == (["one", "two"], [1, 2], [3, 5])


@pytest.mark.parametrize(("head", "tail"), [("", ","), (",", ","), (",,", ",,"), (",", "")])
def test_empty_cells_at_the_end_do_not_matter(tmp_path: Path, head: str, tail: str) -> None:
    lines = lines_of()
    path = write(tmp_path / "a.csv", [lines[0] + head, *(line + tail for line in lines[1:])])
    table = read_table(path, WANTED)
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == ROWS
    assert not table.bad
    assert len(table.notes) == bool(tail)


def test_a_header_without_a_name_for_each_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["text,label", *(f"{i},{line}" for i, line in enumerate(lines_of()[1:]))])
    (bad,) = read_table(path, WANTED).bad
    assert "3 cells where the header has 2 (text, label): all rows have as many" in bad.sentence


def test_a_repeated_column_matters_only_where_it_is_needed(tmp_path: Path) -> None:
    rows = [f"{text},{label},x,y" for text, label in ROWS]
    assert len(read_table(write(tmp_path / "a.csv", ["text,label,at,at", *rows]), WANTED).numbers) == len(ROWS)
    with pytest.raises(DataError, match="the header names 'text' more than once"):
        read_table(write(tmp_path / "b.csv", ["text,label,text,at", *rows]), WANTED)


# Separators and headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_names_the_columns(tmp_path: Path, name: str, separator: str) -> None:
    path = write(tmp_path / name, lines_of(separator))
    table = read_table(path, WANTED)
    assert list(zip(table.columns["text"], table.columns["label"], strict=True)) == ROWS
    is_usual = separator == {"a.csv": ",", "a.tsv": "\t"}[name]
    assert table.notes == (() if is_usual else (f"{path} is read as separated by {separator!r}",))


def test_commas_in_a_header_of_semicolons_do_not_part_it(tmp_path: Path) -> None:
    lines = ["text;label;notes, free", *(f"{text}, or so;{label};none" for text, label in ROWS)]
    table = read_table(write(tmp_path / "a.csv", lines), WANTED)
    assert table.columns["text"] == [f"{text}, or so" for text, _ in ROWS]


def test_excels_own_line_about_the_separator_is_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", ["sep=;", *lines_of(";")]), WANTED)
    assert (table.columns["text"], table.lines) == ([text for text, _ in ROWS], list(range(3, 15)))


@pytest.mark.parametrize("word", [";", "semicolon"])
def test_a_separator_may_be_said(tmp_path: Path, word: str) -> None:
    path = write(tmp_path / "a.csv", lines_of(";", header=None))
    settings = DataConfig(source=str(path), separator=word, header=("text", "label"))
    assert {example.text for example in data.read_rows(path, settings, "ab")} == {text for text, _ in ROWS}


@pytest.mark.parametrize(
    ("header", "text", "label"), [(False, "0", "1"), (("text", "label"), "text", "label"), (("t", "l"), "t", "l")]
)
def test_a_file_without_a_header_keeps_its_first_row(tmp_path: Path, header, text: str, label: str) -> None:
    path = write(tmp_path / "a.csv", lines_of(header=None))
    examples = data.read_rows(path, DataConfig(header=header, text=text, label=label), "ab")
    assert [(example.id, example.text, example.label) for example in examples] == [
        (str(i), *row) for i, row in enumerate(ROWS)
    ]


@pytest.mark.parametrize("first", ["text,label", "Text,Label", '"text", label'])
def test_a_header_that_is_there_all_the_same_is_no_row(tmp_path: Path, first: str) -> None:
    path = write(tmp_path / "a.csv", [first, *lines_of()[1:]])
    table = read_table(path, WANTED, Layout(header=("text", "label")))
    assert table.columns["text"] == [text for text, _ in ROWS]
    assert "has a first line that names its columns" in table.notes[0]
    rows = write(tmp_path / "b.csv", ["text", *(text for text, _ in ROWS)])
    assert len(data.read_rows(rows, DataConfig(header=("label", "text")))) == len(ROWS)


def test_a_first_line_that_is_a_row_is_named_with_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [f"{label},{text},{i}" for i, (text, label) in enumerate(ROWS)])
    (problem,) = data.survey(DataConfig(source=str(path)), Reading(8)).problems
    assert problem.endswith("add a line that does, or give --set 'data.header=[label, text, column3]'")


@pytest.mark.parametrize("value", [";;", "", '"', "\n"])
def test_a_separator_of_several_characters_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="give one character, or a name"):
        DataConfig(separator=value)


def test_invisible_marks_around_names_do_not_count(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", ["\ufeff\ufefftext,label\u200b", *lines_of()[1:]]), WANTED)
    assert table.names == ("text", "label")


@pytest.mark.parametrize("before", [["# exported"], ["My reviews", ""], ["a;b", "c;d"]])
def test_lines_before_the_names_are_named(tmp_path: Path, before: list[str]) -> None:
    path = write(tmp_path / "a.csv", [*before, *lines_of()])
    (problem,) = data.survey(DataConfig(source=str(path)), Reading(8)).problems
    assert f"line {len(before) + 1} names the columns, but the first line must" in problem


def test_a_header_in_the_middle_of_a_file_is_a_bad_row(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", [*lines_of(), *lines_of()]), WANTED)
    (bad,) = table.bad
    assert (bad.numbers, "the line that names the columns is repeated" in bad.sentence) == ((13,), True)


# Encodings ------------------------------------------------------------------------------------------------------------

FRENCH = ["text,label", "déjà vu à l’été,a", "plain,b", "une forêt,b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_unicode_is_read_in_every_form(tmp_path: Path, encoding: str, name: str) -> None:
    lines = FRENCH if name == "a.csv" else ['{"text": "déjà vu à l’été"}', '{"text": "plain"}', '{"text": "une forêt"}']
    table = read_table(write(tmp_path / name, lines, encoding), WANTED)
    assert table.columns["text"] == ["déjà vu à l’été", "plain", "une forêt"]
    assert bool(table.notes) == encoding.startswith(("utf-16", "utf-32"))


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", "déjà vu à l’été"), ("cp1251", "Привет, как дела"), ("gb18030", "今天天气很好我们去公园")],
)
def test_another_encoding_is_guessed_in_the_problem_and_read_where_it_is_set(
    tmp_path: Path, encoding: str, words: str
) -> None:
    path = write(tmp_path / "a.csv", ["text,label", f'"{words}",a', "plain,b"], encoding)
    (bad,) = read_table(path, WANTED).bad
    assert bad.numbers == (1,)
    assert bad.sentence.startswith(f"{path}, line 2: not UTF-8")
    assert bad.sentence.endswith(f"data.encoding={encoding}")
    table = read_table(path, WANTED, Layout(encoding=encoding))
    assert table.columns["text"] == [words, "plain"]
    assert table.notes == (f"{path} is read as {encoding}",)


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030"])
def test_a_file_of_utf_8_is_read_as_that_whatever_is_set(tmp_path: Path, encoding: str) -> None:
    table = read_table(write(tmp_path / "a.csv", FRENCH), WANTED, Layout(encoding=encoding))
    assert (table.columns["text"][0], table.notes) == ("déjà vu à l’été", ())


def test_lines_of_utf_8_in_a_file_of_windows_are_read_as_that(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text\ndéjà\n".encode() + "été\n".encode("cp1252"))
    assert read_table(path, WANTED, Layout(encoding="cp1252")).columns["text"] == ["déjà", "été"]


def test_bytes_that_are_no_text_of_the_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\nfine\ncaf\xe9 \x81\n")
    (bad,) = read_table(path, WANTED, Layout(encoding="cp1252")).bad
    assert (bad.numbers, "line 3: bytes that are not cp1252" in bad.sentence) == ((2,), True)


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="encoding is 'windows', which is unknown"):
        DataConfig(encoding="windows")


# JSON Lines -----------------------------------------------------------------------------------------------------------


def test_a_key_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ['{"text": "a", "text": "b"}', '{"text": "c"}'])
    (bad,) = read_table(path, WANTED).bad
    assert (bad.numbers, "a key is there twice" in bad.sentence) == ((1,), True)


# Other kinds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"\x1f\x8b\x08rest", "add .gz to its name"),
        ("a.csv", b"PK\x03\x04rest", "name it .zip or .xlsx"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0rest", "with a password, or in the old format (.xls)"),
        ("a.csv", b"SQLite format 3\0rest", "name it .sqlite"),
        ("a.csv", b"ARROW1rest", "name it .feather"),
        ("a.tsv", b"PAR1rest", "name it .parquet"),
        ("a.csv", b'{"text": "a"}\n', "name it .jsonl"),
        ("a.csv", b"<!DOCTYPE html><p>404, sorry", "is a web page"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.jsonl", b' [{"text": "a"}]', "pandas.read_json"),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_one_problem(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (problem,) = data.survey(DataConfig(source=str(tmp_path / name)), Reading(8)).problems
    assert told in problem
