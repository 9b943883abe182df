"""What is said holds as often as it is said to, where the truth is known; docs/statements.md names what checks it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest, norm

import submillion
from benchmarks.results import kept
from submillion.data.tokens import blank_warning
from submillion.errors import ConfigError, ExportError
from submillion.exports import checking
from submillion.judging.comparison import (
    Noted,
    Setting,
    conclude,
    corrected,
    lowest_and_highest,
    rows_for_points,
    rows_needed,
)
from submillion.judging.comparison import rows as constants
from submillion.judging.comparison.bootstrap import Spread
from submillion.judging.comparison.bootstrap import rows_and_seeds_needed as with_seeds
from submillion.judging.metrics import (
    Predictions,
    calibrated,
    confidence_gap,
    ece,
    ece_change,
    log_loss,
    row_losses,
    score_by,
    wilson,
)
from submillion.judging.sampling import Worth
from submillion.judging.shift.estimates import estimate
from submillion.judging.shift.verdict import HELD, _stated
from submillion.reports.asking import to_know
from submillion.reports.sweep.factors import standing_of
from submillion.reports.sweep.study import Compared, is_pursued
from submillion.reports.verdicts import rows_sentences, rows_tables, taken_because
from submillion.runs.seal import seen_warnings
from submillion.sweeps.strategies import correlation
from tests.kit.calls import call

ROOT = Path(__file__).parent.parent
SHARPNESS = {0.99: 73.2, 0.9: 7.13, 0.7: 2.13}  # of logits whose likeliest class of four is right so often


def drawn(rng: np.random.Generator, n_rows: int, accuracy: float, temperature: float = 1.0) -> Predictions:
    """Rows of four classes; at temperature 1 each row's truth is drawn from its own probabilities."""
    logits = rng.normal(0, SHARPNESS[accuracy], (n_rows, 4))
    truth = np.minimum((softmax(logits, axis=1).cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1), 3)
    return Predictions([str(i) for i in range(n_rows)], truth, softmax(logits / temperature, axis=1))


def setting(name: str, *predictions: Predictions, n_params: int = 100, **more: object) -> Setting:
    runs = tuple(f"{name}-{i}" for i in range(len(predictions)))
    return Setting(name, runs, predictions, n_params, 10.0, 1, **more)  # pyright: ignore[reportArgumentType]


# Scores near the edge -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("n_rows", [30, 100, 640])
def test_log_loss_and_ece_hold_the_truth_where_few_rows_are_wrong(n_rows: int, temperature: float) -> None:
    rng, n = np.random.default_rng(0), 60
    many = drawn(np.random.default_rng(1), 100_000, 0.99, temperature)
    loss, error = float(row_losses(many).mean()), ece(many).value
    held = {"loss": 0, "ece": 0}
    for _ in range(n):
        predictions = drawn(rng, n_rows, 0.99, temperature)
        of_loss, of_error = log_loss(predictions), ece(predictions)
        held["loss"] += of_loss.low <= loss <= of_loss.high
        held["ece"] += of_error.low - 0.002 <= error <= of_error.high  # the noise of the large sample
        assert 0 <= of_error.low <= of_error.value <= of_error.high <= 1
    assert min(held.values()) >= 0.9 * n


def test_with_many_mistakes_log_loss_is_its_mean_plus_or_minus_its_standard_errors() -> None:
    predictions = drawn(np.random.default_rng(0), 2000, 0.7)
    losses, found = row_losses(predictions), log_loss(predictions)
    half = 1.96 * losses.std() / 2000**0.5
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_nothing_is_certain_where_every_row_is_right() -> None:
    n, truth = 30, np.arange(30) % 3
    predictions = Predictions([str(i) for i in range(n)], truth, np.eye(3)[truth] * 0.97 + 0.01)
    several = Predictions(predictions.ids, np.eye(3, dtype=np.int64)[truth], predictions.probs)
    for run, metric in ((predictions, "average-precision"), (predictions, "mcc"), (several, "average-precision")):
        assert all(each.low < each.value or each.high > each.value for each in score_by(run, metric).values())
        (found,) = conclude([setting("a", run, run)], metric=metric).settings
        assert all(each.high - each.low > 1e-3 for each in found.scores.values())


