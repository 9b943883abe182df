"""Folders of data files: which file is taken as which split, in how many files it is, and what is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from submillion import data
from submillion.config import DataConfig
from submillion.data.long_texts import Reading
from submillion.errors import DataError


def content(word: str, n_rows: int = 8) -> str:
    return "text,label\n" + "".join(f"{word} text {i * i},{'ab'[i % 2]}\n" for i in range(n_rows))


def folder(path: Path, *names: str, **contents: str) -> Path:
    """A folder with a file of rows for each name; `contents` are those of train, validation, test or others."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contents.get(name.partition(".")[0], content(name)))
    return path


def survey(path: Path, **settings: object) -> data.Survey:
    return data.survey(DataConfig(source=str(path), **settings), Reading(8))


def rows_of(found: data.Survey) -> dict[str, int]:
    return {name: census.n_rows for name, census in found.censuses.items()}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval", "Dev", "VAL"])
def test_a_validation_file_may_be_called_as_people_call_it(tmp_path: Path, name: str) -> None:
    found = survey(folder(tmp_path, "train.csv", f"{name}.csv", "test.csv"))
    assert rows_of(found) == {"train": 8, "validation": 8, "test": 8}
    assert found.problems == ()
    told = [warning for warning in found.warnings if "used as the validation split" in warning]
    assert told == ([] if name == "validation" else [f"{tmp_path}: {name}.csv: used as the validation split"])


def test_of_two_validation_files_the_surer_name_is_taken_and_the_other_said(tmp_path: Path) -> None:
    found = survey(folder(tmp_path, "train.csv", "valid.csv", "eval.csv", "sample_submission.csv", "README.md"))
    assert rows_of(found) == {"train": 8, "validation": 8}
    (told,) = (warning for warning in found.warnings if "not read" in warning)
    assert told.startswith(f"{tmp_path}: eval.csv, sample_submission.csv: not read")


def test_a_split_that_a_setting_replaces_is_said_to_be_not_read(tmp_path: Path) -> None:
    path = folder(tmp_path, "train.csv", "test.csv")
    (told,) = (warning for warning in survey(path, test=0.25).warnings if "not read" in warning)
    assert told.startswith(f"{tmp_path}: test.csv: not read")


@pytest.mark.parametrize(
    "names",
    [
        [f"train-{i:05d}-of-00012.csv" for i in range(12)],
        [f"train_{i}.csv" for i in range(12)],
        [f"part-{i:05d}-1f9e.c000.csv" for i in range(12)],
        [f"train/part-{i:05d}.csv" for i in range(12)],
        [f"data/train-{i:05d}-of-00012.csv" for i in range(12)],
    ],
)
def test_a_split_in_several_files_is_read_in_their_order(tmp_path: Path, names: list[str]) -> None:
    folder(tmp_path, *names)
    ((tmp_path / names[0]).parent / "_SUCCESS").touch()
    splits = data.read(DataConfig(source=str(tmp_path), validation=8))
    texts = {example.text for example in splits.train} | {example.text for example in splits.validation}
    assert len(texts) == 96
    ids = [int(example.id) for example in splits.train]
    assert ids == sorted(ids)
    assert sum("is in 12 files" in warning for warning in splits.warnings) == 1
    by_id = {int(example.id): example.text for example in (*splits.train, *splits.validation)}
    assert [by_id[8 * i].startswith(f"{name} text") for i, name in enumerate(names)] == [True] * 12


def test_a_row_of_several_files_is_named_with_its_own(tmp_path: Path) -> None:
    folder(tmp_path, "train-0.csv", "train-1.csv")
    with (tmp_path / "train-1.csv").open("a") as file:
        file.write(",a\n")
    (problem,) = survey(tmp_path).problems
    assert problem.startswith(f"{tmp_path}/train-1.csv, row 9 (line 10): the text (column 'text') is empty")
    assert survey(tmp_path, drop="bad-rows").censuses["train"].n_dropped == 1


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train.csv", "train.jsonl"], "holds train.csv, train.jsonl: keep one"),
        (["train.csv", "train_2.csv"], "keep one, or name one by its path"),
        (["train-00000-of-00003.csv", "train-00002-of-00003.csv"], "holds 2 of the 3 files of train"),
        (["reviews.csv"], "give the file of the training rows, such as"),
        (["train/pos/1_7.txt", "train/neg/2_1.txt"], "one text per file and one class per folder are not read"),
        (["train.xls"], "is a spreadsheet"),
    ],
)
def test_what_is_ambiguous_or_missing_is_refused(tmp_path: Path, names: list[str], told: str) -> None:
    with pytest.raises(DataError) as refusal:
        data.read(DataConfig(source=str(folder(tmp_path, *names))))
    (problem,) = refusal.value.problems
    assert told in problem


