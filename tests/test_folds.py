"""Laws of trainings in folds: each row is predicted once, by a run that did not see it, and test is not touched."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import submillion
from submillion import config, data, runs
from submillion.cli import main
from submillion.config import DataConfig
from submillion.data import Example, splitting
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, DataError, RunError
from submillion.judging.labels import label_errors
from submillion.judging.metrics import Predictions
from submillion.model.batching import tokenize, tokens
from submillion.reports import folds as pages
from submillion.runs import folds as records
from submillion.training import evaluation, folds
from tests.data import write_csv
from tests.tiny import make_tokenizer

N_FOLDS = 3


def examples(n: int, n_groups: int | None = None) -> list[Example]:
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], size=n, p=[0.6, 0.3, 0.1])
    groups = [None] * n if n_groups is None else [f"g{i}" for i in rng.integers(0, n_groups, n)]
    texts = [f"text {i // 2 if i < 40 else i}" for i in range(n)]  # the first ones are there twice
    return [Example(str(i), texts[i], labels[i // 2 * 2 if i < 40 else i], group=groups[i]) for i in range(n)]


@pytest.mark.parametrize("n_groups", [None, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_row_is_in_one_fold_with_its_text_and_its_group(n_groups: int | None, seed: int) -> None:
    rows = examples(300, n_groups)
    held = [splitting.fold(rows, number, 5, seed) for number in range(1, 6)]
    assert sorted(one.id for _, fold in held for one in fold) == sorted(one.id for one in rows)
    for rest, fold in held:
        assert [one.id for one in rows if one in fold] == [one.id for one in fold]
        assert len(rest) + len(fold) == len(rows)
        assert not {one.text for one in rest} & {one.text for one in fold}
        if n_groups is not None:
            assert not {one.group for one in rest} & {one.group for one in fold}
        counts, whole = Counter(one.label for one in fold), Counter(one.label for one in rows)
        assert all(abs(counts[label] / len(fold) - whole[label] / len(rows)) < 0.1 for label in whole)
        assert 40 < len(fold) < 80


def test_folds_follow_the_seed_and_not_the_order_of_rows() -> None:
    rows = examples(200)
    first = {one.id for one in splitting.fold(rows, 2, 4, 0)[1]}
    assert first == {one.id for one in splitting.fold(rows[::-1], 2, 4, 0)[1]}
    assert first != {one.id for one in splitting.fold(rows, 2, 4, 1)[1]}


def test_more_folds_than_a_class_has_texts_are_refused() -> None:
    rows = [*examples(60), Example("x", "rare one", "rare", None), Example("y", "rare two", "rare", None)]
    with pytest.raises(
        DataError, match=r"class 'rare' has rows in 2 different texts: folds need one each; ask for fewer"
    ):
        splitting.fold(rows, 1, 3, 0)
    assert splitting.fold(rows, 1, 2, 0)
    with pytest.raises(
        DataError, match=r"class 'rare' has rows in 1 different text: folds need one each; give more rows"
    ):
        splitting.fold(rows[:-1], 1, 3, 0)


def test_what_is_wrong_with_folds_is_said_of_the_option_that_asked_for_them(
    encoders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    rare = tmp_path / "rare.csv"
    rare.write_text(source.read_text() + "x,two of these,odd\ny,and that,odd\n")
    settings = settings_of(encoders["bert"], rare, tmp_path)
    with pytest.raises(DataError, match=r"^data.fold is 1/3 \(--folds 3\), but class 'odd'"):
        folds.train(settings, 3)


@pytest.mark.parametrize("seed", range(8))
def test_a_class_that_one_fold_would_hold_whole_is_refused_in_every_fold(seed: int) -> None:
    both = [Example(f"{text} {label}", text, label) for text in ("one", "two") for label in ("a", "z")]
    rows = [*examples(60), *both]  # equal texts stay together, and are counted as the first of their labels
    held: list[Any] = []
    for number in (1, 2):
        try:
            held.append({one.label for one in splitting.fold(rows, number, 2, seed)[0]})
        except DataError as error:
            held.append(error.problems)
    refused = [(f"data.fold is {number}/2 (--folds 2), but all rows of class 'z' are in one fold") for number in (1, 2)]
    if isinstance(held[0], set):
        assert held == [{"a", "b", "c", "z"}] * 2
    else:
        assert [each[0].startswith(said) for each, said in zip(held, refused, strict=True)] == [True, True]


def test_rows_of_a_file_without_the_groups_are_alone_with_their_text() -> None:
    grouped, others = examples(120, 40), examples(100)
    rows = [*grouped, *(replace(one, id=f"v{one.id}", text=f"other {one.text}") for one in others)]
    held = [{one.id for one in splitting.fold(rows, number, 4, 0)[1]} for number in range(1, 5)]
    assert all(40 < len(fold) < 70 and 15 < sum(one[0] == "v" for one in fold) < 35 for fold in held)
    assert held[0] == {one.id for one in splitting.fold(rows[::-1], 1, 4, 0)[1]}


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1/101", "2", "x/5", "-1/5"])
def test_what_is_no_fold_is_refused(fold: str) -> None:
    with pytest.raises(ConfigError, match=r"data.fold|fold is"):
        config.load(overrides={"data.fold": fold})


def test_a_fold_is_the_test_split_and_the_settings_own_is_in_none(tmp_path: Path) -> None:
    source = str(write_csv(tmp_path / "rows.csv", 90))
    whole = data.read(DataConfig(source=source, test=0.2))
    folded = [data.read(DataConfig(source=source, test=0.2, fold=f"{i}/3")) for i in (1, 2, 3)]
    sealed = {one.id for one in whole.test}
    assert sorted(one.id for each in folded for one in each.test) == sorted(
        one.id for one in (*whole.train, *whole.validation)
    )
    for each in folded:
        rows = [one.id for one in (*each.train, *each.validation, *each.test)]
        assert len(set(rows)) == len(rows) == 90 - len(sealed)
        assert not sealed & set(rows)
        assert len(each.validation) == pytest.approx(0.1 * (len(rows) - len(each.test)), abs=3)
        assert any("the 18 test rows are in no fold" in warning for warning in each.warnings)


@pytest.mark.parametrize("kind", ["file", "column"])
def test_given_validation_rows_are_held_out_too(tmp_path: Path, kind: str) -> None:
    source, lines = write_csv(tmp_path / "rows.csv", 60), list[str]()
    if kind == "file":
        other = write_csv(tmp_path / "other.csv", 30, seed=1)
        settings = DataConfig(source=str(source), validation=str(other))
    else:
        names = ["split", *(("train", "dev", "test")[i % 3] for i in range(60))]
        lines = [f"{line},{name}" for line, name in zip(source.read_text().splitlines(), names, strict=True)]
        source.write_text("\n".join(lines))
        settings = DataConfig(source=str(source), split="split")
    whole = data.read(settings)
    folded = [data.read(settings.model_copy(update={"fold": f"{i}/3"})) for i in (1, 2, 3)]
    held_out = sorted(one.text for each in folded for one in each.test)
    assert held_out == sorted(one.text for one in (*whole.train, *whole.validation))
    assert len({one.id for each in folded for one in each.test}) == len(held_out)


def test_runs_of_before_keep_their_hash() -> None:
    plain = config.load()
    assert config.digest(plain, "x") != config.digest(config.changed(plain, {"data.fold": "1/2"}), "x")
    values = plain.model_dump(mode="json")
    del values["data"]["fold"]
    assert config.digest(config.validate(values), "x") == config.digest(plain, "x")


# --- trained ----------------------------------------------------------------------------------------------------------


def settings_of(encoder: Path, source: Path, out: Path) -> config.Config:
    options = [f"model.name={encoder}", f"data.source={source}", f"out={out}", "data.test=0.2", "name=folded"]
    options += ["train.steps=6", "train.batch_size=8", "train.evaluate_every=3", "train.precision=fp32"]
    return config.load(overrides=[*options, "model.max_length=24"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)


@pytest.fixture(scope="module")
def trained(encoders: dict[str, Path], source: Path, tmp_path_factory: pytest.TempPathFactory) -> folds.Folds:
    settings = settings_of(encoders["bert"], source, tmp_path_factory.mktemp("runs"))
    return folds.train(settings, N_FOLDS)


def test_the_pool_is_what_each_run_said_of_the_rows_that_it_did_not_see(trained: folds.Folds) -> None:
    assert trained.predictions is not None
    assert trained.scores is not None
    assert trained.scores["accuracy"].n == len(set(trained.predictions.ids)) == 96
    for run in trained.runs:
        assert run.path.parent == trained.folder
        splits, own = data.read(run.config().data), run.load_predictions("test")
        assert runs.count_trained_on(run, splits.test) == 0
        assert own.ids == [example.id for example in splits.test]
        places = [trained.predictions.ids.index(row_id) for row_id in own.ids]
        np.testing.assert_array_equal(trained.predictions.probs[places], own.probs)
    assert not (trained.folder.parent / "test-reads.jsonl").exists()  # of the settings' own test rows


def test_the_same_question_is_answered_from_the_folder_and_a_paused_one_goes_on(
    trained: folds.Folds, encoders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    settings = settings_of(encoders["bert"], source, trained.folder.parent)
    steps: list[Any] = []
    again = folds.train(settings, N_FOLDS, lambda record: steps.append(record) if record.kind == "step" else None)
    assert not steps
    assert again.folder == trained.folder
    other, asked = settings.model_copy(update={"out": str(tmp_path)}), iter([None] * 8 + ["pause"])
    paused = folds.train(other, N_FOLDS, lambda r: next(asked, None) if r.kind == "step" else None)
    assert paused.scores is None
    assert not records.is_folds(paused.folder)
    whole = folds.train(other, N_FOLDS)
    assert whole.predictions is not None
    assert trained.predictions is not None
    np.testing.assert_array_equal(whole.predictions.probs, trained.predictions.probs)


def test_the_page_has_the_pooled_score_each_fold_and_likely_label_errors(trained: folds.Folds) -> None:
    written = pages.write(trained.folder)
    text = written[1].read_text(encoding="utf-8")
    report = pages.read(trained.folder)
    for run in trained.runs:
        assert run.name in text.replace("\\", "")
    assert "96 rows, each predicted by a run that had not seen it" in text
    assert report.problem is None
    assert json.loads(written[2].read_text())["scores"]["accuracy"]["n"] == 96
    assert all(each.text for each in report.errors)
    from submillion import reports

    assert reports.report(trained.folder) == pages.write(trained.folder)


@pytest.mark.parametrize("change", ["a class is gone", "a text"])
def test_no_texts_are_shown_of_other_rows_than_those_of_the_folds(
    trained: folds.Folds, source: Path, change: str
) -> None:
    before = source.read_text(encoding="utf-8")
    lines = before.splitlines()
    if change == "a text":
        lines[1] = lines[1].replace(",", ",other ", 1)
    else:
        lines = [line for line in lines if not line.endswith(",sport")]
    source.write_text("\n".join(lines), encoding="utf-8")
    try:
        report = pages.read(trained.folder)
    finally:
        source.write_text(before, encoding="utf-8")
    assert report.problem == f"{source} now has different rows from those that were trained on"
    assert not any(each.text for each in report.errors)


def test_the_commands_print_the_pool_and_write_the_errors(
    trained: folds.Folds,
    encoders: dict[str, Path],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def typed(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), *capsys.readouterr()

    settings = settings_of(encoders["bert"], source, trained.folder.parent)
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(settings))
    found = json.loads(typed("train", "--config", file, "--folds", N_FOLDS, "--json")[1])
    assert found["folder"] == str(trained.folder)
    assert len(found["folds"]) == N_FOLDS
    output = tmp_path / "errors.csv"
    found = json.loads(typed("data", "errors", trained.folder, "--output", output, "--json")[1])
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1 + len(found["errors"])
    assert typed("data", "errors", trained.folder)[0] == 0
    assert str(trained.folder) in typed("runs", "list", "--out", trained.folder.parent)[1]
    code, _, said = typed("report", "folded", "--out", trained.folder.parent)
    assert (code, f"folds in {trained.folder.parent}: {trained.folder.name}" in said) == (1, True)
    code, _, said = typed("train", "--config", file, "--folds", 1)
    assert (code, "--folds is 1: give 2 to 100" in said) == (1, True)


def test_what_cannot_be_folded_is_refused_by_name(encoders: dict[str, Path], source: Path, tmp_path: Path) -> None:
    settings = settings_of(encoders["bert"], source, tmp_path)
    with pytest.raises(ConfigError, match="--folds is 101"):
        folds.train(settings, 101)
    with pytest.raises(ConfigError, match=r"data.fold is 1/3, one fold"):
        folds.train(config.changed(settings, {"data.fold": "1/3"}), 3)
    with pytest.raises(ConfigError, match="as_trial is for one run"):
        submillion.train(settings, folds=3, as_trial=True)
    with pytest.raises(RunError, match=r"folds.json is missing"):
        pages.read(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reading", [Reading(12), Reading(12, "head-tail"), Reading(12, "windows", 3)], ids=str)
def test_rows_that_are_taken_are_those_that_are_tokenised(reading: Reading) -> None:
    rows = [Example(str(i), " ".join(["good film"] * (i % 23)) + " bad", "a") for i in range(60)]
    chosen = np.array([5, 0, 22, 41, 17])
    taken = tokenize(rows, make_tokenizer("bert"), ("a",), reading).take(chosen)
    made = tokenize([rows[i] for i in chosen], make_tokenizer("bert"), ("a",), reading)
    assert (taken.n_truncated, taken.example_ids) == (made.n_truncated, made.example_ids)
    for name in ("tokens", "token_types", "offsets", "label_ids"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(made, name))
    one, other = (each.batch(np.array([2, 0, 4])) for each in (taken, made))
    assert (one.n_windows is None) == (other.n_windows is None)
    assert torch.equal(one.offsets, other.offsets)


def test_all_folds_find_the_tokens_and_the_frozen_layers_output_of_the_first(
    encoders: dict[str, Path], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "_CACHED_ROWS", 90)  # all rows that are in folds, and no fold alone
    changes = {"model.prefix": True, "model.dropout": 0.0, "adapter.layers": "top:1", "train.epochs": 2}
    settings = config.changed(settings_of(encoders["bert"], source, tmp_path / "runs"), changes | {"train.steps": None})
    notes = list[str]()
    done = folds.train(settings, N_FOLDS, lambda record: notes.extend(getattr(record, "notes", ())))
    assert [len(list((tmp_path / "cache" / kind).iterdir())) for kind in ("tokens", "prefix")] == [1, 1]
    kept = [note for note in notes if note.startswith(("train: ", "validation: ")) and " in " in note]
    assert len(kept) == 2 * N_FOLDS
    assert sum("computed" in note for note in kept) == 1
    loaded, _ = evaluation.load(done.runs[0], "cpu")
    again = evaluation.predictions_of(done.runs[0], loaded, data.read(done.runs[0].config().data).validation)
    np.testing.assert_allclose(again.probs, done.runs[0].load_predictions("validation").probs, rtol=0, atol=1e-5)


# --- label errors -----------------------------------------------------------------------------------------------------


def test_labels_that_were_changed_are_found() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 1500)
    logits = rng.normal(size=(1500, 3)) + 5 * np.eye(3)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = truth.copy()
    wrong = rng.choice(1500, 120, replace=False)
    labels[wrong] = (labels[wrong] + 1) % 3
    found = label_errors(Predictions([str(i) for i in range(1500)], labels, probs))
    assert len(set(found.rows) & set(wrong)) > 100
    assert len(set(found.rows) & set(wrong)) / len(found.rows) > 0.75
    assert found.share == pytest.approx(0.08, abs=0.03)
    first = found.rows[0]
    assert found.label_ids[0] == truth[first] != labels[first]
    np.testing.assert_allclose(found.joint.sum(axis=1), np.bincount(labels, minlength=3))


def test_a_class_without_rows_or_rows_that_are_sure_of_nothing_do_no_harm() -> None:
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.3, 0.3], [0.1, 0.9, 0.0]])
    found = label_errors(Predictions(list("abcd"), np.array([0, 1, 0, 0]), probs))
    assert found.rows.tolist() == [3]
    assert found.label_ids.tolist() == [1]
    assert np.isfinite(found.joint).all()
    same = label_errors(replace(Predictions(list("abcd"), np.array([0, 1, 0, 1]), probs)))
    assert not len(same.rows)
