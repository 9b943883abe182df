"""What decides: scaled log loss unless settings say otherwise, bounded for each row, and the words where accuracy
disagrees."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import submillion
from benchmarks.rows import BETTER, KINDS, Kind, chosen, drawn
from submillion import config, runs
from submillion.config import Config, Metric
from submillion.errors import ConfigError, DataError, RunError
from submillion.judging import metrics
from submillion.judging.comparison import Noted, Setting, Verdict, conclude, corrected, is_better_checkpoint, mcnemar
from submillion.judging.comparison.bootstrap import difference, resample
from submillion.judging.metrics import Predictions, deciding_key, deciding_losses, tempered
from submillion.reports.comparing import sections
from submillion.reports.verdicts import best_sentences, by_what, pairs_table
from submillion.runs import Run
from submillion.training import workflow
from tests.data import write_csv
from tests.kit.calls import call


def setting(name: str, predictions: Predictions, n_params: int = 100) -> Setting:
    return Setting(name, (name,), (predictions,), n_params, 1.0, 1)


def several(n: int) -> Predictions:
    labels = (np.random.default_rng(3).random((n, 4)) < 0.3).astype(np.int64)
    probs = np.where(labels == 1, 1.0, 0.0)
    probs[0] = 1 - probs[0]
    return Predictions([str(i) for i in range(n)], labels, probs)


# The quantity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 40])
def test_no_row_counts_beyond_a_bound_though_probabilities_are_0_or_1(n: int) -> None:
    probs = np.eye(3)[np.arange(n) % 3]
    wrong = Predictions([str(i) for i in range(n)], (np.arange(n) + (np.arange(n) == 1)) % 3, probs)
    losses = deciding_losses(wrong)
    assert losses.argmax() == 1
    assert 0 < losses.min() < losses.max() <= math.log(100 * 3) + 1e-9
    assert deciding_losses(several(n)).max() <= math.log(200) + 1e-9
    kept = runs.unpacked_losses(runs.packed_losses(losses))
    np.testing.assert_allclose(kept, losses, rtol=1 / 2000)


def test_it_does_not_care_how_sure_a_run_is_or_in_which_order_rows_come() -> None:
    fair, sure = (drawn(np.random.default_rng(1), 600, kind=Kind(heat=heat))[0] for heat in (1.0, 4.0))
    np.testing.assert_allclose(deciding_losses(sure), deciding_losses(fair), atol=2e-3)
    order = np.random.default_rng(2).permutation(600)
    np.testing.assert_allclose(deciding_losses(fair.rows(order)), deciding_losses(fair)[order], atol=1e-6)
    assert tempered(fair).predictions.label_ids is fair.label_ids


def test_what_is_not_a_number_is_refused() -> None:
    (broken,) = drawn(np.random.default_rng(0), 30)
    broken.probs[4, 1] = math.nan
    with pytest.raises(DataError, match="1 of 30 predictions are not numbers"):
        conclude([setting("a", broken), setting("b", *drawn(np.random.default_rng(1), 30))])


def test_one_class_is_never_predicted_and_a_split_of_20_rows() -> None:
    blind = Predictions([str(i) for i in range(20)], np.arange(20) % 2, np.tile([0.8, 0.2], (20, 1)))
    verdict = conclude([setting("a", blind), setting("b", replace(blind, probs=blind.probs[:, ::-1]))])
    assert all(math.isfinite(each.p) for pair in verdict.pairs for each in pair.differences.values())


# The test -------------------------------------------------------------------------------------------------------------


def _swapped(pair: list[Predictions], rng: np.random.Generator) -> list[Predictions]:
    """Two runs whose predictions of each row are either one's, by a coin: nothing is true of them."""
    coins = rng.random(len(pair[0].probs)) < 0.5
    return [
        replace(one, probs=np.where(coins[:, None], one.probs, other.probs)) for one, other in (pair, reversed(pair))
    ]


def _p(pair: list[Predictions]) -> float:
    return difference(*(resample([each])["scaled_log_loss"] for each in pair), len(pair[0].probs)).p


