"""Laws of the Python API: rows and runs as people have them give what files and folders give, or a sentence."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

import submillion
from submillion import data, runs
from submillion.config import DataConfig
from submillion.data import memory
from submillion.errors import ConfigError, DataError, RunError
from submillion.runs import EvalRecord, Run
from submillion.training.workflow import Phase
from tests.data import write_csv
from tests.malformed import called

SIZES = {"steps": 12, "batch_size": 8, "evaluate_every": 4, "precision": "fp32", "learning_rate": 3e-3}
TEXTS = ["a good game", "the market", "a poor film of the book"]
PAIRS = [("a good game", "the team"), ("the market", "news"), ("a book", "a film")]
SINGLE, PAIRED = DataConfig(), DataConfig(text_pair="second")


def table_of(frame: pd.DataFrame) -> dict[str, Any]:
    """The rows of a frame in each way that has columns."""
    rows = frame.to_dict("records")
    return {
        "DataFrame": frame,
        "Dataset": datasets.Dataset.from_pandas(frame, preserve_index=False),
        "list of dicts": rows,
        "tuple of dicts": tuple(rows),
    }


def texts_of(values: list[Any]) -> dict[str, Any]:
    """Texts, or pairs, in each way that has no columns."""
    series = pd.Series(values, index=[f"row {i}" for i in range(len(values))])
    return {"list": values, "tuple": tuple(values), "array": np.array(values), "Series": series}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 60 rows, which are told apart by the numbers 0, 1 and 2."""
    path = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 60)
    frame = pd.read_csv(path)
    frame["label"] = frame["label"].map({"art": 0, "money": 1, "sport": 2})
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder, whose runs are in runs/."""
    return tmp_path_factory.mktemp("here") / "runs"


@pytest.fixture(scope="module")
def settings(encoders: dict[str, Path], out: Path) -> dict[str, Any]:
    return {"model": encoders["bert"], "train": SIZES, "out": out, "name": "small"}


@pytest.fixture(scope="module")
def run(settings: dict[str, Any], rows: Path) -> Run:
    return submillion.train(rows, **settings)


@pytest.fixture(scope="module")
def paired(settings: dict[str, Any], out: Path) -> Run:
    frame = pd.DataFrame(
        {"text": [f"the team {i}" for i in range(40)], "second": [f"a game of {i}" for i in range(40)]}
    )
    frame["label"] = np.arange(40) % 2 == 0
    return submillion.train(frame, overrides={"data.text_pair": "second", "train.steps": 2}, **settings)


def rows_of(source: object, columns: DataConfig = SINGLE, labels: tuple[str, ...] | None = None) -> list[Any]:
    return [(one.text, one.text_pair, one.label) for one in data.read_rows(source, columns, labels)]


# Rows


def test_every_kind_of_rows_is_predicted_as_the_same_rows_in_a_file(run: Run, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS})
    frame.to_csv(tmp_path / "a.csv", index=False)
    expected = submillion.predict(run, tmp_path / "a.csv")
    for kind, given in {**texts_of(TEXTS), **table_of(frame), "str": str(tmp_path / "a.csv")}.items():
        found = submillion.predict(run, given)
        assert found.labels == expected.labels, kind
        assert (found.probs == expected.probs).all(), kind


def test_pairs_too(paired: Run, tmp_path: Path) -> None:
    frame = pd.DataFrame(PAIRS, columns=["text", "second"])
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    expected = submillion.predict(paired, tmp_path / "a.jsonl")
    assert set(map(type, expected.labels)) == {bool}
    for kind, given in {**texts_of(PAIRS), **table_of(frame)}.items():
        found = submillion.predict(paired, given)
        assert (found.labels, found.probs.tolist()) == (expected.labels, expected.probs.tolist()), kind


def test_every_kind_of_table_is_scored_as_the_same_rows_in_a_file(run: Run, rows: Path) -> None:
    expected = submillion.evaluate(run, str(rows))
    for kind, given in table_of(pd.read_csv(rows)).items():
        assert submillion.evaluate(run, given) == expected, kind


def test_every_kind_of_table_trains_one_run_which_is_that_of_the_file(
    settings: dict[str, Any], run: Run, rows: Path
) -> None:
    frame = pd.read_csv(rows)
    found = {submillion.train(settings, given).path for given in table_of(frame).values()}
    (path,) = found | {submillion.train({"train": frame}, **settings).path}
    for name in ("predictions-validation.parquet", "scores.json", "labels.json"):
        assert (path / name).read_bytes() == (run.path / name).read_bytes()
    assert Run(path).config().data.source == "<memory>"
    assert path != run.path
    assert not any(text in file.read_text() for text in frame["text"] for file in path.glob("*.json*"))


def test_splits_are_given_as_a_dict(settings: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(rows)
    parts = {"train": frame[:40], "validation": frame[40:50], "test": frame[50:]}
    first = submillion.train(parts, **settings, overrides={"train.steps": 1, "data.test": 0.3})
    assert first.read_json("data.json")["rows"] == {"train": 40, "validation": 10, "test": 10}
    assert any("data.test is 0.3 and not used" in text for text in first.read_json("data.json")["warnings"])
    assert first.load_predictions("test").ids == frame["id"][50:].tolist()
    whole = datasets.DatasetDict({name: datasets.Dataset.from_pandas(part) for name, part in parts.items()})
    for name, part in parts.items():
        part.to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)
    files = {name: tmp_path / f"{name}.jsonl" for name in parts}
    for given in (whole, files):
        again = submillion.train(given, **settings, overrides={"train.steps": 1, "data.test": 0.3})
        assert again.path == first.path


def test_a_published_set_may_share_rows_between_its_splits_and_a_frame_may_not(settings: dict[str, Any]) -> None:
    frame = pd.DataFrame({"text": ["a game", "a film", "the team", "the book"] * 2, "label": ["a", "b"] * 4})
    frame["text"] += [f" {i}" for i in range(8)]
    both = {"train": frame, "test": frame[:1]}
    with pytest.raises(DataError, match=r"the DataFrame \(test\), row 1 \(index 0\): 1 of 1 rows is also in"):
        submillion.train(both, **settings)
    published = {name: datasets.Dataset.from_pandas(part) for name, part in both.items()}
    splits = data.read(DataConfig(source="<memory>"), memory.splits(published, DataConfig()))
    assert len(splits.train) + len(splits.validation) == 7


def test_labels_that_a_published_set_keeps_back_are_left_out_with_a_warning() -> None:
    rows = {"text": [f"{text} {i}" for i in range(4) for text in TEXTS], "label": [0, 1, 1] * 4}
    parts = {
        "train": rows,
        "validation": rows | {"label": [None, *rows["label"][1:]]},
        "test": {"text": ["a"], "label": [-1]},
    }
    parts["validation"]["text"] = [f"{text} more" for text in rows["text"]]
    given = datasets.DatasetDict({name: datasets.Dataset.from_dict(part) for name, part in parts.items()})
    splits = data.read(DataConfig(source="<memory>"), memory.splits(given, SINGLE))
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [12, 11, 0]
    assert splits.validation[0].id == "1"
    assert "the Dataset (test): the labels (column 'label') of all 1 rows are withheld" in splits.warnings[1]
    with pytest.raises(DataError, match=r"the DataFrame \(validation\), row 1 \(index 0\): the label .* is missing"):
        data.read(DataConfig(source="<memory>"), memory.splits({k: pd.DataFrame(v) for k, v in parts.items()}, SINGLE))


def test_ids_are_the_index_where_no_column_has_them_and_it_repeats_none() -> None:
    frame = pd.DataFrame({"text": TEXTS}, index=[7, 3, 5])

    def ids(given: object) -> list[str]:
        return [example.id for example in data.read_rows(given, DataConfig())]

    assert ids(frame) == ids(frame["text"]) == ["7", "3", "5"]
    assert ids(frame.assign(id=["x", "y", "z"])) == ["x", "y", "z"]
    assert ids(frame.set_axis([1, 1, 2])) == ids(TEXTS) == ["0", "1", "2"]


def test_cells_are_read_as_those_of_files_are(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": [" a ", b"film \xc3\xa9", 3, np.str_("b"), pd.Timestamp("2024-01-02")],
            "label": pd.Series([1.0, 2.0, 1.0, 2.0, 1.0], dtype="Float64"),
            "category": pd.Categorical(["x", "y", "x", "y", "x"]),
        }
    )
    expected = [("a", "1"), ("film é", "2"), ("3", "1"), ("b", "2"), ("2024-01-02 00:00:00", "1")]
    assert [(text, label) for text, _, label in rows_of(frame, labels=("1", "2"))] == expected
    named = rows_of(frame, DataConfig(label="category"), ("x", "y"))
    assert [label for _, _, label in named] == ["x", "y", "x", "y", "x"]
    assert rows_of(frame["text"]) == rows_of(frame["text"].tolist()) == rows_of(frame[["text"]])
    several = DataConfig(text=("category", "text"))
    assert rows_of(frame, several)[1][0] == "y film é"
    (tmp_path / "a.csv").write_text("text\n a \n")
    assert rows_of(tmp_path / "a.csv")[0] == rows_of([" a "])[0] == rows_of(frame[:1])[0]


MISSING = [None, float("nan"), np.nan, pd.NA, pd.NaT, np.float32("nan"), "", "  "]


def test_what_is_missing_is_named_as_in_files(tmp_path: Path) -> None:
    texts = ["a", *MISSING, "b"]
    frame = pd.DataFrame({"text": pd.Series(texts, dtype=object), "label": ["x", *["y"] * len(MISSING), None]})
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"text": t if isinstance(t, str) else None, "label": y}) + "\n" for t, y in frame.values)
    )

    def problems(given: object, labels: tuple[str, ...] | None) -> list[str]:
        with pytest.raises(DataError) as caught:
            data.read_rows(given, DataConfig(), labels)
        return [re.sub(r"^.*?, (rows? [\d, ]+\b).*?\)", r"\1", problem) for problem in caught.value.problems]

    expected = problems(tmp_path / "a.jsonl", ("x", "y"))
    assert expected[0].startswith("rows 2, 3, 4, 5, 6, 7, 8, 9: the text (column 'text') is empty")
    assert expected[1].startswith("row 10: the label (column 'label') is missing")
    assert problems(frame, ("x", "y")) == problems(frame.to_dict("records"), ("x", "y")) == expected
    assert problems(texts, None) == problems(pd.Series(texts, dtype=object), None) == expected[:1]


REFUSED: dict[str, tuple[Any, str]] = {
    "text": (
        "a good game",
        r"'a good game': no such file; a str is taken as a file's path: for one text give \[text\]",
    ),
    "long text": ("a good game " * 400, r"a str is taken as a file's path: for one text give \[text\]"),
    "URL": ("https://host/rows", r"a str is taken as a file's path"),
    "near name": ("{folder}/row.csv", "no such file: did you mean 'rows.csv'"),
    "folder": ("{folder}", "is a folder: give one file of it"),
    "dict": ({"text": ["a"]}, r"given as a dict: of columns make pandas\.DataFrame\(x\), of one row \[x\]"),
    "bytes": (b"a", r"given as bytes: decode a text"),
    "int": (3, "given as an int"),
    "None": (None, "given as None"),
    "generator": ((text for text in TEXTS), r"given as a generator: give list\(x\)"),
    "set": (set(TEXTS), r"given as a set: a set has no order: give sorted\(x\)"),
    "scalar": (np.array("a"), r"given as a numpy\.ndarray"),
    "DatasetDict": (datasets.DatasetDict(dev=datasets.Dataset.from_dict({"text": TEXTS})), r"such as x\['dev'\]"),
    "IterableDataset": (
        datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
        r"datasets\.IterableDataset",
    ),
    "arrow": (datasets.Dataset.from_dict({"text": TEXTS}).data.table, r"a pyarrow\.Table: give x\.to_pandas\(\)"),
    "objects": ([{1}, {2}], r"the list, rows 1, 2 \(index 0, 1\): \{1\} is a set: give texts \(str\)"),
    "bytes of another encoding": ([b"\xe9"], "column 'text' is not UTF-8: write it again as text"),
    "pairs": ([("a", "b")], r"the list, row 1 \(index 0\): \('a', 'b'\) is a tuple: give texts"),
    "mixed": (["a", {"text": "b"}], "'a' is a str: other rows are dicts"),
    "other columns": (
        pd.DataFrame({"txt": TEXTS}),
        "the DataFrame has no column 'text'; it has txt; .* rename 'txt' to",
    ),
    "two columns of one name": (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "'text' more than once"),
    "lists in cells": (pd.DataFrame({"text": [np.array(["a"]), "b"]}), r"row 1 \(index 0\): .* is a list or an object"),
    "half a character": (["\ud83d"], "half a surrogate pair"),
    "nothing": ([], "the list has no rows"),
    "no rows": (pd.DataFrame({"text": []}), "the DataFrame has no rows"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_refused_by_name(kind: str, rows: Path) -> None:
    given, message = REFUSED[kind]
    if isinstance(given, str):
        given = given.replace("{folder}", str(rows.parent))
    with pytest.raises(DataError, match=message):
        data.read_rows(given, DataConfig())


@pytest.mark.parametrize(
    ("given", "columns", "labels", "message"),
    [
        (["a"], PAIRED, None, "'a' is a str: give pairs"),
        ([("a", "b", "c")], PAIRED, None, "is a tuple: give pairs"),
        ([("a", None), None], PAIRED, None, r"rows 1, 2 \(index 0, 1\): the text \(column 'text_pair'\) is empty"),
        ([("a", "b")], DataConfig(text=("title", "body")), None, "the columns title, body are read from a DataFrame"),
        (TEXTS, DataConfig(label="stars"), ("1",), "the list has no labels: give a DataFrame.* the column 'stars'"),
        (pd.Series(TEXTS), DataConfig(), ("1",), "the Series has no labels"),
        ([], DataConfig(), ("1",), "the list has no rows"),
        (
            pd.DataFrame({"text": ["a"], "label": [3]}),
            DataConfig(),
            ("1", "2"),
            r"\(index 0\): label '3' is not a training label",
        ),
    ],
)
def test_so_are_rows_that_do_not_fit_the_run(given: Any, columns: DataConfig, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.read_rows(given, columns, labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "rows", "valid": "rows"}, "'valid' is not one of them: did you mean 'validation'"),
        ({"text": ["a"], "label": [1]}, "unknown key text"),
        (TEXTS, "the list has no labels"),
        (3, "given as an int"),
        (b"a", "given as bytes"),
        ({"train": pd.DataFrame({"text": ["a"]}), "test": pd.Series(["b"])}, "the Series has no labels"),
        (
            pd.DataFrame({"txt": TEXTS, "label": [1, 2, 1]}),
            r"it has txt, label; give overrides=\{'data\.text': 'txt'\}",
        ),
        (
            pd.DataFrame({"text": TEXTS, "label": [1, 2, None]}),
            r"row 3 \(index 2\): the label \(column 'label'\) is miss",
        ),
        ("no-such-config.yaml", "no such file; `submillion config >"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(settings: dict[str, Any], given: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        submillion.train(given, **settings)


def test_a_file_beside_rows_in_memory_is_told_in_python_too(settings: dict[str, Any], tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [*TEXTS, "a team"], "label": [1, 2, 1, 2]})
    frame.rename(columns={"text": "sentence"}).to_csv(tmp_path / "test.csv")
    test = {"data.test": str(tmp_path / "test.csv")}
    with pytest.raises(DataError, match="all splits use the same columns: rename 'sentence' to 'text'"):
        submillion.train(frame, **settings, overrides=test)
    frame = frame.rename(columns={"text": "review"})
    with pytest.raises(DataError) as no:
        submillion.train(frame, **settings, overrides=test)
    assert [problem.rpartition("; give ")[2] for problem in no.value.problems] == [
        f"overrides={{'data.text': {name!r}}}, or rename the column" for name in ("review", "sentence")
    ]


def test_rows_are_given_once(settings: dict[str, Any]) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": [1, 2, 1]})
    with pytest.raises(ConfigError, match="rows are given twice"):
        submillion.train(frame, frame, **settings)
    with pytest.raises(ConfigError, match=r"data\.source is b\.csv, but the rows are <memory>: leave one of them out"):
        submillion.train(frame, **settings, overrides={"data.source": "b.csv"})
    with pytest.raises(
        DataError, match=r"'text' is not one of them.*columns go into a DataFrame, settings into overrides"
    ):
        submillion.train({}, {"text": TEXTS}, **settings)


@pytest.mark.parametrize("key", ["revision", "config"])
def test_only_sets_of_the_hub_have_revisions_rows_in_memory_too(settings: dict[str, Any], rows: Path, key: str) -> None:
    for given in (rows, pd.read_csv(rows)):
        with pytest.raises(DataError, match=f"data.{key} is 'main', but data.source is .*: only Hub sets have"):
            submillion.train(given, **settings, overrides={f"data.{key}": "main"})
        settled = submillion.load_config(data={"source": "org/set", key: "main"}, **settings)
        assert submillion.train(settled, given).config().data.revision is None


def test_a_run_that_is_found_under_another_name_is_told(settings: dict[str, Any], run: Run, rows: Path) -> None:
    notes: list[str] = []
    found = submillion.train(
        rows, **{**settings, "name": "other"}, watch=lambda record: notes.extend(getattr(record, "notes", ()))
    )
    assert found == run
    assert notes == [f"the same settings were given before under the name small: the run is {run.path}"]


def test_rows_in_memory_are_not_kept_and_it_is_said(
    settings: dict[str, Any], rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(rows)
    mine = {**settings, "out": tmp_path}
    paused = submillion.train(frame, watch=lambda record: record.kind == "step", **mine)
    with pytest.raises(DataError, match=r"these rows were given to submillion\.train in Python and are not stored"):
        submillion.train(paused.path / "config.yaml")
    with pytest.raises(RunError, match=r"not finished: submillion\.train\('.*config\.yaml', rows\) resumes it") as no:
        submillion.load_run(paused)
    assert "--config" not in str(no.value)
    code, shown, _ = called(capsys, "runs", "show", paused.path)
    assert code == 0
    assert f"resume it with: submillion.train('{paused.path / 'config.yaml'}', rows) in Python" in shown
    assert submillion.train(paused.path / "config.yaml", frame).path == paused.path
    assert paused.is_done


# Runs


def test_runs_are_named_as_on_the_command_line(
    run: Run, paired: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = submillion.predict(run, TEXTS)
    monkeypatch.chdir(out.parent)
    for which in (run.name, run.name[-8:], str(run.path), run.path, Path("runs") / run.name):
        assert submillion.load_run(which).path.resolve() == run.path.resolve()
        assert (submillion.predict(which, TEXTS).probs == expected.probs).all()
    monkeypatch.chdir("/")
    assert submillion.load_run(run.name[-8:], out) == run
    for act in (
        lambda which: submillion.predict(which, TEXTS),
        lambda which: submillion.predict([run, which], TEXTS),
        lambda which: submillion.evaluate(which, "rows.csv"),
        lambda which: submillion.compare([run, which]),
    ):
        with pytest.raises(RunError, match="no such run folder"):
            act("nobody")
        with pytest.raises(RunError, match="no such run folder"):
            act("a text, not a run " * 300)
        with pytest.raises(
            RunError, match="an int is not a run: give its folder, its name, its hash, or what `train` returns"
        ):
            act(3)
    for none in (lambda: submillion.predict([], TEXTS), lambda: submillion.shift([], "rows.csv")):
        with pytest.raises(RunError, match="no run is given"):
            none()
    assert submillion.report(run) == submillion.report(run.path)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda run: submillion.compare(run, run), r"is given: .* in a list, such as compare\(\[run, other\]\)"),
        (lambda run: submillion.compare(5, 5), "an int is given"),
        (lambda run: submillion.compare([run, run], "tset"), "split is 'tset': did you mean 'test'"),
        (lambda run: submillion.load_run("small", 5), "out is 5: give the folder of the runs"),
        (lambda run: submillion.shift(5, "rows.csv"), "an int is not a run"),
        (lambda run: submillion.report(5), "an int is not a run"),
        (lambda run: submillion.predict(b"aa", TEXTS), "bytes is not a run"),
        (lambda run: submillion.predict(pd.DataFrame({"text": TEXTS}), TEXTS), r"a pandas\.DataFrame is not a run"),
        (lambda run: submillion.sweep(5), "an int is not a study: give its file, or a shipped one: quick, "),
        (lambda run: submillion.sweep({}), "a dict is not a study"),
        (lambda run: submillion.sweep("quick", 5), "overrides are 5: give a list of texts"),
        (lambda run: submillion.sweep("quick", {"train": {"stepps": 5}}), "unknown key train.stepps"),
        (lambda run: submillion.plan(5, 2), "5 is no config"),
        (lambda run: submillion.plan({"budgt": 5}, 2), "unknown key budgt"),
        (lambda run: submillion.plan(run.config(), 2.5), "n_classes is 2.5: give a whole number, 2 or more"),
        (lambda run: submillion.plan(run.config(), "x"), "n_classes is 'x'"),
        (lambda run: submillion.plan(run.config(), None), "n_classes is None"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_name(run: Run, act: Callable[[Run], Any], message: str) -> None:
    with pytest.raises((ConfigError, RunError), match=message):
        act(run)


def test_a_plan_is_of_settings_as_training_takes_them(run: Run) -> None:
    expected = submillion.plan(run.config(), 3)
    assert submillion.plan(run.path / "config.yaml", np.int64(3)) == expected
    assert submillion.plan(run.config().model_dump(), 3) == expected


def test_a_paused_run_is_unfinished_and_never_damaged(settings: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    paused = submillion.train(
        {**settings, "out": tmp_path}, rows, watch=lambda record: "pause" if record.kind == "eval" else None
    )
    assert runs.facts(paused)["state"] == paused.state == "interrupted"
    acts: list[Callable[[], Any]] = [
        paused.scores,
        lambda: paused.load_predictions("validation"),
        lambda: runs.verify(paused),
        lambda: submillion.load_run(paused),
        lambda: submillion.predict(paused, TEXTS),
        lambda: submillion.evaluate(paused, rows),
        lambda: submillion.compare([paused, paused]),
    ]
    for act in acts:
        with pytest.raises(RunError, match="is not finished: rerun the command that started it to resume") as caught:
            act()
        assert "damaged" not in str(caught.value)


# Labels


@pytest.mark.parametrize(
    ("labels", "in_text", "in_values"),
    [
        ([0, 1], (0, 1), (0, 1)),
        ([1, 10, 9], (1, 9, 10), (1, 9, 10)),
        ([-1.0, 2.0], (-1, 2), (-1, 2)),
        ([False, True], (False, True), (False, True)),
        (["0", "1"], (0, 1), ("0", "1")),
        (["01", "1"], ("01", "1"), ("01", "1")),
        (["False", "0"], ("0", "False"), ("0", "False")),
        (["b", "a"], ("a", "b"), ("a", "b")),
        ([10**17, 1], ("1", str(10**17)), ("1", str(10**17))),
    ],
)
def test_labels_stay_what_the_rows_have(labels: list[Any], in_text: Any, in_values: Any, tmp_path: Path) -> None:
    n = 4
    texts = [f"{text} {i} {label}" for i, text in enumerate(TEXTS[:1] * n) for label in labels]
    frame = pd.DataFrame({"text": texts, "label": labels * n})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")

    def classes(name: str) -> tuple[Any, ...]:
        found = data.read(DataConfig(source=str(tmp_path / name)))
        assert tuple(map(str, found.classes)) == found.labels
        return found.classes

    for name in ("a.csv", "a.tsv"):
        assert repr(classes(name)) == repr(in_text)
    for name in ("a.jsonl", "a.parquet"):
        assert repr(classes(name)) == repr(in_values)
    for given in table_of(frame).values():
        found = data.read(DataConfig(source="<memory>"), memory.splits(given, DataConfig()))
        assert repr(found.classes) == repr(in_values)


def test_whole_numbers_come_back_as_numbers(run: Run, rows: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(rows)
    found = submillion.predict(run, frame)
    assert found.classes == (0, 1, 2)
    assert run.labels() == ("0", "1", "2")
    assert run.read_json("labels.json") == [0, 1, 2]
    accuracy = submillion.evaluate(run, frame)["accuracy"].value
    for truth in (frame["label"], frame["label"].tolist(), frame["label"].to_numpy()):
        assert accuracy_score(truth, found.labels) == accuracy
    from submillion.prediction import predict_file

    for name in ("a.csv", "a.jsonl", "a.parquet"):
        predict_file(run, rows, tmp_path / name)
    assert pd.read_csv(tmp_path / "a.csv")["label"].tolist() == found.labels
    assert [json.loads(line)["label"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == found.labels
    column = pq.read_table(tmp_path / "a.parquet")["label"]
    assert (str(column.type), column.to_pylist()) == ("int64", found.labels)
    own = pq.read_table(run.path / "predictions-validation.parquet")
    assert str(own["label"].type) == str(own["predicted"].type) == "int64"


def test_a_run_of_before_keeps_its_names(run: Run, rows: Path, tmp_path: Path) -> None:
    old = Run(tmp_path / run.name)
    subprocess.run(["cp", "-r", str(run.path), str(old.path)], check=True)
    old.write_json("labels.json", ["0", "1", "2"])
    old.mark_done()
    expected = submillion.predict(run, rows)
    found = submillion.predict(old, rows)
    assert found.labels == [str(label) for label in expected.labels]
    assert submillion.predict([run, old], rows).labels == expected.labels


def test_rows_whose_labels_are_other_values_are_another_question(rows: Path) -> None:
    frame = pd.read_csv(rows)
    keys = {
        kind: data.read(DataConfig(source="<memory>"), memory.splits(frame.astype({"label": kind}), DataConfig())).key
        for kind in ("int64", "float64", "category", "str")
    }
    assert keys["int64"] == keys["float64"] == keys["category"] == data.read(DataConfig(source=str(rows))).fingerprint
    assert keys["str"] != keys["int64"]


# Watchers


def accuracies(run: Run) -> list[tuple[int, float]]:
    return [(one.step, one.scores["accuracy"].value) for one in run.records() if isinstance(one, EvalRecord)]


@pytest.mark.parametrize("at", [("step", 3), ("eval", 4), ("step", 7), ("eval", 12)])
def test_a_stopped_run_is_finished_with_the_best_so_far(
    settings: dict[str, Any], run: Run, rows: Path, tmp_path: Path, at: tuple[str, int]
) -> None:
    mine = {**settings, "out": tmp_path}
    stopped = submillion.train(
        mine, rows, watch=lambda record: "stop" if record.kind != "phase" and (record.kind, record.step) == at else None
    )
    runs.verify(runs.load(stopped))
    assert runs.facts(stopped)["state"] == "done"
    found, whole = accuracies(stopped), dict(accuracies(run))
    steps = [step for step in whole if step < at[1]] + [at[1]]
    assert [step for step, _ in found] == steps
    assert all(whole.get(step, accuracy) == accuracy for step, accuracy in found)
    assert stopped.scores()["validation"]["accuracy"].value == max(accuracy for _, accuracy in found)
    is_short = at[1] < SIZES["steps"]
    assert (None if (noted := stopped.stopped()) is None else (noted.step, noted.n_steps, noted.by)) == (
        (at[1], SIZES["steps"], "watch") if is_short else None
    )
    notes: list[str] = []
    again = submillion.train(mine, rows, watch=lambda record: notes.extend(getattr(record, "notes", ())))
    assert again == stopped
    assert any(f"stopped the training after step {at[1]} of 12" in note for note in notes) == is_short


def test_a_stop_survives_a_kill(settings: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    mine = {**settings, "out": tmp_path}

    def stop_and_die(record: Any) -> str | None:
        if record.kind == "eval":
            raise KeyboardInterrupt
        return "stop" if record.kind == "step" and record.step == 2 else None

    with pytest.raises(KeyboardInterrupt):
        submillion.train(mine, rows, watch=stop_and_die)
    run = submillion.train(mine, rows)
    assert run.stopped() == runs.Stopped(2, 12)
    assert [step for step, _ in accuracies(run)] == [2]


def test_a_stopped_run_is_another_setting_to_compare_and_its_report_says_so(
    settings: dict[str, Any], run: Run, rows: Path, tmp_path: Path
) -> None:
    from submillion.reports import making
    from submillion.reports import run as reading

    stopped = submillion.train(
        {**settings, "out": tmp_path}, rows, watch=lambda record: "stop" if record.kind == "step" else None
    )
    found = submillion.compare([run, stopped])
    assert {setting.name for setting in found.settings} == {"stopped_after_step=null", "stopped_after_step=1"}
    said = making.training(reading.read(stopped)).sentences
    assert said == ("Its watcher stopped the training after step 1 of 12.",)
    assert making.training(reading.read(run)).sentences == ()


@pytest.mark.parametrize("answer", [1, 0, "", "Stop", "halt", [], np.int64(1)])
def test_another_answer_is_refused_at_once(settings: dict[str, Any], rows: Path, tmp_path: Path, answer: Any) -> None:
    with pytest.raises(ConfigError, match=r"watch returned .*: allowed are None \(continue\), 'pause'"):
        submillion.train({**settings, "out": tmp_path}, rows, watch=lambda _: answer)
    assert runs.list_runs(tmp_path) == []


def test_several_watchers_see_all_and_the_first_wish_counts(
    settings: dict[str, Any], rows: Path, tmp_path: Path
) -> None:
    seen: list[Any] = []
    watch = [lambda record: seen.append(record), lambda record: np.True_ if record.kind == "step" else np.False_]
    paused = submillion.train({**settings, "out": tmp_path}, rows, watch)
    assert not paused.is_done
    assert [record.kind for record in seen if not isinstance(record, Phase)] == ["step"]


def test_watchers_may_come_from_an_iterator(settings: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    def watch(record: Any) -> str | None:
        return "stop" if record.kind == "step" and record.step == 2 else None

    stopped = submillion.train(rows, **{**settings, "out": tmp_path}, watch=iter([watch]))
    assert stopped.stopped() == runs.Stopped(2, SIZES["steps"])


@pytest.mark.parametrize("watch", [5, "pause", [5], [None], {"a": print}, submillion.progress, [submillion.progress]])
def test_what_is_no_watcher_is_refused_before_anything_is_read(tmp_path: Path, watch: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"watch is .*: give a function that takes a record, or several in a list"
    ) as e:
        submillion.train(tmp_path / "none.csv", watch=watch)
    assert ("call it first, submillion.progress()" in str(e.value)) == ("View" in str(watch))
    assert "View" not in str(e.value)


@pytest.mark.parametrize("is_interactive", [True, False])
def test_progress_is_shown_at_a_prompt_and_not_in_a_script(
    settings: dict[str, Any],
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_interactive: bool,
) -> None:
    if is_interactive:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    mine = {**settings, "out": tmp_path, "overrides": {"train.steps": 1}}
    submillion.train(rows, **mine)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("validation accuracy" in shown.err) == is_interactive
    submillion.train(rows, **{**mine, "name": "again", "out": tmp_path / "b"}, watch=submillion.progress())
    assert "validation accuracy" in capsys.readouterr().err


# Settings, names, imports


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "demo", "overrides": {"train.steps": 60, "budget": 5000, "model.name": "x"}},
        {"recipe": "demo", "overrides": ["train.steps=60", "budget=5000", "model.name=x"]},
        {"recipe": "demo", "train": {"steps": 60}, "budget": 5000, "model": {"name": "x"}},
        {"recipe": "demo", "train": {"steps": 60}, "budget": 5000, "model": Path("x")},
        {"base": submillion.load_config(recipe="demo"), "train": {"steps": 60}, "budget": 5000, "model": "x"},
        {
            "base": submillion.load_config(recipe="demo").model_dump(),
            "train": {"steps": 60},
            "budget": 5000,
            "model": "x",
        },
    ],
)
def test_settings_are_one_however_they_are_given(given: dict[str, Any]) -> None:
    found = submillion.load_config(**given)
    assert (found.train.steps, found.train.epochs, found.budget, found.model.name) == (60, None, 5000, "x")
    assert (found.model.max_length, found.data.source, found.name) == (64, "packaged:tweets", "demo")


def test_a_dict_and_keywords_are_the_same_settings() -> None:
    values = {"adapter": {"rank": {"query": 2, "value": 3}, "sites": ["query", "value"]}, "data": {"text": ["a", "b"]}}
    assert submillion.load_config(values) == submillion.load_config(**values)
    assert submillion.load_config(values).adapter.rank == {"query": 2, "value": 3}
    assert submillion.load_config(data="rows.csv").data.source == "rows.csv"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budgt": 5}, "unknown key budgt: did you mean 'budget'?"),
        ({"train": {"stepps": 5}}, "unknown key train.stepps: did you mean 'steps'?"),
        ({"overrides": {"train.stepps": 5}}, "unknown key train.stepps: did you mean 'steps'?"),
        ({"base": {"trian": {"steps": 5}}}, "unknown key trian: did you mean 'train'?"),
        (
            {"model": 3},
            "model is 3: give a table of its keys, such as name, revision, max_length; in Python model='NAME' sets",
        ),
        ({"base": {"train": [1]}}, "train is [1]: give a table of its keys, such as optimizer"),
        ({"overrides": 5}, "overrides are 5: give a list of texts"),
        ({"overrides": [5]}, "overrides are [5]: give a list of texts"),
        ({"base": 3}, "3 is no config: give a YAML file's path, a dict or what load_config returns"),
        ({"base": {}, "recipe": "demo"}, "keep one"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        submillion.load_config(**given)
    assert message in str(caught.value)


def test_the_top_has_what_it_lists() -> None:
    assert dir(submillion) == sorted(submillion.__all__)
    for name in submillion.__all__:
        assert getattr(submillion, name) is not None
    assert re.fullmatch(r"\d+\.\d+.*", submillion.__version__)
    assert issubclass(submillion.DataError, submillion.SubmillionError)
    assert pickle.loads(pickle.dumps(submillion.Score(1, 0, 1, 3))) == submillion.Score(1, 0, 1, 3)
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = submillion.fit


@pytest.mark.parametrize(("before", "after"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_do_not_spin_unless_it_is_said(before: dict[str, str], after: str) -> None:
    code = "import submillion, os, sys; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | before
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == after
