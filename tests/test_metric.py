"""Laws of `train.metric`: named, it chooses the checkpoint, log loss breaks ties; it is the first score everywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import submillion
from submillion import config, reports, runs
from submillion.config import Config, Metric
from submillion.data.checking import metric_warnings
from submillion.errors import ConfigError
from submillion.judging.comparison import Setting, conclude
from submillion.judging.metrics import NAMES, Predictions, allowed_metrics, deciding_key, key_of, leading
from submillion.reports import brief
from submillion.reports.comparing import sections
from submillion.reports.run import read
from submillion.runs import Run
from submillion.sweeps.space import base_config, parse
from submillion.text import interval
from submillion.training import workflow
from tests.data import write_csv
from tests.kit.calls import call

METRICS = allowed_metrics(has_several=False)


@pytest.fixture(scope="module")
def settings(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("metric")
    sets = {"train.steps": 12, "train.evaluate_every": 2, "train.precision": "fp32", "train.learning_rate": 5e-3}
    sets |= {"model.name": str(encoders["bert"]), "data.source": str(write_csv(folder / "rows.csv", 90))}
    return config.load(overrides=sets | {"data.validation": 0.4, "data.test": 0.2, "out": str(folder / "runs")})


@pytest.fixture(scope="module")
def trained(settings: Config) -> dict[str, Run]:
    return {metric: workflow.train(config.changed(settings, {"train.metric": metric})) for metric in METRICS}


@pytest.mark.parametrize("metric", METRICS)
def test_the_checkpoint_has_the_best_score_and_of_equals_the_lowest_loss(
    trained: dict[str, Run], metric: Metric
) -> None:
    records, key = trained[metric].evaluations(), key_of(metric)
    assert {leading(record.scores)[0] for record in records} == {key}
    decides, sign = deciding_key(metric), 1 if metric == "log-loss" else -1
    places = [(sign * record.scores[decides].value, record.scores["log_loss"].value) for record in records]
    (best,) = [record for record in records if record.best][-1:]
    assert best is records[places.index(min(places))]
    assert [record.best for record in records] == [
        place < min([*places[:i], (np.inf,)]) for i, place in enumerate(places)
    ]
    scores = trained[metric].scores()
    assert leading(scores["validation"]) == (key, best.scores[key])
    assert leading(scores["test"])[0] == key


@pytest.mark.parametrize("metric", METRICS)
def test_it_is_the_first_score_wherever_scores_are_shown(
    trained: dict[str, Run], metric: Metric, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, name = trained[metric], NAMES[key_of(metric)]
    assert leading(submillion.evaluate(run, run.config().data.source).scores)[0] == key_of(metric)
    assert call("evaluate", run.path, "--data", str(run.config().data.source), "--json") == 0
    assert next(iter(json.loads(capsys.readouterr().out))) == key_of(metric)
    answer = reports.sections(read(run))[0]
    assert name.lower() in answer.title.lower() or metric == "accuracy"
    assert answer.tables[0].heads[1] == answer.tables[1].rows[0][0] == name
    shown = brief.accuracy(run)
    assert shown.rows[0][0].strip() == f"test {name}"


@pytest.mark.parametrize("metric", METRICS)
def test_lists_show_it_by_its_name_with_its_interval(
    trained: dict[str, Run], metric: Metric, capsys: pytest.CaptureFixture[str]
) -> None:
    run, key = trained[metric], key_of(metric)
    scores = run.scores()
    facts = runs.facts(run)
    assert (facts["metric"], facts["validation"], facts["test"]) == (
        key,
        vars(scores["validation"][key]),
        vars(scores["test"][key]),
    )
    assert facts["validation_accuracy"] == vars(scores["validation"]["accuracy"])
    assert call("runs", "list", "--out", run.path.parent) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(run.name))
    assert f"{NAMES[key]}  {interval(scores['validation'][key])}" in re.sub(" {2,}", "  ", line)


def _setting(name: str, probs: np.ndarray, label_ids: np.ndarray, n_params: int) -> Setting:
    predictions = Predictions([f"{i:04}" for i in range(len(label_ids))], label_ids, probs)
    return Setting(name, (name,), (predictions,), n_params, 1.0, 1)


def _two(n: int = 400) -> list[Setting]:
    """One that always says the common class, and one that finds half of the rare rows and errs as often elsewhere."""
    label_ids = (np.arange(n) % 10 == 0).astype(np.int64)
    blind = np.tile([0.9, 0.1], (n, 1))
    seeing = blind.copy()
    seeing[np.flatnonzero(label_ids)[: n // 20]] = [0.2, 0.8]
    seeing[np.flatnonzero(label_ids == 0)[: n // 20 + 2]] = [0.4, 0.6]
    return [_setting("blind", blind, label_ids, 1), _setting("seeing", seeing, label_ids, 2)]


@pytest.mark.parametrize("metric", METRICS)
def test_a_comparison_decides_by_it(metric: Metric) -> None:
    verdict = conclude(_two(), metric=metric, decide=metric)
    key, decides = verdict.metric, verdict.deciding
    assert (key, decides) == (key_of(metric), deciding_key(metric))
    heights = [each.scores[decides].value * (-1 if metric == "log-loss" else 1) for each in verdict.settings]
    assert heights == sorted(heights, reverse=True)
    assert next(iter(verdict.settings[0].scores)) == next(iter(verdict.pairs[0].differences)) == key
    assert verdict.settings[0].name == ("blind" if metric == "accuracy" else "seeing")
    assert verdict.pairs[0].is_tied == (verdict.pairs[0].differences[decides].p_holm > 0.05)
    answer, *others = sections(verdict)
    assert answer.tables[0].heads[1] == NAMES[key]
    (tests,) = (each for each in others if each.anchor == "tests")
    assert f"p (Holm) of {NAMES[decides]} decides" in tests.sentences[0]


@pytest.mark.parametrize("metric", ["mcc", "average-precision"])
def test_a_difference_is_that_of_the_scores_and_holds_the_truth(metric: Metric) -> None:
    verdict = conclude(_two(2000), metric=metric)
    (difference,), (best, other) = (pair.differences[verdict.metric] for pair in verdict.pairs), verdict.settings
    assert difference.value == pytest.approx(other.scores[verdict.metric].value - best.scores[verdict.metric].value)
    assert difference.low < difference.value < difference.high


def test_runs_that_were_chosen_by_different_scores_are_compared_by_accuracy(trained: dict[str, Run]) -> None:
    verdict = runs.compared.compare([trained["mcc"], trained["log-loss"]])
    assert verdict.metric == "accuracy"
    assert any("mcc, log-loss" in note for note in verdict.notes)


def test_a_study_ranks_by_one_metric(settings: Config, tmp_path: Path) -> None:
    factor = {"key": "train.learning_rate", "values": [1e-3, 1e-4]}
    claims = [{"factor": "learning_rate", "winner": 1e-3, "scores": {"0.001": 1.5}}]
    claimed = parse({"kind": "grid", "factors": [factor], "claims": claims}, "study")
    base_config(claimed, tmp_path, ["train.metric=log-loss"])
    with pytest.raises(
        ConfigError, match=r"claims\.0\.scores\.0\.001 is 1\.5, but .* train\.metric, mcc: give -1 to 1"
    ):
        base_config(claimed, tmp_path, ["train.metric=mcc"])
    varied = {"kind": "grid", "factors": [{"key": "train.metric", "values": ["mcc", "accuracy"]}]}
    with pytest.raises(ConfigError, match=r"train\.metric is the same for all trials"):
        parse(varied, "study")


@pytest.mark.parametrize(
    ("classes", "sets", "word"),
    [
        ({"a": 90, "b": 10}, {}, "90.0 % of the training rows are of class 'a'"),
        ({"a": 50, "b": 50}, {"train.class_weights": "balanced"}, "train.class_weights weighs classes"),
        ({"a": 80, "b": 20}, {}, None),
        ({"a": 90}, {}, None),
        ({"a": 90, "b": 10}, {"train.metric": "macro-f1", "train.class_weights": {"b": 5}}, None),
    ],
)
def test_a_metric_that_does_not_see_rare_classes_is_spoken_of(
    classes: dict[str, int], sets: dict[str, object], word: str | None
) -> None:
    found = metric_warnings(classes, config.load(overrides=sets).train)
    assert len(found) == (word is not None)
    assert all(str(word) in each and "set train.metric to macro-f1" in each for each in found)