@pytest.mark.parametrize(
    ("n", "name"),
    [(50, "three classes alike"), (50, "a class with one row"), (300, "heavy tails: 2 % of labels are wrong")],
)
def test_equal_runs_are_told_apart_in_at_most_5_percent(n: int, name: str) -> None:
    """docs/comparison.md has more rows, more draws and more kinds."""
    rng, found = np.random.default_rng(n), []
    for seed in range(200):
        pair = [drawn(rng, n, kind=KINDS[name], rows_seed=seed)[0] for _ in range(2)]
        found.append(_p(_swapped(pair, rng)) <= 0.05)
    assert np.mean(found) <= 0.085, "5 % and two standard errors"


def _luckiest(checkpoints: list[Predictions]) -> Predictions:
    """The best by scaled log loss. It is among the four best by plain log loss, which takes no fits: these runs are as
    sure as they should be, so that scaling moves all losses alike and little."""
    return chosen(sorted(checkpoints, key=lambda run: metrics.log_loss(run).value)[:4])


def test_the_luckiest_of_12_checkpoints_is_no_false_winner() -> None:
    rng, found = np.random.default_rng(5), []
    for seed in range(60):
        pair = [_luckiest(drawn(rng, 300, rows_seed=seed, n_checkpoints=12)) for _ in range(2)]
        found.append(_p(pair) <= 0.05)
    assert np.mean(found) <= 0.1


def test_it_takes_fewer_rows_than_accuracy() -> None:
    rng, told = np.random.default_rng(6), []
    for seed in range(150):
        pair = [drawn(rng, 500, quality, rows_seed=seed)[0] for quality in (BETTER, 2.0)]
        told.append((_p(pair) <= 0.05, mcnemar(*(each.right for each in pair)).p <= 0.05))
    by_loss, by_accuracy = np.mean(told, axis=0)
    assert by_loss >= 1.5 * by_accuracy
    assert by_loss >= 0.3


# What is said ---------------------------------------------------------------------------------------------------------


def _made(n_first: int, n_second: int, unsure: float) -> Verdict:
    """Two runs of 400 rows, both wrong on 40: the first is right alone on n_first others, the second on n_second; where
    it is wrong the first gives the truth the probability `unsure`, and the second 0.3."""
    rows, rng = np.arange(400), np.random.default_rng(0)

    def run(wrong: np.ndarray, of_wrong: float) -> Predictions:
        of_truth = np.where((rows < 40) | wrong, of_wrong, 0.9) + rng.uniform(-0.04, 0.04, 400)
        probs = np.column_stack([of_truth, 1 - of_truth])
        return Predictions([f"{row:03}" for row in rows], np.zeros(400, dtype=np.int64), probs)

    first = run((rows >= 100) & (rows < 100 + n_second), unsure)
    second = run((rows >= 200) & (rows < 200 + n_first), 0.3)
    return conclude([setting("first", first), setting("second", second, 50)])


@pytest.mark.parametrize(
    ("made", "is_tied", "accuracy", "words", "note"),
    [
        ((30, 2, 0.3), False, "worse", "by scaled log loss and by accuracy", None),
        ((2, 2, 0.45), False, None, "by scaled log loss alone", None),
        (
            (0, 12, 0.45),
            False,
            "better",
            "by scaled log loss",
            "contradiction: worse by scaled log loss, but better",
        ),
        ((0, 0, 0.3), True, None, "by scaled log loss", None),
    ],
)
def test_all_that_two_tests_may_say_has_words(
    made: tuple[int, int, float], is_tied: bool, accuracy: str | None, words: str, note: str | None
) -> None:
    verdict = _made(*made)
    (pair,) = verdict.pairs
    told = None if is_tied else "worse"
    assert (verdict.metric, verdict.deciding) == ("accuracy", "scaled_log_loss")
    assert (pair.is_tied, pair.told("scaled_log_loss"), pair.told("accuracy")) == (is_tied, told, accuracy)
    assert by_what(verdict) == f", {words}"
    assert words in sections(verdict)[0].title
    assert [each for each in verdict.notes if "contradiction" in each or "alone" in each] == [
        each for each in verdict.notes if note is not None and each.startswith(note)
    ]
    says = [row[5:] for row in pairs_table(verdict, {"first": "1", "second": "2"}).rows]
    assert (told or "tie", "decides") in says
    assert (accuracy or "tie", "") in says


