"""A split may be anything: every command names each problem once, all of them, and none that follows from another."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from submillion import config, data
from submillion.config import DataConfig
from submillion.data import hub, memory, reading
from submillion.data.columns import missing_columns
from submillion.data.formats import read_table
from submillion.data.long_texts import Reading
from submillion.data.tables import table_of
from submillion.errors import MAX_PROBLEMS, DataError
from tests.kit.pairs import each
from tests.malformed import called, refused

HEADER = ["text", "other", "label"]
SPLITS = ("train", "validation", "test")
Lines = list[list[str]]


def written(lines: Lines) -> bytes:
    return "".join(",".join(cells) + "\n" for cells in lines).encode()


def without(column: str) -> Callable[[Lines], bytes]:
    place = HEADER.index(column)
    return lambda lines: written([[*cells[:place], *cells[place + 1 :]] for cells in lines])


def with_row(*cells: str) -> Callable[[Lines], bytes]:
    """The second data row replaced: it is the only one of its class but one."""
    return lambda lines: written([*lines[:2], list(cells), *lines[3:]])


# Each is one problem of its file, and says this.
FAULTS: dict[str, tuple[Callable[[Lines], bytes], str]] = {
    "no text": (without("text"), "no column 'text'"),
    "no label": (without("label"), "no column 'label'"),
    "no pair": (without("other"), "no column 'other'"),
    "no column at all": (lambda lines: b"a,b\n1,2\n", "no column 'text' and no column 'other' and no column 'label'"),
    "empty": (lambda lines: b"", "is empty"),
    "header only": (lambda lines: written(lines[:1]), "has no rows"),
    "a column twice": (lambda lines: written([["text", "text", "other"], *lines[1:]]), "'text' more than once"),
    "text missing": (with_row("", "b", "two"), "(column 'text') is empty"),
    "label missing": (with_row("a", "b", ""), "the label (column 'label') is missing"),
    "a row cut": (with_row("a", "two"), "2 cells where the header has 3"),
    "a quote left open": (with_row('"a, b', "b", "two"), "never closes"),
    "Latin-1": (lambda lines: written([*lines, ["a", "b", "deuxième"]]).decode().encode("latin-1"), "not UTF-8"),
    "a label of several": (with_row("a", "b", "one|two"), "multi-label"),
}


def folder_of(path: Path, faults: dict[str, str], n_splits: int) -> Path:
    """A folder of good splits but for those with a fault."""
    path.mkdir()
    for split in (("train",), ("train", "test"), SPLITS)[n_splits - 1]:
        rows = [[f"{split} text {i}", f"{split} pair {i}", ("one", "two", "one", "two")[i % 4]] for i in range(8)]
        rows[3][2] = rows[5][2] = rows[7][2] = "one"  # class two has the rows 1 and 8
        rows.append([f"{split} text 8", f"{split} pair 8", "two"])
        make = FAULTS[faults[split]][0] if split in faults else written
        (path / f"{split}.csv").write_bytes(make([HEADER, *rows]))
    return path


def settings(path: Path) -> DataConfig:
    return DataConfig(source=str(path), text_pair="other", validation=2)


CASES = [
    (n_splits, chosen)
    for n_splits, names in ((1, ("train",)), (2, ("train", "test")), (3, SPLITS))
    for n in range(1, n_splits + 1)
    for chosen in combinations(names, n)
]


@pytest.mark.parametrize(
    ("fault", "case"),
    sorted({*each(FAULTS, CASES), *each(FAULTS, CASES[::-1]), *((f, CASES[-1]) for f in FAULTS)}),
    ids=str,
)
def test_each_faulty_split_is_one_problem(fault: str, case: tuple[int, tuple[str, ...]], tmp_path: Path) -> None:
    n_splits, faulty = case
    path = folder_of(tmp_path / "rows", dict.fromkeys(faulty, fault), n_splits)
    found = data.survey(settings(path), Reading(8)).problems
    if fault == "no label" and "train" not in faulty:  # such a test split is taken for rows to predict
        faulty = tuple(split for split in faulty if split != "test")
    assert sorted(problem.partition(".csv")[0].rpartition("/")[2] for problem in found) == sorted(faulty)
    assert all(FAULTS[fault][1] in problem for problem in found), found
    if found:
        with pytest.raises(DataError) as refusal:
            data.read(settings(path))
        assert refusal.value.problems == DataError(*found).problems


@pytest.mark.parametrize("faults", list(zip(FAULTS, [*FAULTS][3:] + [*FAULTS][:3], strict=True)), ids="+".join)
def test_different_faults_of_two_splits_are_told_together(faults: tuple[str, str], tmp_path: Path) -> None:
    path = folder_of(tmp_path / "rows", dict(zip(("train", "validation"), faults, strict=True)), 3)
    found = sorted(data.survey(settings(path), Reading(8)).problems, key=lambda problem: "validation.csv" in problem)
    assert len(found) == 2
    assert all(FAULTS[fault][1] in problem for fault, problem in zip(faults, found, strict=True)), found


SET_COLUMNS = "--set data.text=review --set data.label=stars"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "memory", "hub"])
def test_in_every_kind_of_source_missing_columns_are_one_problem_a_split(kind: str, tmp_path: Path) -> None:
    made = {
        split: Dataset.from_dict({"review": [f"{split} says so {i}" for i in range(20)], "stars": [1, 2] * 10})
        for split in ("train", "test")
    }
    found: list[str] = []
    for split, rows in made.items():
        if kind == "hub":
            table = hub.table_of_dataset(f"some/reviews ({split})", rows, {"text", "label"})
            reading.examples_of(table, DataConfig(), found)
        elif kind != "memory":
            {"csv": rows.to_csv, "jsonl": rows.to_json, "parquet": rows.to_parquet}[kind](tmp_path / f"{split}.{kind}")
    if kind == "memory":
        with pytest.raises(DataError) as refusal:
            data.read(DataConfig(), memory.splits(made, DataConfig()))
        found += refusal.value.problems
    elif kind != "hub":
        found += data.survey(DataConfig(source=str(tmp_path)), Reading(8)).problems
    assert len(found) == 2
    typed = "overrides={'data.text': 'review', 'data.label': 'stars'}" if kind == "memory" else SET_COLUMNS
    assert all(f"; give {typed}, or rename the columns" in each for each in found)


def test_where_splits_disagree_renaming_alone_is_proposed(tmp_path: Path) -> None:
    for split, text in zip(SPLITS, ("text", "sentence", "text"), strict=True):
        rows = "".join(f"{split} says so {i},{i % 2}\n" for i in range(20))
        (tmp_path / f"{split}.csv").write_text(f"{text},label\n{rows}")
    (problem,) = data.survey(DataConfig(source=str(tmp_path)), Reading(8)).problems
    assert problem.endswith("it has sentence, label; all splits use the same columns: rename 'sentence' to 'text'")


def test_good_splits_have_no_problem(tmp_path: Path) -> None:
    for n_splits in (1, 2, 3):
        path = folder_of(tmp_path / str(n_splits), {}, n_splits)
        assert data.survey(settings(path), Reading(8)).problems == ()
        assert data.read(settings(path)).train


STUDY = {"name": "tiny", "kind": "grid", "factors": [{"key": "adapter.rank", "values": [1, 2]}]}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_tells_the_same_and_begins_nothing(
    fault: str, tmp_path: Path, encoders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path, encoder = folder_of(tmp_path / "rows", {"train": fault, "test": fault}, 2), str(encoders["bert"])
    study = {**STUDY, "base": {"settings": {"data.text_pair": "other", "model.name": encoder}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    columns, out = ("--set", "data.text_pair=other"), tmp_path / "runs"
    code, text, told = called(capsys, "data", "check", path, *columns, "--set", "model.name=./none", "--json")
    assert code == 1
    assert len(json.loads(text)["problems"]) == 2
    assert told.startswith("error: 2 problems:\n")
    for command in (
        ("data", "check", path, *columns, "--set", "model.name=./none"),
        ("data", "augment", path, *columns, "--kind", "typos"),
        ("train", "--data", path, *columns, "--set", f"model.name={encoder}", "--out", out),
        ("sweep", tmp_path / "study.yaml", "--data", path, "--out", out),
        ("sweep", tmp_path / "study.yaml", "--data", path, "--out", out, "--dry-run"),
    ):
        code, _, errors = called(capsys, *command)
        assert code == 1, command
        assert errors.endswith(told), command
    assert not out.exists()


def test_many_problems_are_cut_to_twenty_and_a_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(20)))
    rows = "".join(f"other {i},class {i}\n" for i in range(50))
    (tmp_path / "test.csv").write_text(f"text,label\n{rows}known,a\n")
    told = refused(capsys, "data", "check", tmp_path, "--set", "model.name=./none", "--json", named=("50 problems",))
    assert told.count("\n  - ") == MAX_PROBLEMS + 1
    assert told.endswith(f"and {50 - MAX_PROBLEMS} more\n")


def test_a_split_that_is_not_used_is_not_looked_at(tmp_path: Path) -> None:
    path = folder_of(tmp_path / "rows", {"validation": "a column twice", "test": "a column twice"}, 3)
    good = folder_of(tmp_path / "good", {}, 3) / "validation.csv"
    own = settings(path).model_copy(update={"validation": str(good), "test": 2})
    assert data.survey(own, Reading(8)).problems == ()


# What is proposed for columns that are not there ---------------------------------------------------------------------


GERMAN = "10:01,ein guter Film,gut\n10:02,ein ganz anderer Film,gut\n" * 9 + "10:03,nichts als Verdruss,schlecht\n"
# The header, the rows, what is proposed.
PROPOSED = [
    ("review,stars", "so good a film,5\nso bad a film,1\nas good,5\n", "data.text=review data.label=stars"),
    ("txt,lable", "a,x\nb,y\n", "data.text=txt data.label=lable"),
    ("id,Review Text,Class Name", "1,a b,x\n2,c,y\n3,d,y\n", "'data.text=Review Text' 'data.label=Class Name'"),
    ("ts,Rezension,Note", GERMAN, "data.text=Rezension data.label=Note"),
    ("a,b", "1,2\n3,4\n", "data.text=... data.label=..."),
    ("title,body,score", "Yes,a long story,0.5\nNo,another one of them,0.25\n", "data.text=body data.label=..."),
    ("yes,type", "it was good,x\nit was bad,y\nit was so,y\n", "'data.text=\"yes\"' data.label=type"),
]


@pytest.mark.parametrize(("header", "rows", "options"), PROPOSED)
def test_the_columns_that_may_be_meant_are_proposed(header: str, rows: str, options: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    (problem,) = missing_columns(read_table(path, {"text", "label"}), {"text": "data.text", "label": "data.label"})
    found = problem.removeprefix(f"{path} has no column 'text' and no column 'label'; it has ")
    assert found.startswith(f"{header.replace(',', ', ')}; give --set ")
    assert found.partition("; give ")[2].replace("--set ", "") == f"{options}, or rename the columns"


def test_without_a_file_names_alone_are_gone_by() -> None:
    table = table_of("set (train)", {"idx": [1, 2], "sentence": ["a", "b"], "topic": ["x", "y"]})
    (problem,) = missing_columns(table, {"text": "data.text", "label": "data.label"})
    assert "--set data.text=sentence --set data.label=topic" in problem


def test_of_several_text_columns_only_misspelt_ones_are_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("titel,body,label\na,b c d e f,x\n")
    table = read_table(path, {"title", "body", "label"})
    (problem,) = missing_columns(table, {"title": "data.text", "body": "data.text", "label": "data.label"})
    assert "--set 'data.text=[titel, body]', or rename the column" in problem


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).map(str.strip)


@given(st.lists(names.filter(bool), min_size=2, max_size=6, unique=True))
def test_what_is_proposed_is_read_back_as_these_columns(columns: list[str]) -> None:
    """Whatever columns are called, the options that are proposed name columns of the table."""
    table = table_of("a", {name: ["x"] for name in columns})
    (problem,) = missing_columns(table, {"the text": "data.text"}) or ("",)
    if not problem:
        return
    option = problem.rpartition("; give ")[2].removesuffix(", or rename the column")
    _, override = shlex.split(option)
    if not override.endswith("=..."):
        assert config.load(overrides=[override]).data.text in columns
