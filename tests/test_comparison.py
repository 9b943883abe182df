"""Comparison: tests equal references, hold their level where the truth is known, and do not care who is named first."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

import submillion
from benchmarks import comparison as benchmark
from benchmarks.results import kept
from submillion.errors import ConfigError, DataError, RunError
from submillion.judging import metrics
from submillion.judging.comparison import (
    Needed,
    Setting,
    Verdict,
    conclude,
    holm,
    mcnemar,
    rows_needed,
)
from submillion.judging.comparison.best import may_be_best
from submillion.judging.comparison.bootstrap import (
    METRICS,
    Resampled,
    Spread,
    borrowing,
    difference,
    resample,
    spread_of,
    weights,
)
from submillion.judging.comparison.bootstrap import rows_and_seeds_needed as rows_needed_with_seeds
from submillion.judging.comparison.seeds import FEWEST, moderated
from submillion.judging.metrics import Predictions
from submillion.reports.verdicts import rows_sentences, rows_tables
from submillion.runs import Run
from submillion.text import interval
from tests.data import write_csv
from tests.kit.calls import call

LABEL_IDS = np.random.default_rng(0).integers(0, 3, 300)


def run(seed: int, quality: float = 1.0, label_ids: np.ndarray = LABEL_IDS) -> Predictions:
    """A run on the same rows as all others, right the more often the higher its quality."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(label_ids), 3))
    logits[np.arange(len(label_ids)), label_ids] += quality
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions([str(i) for i in range(len(label_ids))], label_ids, probs)


def setting(name: str, *predictions: Predictions, n_params: int = 100, n_evaluations: int = 1) -> Setting:
    runs = tuple(f"{name}-{i}" for i in range(len(predictions)))
    return Setting(name, runs, predictions, n_params, training_s=10.0, n_evaluations=n_evaluations)


def pairs(found: Verdict) -> dict[frozenset[str], tuple[float, float]]:
    """The corrected p value and the size of each printed difference, by the pair's names."""
    best = found.settings[0].name
    return {
        frozenset((best, pair.setting)): (pair.differences["accuracy"].p_holm, abs(pair.differences["accuracy"].value))
        for pair in found.pairs
    }


# Two runs -----------------------------------------------------------------------------------------------------------

counts = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400))


def rights(n_first: int, n_second: int, n_both: int) -> tuple[np.ndarray, np.ndarray]:
    kinds = np.repeat([0, 1, 2], [n_first, n_second, n_both])
    return kinds != 1, kinds != 0


@given(counts)
def test_mcnemar_is_the_binomial_test_and_symmetric(found: tuple[int, int, int]) -> None:
    first, second = rights(*found)
    forth, back = mcnemar(first, second), mcnemar(second, first)
    n_discordant = found[0] + found[1]
    assert forth.p == pytest.approx(binomtest(found[0], n_discordant).pvalue if n_discordant else 1, rel=1e-12)
    assert back.p == forth.p
    assert back.value == -forth.value
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=1e-9)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1


@given(counts)
def test_the_interval_of_two_runs_holds_0_where_the_test_sees_nothing(found: tuple[int, int, int]) -> None:
    result = mcnemar(*rights(*found))
    assert result.p <= 0.05 or result.p < 0.15 or result.low < 0 < result.high


@pytest.mark.parametrize(("n_rows", "shares"), [(100, (0.05, 0.02)), (640, (0.03, 0.02)), (60, (0.3, 0.1))])
def test_the_interval_of_two_runs_holds_the_truth(n_rows: int, shares: tuple[float, float]) -> None:
    truth = shares[0] - shares[1]
    draws = np.random.default_rng(0).multinomial(n_rows, [*shares, 1 - sum(shares)], size=400)
    found = [mcnemar(*rights(*draw)) for draw in draws.tolist()]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.92


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    raw = np.array(p_values)
    corrected = holm(raw)
    assert (raw <= corrected).all()
    assert (corrected <= np.minimum(len(raw) * raw, 1)).all()
    assert all(corrected[i] <= corrected[j] for i, j in pairwise(np.argsort(raw, kind="stable")))