def test_seeds_lent_to_runs_that_are_all_right_leave_an_interval() -> None:
    truth = np.arange(60) % 3
    right = [Predictions([str(i) for i in range(60)], truth, np.eye(3)[truth] * 0.9 + 0.03) for _ in range(2)]
    others = [[drawn(np.random.default_rng(5 * k + i), 60, 0.7) for i in range(2)] for k in (1, 2)]
    probs = [[each.probs[:, :3] / each.probs[:, :3].sum(axis=1, keepdims=True) for each in runs] for runs in others]
    settings = [[Predictions(right[0].ids, truth, each) for each in runs] for runs in probs]
    found = conclude([setting("a", *right), *(setting(str(k), *runs) for k, runs in enumerate(settings))])
    best = found.settings[0].scores["accuracy"]
    assert (best.value, best.high) == (1.0, 1.0)
    assert 0 < best.low <= wilson(60, 60).low


# Calibration and lengths --------------------------------------------------------------------------------------------


def test_a_model_is_too_sure_only_where_a_test_says_so() -> None:
    rng, n = np.random.default_rng(2), 100
    fair = [confidence_gap(drawn(rng, 200, 0.9)) for _ in range(n)]
    assert sum(gap.low > 0 or gap.high < 0 for gap in fair) <= 0.08 * n
    sure = [confidence_gap(drawn(rng, 200, 0.7, 0.5)) for _ in range(20)]
    assert all(gap.low > 0 for gap in sure)
    several = np.random.default_rng(3).random((2000, 5))
    labels = (np.random.default_rng(4).random((2000, 5)) < several**2).astype(np.int64)
    assert confidence_gap(Predictions([], labels, several)).low > 0
    fits = confidence_gap(Predictions([], labels, several**2))
    assert fits.low < 0 < fits.high


def test_scaling_lowers_the_ece_only_where_a_test_says_so() -> None:
    rng, n, told = np.random.default_rng(5), 60, {1.0: 0, 0.4: 0}
    for temperature in told:
        for _ in range(n):
            predictions = drawn(rng, 300, 0.7, temperature)
            change = ece_change(predictions, calibrated(predictions).predictions)
            assert change.low <= change.value <= change.high
            told[temperature] += change.high < 0
    assert told[1.0] <= 0.1 * n
    assert told[0.4] >= 0.9 * n


def test_one_length_is_harder_only_where_a_test_says_so() -> None:
    rng = np.random.default_rng(6)
    found = [lowest_and_highest([wilson(int(k), 100) for k in rng.binomial(100, 0.9, 6)]) for _ in range(300)]
    assert np.mean(np.array(found) <= 0.05) <= 0.05
    assert lowest_and_highest([wilson(70, 100), wilson(95, 100), wilson(90, 100)]) < 0.001


# Rows needed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "discordance"), [(1.0, 0.03), (2.0, 0.05), (2.0, 0.02)])
def test_planned_rows_give_the_power_that_they_promise(points: float, discordance: float) -> None:
    (found,) = rows_for_points((points,), discordance=discordance)
    first, second = (discordance + points / 100) / 2, (discordance - points / 100) / 2
    draws = np.random.default_rng(0).multinomial(found.by_accuracy, [first, second, 1 - first - second], size=500)
    power = np.mean([b + c > 0 and binomtest(int(b), int(b + c)).pvalue <= 0.05 for b, c, _ in draws])
    assert 0.72 < power < 0.88
    assert found.at_least < found.by_log_loss < min(found.at_most, found.by_accuracy), (
        "in a quarter of pairs log loss takes more"
    )


def test_the_constants_are_what_was_measured() -> None:
    quartiles = kept("rows")["quartiles"]
    used = [constants.FEWER_AT_LEAST, constants.FEWER_BY_LOG_LOSS, constants.FEWER_AT_MOST]
    assert quartiles["ratio"] == used
    assert [quartiles[key][1] for key in ("discordant_for_each_error", "of_proportion")] == [
        constants.DISCORDANT_FOR_EACH_ERROR,
        constants.OF_PROPORTION,
    ]