def test_what_accuracy_alone_calls_worse_is_not_recommended_though_it_is_tied_and_cheaper() -> None:
    """On 40 rows one run is a hair above a half, and the other a hair below: little of that is in their losses."""
    rows, rng = np.arange(600), np.random.default_rng(1)

    def run(on_edge: float) -> Predictions:
        of_truth = (
            np.where(rows < 40, on_edge, 0.8)
            + rng.uniform(-0.0005, 0.0005, 600)
            + np.where(rows < 40, 0, rng.normal(0, 0.05, 600))
        )
        probs = np.column_stack([of_truth, 1 - of_truth])
        return Predictions([f"{row:03}" for row in rows], (rows % 7 == 6).astype(np.int64), probs)

    settings = [setting("dear", run(0.501), 200), setting("cheap", run(0.499), 100)]
    verdict = conclude(settings)
    (pair,) = verdict.pairs
    assert pair.is_tied
    assert verdict.recommended == conclude(settings, decide="accuracy").recommended == "dear"
    note = f"tied by scaled log loss, told apart by accuracy alone: {pair.setting}"
    assert note in verdict.notes


def test_a_choice_by_losses_is_corrected_with_accuracy_left_as_it_is() -> None:
    rng, errors, raw = np.random.default_rng(8), [], []
    for _ in range(60):
        losses = rng.normal(0.3, 0.4, (12, 640)) + rng.normal(0, 0.3, 640)
        right = rng.random((12, 640)) < 0.9
        found = corrected([[Noted(right.astype(np.float32), -losses, -losses)]])
        assert found is not None
        errors.append(found.value - 0.9)
        raw.append(right.mean(axis=1).max() - 0.9)
    assert abs(np.mean(errors)) < 0.003, "losses that say nothing of accuracy choose no lucky one"
    assert np.mean(raw) > 0.01


@pytest.mark.parametrize(
    ("n_lost", "is_lower", "expected"),
    [(0, True, True), (2, True, True), (40, True, False), (2, False, False), (-40, False, True)],
)
def test_a_checkpoint_that_accuracy_calls_worse_is_not_taken_for_its_lower_loss(
    n_lost: int, is_lower: bool, expected: bool
) -> None:
    rows = np.arange(400)
    right, best_right = rows >= 100 + max(n_lost, 0), rows >= 100 + max(-n_lost, 0)
    assert is_better_checkpoint(right, best_right, is_lower) is expected


def test_a_guarded_choice_is_corrected_as_it_was_made() -> None:
    """The first checkpoint has the lower loss, and is 10 points less accurate."""
    rng = np.random.default_rng(9)
    right = np.stack([rng.random(800) < 0.7, rng.random(800) < 0.8]).astype(np.float32)
    losses = np.stack([np.full(800, 0.5), np.full(800, 0.6)])
    found = [corrected([[Noted(right, -losses, -losses, is_guarded)]]) for is_guarded in (False, True)]
    for score, share in zip(found, right.mean(axis=1), strict=True):
        assert score is not None
        assert score.value == pytest.approx(float(share), abs=0.01)


# Trainings ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("deciding")
    sets = {"train.steps": 12, "train.evaluate_every": 2, "train.precision": "fp32", "train.learning_rate": 5e-3}
    sets |= {"model.name": str(encoders["bert"]), "data.source": str(write_csv(folder / "rows.csv", 90))}
    return config.load(overrides=sets | {"data.validation": 0.4, "out": str(folder / "runs")})


@pytest.fixture(scope="module")
def trained(settings: Config) -> dict[str, Run]:
    decides = {"log-loss": {}, "accuracy": {"train.decide": "accuracy"}, "other": {"train.learning_rate": 1e-3}}
    return {name: workflow.train(config.changed(settings, sets)) for name, sets in decides.items()}


