"""Laws of rows that are not independent: rows of one group (`data.group`), and rows of one text.

Simulations draw groups of rows with a known truth: ten copies of each row, or rows that share a part of their chance.
Intervals and tests that took rows for independent fail all of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import norm

import submillion
from submillion import data
from submillion.data import Example, groups_of
from submillion.judging import confidence
from submillion.judging.comparison import Noted, Setting, conclude, corrected, mcnemar
from submillion.judging.metrics import (
    Predictions,
    Score,
    calibrated,
    class_scores,
    confidence_gap,
    effective_rows,
    numbered,
    score,
    score_by,
    share,
    wilson,
)
from submillion.judging.shift.estimates import estimate
from submillion.prediction.ensemble import _selection_warnings as selection_warnings
from submillion.reports import sections
from submillion.reports.run import read
from submillion.runs import Run
from tests.data import write_csv

SIZE = 10  # copies of each row
KEYS = ("accuracy", "macro_f1", "log_loss", "mcc", "average_precision", "ece")


def alone(rng: np.random.Generator, n_rows: int, sharpness: float = 5.0) -> Predictions:
    """Calibrated rows of three classes, each drawn alone."""
    probs = softmax(rng.normal(0, sharpness, (n_rows, 3)), axis=1)
    truth = np.minimum((probs.cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1), 2)
    return Predictions([f"{i:05}" for i in range(n_rows)], truth, probs)


def copied(found: Predictions, size: int = SIZE) -> Predictions:
    """Each row so many times, as groups that know of it."""
    groups = np.repeat(np.arange(len(found.ids)), size)
    ids = [f"{found.ids[group]} {i}" for i, group in enumerate(groups)]
    return Predictions(ids, found.label_ids[groups], found.probs[groups], groups=groups)


def scores_of(found: Predictions) -> dict[str, Score]:
    return score_by(found, "mcc") | score_by(found, "average-precision")


# Scores -------------------------------------------------------------------------------------------------------------


def test_intervals_of_copied_rows_hold_the_truth() -> None:
    truth, n = scores_of(alone(np.random.default_rng(0), 50_000)), 100
    held, blind = dict.fromkeys(KEYS, 0), 0
    rng = np.random.default_rng(1)
    for _ in range(n):
        rows = copied(alone(rng, 60))
        found, as_rows = scores_of(rows), share(rows.right)
        for key in KEYS:
            held[key] += found[key].low - 0.002 <= truth[key].value <= found[key].high + 0.002
        blind += as_rows.low <= truth["accuracy"].value <= as_rows.high
    assert held["accuracy"] >= 0.93 * n
    assert min(held.values()) >= 0.89 * n
    assert blind < 0.8 * n, "copies that are taken for rows"


@pytest.mark.parametrize("n_groups", [12, 100])
def test_the_share_of_right_rows_holds_the_truth_in_groups_of_any_size(n_groups: int) -> None:
    rng, truth, n, held, blind = np.random.default_rng(2), 0.85, 300, 0, 0
    for _ in range(n):
        groups = np.repeat(np.arange(n_groups), rng.integers(1, 16, n_groups))
        shared, own = rng.normal(size=n_groups)[groups], rng.normal(size=len(groups))
        right = 0.6 * shared + 0.8 * own < norm.ppf(truth)
        found, as_rows = share(right, groups), wilson(int(right.sum()), len(right))
        held += found.low <= truth <= found.high
        blind += as_rows.low <= truth <= as_rows.high
    assert held >= 0.92 * n
    assert blind < 0.85 * n


def test_copies_say_no_more_than_the_rows_that_they_are_copies_of() -> None:
    once = alone(np.random.default_rng(3), 80)
    ten, own = copied(once), score(once)
    for key, found in score(ten).items():
        assert found.value == pytest.approx(own[key].value, abs=1e-9)
        assert found.n == 800
        assert found.high - found.low == pytest.approx(own[key].high - own[key].low, rel=0.12), key
    for one, each in zip(class_scores(once), class_scores(ten), strict=True):
        assert each.recall.low == pytest.approx(one.recall.low, abs=0.02)
    gaps = confidence_gap(once), confidence_gap(ten)
    assert gaps[1].low == pytest.approx(gaps[0].low, abs=0.01)
    assert np.ptp(calibrated(ten).predictions.probs.reshape(80, 10, 3), axis=1).max() == 0, "one temperature a group"


def test_groups_of_one_row_are_rows() -> None:
    found = alone(np.random.default_rng(4), 50)
    assert numbered(np.arange(50)) is None
    assert effective_rows(np.ones(50), None) == 50
    assert share(found.right, np.arange(50)) == share(found.right)


def test_one_group_says_nothing() -> None:
    found = replace(alone(np.random.default_rng(5), 40), groups=np.zeros(40, dtype=np.int64))
    assert score(found)["accuracy"].low < 0.01
    assert score(found)["accuracy"].high > 0.99


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_scores_of_groups_hold_their_value_in_any_order(seed: int, n_rows: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    found = replace(alone(rng, n_rows), groups=numbered(rng.integers(0, n_groups, n_rows)))
    scores = score_by(found, "mcc")
    assert all(each.low <= each.value <= each.high for each in scores.values())
    assert score_by(found.rows(rng.permutation(n_rows)), "mcc") == scores


def test_rows_with_several_labels_have_groups_too() -> None:
    rng = np.random.default_rng(6)
    truth, probs = rng.integers(0, 2, (60, 4)), rng.random((60, 4))
    once = Predictions([f"{i:03}" for i in range(60)], truth, 0.3 * probs + 0.6 * truth)
    own, ten = score(once), score(copied(once))
    for key in ("micro_f1", "macro_f1", "hamming", "subset_accuracy", "average_precision", "log_loss"):
        assert ten[key].high - ten[key].low == pytest.approx(own[key].high - own[key].low, rel=0.25), key


# Differences --------------------------------------------------------------------------------------------------------


def equally_good(rng: np.random.Generator, n_groups: int) -> list[Predictions]:
    """Two runs that differ by chance alone, on copies of rows."""
    logits = rng.normal(0, 2, (n_groups, 3))
    truth = np.minimum((softmax(logits, axis=1).cumsum(axis=1) < rng.random((n_groups, 1))).sum(axis=1), 2)
    ids = [f"{i:05}" for i in range(n_groups)]
    runs = [logits + rng.normal(0, 0.7, logits.shape) for _ in range(2)]
    return [copied(Predictions(ids, truth, softmax(each, axis=1))) for each in runs]


def test_equally_good_runs_on_copies_differ_in_at_most_5_percent() -> None:
    rng, n, told, blind = np.random.default_rng(7), 100, 0, 0
    for _ in range(n):
        first, second = (found.right for found in equally_good(rng, 60))
        told += mcnemar(first, second, np.repeat(np.arange(60), SIZE)).p <= 0.05
        blind += mcnemar(first, second).p <= 0.05
    assert told <= 0.05 * n
    assert blind > 0.15 * n, "rows that are taken for independent"


def test_settings_are_compared_by_groups() -> None:
    rng, n, told = np.random.default_rng(8), 25, 0
    for _ in range(n):
        pair = [
            Setting(name, (name,), (run,), 1, 1.0, 1) for name, run in zip("ab", equally_good(rng, 40), strict=True)
        ]
        verdict = conclude(pair)
        told += any(each.p <= 0.01 for each in verdict.pairs[0].differences.values())
    assert told <= 2
    assert any("400 rows are in 40 groups" in note for note in verdict.notes)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_the_test_of_groups_is_that_of_all_their_signs(sums: list[int]) -> None:
    rights: tuple[list[bool], list[bool]] = ([], [])
    groups = list[int]()
    for group, total in enumerate(sums):
        for place in (0, 1):
            rights[place].extend([(total > 0) is (place == 0)] * abs(total) + [True])
        groups += [group] * (abs(total) + 1)
    found = mcnemar(np.array(rights[0]), np.array(rights[1]), np.array(groups))
    every = [abs(sum(map(int.__mul__, signs, sums))) for signs in product((-1, 1), repeat=len(sums))]
    assert found.p == pytest.approx(np.mean([each >= abs(sum(sums)) for each in every]))
    assert found.low <= found.value <= found.high


def test_a_corrected_score_of_copies_holds_the_truth() -> None:
    rng, held = np.random.default_rng(9), []
    for _ in range(40):
        right = rng.normal(0, 0.8, 64) + rng.normal(0, 0.6, (8, 64)) > -norm.ppf(0.85)
        groups = np.repeat(np.arange(64), SIZE)
        noted = right[:, groups].astype(np.float32)
        found = corrected([[Noted(noted, noted, noted)]], groups)
        held.append(found.low <= 0.85 <= found.high)
    assert np.mean(held) >= 0.9


# Promises -----------------------------------------------------------------------------------------------------------


def test_a_stated_error_is_kept_on_copies() -> None:
    rng, n, failed, answered = np.random.default_rng(10), 80, 0, 0
    for _ in range(n):
        quantile = rng.random(400)  # the error among rows surer than quantile u is 0.1 (1 - u)^4
        is_wrong, sure = rng.random(400) < 0.5 * (1 - quantile) ** 4, 0.5 + quantile / 2
        rows = Predictions(
            [f"{i:04}" for i in range(400)], is_wrong.astype(np.int64), np.stack([sure, 1 - sure], axis=1)
        )
        threshold = confidence.selection(copied(rows), 0.05).threshold
        answered += threshold is not None
        failed += threshold is not None and 0.1 * (2 - 2 * max(threshold, 0.5)) ** 4 > 0.05
    assert answered >= 0.9 * n
    assert failed <= 0.05 * n


def test_sets_of_labels_hold_the_true_one_on_copies() -> None:
    rng, held = np.random.default_rng(11), []
    for _ in range(60):
        new = alone(rng, 400, 1.5)
        members = confidence.label_sets(copied(alone(rng, 40, 1.5)), 0.9).members(new.probs)
        held.append(members[np.arange(400), new.label_ids].mean())
    assert np.mean(held) >= 0.9


def test_the_stated_accuracy_of_unlabelled_rows_knows_copies() -> None:
    once = alone(np.random.default_rng(12), 30)
    found, blind = (estimate(rows, once.probs).atc for rows in (copied(once), replace(copied(once), groups=None)))
    assert found.high - found.low > 1.2 * (blind.high - blind.low)


# Where groups come from ---------------------------------------------------------------------------------------------


def test_rows_of_one_group_or_one_text_are_one_group() -> None:
    texts = ["a film", "A  Film", "a book", "news", "play"]
    rows = [Example(str(i), text, "x", group=g) for i, (text, g) in enumerate(zip(texts, "aabbc", strict=True))]
    assert groups_of(rows) is not None
    assert groups_of(rows).tolist() == [0, 0, 1, 1, 2]  # pyright: ignore[reportOptionalMemberAccess]
    without = [replace(row, group=None) for row in rows]
    assert groups_of(without).tolist() == [0, 0, 1, 2, 3]  # pyright: ignore[reportOptionalMemberAccess]
    assert groups_of(without[2:]) is None
    assert groups_of([]) is None


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> tuple[Path, Run]:
    """A file of 40 customers with three rows each, and a run on it."""
    folder = tmp_path_factory.mktemp("groups")
    lines = write_csv(folder / "rows.csv", 120).read_text(encoding="utf-8").splitlines()
    source = folder / "grouped.csv"
    rows = [f"{line},c{i // 3}" for i, line in enumerate(lines[1:])]
    source.write_text("\n".join([f"{lines[0]},customer", *rows]) + "\n", encoding="utf-8")
    overrides = {
        "model.name": str(encoders["bert"]),
        "out": str(folder / "runs"),
        "data.group": "customer",
        "data.test": 0.2,
        "train.steps": 2,
        "train.evaluate_every": 1,
        "train.batch_size": 8,
        "train.precision": "fp32",
    }
    return source, submillion.train(source, overrides=overrides)


def test_a_run_keeps_its_rows_groups_and_opens_without_them(grouped: tuple[Path, Run]) -> None:
    source, run = grouped
    splits = data.read(run.config().data)
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        found, groups = run.load_predictions(name), groups_of(rows)
        assert groups is not None
        assert found.groups is not None
        assert found.groups.tolist() == groups.tolist()
        assert run.scores()[name] == score(found)
        own = {example.group for example in rows}
        assert int(groups.max()) + 1 == len(own) < len(rows)
    (section, *_) = sections(read(run, splits))
    assert any("rows are in 9 groups" in sentence for sentence in section.sentences)
    evaluation = submillion.evaluate(run, source)
    assert evaluation["accuracy"].n == 120
    without = pd.read_csv(source).drop(columns="customer")
    assert submillion.evaluate(run, without)["accuracy"].value == evaluation["accuracy"].value


def test_predictions_of_before_have_rows_alone(grouped: tuple[Path, Run], tmp_path: Path) -> None:
    _, run = grouped
    found = run.load_predictions("test")
    old = Run(tmp_path)
    old.write_labels(run.classes(), has_several=False)
    old.save_predictions("test", replace(found, groups=None))
    assert old.load_predictions("test").groups is None
    old.save_predictions("test", found)
    assert old.load_predictions("test").groups is not None


def test_evaluate_says_that_its_rows_chose_what_is_judged_on_them(grouped: tuple[Path, Run]) -> None:
    _, run = grouped
    rows = data.read(run.config().data).validation
    own = [{"id": each.id, "text": each.text, "label": each.label} for each in reversed(rows)]
    (warning,) = (each for each in submillion.evaluate(run, own).warnings if "chose" in each)
    assert "the run's validation rows, which chose the checkpoint:" in warning
    assert not any("chose" in each for each in submillion.evaluate(run, own[1:]).warnings)
    (with_threshold,) = selection_warnings(run, rows, has_threshold=True)
    assert "the checkpoint and the threshold of max_error" in with_threshold