def test_the_command_and_python_plan_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "--rows", "--points", "0.5", "--points", "2", "--accuracy", "0.95", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    found = submillion.rows_for_points((0.5, 2.0), accuracy=0.95)
    assert [row["by_accuracy"] for row in printed["rows"]] == [row.by_accuracy for row in found]
    assert call("plan", "--rows") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("true difference", "rows by accuracy", "0.25", "72 pairs"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": (0.0,)}, "above 0 and below 100"),
        ({"points": ()}, r"--points \(points\) is empty"),
        ({"accuracy": 1.0}, r"--accuracy \(accuracy\) is 1"),
        ({"points": (5.0,), "discordance": 0.01}, "discordance of 0.05 or more"),
        ({"points": (1.0,), "discordance": 0.005}, "differ by 1 point decide"),
        ({"accuracy": 0.99, "discordance": 0.5}, "give at most 0.04"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rows_for_points(**settings)  # pyright: ignore[reportArgumentType]


def test_options_of_rows_without_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "--accuracy", "0.9", "--points", "1") == 1
    assert "--points, --accuracy: used only with --rows" in capsys.readouterr().err


def test_where_three_seeds_hide_a_difference_more_of_them_show_it() -> None:
    spread = Spread(rows=1e-5, n_rows=2000, own=3e-6, seeds=2 * 0.003**2 / 3, dof=2.0)
    found = with_seeds(0.01, spread, 3)
    assert found is not None
    assert found.n_seeds == 5, "three cannot, with any number of rows"
    assert found.n_rows > 100
    assert with_seeds(0.05, spread, 3).n_seeds == 3  # pyright: ignore[reportOptionalMemberAccess]
    between = with_seeds(0.012, spread, 3)
    assert between is not None
    assert between.n_seeds == 3, "some thousands of rows show it, though a million do not: seeds then count for more"
    assert 3000 < between.n_rows < 20_000


def test_a_tie_is_told_in_rows_by_what_may_be_true() -> None:
    first, second = (drawn(np.random.default_rng(seed), 400, 0.9) for seed in (1, 2))
    second = Predictions(first.ids, first.label_ids, 0.8 * first.probs + 0.2 * second.probs)
    found = conclude([setting("a", first), setting("b", second)], decide="accuracy")
    by_basis = {each.basis: each for each in found.rows_needed}
    low, high = found.pairs[0].differences["accuracy"].low, found.pairs[0].differences["accuracy"].high
    assert by_basis["largest"].difference == max(abs(low), abs(high))
    assumed = [each for each in found.rows_needed if each.basis == "assumed"]
    assert [each.difference for each in assumed] == [0.0025, 0.005, 0.01, 0.02]
    assert all(each.by_score is not None and each.by_log_loss is not None for each in assumed)
    names = {"a": "1", "b": "2"}
    (said,) = rows_sentences(found, names)
    assert "may be true" in said or "compare these two alone" in said
    (table,) = rows_tables(found, names)
    assert len(table.rows) == len(found.rows_needed)


def test_int8_asks_for_enough_rows_where_few_changed_labels_were_seen() -> None:
    rng, margin, n_pilot = np.random.default_rng(7), 0.01, 100
    enough = 0
    for _ in range(60):  # 1 % of rows change, as many to right as to wrong
        change = rng.choice(3, n_pilot, p=[0.99, 0.005, 0.005])
        one, other = np.ones(n_pilot, dtype=bool), np.ones(n_pilot, dtype=bool)
        one[change == 1], other[change == 2] = False, False
        logits = [np.stack([right, ~right], axis=1).astype(np.float32) for right in (one, other)]
        checks = checking.judge("onnx-int8", "rows", *logits, np.zeros(n_pilot, dtype=np.int64))
        with pytest.raises(ExportError) as error:
            checking.refuse("onnx-int8", checks, margin)
        asked = re.search(r"([\d,]+) if it changed", str(error.value))
        enough += asked is None or int(asked[1].replace(",", "")) >= (rows_needed(margin, 0.01) or 0)
    assert enough >= 57


def test_the_correlation_of_all_settings_is_told_from_the_kept_ones() -> None:
    rng, found, held, truth = np.random.default_rng(12), [], [], 0.89
    for _ in range(300):
        short = rng.normal(size=27)
        full = 0.9 * short + 0.19**0.5 * rng.normal(size=27)
        best = np.argsort(-short)[:5]
        told = correlation(short[best].tolist(), full[best].tolist(), short.tolist())
        if told.of_all is not None and told.of_all_low is not None and told.of_all_high is not None:
            found.append((told.rho, told.of_all))
            held.append(told.of_all_low <= truth <= told.of_all_high)
    of_kept, of_all = np.median(np.array(found), axis=0)
    assert of_kept < 0.75 < 0.8 < of_all
    assert np.mean(held) >= 0.93


# What is chosen -----------------------------------------------------------------------------------------------------


def noted(right: np.ndarray) -> Noted:
    return Noted(*[right.astype(np.float32)] * 3)


@pytest.mark.parametrize(("n_checkpoints", "n_settings"), [(12, 1), (6, 6)])
def test_a_corrected_score_is_without_the_luck_of_its_choice(n_checkpoints: int, n_settings: int) -> None:
    rng, n_rows, errors, held, raw = np.random.default_rng(8), 640, [], [], []
    for _ in range(60):
        shared = rng.normal(0, 0.8, n_rows)
        truths = 0.914 + rng.normal(0, 0.003, (n_settings, n_checkpoints))
        noise = rng.normal(0, 0.6, (n_settings, n_checkpoints, n_rows))
        right = shared + noise > -norm.ppf(truths)[..., None]
        scores = right.mean(axis=2)
        best = np.unravel_index(scores.argmax(), scores.shape)
        found = corrected([[noted(of_run)] for of_run in right])
        errors.append(found.value - truths[best])
        raw.append(scores[best] - truths[best])
        held.append(found.low <= truths[best] <= found.high)
    assert np.mean(raw) > 0.008
    assert abs(np.mean(errors)) < 0.004
    assert np.mean(held) >= 0.9


def test_more_evaluations_are_no_advantage_after_correction() -> None:
    rng, gaps = np.random.default_rng(9), []
    for _ in range(40):
        shared = rng.normal(0, 0.8, 640)
        right = shared + rng.normal(0, 0.6, (13, 640)) > -norm.ppf(0.914)
        gaps.append(corrected([[noted(right[:12])]]).value - right[12].mean())
    assert abs(np.mean(gaps)) < 0.006, "12 checkpoints against 1"


def test_what_taking_the_cheapest_may_cost_is_said_and_bounded_by_a_margin() -> None:
    rng = np.random.default_rng(10)
    good = drawn(rng, 400, 0.9)
    noisy = Predictions(good.ids, good.label_ids, 0.7 * good.probs + 0.3 * drawn(rng, 400, 0.9).probs)
    settings = [setting("dear", good), setting("cheap", noisy, n_params=1)]
    found = conclude(settings, decide="accuracy")
    cheap = next(each for each in found.settings if each.name == "cheap")
    assert found.recommended == "cheap"
    if found.against(cheap) is not None:
        assert f"at most {100 * found.most_lost(cheap):.2f} points worse" in taken_because(found)
    assert conclude(settings, margin=0.5).recommended == "cheap"
    strict = conclude(settings, margin=0.0)
    assert strict.recommended == strict.settings[0].name
    assert "margin" in taken_because(strict)


def test_the_stated_accuracy_of_unlabelled_rows_counts_mistakes_that_validation_has_not_shown() -> None:
    truth = np.arange(60) % 4
    sure = np.eye(4)[truth] * 0.96 + 0.01
    stated = _stated(estimate(Predictions([str(i) for i in range(60)], truth, sure), sure), 0.0)
    assert stated.value == 1
    assert stated.low < 0.97, "60 rows without a mistake: Wilson's interval of 90 % begins at 0.957"


def test_what_is_said_of_the_stated_interval_was_measured() -> None:
    page = (ROOT / "docs" / "shift.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("| all judged |")]
    cells = [cell.strip(" *") for cell in line.split("|")]
    n_held, n_shifts = cells[5].split()[0], cells[2]
    assert f"held the truth in {n_held} of {n_shifts} known shifts" == HELD


def test_fewer_seeds_than_the_tied_is_not_worse() -> None:
    rng, truth = np.random.default_rng(13), drawn(np.random.default_rng(14), 600, 0.9)
    noisy = [Predictions(truth.ids, truth.label_ids, drawn(rng, 600, 0.9).probs) for _ in range(2)]
    good = [
        Predictions(truth.ids, truth.label_ids, 0.9 * truth.probs + 0.1 * drawn(rng, 600, 0.9).probs) for _ in range(3)
    ]
    verdict = conclude([setting("good", *good), setting("poor", *noisy)])
    best, poor = verdict.settings
    assert (best.name, verdict.is_tied(poor)) == ("good", False)
    said = {}
    for tie_seeds in (3, None):
        compared = Compared(1, "poor", poor.runs, poor.scores["accuracy"], None, None, False, False, 1, 1.0)
        said[tie_seeds] = standing_of(replace(compared, is_pursued=is_pursued(poor, verdict, tie_seeds)))
    assert said == {3: "not pursued", None: "worse"}


# The page -----------------------------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "statements.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)\.py::(test_\w+)`", page))
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if f"\ndef {name}(" not in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
    ]
    assert not missing
    tables = [line for line in page.splitlines() if line.startswith("|") and not line.startswith(("|---", "| said"))]
    assert all(len(line.split(" | ")) == 5 for line in tables), "said, method, assumes, checked by, fails where"
    assert all(re.search(r"`test_\w+\.py::test_\w+`|not checked", line) for line in tables)


def test_one_row_is_not_spoken_of_as_several() -> None:
    assert seen_warnings(1, 9)[0].startswith("1 of 9 rows was trained on")
    assert blank_warning(1, 9) == "1 of 9 rows (11.1 %) has no token that the encoder knows"
    assert "1 label is expected to give" in to_know([Worth(1, 0.5, 0.6)])[0]
    assert "2 labels are expected to give" in to_know([Worth(2, 0.4, 0.5)])[0]