def test_holm_rejects_what_its_steps_reject() -> None:
    rng = np.random.default_rng(0)
    for raw in rng.beta(0.3, 3, (50, 6)):
        steps = 0.05 / np.arange(6, 0, -1)
        ordered = np.sort(raw)
        n_rejected = int(np.argmax([*(ordered > steps), True]))
        assert (holm(raw) <= 0.05).sum() == n_rejected


def test_the_rows_needed_give_the_power_that_they_promise() -> None:
    first, second = 0.04, 0.02
    n_rows = rows_needed(first - second, first + second)
    draws = np.random.default_rng(0).multinomial(n_rows or 0, [first, second, 1 - first - second], size=600)
    power = np.mean([binomtest(b, b + c).pvalue <= 0.05 for b, c, _ in draws.tolist()])
    assert 0.74 < power < 0.86  # the exact test has a little less than its approximation


def test_no_number_of_rows_separates_what_is_equal() -> None:
    assert rows_needed(0.0, 0.1) is None
    assert rows_needed_with_seeds(0.0, Spread(1e-4, 500), 1) is None
    assert rows_needed_with_seeds(1e-5, Spread(1e-4, 500, own=1e-4, seeds=1e-4, dof=2), 3) is None


@given(st.floats(0.001, 0.05), st.floats(1, 4))
def test_a_larger_difference_needs_fewer_rows(value: float, factor: float) -> None:
    assert rows_needed(value * factor, 0.25) <= rows_needed(value, 0.25)
    assert rows_needed(-value, 0.25) == rows_needed(value, 0.25)


# Rows and seeds drawn anew ------------------------------------------------------------------------------------------


def test_the_resampled_metrics_start_at_the_scores() -> None:
    predictions = [run(seed) for seed in range(2)]
    found = resample(predictions)
    for metric in METRICS:
        key, runs = metric, predictions
        if metric == "scaled_log_loss":
            key, runs = "log_loss", [metrics.tempered(each).predictions for each in predictions]
        scores = [metrics.score(each)[key].value for each in runs]
        assert found[metric].values == pytest.approx(scores, rel=1e-12)


def test_a_draw_is_the_metric_of_the_rows_it_takes() -> None:
    predictions = run(1)
    draw = 7
    rows = np.repeat(np.arange(300), weights(300)[draw])
    taken = Predictions([str(i) for i in rows], predictions.label_ids[rows], predictions.probs[rows])
    for metric, score in metrics.score(taken).items():
        if metric in METRICS:
            assert resample([predictions])[metric].draws[0, draw - 1] == pytest.approx(score.value, rel=1e-12)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_difference_changes_its_sign_with_the_order(n_seeds: int) -> None:
    first, second = (resample([run(10 * k + s, 1 + k) for s in range(n_seeds)])["macro_f1"] for k in range(2))
    forth, back = difference(first, second, 300), difference(second, first, 300)
    assert (back.value, back.low, back.high, back.p) == (-forth.value, -forth.high, -forth.low, forth.p)


def test_more_seeds_and_more_rows_make_narrower_intervals() -> None:
    def half(n_seeds: int, n_rows: int) -> float:
        rng = np.random.default_rng(1)
        rows = rng.normal(0, (0.05 / n_rows) ** 0.5, (n_seeds, 1000))
        levels = np.linspace(-0.01, 0.01, n_seeds) if n_seeds > 1 else np.zeros(1)
        return spread_of(n_rows, Resampled(levels, levels[:, None] + rows)).half

    assert half(8, 1000) < half(3, 1000)
    assert half(3, 100_000) < half(3, 1000)


