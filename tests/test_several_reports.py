"""Laws of what is said of rows with several labels: reports, lists, comparisons, shift, and the service."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import submillion
from submillion import config, runs
from submillion.errors import RunError
from submillion.judging.metrics import Predictions, score
from submillion.judging.shift import LabelRates, label_rates
from submillion.reports import read, shift, write
from submillion.runs import Run, facts
from submillion.serving import api, explaining
from submillion.text import interval, percents
from tests.kit.calls import call
from tests.kit.pages import ATTACK, Tags, make_run, text_of
from tests.kit.several_labels import make_rows, write_rows
from tests.kit.studies import settings, trained, write_study  # noqa: F401 - settings is a fixture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose rows have several labels, with its report; its test split was opened."""
    found = make_run(tmp_path_factory.mktemp("several"), 4, has_several=True)
    write(found)
    return found


def page_of(run: Run) -> str:
    return text_of((run.path / "report.html").read_text(encoding="utf-8"))


# The report


def test_the_page_says_every_score_label_and_threshold(run: Run) -> None:
    text, report, test = page_of(run), read(run), run.load_predictions("test")
    assert report.several is not None
    assert f"Micro-F1 {report.scores['test']['micro_f1'].value:.4f} on {len(test.ids)} test rows" in text
    for scores in run.scores().values():
        assert all(interval(each) in text for each in scores.values())
    for each in report.classes:
        assert interval(each.f1) in text
    assert all(f"{threshold:.3f}" in text for threshold in report.several.thresholds)
    assert f"where micro-F1 is highest on the {report.several.n_validation} validation rows" in text
    Tags((run.path / "report.html").read_text(encoding="utf-8"))


def test_the_numbers_are_those_of_the_saved_predictions(run: Run) -> None:
    report, test = read(run), run.load_predictions("test")
    found = report.several
    assert found is not None
    assert (test.thresholds == np.array(found.thresholds)).all()
    assert [each.n_true for each in report.classes] == test.label_ids.sum(axis=0).tolist()
    assert [each.n_predicted for each in report.classes] == test.predicted.sum(axis=0).tolist()
    assert found.n_true == np.bincount(test.label_ids.sum(axis=1)).tolist()
    assert np.diag(found.together).tolist() == test.label_ids.sum(axis=0).tolist()
    assert report.confusion == report.coverage == []
    assert report.n_mistakes == int((~run.load_predictions("validation").right).sum())


def test_the_surest_wrong_labels_are_shown_and_are_of_validation(run: Run) -> None:
    mistakes, validation = read(run).mistakes, run.load_predictions("validation")
    assert mistakes
    labels, places = run.labels(), {row_id: i for i, row_id in enumerate(validation.ids)}
    for each in mistakes:
        row, label_id = places[each.id], labels.index(str(each.wrong))
        prob, is_predicted = validation.probs[row, label_id], str(each.wrong) in each.predicted
        assert is_predicted != (str(each.wrong) in each.label)
        assert each.confidence == pytest.approx(prob if is_predicted else 1 - prob)
    assert [each.confidence for each in mistakes] == sorted((each.confidence for each in mistakes), reverse=True)


def test_the_baselines_are_constant_answers_and_a_model_for_each_label(run: Run) -> None:
    words, constant, commonest = read(run).baselines
    assert words.name.startswith("words + ")
    assert words.scores["micro_f1"].value > 0.8  # the labels' words are in the texts
    test = run.load_predictions("test")
    for each in (constant, commonest):
        assert each.scores["micro_f1"].value < words.scores["micro_f1"].value
        assert each.difference.value == pytest.approx(
            score(test)["micro_f1"].value - each.scores["micro_f1"].value, abs=1e-12
        )