@pytest.mark.parametrize("decide", ["log-loss", "accuracy"])
def test_the_checkpoint_is_the_one_that_it_decides_for(trained: dict[str, Run], decide: Metric) -> None:
    run, key = trained[decide], deciding_key(decide)
    records = run.evaluations()
    assert (run.metric(), run.deciding()) == ("accuracy", decide)
    heights = [(metrics.height(key, each.scores[key].value), -each.loss) for each in records]
    (best,) = [record for record in records if record.best][-1:]
    chosen = 0
    for number, height in enumerate(heights):
        right, best_right = (runs.unpacked_rows(str(records[each].right)) for each in (number, chosen))
        guarded = decide == "log-loss" and is_better_checkpoint(right, best_right, height > heights[chosen])
        chosen = number if guarded or (decide == "accuracy" and height > heights[chosen]) else chosen
    assert best is records[chosen]
    assert metrics.leading(run.scores()["validation"]) == ("accuracy", best.scores["accuracy"])
    predictions = run.load_predictions("validation")
    assert -metrics.height_by(predictions, "log-loss") == pytest.approx(best.scores["scaled_log_loss"].value, rel=1e-5)
    noted = runs.noted(records, len(predictions.ids), "scaled_log_loss")
    assert noted is not None
    np.testing.assert_allclose(-noted[records.index(best)], deciding_losses(predictions), rtol=2e-3, atol=1e-5)


def test_what_decides_is_part_of_the_question(settings: Config) -> None:
    hashes = {
        decide: config.digest(config.changed(settings, {"train.metric": metric, "train.decide": decide}), "x")
        for metric, decide in [(None, None), (None, "log-loss"), ("accuracy", "accuracy"), ("accuracy", "mcc")]
    }
    by_metric = config.digest(config.changed(settings, {"train.metric": "accuracy"}), "x")
    assert hashes[None] == hashes["log-loss"] != hashes["accuracy"]
    assert hashes["accuracy"] == by_metric, "a metric that is named decides"
    assert len(set(hashes.values())) == 3


def test_compare_decides_by_log_loss_by_what_runs_name_and_by_what_is_asked_for(
    trained: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [trained[name].path for name in ("log-loss", "other")]
    assert submillion.compare(paths).deciding == "scaled_log_loss"
    for decide, key in product(("accuracy", "macro-f1"), ("decides", "metric")):
        assert call("compare", *paths, "--decide", decide, "--json") == 0
        verdict = json.loads(capsys.readouterr().out)
        expected = {"metric": "accuracy", "decides": None if decide == "accuracy" else "macro_f1"}
        assert verdict[key] == expected[key]
        assert decide.replace("-", "_") in verdict["against_best"][0]["differences"]
    assert call("compare", *paths, "--decide", "acuracy") == 2
    with pytest.raises(RunError, match=r"decide is 'micro-f1', but rows have one label"):
        submillion.compare(paths, decide="micro-f1")


def test_a_score_that_the_rows_have_not_is_refused(settings: Config) -> None:
    with pytest.raises(ConfigError, match=r"train\.decide is micro-f1, but rows have one label: allowed are accuracy"):
        workflow.train(config.changed(settings, {"train.decide": "micro-f1"}))


def test_the_settings_among_which_the_best_is_are_named_where_they_are_fewer_than_the_tied() -> None:
    rng = np.random.default_rng(3)
    settings = [setting(f"{i:02}", *drawn(rng, 400, 2.0 + 0.03 * i)) for i in range(12)]
    verdict = conclude(settings)
    assert verdict.settings[0].name in verdict.may_be_best
    assert 0 < len(verdict.may_be_best) < len(verdict.group), "the family of all pairs hides more"
    names = {each.name: each.name for each in verdict.settings}
    (sentence,) = best_sentences(verdict, names)
    assert all(name in sentence for name in verdict.may_be_best)
    assert any(each.startswith("With 95 % confidence") for each in sections(verdict)[0].sentences)
    assert conclude(settings[:2]).may_be_best == ()