def test_what_seeds_add_does_not_count_again_what_rows_put_between_them() -> None:
    draws = np.random.default_rng(3).normal(0, 0.01, (3, 1000))
    of_rows = (draws - draws.mean(axis=0)).var(axis=1, ddof=1).sum() / 2
    for times, expected in ((1, 0.0), (2, 3 * of_rows / 3)):
        levels = times * of_rows**0.5 * np.array([-1.0, 0.0, 1.0])  # of the variance times² of_rows
        assert spread_of(500, Resampled(levels, draws)).seeds == pytest.approx(expected, abs=1e-12)


def test_identical_seeds_are_as_good_as_one() -> None:
    one, other = run(1), run(2)
    single = difference(resample([one])["accuracy"], resample([other])["accuracy"], 300)
    triple = difference(resample([one] * 3)["accuracy"], resample([other] * 3)["accuracy"], 300)
    assert triple.p == pytest.approx(single.p)


@pytest.mark.parametrize(("n_rows", "seed_sd"), [(500, 0.0), (500, 0.01), (20_000, 0.01)])
def test_tied_settings_are_told_apart_in_at_most_5_percent(n_rows: int, seed_sd: float) -> None:
    """Sums in place of rows: what seeds and rows add is normal, as it is for means of many rows."""
    rng, found, n_seeds = np.random.default_rng(0), [], 3
    noise = rng.normal(0, 1, (2, n_seeds, 1000)) * (0.02 / n_rows) ** 0.5
    for _ in range(600):
        settings = []
        for draws in noise:
            levels = rng.normal(0, seed_sd, n_seeds) + rng.normal(0, (0.02 / n_rows) ** 0.5, n_seeds)
            settings.append(Resampled(levels, levels[:, None] + draws))
        found.append(difference(*settings, n_rows).p <= 0.05)
    assert np.mean(found) <= 0.05


def test_with_two_settings_nothing_is_borrowed_and_no_variance_is_lowered() -> None:
    rng = np.random.default_rng(1)
    for n_settings in (1, 2, 3, 20):
        variances = rng.chisquare(2, n_settings) / 2
        found = moderated(variances.tolist(), [2] * n_settings)
        if n_settings < FEWEST:
            assert [each.variance for each in found] == variances.tolist()
            assert {each.dof for each in found} == {2}
        assert all(each.variance >= own for each, own in zip(found, variances, strict=True))
        assert all(2 <= each.dof <= 2 * n_settings for each in found)
    assert moderated([0.0, 0.0, 0.0], [2, 2, 2])[0].variance == 0
    far = moderated([1e-9, 1.0, 1e3], [2, 2, 2])
    assert far[0].dof < 4, "so different: little is borrowed"


def test_variances_that_differ_by_chance_alone_are_known_with_all_degrees_of_freedom() -> None:
    variances = np.random.default_rng(2).chisquare(2, 400) / 2
    alike, uneven = (moderated((factor * variances).tolist(), [2] * 400) for factor in (1.0, np.resize([1, 25], 400)))
    assert alike[0].dof > 10 > 4 > uneven[0].dof - 2
    assert [each.variance for each in alike] >= [0.5] * 400


@pytest.mark.parametrize(("sds", "times"), [((1.0, 1.0), 3), ((1.0, 0.2), 1)], ids=["alike", "uneven"])
def test_of_many_settings_three_seeds_find_more_and_5_percent_at_most_are_false(
    sds: tuple[float, float], times: int
) -> None:
    """Seeds alone, as on very many rows: sums of normal variables. Draws of rows are all alike, so two are enough."""
    rng, false, found = np.random.default_rng(0), {"own": 0, "borrowed": 0}, {"own": 0, "borrowed": 0}
    draws, n = np.zeros((3, 2)), 200
    for _ in range(n):
        levels = rng.normal(0, 1, (6, 3)) * np.resize(sds, 6)[:, None]
        for counts, advantage in ((false, 0.0), (found, 6.0)):
            levels[1] += advantage
            own = [{"accuracy": Resampled(each, each[:, None] + draws)} for each in levels]
            for how, settings in (("own", own), ("borrowed", borrowing(own))):
                pairs = combinations([each["accuracy"] for each in settings], 2)
                p = holm(np.array([difference(*pair, 10**6).p for pair in pairs]))
                counts[how] += (p <= 0.05).sum() if advantage else (p <= 0.05).any()
    assert max(false.values()) <= 0.05 * n
    assert found["borrowed"] > times * found["own"]