def test_json_and_card_hold_it(run: Run) -> None:
    values = json.loads((run.path / "report.json").read_text())
    assert values["several"]["thresholds"] == list(read(run).several.thresholds)  # type: ignore[union-attr]
    card = (run.path / "adapter" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert [each["name"] for each in front["model-index"][0]["results"][0]["metrics"]] == [
        "micro-F1",
        "macro-F1",
        "subset accuracy",
    ]
    code = card.split("```python\n")[1].split("```")[0]
    assert "softmax" not in code
    line = next(line for line in code.splitlines() if line.startswith("thresholds = "))
    assert ast.literal_eval(line.removeprefix("thresholds = ")) == dict(
        zip(run.labels(), run.thresholds().tolist(), strict=True)  # type: ignore[union-attr]
    )


@pytest.mark.parametrize(("n_labels", "test"), [(2, None), (25, 0.2)])
def test_few_and_many_labels(tmp_path: Path, n_labels: int, test: float | None) -> None:
    run = make_run(tmp_path, n_labels, test=test, extra=ATTACK, has_several=True)
    write(run)
    html = (run.path / "report.html").read_text(encoding="utf-8")
    Tags(html)
    assert "<script>alert" not in html
    if test is None:
        assert "No row is judged by a threshold that was chosen on it" in text_of(html)
    else:
        assert "Of 25 labels, the 12 with most rows are drawn" in text_of(html)


def test_a_run_without_a_mistake_has_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, 3, has_several=True, right=1.0)
    write(run)
    assert "No validation row is wrong" in page_of(run)


# Lists


