"""Laws of rows with several labels each: what they are read as, trained on, and predicted with."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import submillion
from submillion import config, data, runs
from submillion.config import Config, DataConfig
from submillion.data import labels
from submillion.errors import ConfigError, DataError, RunError
from submillion.judging.metrics import thresholds
from submillion.model.classifier import Classifier
from submillion.prediction import Form, predict_file
from submillion.runs import Run
from submillion.training import workflow
from submillion.training.evaluation import probabilities
from submillion.training.watching import Answer
from tests.kit import forks
from tests.kit.calls import call
from tests.kit.several_labels import NAMES, SHAPES, Shape, make_rows, settings_of, write_rows
from tests.kit.strangers import STRANGER

ROWS = make_rows(120)
TRUTH = {row["id"]: tuple(row["label"]) for row in ROWS}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, cells: list[Any], **sets: Any) -> data.Splits:
    """The splits of rows whose label cells are these, three times each."""
    rows = [{"text": f"text {i}", "label": cell} for i, cell in enumerate(cells * 3)]
    return data.read(config.load(overrides={"data.source": str(write(folder / "a.jsonl", rows)), **sets}).data)


def found_in(splits: data.Splits) -> set[Any]:
    return {example.label for example in [*splits.train, *splits.validation, *splits.test]}


# What is read


@pytest.mark.parametrize("shape", SHAPES)
def test_all_shapes_are_the_same_rows(tmp_path: Path, shape: Shape) -> None:
    path = write_rows(tmp_path / "rows", ROWS, shape)
    splits = data.read(config.load(overrides={"data.source": str(path), **settings_of(shape)}).data)
    assert splits.has_several
    assert splits.labels == splits.classes == NAMES
    assert {e.id: e.label for e in [*splits.train, *splits.validation]} == TRUTH
    assert (
        splits.fingerprint
        == data.read(
            config.load(overrides={"data.source": str(write_rows(tmp_path / "other", ROWS, "lists"))}).data
        ).fingerprint
    )
    (said,) = [warning for warning in splits.warnings if "3 labels" in warning]
    assert f"{sum(map(len, TRUTH.values())) / len(TRUTH):.1f} per row" in said
    assert f"{sum(not label for label in TRUTH.values())} rows with none" in said


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([["x"], ["y", "x"], []], {("x",), ("x", "y"), ()}),
        (["x", "y", "y; x"], {("x",), ("y",), ("x", "y")}),
        (["x|y", "y|z", "x|z", ""], {("x", "y"), ("y", "z"), ("x", "z"), ()}),
        (["x\ty", "y", "x"], {("x", "y"), ("x",), ("y",)}),
        (["['x', 'y']", "['x']", "[]"], {("x", "y"), ("x",), ()}),
        (['["x", "y"]', '["y"]'], {("x", "y"), ("y",)}),
        ([[3, 7], [7]], {("3", "7"), ("7",)}),
        (["x", ["y", "x"]], {("x",), ("x", "y")}),
        (["x|x", "y|x", "y"], {("x",), ("x", "y"), ("y",)}),
    ],
)
def test_several_labels_are_recognised(tmp_path: Path, cells: list[Any], expected: set[Any]) -> None:
    splits = read(tmp_path, cells)
    assert splits.has_several
    assert found_in(splits) == expected


@pytest.mark.parametrize(
    "cells",
    [
        ["x", "y", "a, b"],
        ["New York, NY", "Austin, TX", "Dallas, TX"],
        ["1,5", "2,5", "1,2"],
        ["[urgent]", "(none)"],
        ["Sci/Tech", "World"],
    ],
)
def test_names_that_hold_a_separator_are_names(tmp_path: Path, cells: list[str]) -> None:
    splits = read(tmp_path, cells)
    assert not splits.has_several
    assert found_in(splits) == set(cells)


@pytest.mark.parametrize("mark", ["; ", "|"])
def test_names_may_hold_another_separator_than_that_which_joins_them(tmp_path: Path, mark: str) -> None:
    names = ["Boston, MA", "New York, NY", "Albany, NY", "sport"]
    cells = [mark.join(names[j] for j in range(4) if i >> j & 1) for i in range(16)]
    rows = [{"text": f"text {i}", "label": cell} for i, cell in enumerate(cells * 2)]
    splits = data.read(DataConfig(source=str(write(tmp_path / "a.jsonl", rows))))
    assert set(splits.labels) == set(names)
    assert splits.settings.label_separator == mark.strip()


def test_a_list_is_never_one_labels_name(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ["x", "y"][: i % 3]} for i in range(9)]
    with pytest.raises(DataError, match=r"set data\.labels=several to learn it, or give one name$"):
        data.read(DataConfig(source=str(write(tmp_path / "a.jsonl", rows)), labels="one"))


def test_a_few_joined_rows_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    cells = ["x", "y"] * 20 + ["x|y"]
    with pytest.raises(DataError, match=r"joins several labels \('x\|y'\), in 3 of 123 rows.*=several.*=one"):
        read(tmp_path, cells)
    assert found_in(read(tmp_path, cells, **{"data.labels": "one"})) == {"x", "y", "x|y"}
    assert found_in(read(tmp_path, cells, **{"data.labels": "several"})) == {("x",), ("y",), ("x", "y")}
    assert ("x", "y") in found_in(read(tmp_path, ["x / y", "x", "y"], **{"data.label_separator": "/"}))


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([[0, 1, 0], [1, 0, 1]], "0 and 1 without label names"),
        ([["x"], None, ["y"]], "is missing: give \\[\\] if none applies"),
        ([["x"], ["y", None]], "a list with a missing name"),
        ([{"x": 1}, {"y": 1}], "not a list of names"),
        ([[0.2, 0.8], [0.5]], "fractional numbers"),
        ([["x"], ["x"]], "'x' is the only label"),
        ([[], []], "no row has a label"),
        ([["x", "y"], ["x", "y"]], None),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, cells: list[Any], problem: str | None) -> None:
    if problem is None:
        assert any("nothing can be learned about that" in warning for warning in read(tmp_path, cells).warnings)
        return
    with pytest.raises(DataError, match=problem):
        read(tmp_path, cells)


def test_columns_hold_0_and_1(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "a": i % 2, "b": str(i % 3 == 0), "c": 0.5} for i in range(30)]
    read_by = {"data.source": str(write(tmp_path / "a.jsonl", rows))}
    splits = data.read(config.load(overrides={**read_by, "data.label": ["b", "a"]}).data)
    assert found_in(splits) == {("a", "b"), ("a",), ("b",), ()}
    with pytest.raises(DataError, match=r"column 'c' holds fractional numbers"):
        data.read(config.load(overrides={**read_by, "data.label": ["a", "c"]}).data)
    rows[4]["a"], rows[5]["a"] = -1, None
    write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"(?s)row 5.*'a' holds -1.*row 6.*'a' is missing"):
        data.read(config.load(overrides={**read_by, "data.label": ["a", "b"]}).data)
    left = data.read(config.load(overrides={**read_by, "data.label": ["a", "b"], "data.drop": ["bad-rows"]}).data)
    assert len(left.train) + len(left.validation) == 28
    with pytest.raises(DataError, match=r"no column 'd'"):
        data.read(config.load(overrides={**read_by, "data.label": ["a", "d"]}).data)


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        ({"data.label": ["a"]}, "at least 2 different ones"),
        ({"data.label": ["a", "a"]}, "at least 2 different ones"),
        ({"data.label": ["a", "b"], "data.labels": "one"}, "set labels to null"),
        ({"data.label_separator": "|", "data.labels": "one"}, "labels is one"),
        ({"data.label_separator": "|", "data.label": ["a", "b"]}, "names several columns"),
        ({"train.threshold": 1.5}, "a number above 0 and below 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(sets: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config.load(overrides=sets)


@pytest.mark.parametrize("seed", range(3))
def test_a_split_has_each_label_and_does_not_follow_the_order_of_rows(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = [{"text": f"text {i}", "label": [name for name in "abcd" if rng.random() < 0.4]} for i in range(200)]
    rows += [{"text": f"rare {i}", "label": ["a", "rare"]} for i in range(2)]

    def parts(found: list[dict[str, Any]], **sets: Any) -> data.Splits:
        path = write(tmp_path / "a.jsonl", found)
        return data.read(config.load(overrides={"data.source": str(path), "data.test": 0.2, **sets}).data)

    splits = parts(rows)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == pytest.approx([141, 20, 41], abs=1)
    counts = [labels.counted(e.label for e in some) for some in (splits.train, splits.validation, splits.test)]
    for name in "abcd":
        assert counts[2][name] / len(splits.test) == pytest.approx(counts[0][name] / len(splits.train), abs=0.1)
    assert counts[0]["rare"] >= 1
    other = parts(rng.sample(rows, len(rows)))
    for name in ("train", "validation", "test"):
        assert {e.text for e in getattr(splits, name)} == {e.text for e in getattr(other, name)}
    for row, number in zip(rows, rng.choices(range(40), k=len(rows)), strict=True):
        row["who"] = number
    grouped = parts(rows[:-2], **{"data.group": "who"})
    assert not {e.group for e in grouped.train} & {e.group for e in grouped.test}
    assert {*labels.counted(e.label for e in grouped.train)} == {*"abcd"}


def test_rows_with_a_rare_label_may_be_left_out(tmp_path: Path) -> None:
    cells = [["x"], ["y"], ["x", "y"]]
    rows = [{"text": f"text {i}", "label": cell} for i, cell in enumerate(cells * 3)]
    rows.append({"text": "one", "label": ["x", "rare"]})
    source = str(write(tmp_path / "a.jsonl", rows))
    with pytest.raises(DataError, match="class 'rare' has 1 row"):
        data.read(DataConfig(source=source))
    splits = data.read(DataConfig(source=source, drop=("rare-classes",)))
    assert (splits.labels, splits.n_dropped) == (("x", "y"), {"train": 1})


def test_one_text_with_two_sets_of_labels_is_a_conflict(tmp_path: Path) -> None:
    rows = [{"text": "same", "label": ["x"]}, {"text": "same", "label": ["y"]}, {"text": "other", "label": ["x", "y"]}]
    rows += [{"text": f"text {i}", "label": ["x"]} for i in range(5)]
    splits = data.read(DataConfig(source=str(write(tmp_path / "a.jsonl", rows))))
    assert any("1 text occurs with different labels" in warning for warning in splits.warnings)


def test_named_numbers_in_lists_become_the_names() -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["zebra", "ant"])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Sequence(names)})
    values = {"text": [f"text {i}" for i in range(9)], "label": [[0], [1, 0], []] * 3}
    table = submillion.data.memory.splits(datasets.Dataset.from_dict(values, features=features), DataConfig())
    splits = data.read(DataConfig(), table)
    assert splits.labels == ("zebra", "ant")
    assert found_in(splits) == {("zebra",), ("ant", "zebra"), ()}
    values["label"][3] = [0, None]  # pyright: ignore
    table = submillion.data.memory.splits(datasets.Dataset.from_dict(values, features=features), DataConfig())
    with pytest.raises(DataError, match="a list with a missing name"):
        data.read(DataConfig(), table)


def test_named_numbers_of_groups_are_no_labels() -> None:
    datasets = pytest.importorskip("datasets")
    label, group = datasets.ClassLabel(names=["zebra", "ant"]), datasets.ClassLabel(names=["a", "b", "c", "d"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label, "customer": group})
    values = {"text": [f"text {i}" for i in range(12)], "label": [0, 1] * 6, "customer": [0, 1, 2, 3] * 3}
    settings = DataConfig(group="customer", validation=0.5)
    rows = datasets.Dataset.from_dict(values, features=features)
    splits = data.read(settings, submillion.data.memory.splits(rows, settings))
    assert set(splits.labels) == {"zebra", "ant"}


def test_data_check_and_plan_count_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "rows", ROWS, "joined")
    assert data.count_classes(DataConfig(source=str(path))) == 3
    assert call("data", "check", path, "--json") == 0
    census = json.loads(capsys.readouterr().out)["splits"]["train"]
    assert census["n_none"] == sum(not label for label in TRUTH.values())
    assert census["classes"]["art"] == sum("art" in label for label in TRUTH.values())
    assert call("data", "check", path) == 0
    assert "3 labels, " in capsys.readouterr().out


# What is trained and predicted


@pytest.fixture(scope="module")
def settings(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("several")
    sets = {"train.steps": 60, "train.evaluate_every": 30, "train.precision": "fp32", "train.learning_rate": 1e-2}
    sets |= {"model.name": str(encoders["bert"]), "data.source": str(write_rows(folder / "rows", ROWS, "lists"))}
    return config.load(overrides=sets | {"data.validation": 0.3, "data.test": 0.2, "out": str(folder / "runs")})


@pytest.fixture(scope="module")
def run(settings: Config) -> Run:
    return workflow.train(settings)


def test_a_run_says_what_it_is(run: Run) -> None:
    assert run.has_several()
    assert run.labels() == NAMES
    assert run.metric() == run.config().train.metric == "micro-f1"
    assert run.config().data.labels == "several"
    assert next(iter(run.scores()["test"])) == "micro_f1"
    assert run.scores()["validation"]["micro_f1"].value > 0.7, "these labels can be learnt"
    predictions, chosen = run.load_predictions("validation"), run.thresholds()
    assert chosen is not None
    assert np.array_equal(chosen, thresholds.chosen(predictions.probs, predictions.label_ids, "one"))
    assert predictions.thresholds is not None
    assert predictions.thresholds.shape == predictions.probs.shape
    test = run.load_predictions("test")
    assert np.array_equal(test.predicted, test.probs >= chosen)
    runs.verify(run)
    assert "thresholds.json" in run.read_json("DONE")["files"]
    table = pq.read_table(run.path / "predictions-test.parquet").to_pydict()
    assert {
        row_id: tuple(own) for row_id, own in zip(table["id"], table["label"], strict=True)
    }.items() <= TRUTH.items()


@pytest.mark.parametrize("shape", ["joined", "columns"])
def test_every_shape_gives_the_same_predictions(settings: Config, run: Run, tmp_path: Path, shape: Shape) -> None:
    path = write_rows(tmp_path / "rows", ROWS, shape)
    other = workflow.train(config.changed(settings, {"data.source": str(path), **settings_of(shape)}))
    for split in ("validation", "test"):
        ours, theirs = run.load_predictions(split), other.load_predictions(split)
        assert ours.ids == theirs.ids
        assert np.array_equal(ours.probs, theirs.probs)
        assert np.array_equal(ours.predicted, theirs.predicted)
    assert other.config().data.label_separator == ("|" if shape == "joined" else None)


def test_the_same_question_is_answered_once(settings: Config, run: Run) -> None:
    said = config.changed(settings, {"data.labels": "several", "train.metric": "micro-f1", "train.decide": "log-loss"})
    assert workflow.train(said).path == run.path
    assert workflow.train(config.load(run.path / "config.yaml")).path == run.path


def test_a_paused_run_goes_on_to_the_same_end(settings: Config, run: Run, tmp_path: Path) -> None:
    paused: list[int] = []

    def watch(record: Any) -> Answer:
        if record.kind == "step" and record.step in (7, 23) and record.step not in paused:
            paused.append(record.step)
            return "pause"
        return None

    elsewhere = config.changed(settings, {"out": str(tmp_path / "runs"), "train.checkpoint_every": 5})
    whole = workflow.train(config.changed(elsewhere, {"out": str(tmp_path / "whole")}))
    for _ in range(3):
        other = workflow.train(elsewhere, watch)
    assert paused == [7, 23]
    for name in ("thresholds.json", "scores.json", "predictions-validation.parquet", "predictions-test.parquet"):
        assert (other.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert np.array_equal(run.load_predictions("test").probs, other.load_predictions("test").probs)


@pytest.mark.parametrize(
    "sets",
    [
        {"train.metric": "accuracy"},
        {"train.metric": "mcc"},
        {"data.labels": "one"},
    ],
)
def test_what_does_not_belong_is_refused_by_name(settings: Config, sets: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, DataError), match=r"metric is (accuracy|mcc).*micro-f1|is a list"):
        workflow.train(config.changed(settings, sets))


@pytest.mark.parametrize("sets", [{"train.metric": "hamming"}, {"train.metric": "micro-f1"}, {"train.threshold": 0.3}])
def test_one_label_has_neither_their_metrics_nor_thresholds(
    settings: Config, tmp_path: Path, sets: dict[str, Any]
) -> None:
    rows = [{"text": f"text {i}", "label": "xy"[i % 2]} for i in range(20)]
    source = {"data.source": str(write(tmp_path / "a.jsonl", rows))}
    with pytest.raises(ConfigError, match=r"rows have one label"):
        workflow.train(config.changed(settings, source | sets))


def test_a_number_is_the_threshold_of_all(settings: Config) -> None:
    other = workflow.train(config.changed(settings, {"train.threshold": 0.3, "train.steps": 2}))
    assert other.thresholds().tolist() == [0.3] * 3  # pyright: ignore[reportOptionalMemberAccess]
    assert np.array_equal(
        other.load_predictions("validation").predicted, other.load_predictions("validation").probs >= 0.3
    )


def test_predictions_are_the_same_in_memory_and_in_files(run: Run, tmp_path: Path) -> None:
    texts = [row["text"] for row in ROWS[:20]]
    found = submillion.predict(run, texts)
    chosen = run.thresholds()
    assert found.labels == [tuple(NAMES[i] for i in np.flatnonzero(row >= chosen)) for row in found.probs]
    source = write(tmp_path / "new.jsonl", [{"id": f"n{i}", "text": text} for i, text in enumerate(texts)])
    outputs = {suffix: tmp_path / f"out.{suffix}" for suffix in ("csv", "jsonl", "parquet")}
    for output in outputs.values():
        written = predict_file(run, source, output, Form(probabilities=True))
        assert written.counts == {name: sum(name in own for own in found.labels) for name in NAMES}
    csv = pd.read_csv(outputs["csv"], keep_default_na=False)
    assert [tuple(filter(None, cell.split("|"))) for cell in csv["label"]] == found.labels
    lines = [json.loads(line) for line in outputs["jsonl"].read_text().splitlines()]
    assert [tuple(line["label"]) for line in lines] == found.labels
    assert [tuple(own) for own in pq.read_table(outputs["parquet"]).to_pydict()["label"]] == found.labels
    assert np.allclose(pq.read_table(outputs["parquet"])["prob_art"], found.probs[:, 0], atol=1e-12)
    numbers = tmp_path / "numbers.csv"
    predict_file(run, source, numbers, Form(label_ids=True))
    ids = [
        tuple(map(int, filter(None, str(cell).split("|"))))
        for cell in pd.read_csv(numbers, dtype=str, keep_default_na=False)["Label"]
    ]
    assert [tuple(NAMES[i] for i in own) for own in ids] == found.labels


def test_what_is_predicted_can_be_read_as_labels(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "new.jsonl", [{"id": row["id"], "text": row["text"]} for row in ROWS])
    predict_file(run, source, tmp_path / "out.csv", Form(keep=("text",)))
    read_again = data.read(DataConfig(source=str(tmp_path / "out.csv")))
    found = submillion.predict(run, [row["text"] for row in ROWS])
    assert {e.id: e.label for e in [*read_again.train, *read_again.validation]} == dict(
        zip((row["id"] for row in ROWS), found.labels, strict=True)
    )


def test_a_probability_does_not_hang_on_its_place_among_others() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(50)
    whole = probabilities(logits, has_several=True)
    assert np.array_equal(probabilities(logits[order], has_several=True), whole[order])
    assert np.array_equal(np.concatenate([probabilities(row[None], has_several=True) for row in logits]), whole)


def test_an_ensemble_is_the_mean_of_probabilities_and_of_thresholds(run: Run, settings: Config) -> None:
    other = workflow.train(config.changed(settings, {"train.seed": 1}))
    texts = [row["text"] for row in ROWS[:9]]
    both, one, two = (submillion.predict(which, texts) for which in ([run, other], run, other))
    assert np.allclose(both.probs, (one.probs + two.probs) / 2)
    assert both.thresholds is not None
    assert np.allclose(both.thresholds, (run.thresholds() + other.thresholds()) / 2)  # pyright: ignore


def test_evaluate_scores_each_shape_alike_in_any_order(run: Run, tmp_path: Path) -> None:
    some = ROWS[:50]
    expected = submillion.evaluate(run, write_rows(tmp_path / "lists", some, "lists"))
    shuffled = write_rows(tmp_path / "shuffled", random.Random(0).sample(some, len(some)), "lists")
    assert submillion.evaluate(run, shuffled).scores == expected.scores
    assert next(iter(expected.scores)) == "micro_f1"
    unknown = [{**row, "label": [*row["label"], "weather"]} for row in some[:2]]
    with pytest.raises(DataError, match="label 'weather' is not a training label"):
        submillion.evaluate(run, write_rows(tmp_path / "unknown", unknown, "lists"))
    found = submillion.robustness(run, write_rows(tmp_path / "few", some[:12], "lists"), perturb="typos")
    assert found.accuracy.value == found.plain["subset_accuracy"].value
    assert all(0 <= each.accuracy.value <= 1 for each in found.perturbed)


def test_a_joined_run_evaluates_rows_with_one_label_each(settings: Config, tmp_path: Path) -> None:
    sets = {"data.source": str(write_rows(tmp_path / "rows", ROWS, "joined")), "train.steps": 2}
    joined = workflow.train(config.changed(settings, sets))
    rows = [{"text": "a film", "label": "art"}, {"text": "a game", "label": ""}, {"text": "both", "label": "art|sport"}]
    assert submillion.evaluate(joined, write(tmp_path / "a.jsonl", rows)).n_rows == 3


def test_runs_of_one_label_do_not_join_in(run: Run, settings: Config, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": NAMES[i % 3]} for i, row in enumerate(ROWS)]
    source = str(write(tmp_path / "one.jsonl", rows))
    one = workflow.train(config.changed(settings, {"data.source": source, "train.steps": 2}))
    with pytest.raises(RunError, match=r"several labels, and .* one: runs that predict together must agree"):
        submillion.predict([run, one], ["a"])
    with pytest.raises(DataError, match=r"teacher .* gives a row one label, but these rows have several labels"):
        workflow.train(config.changed(settings, {"distillation.teacher": str(one.path)}))
    with pytest.raises(
        DataError,
        match=r"the label \(column 'label'\) is a list .*, but the run was trained on .*: give one label per row",
    ):
        submillion.evaluate(one, write_rows(tmp_path / "lists", ROWS[:20], "lists"))


def test_teachers_of_several_labels_teach(run: Run, settings: Config) -> None:
    taught = {"distillation.teacher": str(run.path), "distillation.alpha": 0.0, "train.steps": 60}
    student = workflow.train(config.changed(settings, taught))
    ours, theirs = (each.load_predictions("validation").probs for each in (run, student))
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.7


def test_a_stranger_gets_the_same_logits_and_a_pipeline_the_same_probabilities(
    run: Run, encoders: dict[str, Path], tmp_path: Path
) -> None:
    texts = [row["text"] for row in ROWS[:6]]
    folder = str(run.path / "adapter")
    stdin = json.dumps([texts, [[folder, str(encoders["bert"]), 3]]])
    done = forks.run(STRANGER, os.environ, "peft", words=[str(tmp_path / "logits")], stdin=stdin)
    assert done.returncode == 0, done.stderr[-2000:]
    probs = submillion.predict(run, texts).probs
    assert np.allclose(torch.sigmoid(load_file(tmp_path / "logits")[folder]).numpy(), probs, atol=1e-6)
    from transformers import pipeline

    made = submillion.export(run, "merged")
    classify = pipeline("text-classification", model=str(made.folder), device="cpu", top_k=None)
    for answers, own in zip(classify(texts), probs, strict=True):
        assert {each["label"]: each["score"] for each in answers} == pytest.approx(
            dict(zip(NAMES, own, strict=True)), abs=1e-4
        )


@pytest.mark.parametrize("kind", ["onnx", "onnx-int8"])
def test_exports_are_judged_by_all_labels_of_a_row(run: Run, kind: Any) -> None:
    made = submillion.export(run, kind, margin=0.9 if kind == "onnx-int8" else None)
    assert made.manifest is not None
    test, accuracy = run.load_predictions("validation"), made.manifest.checks["accuracy"]
    right = (test.probs >= run.thresholds()) == test.label_ids.astype(bool)
    assert accuracy["run"]["value"] == pytest.approx(right.all(axis=1).mean())
    assert made.manifest.facts["thresholds"] == run.thresholds().tolist()  # pyright: ignore
    readme = (made.folder / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0].replace('folder = "."', f"folder = {str(made.folder)!r}")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    expected = submillion.predict(run, ["a text to classify", "another one"]).labels
    if kind == "onnx":
        assert said.strip() == str([list(own) for own in expected])


def test_an_export_is_found_again_by_runs_of_its_thresholds_only(run: Run, tmp_path: Path) -> None:
    made = submillion.export(run, "merged", tmp_path / "export")
    assert not submillion.export(run, "merged", tmp_path / "export").is_new
    other = Run(Path(shutil.copytree(run.path, tmp_path / run.name)))
    other.write_thresholds(np.full(len(NAMES), 0.9))
    other.mark_done()
    with pytest.raises(ConfigError, match=r"holds the export of another run, .*, with other thresholds"):
        submillion.export(other, "merged", made.folder)


def test_labels_that_no_character_joins_are_refused_before_rows_are_predicted(run: Run, tmp_path: Path) -> None:
    copy, rows = Run(Path(shutil.copytree(run.path, tmp_path / "copy"))), tmp_path / "rows"
    copy.write_labels(["a|;", "b,", "c\t"], has_several=True)
    copy.write_thresholds(np.full(3, 0.5))
    copy.mark_done()
    rows.mkdir()
    (rows / "a.csv").write_text("text\na game\n", encoding="utf-8")
    for source, output in ((rows / "a.csv", tmp_path / "b.csv"), (rows, tmp_path / "out")):
        with pytest.raises(ConfigError, match="none of these can join them in a cell"):
            predict_file(copy, source, output)
        assert not output.exists()
        assert not output.with_name(f"{output.name}.partial").exists()


def test_the_packed_pass_is_the_stock_one(run: Run) -> None:
    classifier = Classifier.load(run, "cpu")
    assert classifier.has_several
    assert classifier.packed
    stock = run.load_predictions("test")
    from submillion.training.evaluation import predictions_of

    classifier.packed = False
    examples = [data.Example(row["id"], row["text"], tuple(row["label"])) for row in ROWS if row["id"] in stock.ids]
    found = predictions_of(run, classifier, sorted(examples, key=lambda example: stock.ids.index(example.id)))
    assert np.allclose(found.probs, stock.probs, atol=1e-5)
    assert np.array_equal(found.label_ids, stock.label_ids)


def test_a_damaged_threshold_is_said(run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    (copy.path / "thresholds.json").write_text('{"art": 0.5}')
    with pytest.raises(RunError, match="damaged: it has no number for each label"):
        copy.thresholds()
    with pytest.raises(RunError, match=r"thresholds\.json is not what training wrote"):
        submillion.predict(copy, ["a"])


def test_rows_in_memory_and_the_command(settings: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = {"train.steps": 2, "model.name": settings.model.name, "out": str(tmp_path), "train.precision": "fp32"}
    frame = pd.DataFrame(ROWS)
    trained = submillion.train(frame, overrides=sets)
    assert trained.labels() == NAMES
    wide = frame[["id", "text"]].assign(**{name: [name in own for own in frame["label"]] for name in NAMES})
    other = submillion.train(wide, overrides={**sets, "data.label": list(NAMES)})
    assert np.array_equal(trained.load_predictions("validation").probs, other.load_predictions("validation").probs)
    path = write_rows(tmp_path / "rows", ROWS, "columns")
    options = [part for key, value in sets.items() if key != "out" for part in ("--set", f"{key}={value}")]
    options += ["--out", str(tmp_path), "--set", "data.label=[art,money,sport]"]
    assert call("train", "--data", str(path), *options) == 0
    assert call("predict", trained.path, "--input", str(path), "--output", str(tmp_path / "out.csv")) == 0
    assert "art " in capsys.readouterr().out