@pytest.mark.parametrize(("n_rows", "truth"), [(30, 0.99), (100, 0.99), (640, 0.99), (640, 0.9)])
def test_the_mean_of_seeds_holds_the_truth_near_one(n_rows: int, truth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Temperatures, which take most of the time, are no part of an accuracy.
    monkeypatch.setattr(metrics, "tempered", lambda run: metrics.Scaling(run, ()))
    rng, held, n = np.random.default_rng(0), 0, 200
    classes = np.zeros(n_rows, dtype=np.int64)
    for _ in range(n):
        row = rng.normal(0, 1, n_rows)
        bound = -float(stats.norm.ppf(truth)) * 1.06
        right = [row + rng.normal(0, 0.35, n_rows) > bound for _ in range(3)]
        runs = [Predictions([""] * n_rows, classes, np.stack([each, ~each], axis=1) * 0.8 + 0.1) for each in right]
        (found,) = conclude([setting("a", *runs)]).settings
        held += found.scores["accuracy"].low <= truth <= found.scores["accuracy"].high
    assert 0.93 * n <= held


def test_beside_runs_of_one_seed_stands_how_far_seeds_put_them_apart() -> None:
    several = [setting(str(k), *(run(9 * k + i) for i in range(3))) for k in range(2)]
    (said,) = [note for note in conclude([*several, setting("alone", run(50))]).notes if "seeds alone" in note]
    assert "accuracy by" in said
    assert "points apart in 95 of 100 cases" in said
    assert not any("seeds alone" in note for note in conclude(several).notes)
    assert not any("seeds alone" in note for note in conclude([setting("a", run(1)), setting("b", run(2))]).notes)


def test_the_best_of_many_checkpoints_is_no_false_winner() -> None:
    """Two runs of one accuracy, each the best of 8 checkpoints on the rows that are compared."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        shared, chosen = rng.normal(0, 0.9, 640), []
        for _ in range(2):
            of_run = shared + rng.normal(1.4, 0.35, 640)
            checkpoints = of_run + rng.normal(0, 0.2, (8, 640)) > 0
            chosen.append(checkpoints[checkpoints.sum(axis=1).argmax()])
        found.append(mcnemar(*chosen).p <= 0.05)
    assert np.mean(found) <= 0.05


# The conclusion -----------------------------------------------------------------------------------------------------


def test_identical_predictions_are_a_tie_with_p_1() -> None:
    for n_seeds in (1, 3):
        runs = [run(seed) for seed in range(n_seeds)]
        found = conclude([setting("a", *runs), setting("b", *runs)])
        assert found.group == ("a", "b")
        assert all(each.p_holm == 1 for each in found.pairs[0].differences.values())
        assert not any(each.basis == "seen" for each in found.rows_needed)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_order_of_settings_does_not_matter(n_seeds: int) -> None:
    given = [setting(str(k), *(run(10 * k + s, 1 + 0.2 * k) for s in range(n_seeds))) for k in range(4)]
    forth, back = conclude(given), conclude(given[::-1])
    assert [each.name for each in forth.settings] == [each.name for each in back.settings]
    assert forth.pairs == back.pairs
    assert forth.settings == back.settings
    assert (forth.group, forth.recommended, forth.rows_needed) == (back.group, back.recommended, back.rows_needed)


def test_the_cheapest_of_the_group_is_recommended_and_nothing_worse() -> None:
    good, same, poor = run(1, 2.0), run(2, 2.0), run(3, 0.0)
    found = conclude([setting("good", good), setting("same", same, n_params=50), setting("poor", poor, n_params=1)])
    assert set(found.group) == {"good", "same"}
    assert found.recommended == "same"


def test_log_loss_breaks_ties_and_a_clock_decides_nothing() -> None:
    good = run(1, 2.0)
    sure = Predictions(good.ids, good.label_ids, good.probs**3 / (good.probs**3).sum(axis=1, keepdims=True))
    by_loss = sorted((good, sure), key=lambda each: metrics.score(each)["log_loss"].value)
    names = {id(each): name for each, name in ((good, "good"), (sure, "sure"))}
    for seconds in (1.0, 100.0):
        found = conclude([replace(setting("good", good), training_s=seconds), setting("sure", sure)])
        assert [each.name for each in found.settings] == [names[id(each)] for each in by_loss]
        assert found.recommended == names[id(by_loss[0])]


def test_nothing_is_recommended_on_test() -> None:
    assert conclude([setting("a", run(1)), setting("b", run(2))], "test").recommended is None


def test_one_seed_speaks_of_these_two_runs_and_three_of_settings() -> None:
    one = conclude([setting("a", run(1)), setting("b", run(2))])
    assert one.pairs[0].about == "runs"
    assert any("these two runs" in note for note in one.notes)
    mixed = conclude([setting("a", run(1), run(3), run(4)), setting("b", run(2))])
    assert mixed.pairs[0].about == "runs"
    both = conclude(
        [*(setting(str(k), *(run(3 * k + i, 2.0) for i in range(3))) for k in (1, 2)), setting("poor", run(5, 0.0))]
    )
    assert any("1 of the 3 settings has one seed" in note for note in both.notes)
    assert both.about == "settings", "the third has runs alone"
    three = conclude([setting(name, *(run(seed + k) for seed in range(3))) for k, name in ((0, "a"), (9, "b"))])
    assert three.pairs[0].about == "settings"
    assert not any("runs" in note for note in three.notes)


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize("quality", [0.0, 1.0, 1.8, 2.0])
def test_more_rows_are_asked_for_where_the_two_best_tie_and_nowhere_else(quality: float, n_seeds: int) -> None:
    good, other = (tuple(run(10 * k + s, q) for s in range(n_seeds)) for k, q in ((1, 2.0), (2, quality)))
    found = conclude([setting("good", *good), setting("other", *other)])
    is_tied = found.pairs[0].is_tied
    assert is_tied == (len(found.group) == 2)
    said = rows_sentences(found, {"good": "1", "other": "2"})
    assert bool(said) == is_tied
    assert bool(found.rows_needed) == is_tied == bool(rows_tables(found, {"good": "1", "other": "2"}))
    assert [each.difference for each in found.rows_needed] == sorted(each.difference for each in found.rows_needed)
    if any(each.basis == "seen" for each in found.rows_needed):
        enough = [replace(each, by_score=Needed(found.n_rows, n_seeds)) for each in found.rows_needed]
        (said,) = rows_sentences(replace(found, rows_needed=tuple(enough)), {"good": "1", "other": "2"})
        assert "would separate" not in said, "rows that are there are not asked for"
        assert "compare these two alone" in said


def test_adding_settings_never_makes_a_pair_more_significant() -> None:
    given = [setting(str(k), run(k, 1 + 0.4 * k)) for k in range(5)]
    few, many = pairs(conclude(given[2:])), pairs(conclude(given))
    assert all(many[pair][0] >= p for pair, (p, _) in few.items())


def test_unequal_numbers_of_evaluations_are_said() -> None:
    found = conclude([setting("a", run(1), n_evaluations=20), setting("b", run(2))])
    assert any("1 to 20 evaluations" in note for note in found.notes)


def test_one_row_is_refused() -> None:
    with pytest.raises(DataError, match="at least two"):
        conclude([setting("a", run(1, label_ids=LABEL_IDS[:1])), setting("b", run(2, label_ids=LABEL_IDS[:1]))])


def test_the_page_shows_what_was_measured() -> None:
    page = (Path(__file__).parent.parent / "docs" / "comparison.md").read_text(encoding="utf-8")
    results = kept("comparison")
    lines = [line for line in benchmark.tables(results).splitlines() if line.startswith("|")]
    assert len(lines) > len(benchmark.CASES)
    assert all(line in page for line in lines)


@pytest.mark.parametrize("case", [name for name in benchmark.MANY_CASES if name.startswith("tied")])
def test_no_tied_case_of_many_settings_was_measured_above_5_percent(case: str) -> None:
    for of_rows in kept("comparison")["many settings"][case].values():
        for rates in of_rows.values():
            assert rates["borrowed"]["percent"] <= 5


@pytest.mark.parametrize("case", [name for name in benchmark.CASES if name.startswith("tied") and "12" not in name])
def test_no_tied_case_was_measured_above_5_percent(case: str) -> None:
    results = kept("comparison")[case]
    for n_seeds in ("3 seeds", "5 seeds"):
        assert all(rates["compare"]["percent"] <= 5 for rates in results[n_seeds].values())


# Run folders --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Tiny runs: two seeds of two learning rates, one of other rows."""
    folder = tmp_path_factory.mktemp("compared")
    rows = write_csv(folder / "rows.csv", 120)
    common = [f"model.name={encoders['mpnet']}", f"data.source={rows}", f"out={folder / 'runs'}", "data.test=20"]
    common += ["train.steps=4", "train.evaluate_every=2", "train.precision=fp32", "data.validation=40"]
    special = {
        "a0": [],
        "a1": ["train.seed=1"],
        "b0": ["train.learning_rate=0.01"],
        "b1": ["train.learning_rate=0.01", "train.seed=1"],
        "rows": ["data.seed=3"],
        "other": [
            "adapter.sites=value",
            "adapter.rank=1",
            "adapter.alpha=3",
            "train.learning_rate=0.01",
            "train.batch_size=8",
            "train.schedule=cosine",
            "train.warmup=2",
        ],
    }
    return {
        name: submillion.train(submillion.load_config(overrides=[*common, *overrides]))
        for name, overrides in special.items()
    }


def copied(run: Run, folder: Path) -> Run:
    return Run(Path(shutil.copytree(run.path, folder / run.name)))


def test_runs_that_differ_in_their_seed_are_one_setting_named_by_what_differs(trained: dict[str, Run]) -> None:
    given = [trained[name].path for name in ("b1", "a0", "b0", "a1")]
    found = submillion.compare(given)
    assert {each.name: len(each.runs) for each in found.settings} == {
        "train.learning_rate=0.0005": 2,
        "train.learning_rate=0.01": 2,
    }
    assert found.n_rows == 40
    assert found.settings[0].after_selection
    again = submillion.compare(given[::-1])
    assert [each.runs for each in again.settings] == [each.runs for each in found.settings]
    assert again.pairs == found.pairs


def test_settings_that_differ_in_many_keys_are_named_by_their_runs(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [trained[name] for name in ("a0", "a1", "other")]
    found = submillion.compare(runs)
    assert {each.name for each in found.settings} == {trained["a0"].name, trained["other"].name}
    assert {each.keys["train.schedule"] for each in found.settings} == {"linear", "cosine"}
    file = tmp_path / "page.html"
    assert call("compare", *(run.path for run in runs), "--report", file) == 0
    text, page = capsys.readouterr().out, file.read_text(encoding="utf-8")
    assert len(found.keys) == 7
    for key in found.keys:
        row = [key, *(each.keys[key] for each in found.settings)]
        assert row in [line.split() for line in text.splitlines()]
        assert all(cell in page for cell in row)
    assert submillion.compare([trained["a0"], trained["b0"]]).keys == (), "few keys are in the name"
    submillion.compare(runs, report=file)
    file.write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        submillion.compare(runs, report=file)
    with pytest.raises(ConfigError, match="is inside the run folder"):
        submillion.compare(runs, report=trained["a0"].path / "report.html", force=True)
    submillion.compare(runs, report=file, force=True)
    assert file.read_text(encoding="utf-8") == page


def test_runs_of_one_setting_have_nothing_to_compare_with(trained: dict[str, Run]) -> None:
    found = submillion.compare([trained["a0"], trained["a1"]])
    assert len(found.settings) == 1
    assert found.pairs == ()
    assert any("one setting" in note for note in found.notes)


def test_the_command_prints_the_table_the_tests_and_what_to_take(
    trained: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", trained["a0"].name, trained["b0"].path, "--out", trained["a0"].path.parent) == 0
    out = capsys.readouterr().out
    scores = {run.scores()["validation"]["accuracy"] for run in (trained["a0"], trained["b0"])}
    assert all(interval(score) in out for score in scores)
    for part in ("after selection", "train.learning_rate=0.0", "These 2 runs", "p (Holm)", "Take ", "rows"):
        assert part in out


def test_json_says_the_same_as_python(trained: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [trained[name].path for name in ("a0", "a1", "b0", "b1")]
    assert call("compare", *paths, "--json") == 0
    printed, found = json.loads(capsys.readouterr().out), submillion.compare(paths)
    assert printed["recommended"] == found.recommended
    assert printed["tie_group"] == list(found.group)
    assert [each["setting"] for each in printed["settings"]] == [each.name for each in found.settings]
    (printed_pair,), (pair,) = printed["against_best"], found.pairs
    assert printed_pair["differences"]["accuracy"]["p_holm"] == pair.differences["accuracy"].p_holm
    assert printed_pair["about"] == "settings"


def test_each_opening_of_the_test_split_is_noted(trained: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    log = trained["a0"].path.parent / "test-reads.jsonl"
    before = log.read_text().splitlines()
    assert call("compare", trained["a0"].path, trained["b0"].path) == 0
    assert log.read_text().splitlines() == before
    assert call("compare", trained["a0"].path, trained["b0"].path, "--split", "test") == 0
    out = capsys.readouterr().out
    assert "othing is recommended" in out
    assert "20 test rows" in out
    assert f"opened {len(before) + 2 - 1} times" in out  # one line is of the run on other rows
    noted = [json.loads(line) for line in log.read_text().splitlines()[len(before) :]]
    assert {(entry["run"], entry["purpose"]) for entry in noted} == {
        (trained["a0"].name, "compare"),
        (trained["b0"].name, "compare"),
    }


def test_runs_on_other_rows_are_refused_by_fingerprint_or_by_ids(trained: dict[str, Run], tmp_path: Path) -> None:
    other = trained["rows"].read_json("data.json")["validation_fingerprint"][:8]
    with pytest.raises(RunError, match=f"different validation rows: fingerprints .*{other}"):
        submillion.compare([trained["a0"], trained["rows"]])
    old = copied(trained["rows"], tmp_path)  # as an older version left it: without the fingerprint
    old.write_json("data.json", old.read_json("data.json") | {"validation_fingerprint": None})
    old.mark_done()
    with pytest.raises(RunError, match=r"40 and 40, of which \d+ are in only one \(ids r"):
        submillion.compare([trained["a0"], old])


def test_runs_with_other_labels_for_the_same_rows_are_refused(trained: dict[str, Run], tmp_path: Path) -> None:
    changed = copied(trained["b0"], tmp_path)
    found = changed.load_predictions("validation")
    changed.save_predictions("validation", Predictions(found.ids, (found.label_ids + 1) % 3, found.probs))
    changed.mark_done()
    with pytest.raises(RunError, match="different labels for validation row r"):
        submillion.compare([trained["a0"], changed])
    changed.write_json("labels.json", ["art", "money", "weather"])
    changed.mark_done()
    with pytest.raises(RunError, match="weather"):
        submillion.compare([trained["a0"], changed])


def test_the_order_of_saved_rows_does_not_matter(trained: dict[str, Run], tmp_path: Path) -> None:
    turned = copied(trained["b0"], tmp_path)
    found = turned.load_predictions("validation")
    turned.save_predictions("validation", Predictions(found.ids[::-1], found.label_ids[::-1], found.probs[::-1]))
    turned.mark_done()
    assert submillion.compare([trained["a0"], turned]).pairs == submillion.compare([trained["a0"], trained["b0"]]).pairs


def test_refusals_come_together_and_name_the_runs(
    trained: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished, damaged = copied(trained["a1"], tmp_path), copied(trained["b1"], tmp_path)
    (unfinished.path / "DONE").unlink()
    (damaged.path / "predictions-validation.parquet").write_bytes(b"")
    assert call("compare", trained["a0"].path, unfinished.path, damaged.path) == 1
    error = capsys.readouterr().err
    assert f"{unfinished.path} is not finished" in error
    assert f"{damaged.path}/predictions-validation.parquet is not what training wrote" in error


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (["a0"], 1, "at least two"),
        (["a0", "a0"], 1, "is given twice"),
        (["a0", "nowhere"], 1, "nowhere"),
        ([], 2, "RUN"),
        (["a0", "b0", "--split", "train"], 2, "--split"),
    ],
)
def test_mistakes_have_their_exit_code(
    trained: dict[str, Run], capsys: pytest.CaptureFixture[str], names: list[str], code: int, message: str
) -> None:
    words = [str(trained[name].path) if name in trained else name for name in names]
    assert call("compare", *words) == code
    assert message in capsys.readouterr().err


def test_a_copy_of_a_run_is_no_second_seed(trained: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a copy"):
        submillion.compare([trained["a0"], copied(trained["a0"], tmp_path), trained["b0"]])


@pytest.mark.parametrize("n_rows", [2, 5, 100])
def test_certainty_does_not_come_from_runs_that_never_vary(n_rows: int) -> None:
    spread = Spread(rows=0.0, n_rows=n_rows)
    assert spread.p_value(0.0) == 1.0
    assert spread.p_value(1.0) == min(1.0, 2 * 0.5**n_rows)


# Which may be the best ----------------------------------------------------------------------------------------------


def of_normal(rng: np.random.Generator, means: np.ndarray, n_seeds: int, apart: float) -> list[Resampled]:
    """Settings on 400 rows, of which each errs on rows of its own by `apart`; several seeds vary by 0.01."""
    drawn = weights(400).astype(np.float64)
    shared = rng.normal(0, 1, 400)
    found = []
    for mean in means:
        of_setting = shared + rng.normal(0, apart, 400)
        rows = (
            mean + rng.normal(0, 0.01 * (n_seeds > 1), (n_seeds, 1)) + of_setting + rng.normal(0, 0.1, (n_seeds, 400))
        )
        sums = rows @ drawn.T / 400
        found.append(Resampled(sums[:, 0], sums[:, 1:]))
    return found


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_best_and_each_tied_with_it_may_be_the_best_in_95_percent(n_seeds: int) -> None:
    rng, n, kept, size = np.random.default_rng(0), 40, 0.0, 0
    for _ in range(n):
        kept += may_be_best(of_normal(rng, np.zeros(6), n_seeds, 0.3)).mean()
    assert kept >= 0.88 * n, "of 40 samples; of more 0.94 to 0.99"
    kept = 0.0
    ladder = np.linspace(0, 0.2, 8)
    for _ in range(n):
        found = may_be_best(of_normal(rng, ladder, n_seeds, 0.3))
        kept, size = kept + found[-1], size + int(found.sum())
    assert kept >= 0.93 * n
    assert size < 7 * n, "those far below are left out"


def test_a_setting_that_is_worse_on_every_row_is_not_the_best_and_one_that_is_equal_is() -> None:
    rows = np.random.default_rng(1).normal(0, 1, 1001)
    one, worse = (Resampled(values[:1], values[None, 1:]) for values in (rows, rows - 0.1))
    assert may_be_best([one, worse]).tolist() == [True, False]
    assert may_be_best([one, one]).tolist() == [True, True]
    assert may_be_best([one, worse], sign=-1.0).tolist() == [False, True], "of losses"