def test_lists_have_the_score_that_chose_and_no_accuracy(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(run)
    assert found["state"] == "done"
    assert found["metric"] == "micro_f1"
    assert found["validation"] == vars(run.scores()["validation"]["micro_f1"])
    assert found["validation_accuracy"] is None
    assert call("runs", "list", "--out", run.path.parent) == 0
    assert "micro-F1" in capsys.readouterr().out
    assert call("runs", "show", run.path) == 0
    assert "subset accuracy" in capsys.readouterr().out


# Comparisons


def other(run: Run, folder: Path, seed: int) -> Run:
    """Another run on the same rows, whose validation predictions are noisier."""
    found = Run(folder / f"demo-0000000{seed}")
    shutil.copytree(run.path, found.path)
    found.write("config.yaml", config.to_yaml(config.changed(run.config(), {"train.learning_rate": 0.01})))
    before = run.load_predictions("validation")
    flipped = np.random.default_rng(seed).random(before.probs.shape) < 0.25
    probs = np.where(flipped, 1 - before.probs, before.probs)
    found.save_predictions("validation", Predictions(before.ids, before.label_ids, probs, before.thresholds))
    found.mark_done()
    return found


def test_compare_says_which_is_better_by_micro_f1(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = other(run, tmp_path, 1)
    verdict = submillion.compare([run.path, worse.path])
    assert verdict.metric == "micro_f1"
    assert len(verdict.group) == 1
    assert verdict.settings[0].runs == (run.name,)
    assert verdict.settings[0].scores["hamming"] == run.scores()["validation"]["hamming"]
    assert call("compare", run.path, worse.path, "--report", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    assert "Hamming accuracy" in said
    assert "thresholds, chosen on other folds of these rows, are another source of chance" in said
    assert "McNemar" not in said
    assert call("compare", run.path, worse.path, "--split", "test") == 0
    assert "Subset accuracies of two runs: McNemar" in capsys.readouterr().out
    Tags((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_runs_of_one_label_and_of_several_are_not_compared(run: Run, tmp_path: Path) -> None:
    one = make_run(tmp_path, 4)
    with pytest.raises(RunError, match=r"rows have one label each in .*, and several in "):
        submillion.compare([run.path, one.path])


def test_a_study_ranks_by_the_usual_score_of_its_rows(tmp_path: Path, settings: dict[str, Any]) -> None:  # noqa: F811
    source = write_rows(tmp_path / "rows", make_rows(120), "lists")
    rank = [{"key": "adapter.rank", "values": [1, 2]}]
    found, _ = trained(write_study(tmp_path, settings, base={"data.source": str(source)}, factors=rank))
    assert found.comparison is not None
    assert found.comparison.metric == "micro_f1"
    assert "micro_f1" in found.recommended.scores()["test"]


# A file without labels


def unlabelled(folder: Path, word: str = "word0", n_rows: int = 60) -> Path:
    path = folder / "new.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": f"{word} number {i}"}) + "\n" for i in range(n_rows)))
    return path


def with_predictions(run: Run, source: Path, probs: np.ndarray) -> Path:
    """Save these predictions where the command looks for its own; return their folder."""
    (asked,) = shift.ask([run], source)
    runs.save_unlabelled(asked.folder, asked.ids, probs, run.classes(), run.thresholds())
    return asked.folder


def test_shift_tells_how_often_labels_are_predicted_and_estimates_no_score(run: Run, tmp_path: Path) -> None:
    source = unlabelled(tmp_path)
    probs = np.tile([0.9, 0.1, 0.1, 0.1], (60, 1))
    folder = with_predictions(run, source, probs)
    answer = submillion.shift(run, source)
    (one,) = answer.report.runs
    assert isinstance(one.estimates, LabelRates)
    assert one.verdict is None
    text = text_of((folder / "shift.html").read_text(encoding="utf-8"))
    assert "How much of this is right is not estimated" in text
    assert percents(one.estimates.predicted[0]) in text
    assert one.estimates.predicted[0].value == 1.0
    assert one.estimates.p_holm[0] < 0.001
    assert "still get one" not in text
    with pytest.raises(RunError, match="have several labels, and only shares of mutually exclusive classes"):
        submillion.shift(run, source, correct_priors=tmp_path / "out.csv")


def test_shift_of_two_runs_counts_rows_with_any_other_label(run: Run, tmp_path: Path) -> None:
    source = unlabelled(tmp_path)
    probs = np.tile([0.9, 0.1, 0.1, 0.1], (60, 1))
    with_predictions(run, source, probs)
    second = other(run, tmp_path, 2)
    probs[:15, 3] = 0.95
    with_predictions(second, source, probs)
    (pair,) = submillion.shift([run, second], source).report.pairs
    assert pair.here.value == 0.25
    assert pair.validation is not None


def test_rates_are_told_apart_as_rarely_as_they_say() -> None:
    rng, shares = np.random.default_rng(0), np.array([0.02, 0.1, 0.3, 0.5])
    found = [label_rates(rng.random((300, 4)) < shares, rng.random((200, 4)) < shares) for _ in range(100)]
    assert np.mean([min(each.p_holm) < 0.05 for each in found]) <= 0.08
    truth = [each.predicted[1].low <= 0.1 <= each.predicted[1].high for each in found]
    assert np.mean(truth) >= 0.9


# The service's answers


class FakeLoaded:
    """What of a loaded run the answers are made from."""

    def __init__(self, thresholds: list[float] | None) -> None:
        self.classes = ("a", "b", "c")
        self.thresholds = None if thresholds is None else np.array(thresholds)
        self.classifier: Any = type("Classifier", (), {"labels": ("a", "b", "c")})()


@pytest.mark.parametrize(
    ("probs", "expected"), [([0.3, 0.5, 0.9], ["b", "c"]), ([0.1, 0.2, 0.3], []), ([0.4, 0.2, 0.1], ["a"])]
)
def test_an_answer_has_the_labels_that_reach_their_thresholds(probs: list[float], expected: list[str]) -> None:
    loaded: Any = FakeLoaded([0.4, 0.4, 0.5])
    found = api._prediction(loaded, np.array(probs))
    assert isinstance(found, api.SeveralLabels)
    assert found.labels == expected
    assert found.probs == dict(zip("abc", probs, strict=True))
    assert found.thresholds == {"a": 0.4, "b": 0.4, "c": 0.5}
    ranked = explaining._ranked(loaded, np.array(probs))
    assert [each["prob"] for each in ranked] == sorted(probs, reverse=True)
    assert sorted(each["label"] for each in ranked if each["prob"] >= each["threshold"]) == expected


def test_an_answer_of_one_label_is_as_it_was() -> None:
    loaded: Any = FakeLoaded(None)
    found = api._prediction(loaded, np.array([0.2, 0.7, 0.1]))
    assert found.model_dump() == {"label": "b", "probs": {"a": 0.2, "b": 0.7, "c": 0.1}}
    assert "threshold" not in explaining._ranked(loaded, np.array([0.2, 0.7, 0.1]))[0]