def test_files_of_one_split_have_the_same_columns(tmp_path: Path) -> None:
    path = folder(tmp_path, "train-0.csv", "train-1.csv", **{"train-1": "text,stars\nx,1\n"})
    (problem,) = survey(path).problems
    assert "train-1.csv has the columns text, stars, and" in problem


@pytest.mark.parametrize("test", ["id,text\n1,new\n", "text,label\nnew,\nother,\n"])
def test_a_test_file_without_labels_is_the_one_to_predict(tmp_path: Path, test: str) -> None:
    found = survey(folder(tmp_path, "train.csv", "test.csv", test=test))
    assert (rows_of(found), found.problems) == ({"train": 8}, ())
    assert any("it is taken as rows to predict (submillion predict --input)" in told for told in found.warnings)


def test_a_label_that_train_lacks_is_not_explained_by_test(tmp_path: Path) -> None:
    path = folder(tmp_path, "train.csv", "test.csv", train="text,target\na,x\n", test="text,target\nb,x\n")
    assert len(survey(path).problems) == 2


@pytest.mark.parametrize("changed", ["train/a.csv", "notes.csv"])
def test_a_folder_whose_files_change_is_read_again(tmp_path: Path, changed: str) -> None:
    folder(tmp_path, "train/a.csv", "test/b.csv", "notes.csv")
    settings = DataConfig(source=str(tmp_path), validation=2)
    first = data.read(settings)
    assert data.read(settings) is first
    with (tmp_path / changed).open("a") as file:
        file.write("another text,a\n")
    assert data.read(settings) is not first


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["reviews_test.csv", "reviews_train.csv"], "reviews_train.csv; data.validation and data.test name"),
        (["train_de.csv", "test_de.csv", "train_en.csv"], "train_de.csv; data.validation"),
        (["rows.csv"], "such as {}/rows.csv"),
        (["splits/train.csv", "splits/test.csv"], "; give {}/splits"),
        (["neg/a.csv", "pos/b.csv"], "such as {}/neg/a.csv"),
        (["a/train-00000-of-00009.csv", "b/train.csv"], "; give {}/b"),
    ],
)
def test_a_folder_without_a_train_file_is_told_with_what_to_give(tmp_path: Path, names: list[str], advice: str) -> None:
    with pytest.raises(DataError, match="holds no train file") as refusal:
        data.read(DataConfig(source=str(folder(tmp_path, *names))))
    assert advice.format(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("header", "reason", "todo"),
    [
        ("id,text", "has no column 'label'", "else write the labels into it"),
        ("id,text,stars", "has no column 'label'", "if its labels are in 'stars', call that column 'label'"),
        ("id,text,label", "has no label in its column 'label'", "else write the labels into it"),
    ],
)
def test_a_file_without_labels_that_is_named_as_a_split_is_told_what_it_is_for(
    tmp_path: Path, split: str, header: str, reason: str, todo: str
) -> None:
    folder(tmp_path, "train.csv")
    cells = {"id": "{i}", "text": "new {i}", "stars": "1", "label": ""}
    rows = [",".join(cells[name] for name in header.split(",")).format(i=i) for i in range(4)]
    file = tmp_path / "new.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    (problem,) = data.survey(DataConfig(source=str(tmp_path / "train.csv"), **{split: str(file)}), Reading(8)).problems
    assert problem.startswith(f"data.{split} is {file}, which {reason}")
    assert f"leave data.{split} out, and give them to `submillion predict RUN --input {file}`" in problem
    assert problem.endswith(todo)


def test_labelled_rows_that_have_no_labels_are_told_what_reads_them(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("id,text\n1,one\n2,two\n")
    with pytest.raises(DataError, match="rename one to 'label'; if it has no labels, `submillion predict` and"):
        data.read_rows(tmp_path / "new.csv", DataConfig(), labels=["a", "b"])
