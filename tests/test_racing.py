"""Laws of a race: whom it drops, whom it may not, that survivors are ordinary runs, that it goes on where it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.results import kept
from submillion.config import TrainConfig
from submillion.errors import ConfigError
from submillion.judging.comparison import EVALUATE_EVERY, LEVEL, RUNGS, SHARES, Course, dropped, expected_cost
from submillion.judging.comparison.racing import gain_left, log_capital
from submillion.reports import sweep as pages
from submillion.reports.sweep import figures
from submillion.runs import EvalRecord, Run, packed_losses, study
from submillion.sweeps import racing
from submillion.sweeps.sitting import sweep
from submillion.sweeps.study import How, Sweep, prepare
from submillion.training.steps import length
from tests.data import write_csv
from tests.kit.studies import settings, trained, write_study

__all__ = ["settings"]  # a fixture

MOST = 6.0


def losses(mean: float, rng: np.random.Generator, n_rows: int = 640) -> np.ndarray:
    """Rows' losses as uneven as those of a classifier: most near 0, some at the most that there can be."""
    uneven = rng.exponential(1, n_rows) ** 2 / 2
    return np.minimum(mean * uneven, MOST)


def flat(mean: float, rng: np.random.Generator) -> Course:
    return Course(dict.fromkeys(SHARES, losses(mean, rng)))


@pytest.mark.parametrize("n_rows", [100, 1000])
def test_a_mean_that_is_not_above_zero_is_said_to_be_in_fewer_cases_than_the_level(n_rows: int) -> None:
    rng = np.random.default_rng(n_rows)
    above = []
    for _ in range(1000):
        first, second = losses(0.4, rng, n_rows), losses(0.4, rng, n_rows)
        above.append(log_capital(first - second, MOST))
    assert np.mean(np.exp(above)) < 1.5
    assert np.mean(np.array(above) >= np.log(1 / LEVEL)) <= LEVEL


def test_evidence_does_not_depend_on_the_order_of_rows_and_grows_with_them() -> None:
    rng = np.random.default_rng(1)
    excess = rng.uniform(-1, 1.4, 400)
    assert log_capital(rng.permutation(excess), 1.5) == pytest.approx(log_capital(excess, 1.5))
    assert log_capital(np.tile(excess, 2), 1.5) > log_capital(excess, 1.5) > 0
    assert log_capital(-excess, 1.5) < 0


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_what_is_left_to_gain_is_that_of_a_power_of_the_steps(exponent: float) -> None:
    def fall(share: float) -> float:
        return -np.log(share) if exponent == 0 else share**-exponent

    for rung in RUNGS:
        last = fall(rung / 2) - fall(rung)
        assert gain_left(rung, exponent) * last == pytest.approx(fall(rung) - fall(1.0))


def test_of_equally_good_trials_none_is_dropped_in_most_races_though_every_pair_is_tested_at_every_rung() -> None:
    rng = np.random.default_rng(2)
    n_dropped = 0
    for _ in range(40):
        courses = {number: flat(0.4, rng) for number in range(5)}
        n_dropped += any(dropped(courses, rung, 5, MOST) for rung in RUNGS)
    assert n_dropped / 40 <= LEVEL


def test_a_trial_that_learns_nothing_is_dropped_at_the_first_rung_and_names_who_is_ahead() -> None:
    rng = np.random.default_rng(3)
    hopeless = Course(dict.fromkeys(SHARES, np.full(640, 1.386)))
    courses = {0: flat(0.4, rng), 5: hopeless, 7: flat(0.42, rng)}
    found = dropped(courses, RUNGS[0], 3, MOST)
    assert [*found] == [5]
    assert found[5].rival in (0, 7)
    assert found[5].gap == pytest.approx(1.386 - courses[found[5].rival].losses[RUNGS[0]].mean())
    assert found[5].gain == 0


def test_a_slow_starter_that_will_be_ahead_at_its_pace_is_kept() -> None:
    rng = np.random.default_rng(4)
    rows = losses(1.0, rng, 2000)
    fast = Course(dict.fromkeys(SHARES, 0.4 * rows))
    # It gains 0.2 with each doubling, and is at 0.3 in the end.
    slow = Course({share: (0.3 + 0.2 * np.log2(1 / share)) * rows for share in SHARES})
    for rung in RUNGS:
        assert not dropped({0: fast, 1: slow}, rung, 2, MOST)
    stuck = Course({share: (0.9 + 0.01 * np.log2(1 / share)) * rows for share in SHARES})
    assert [*dropped({0: fast, 1: stuck}, RUNGS[0], 2, MOST)] == [1]


def test_a_trial_on_a_plateau_is_kept_while_it_may_fall_as_its_rival_did() -> None:
    rows = losses(1.0, np.random.default_rng(7), 2000)
    level = {share: 1.3 if share <= 1 / 8 else 0.4 for share in SHARES}
    rival, late = Course({share: level[share] * rows for share in SHARES}), Course(dict.fromkeys(SHARES, 1.3 * rows))
    assert not dropped({0: rival, 1: late}, 1 / 4, 2, MOST), "from 1/16 on the rival made it in as many doublings"
    assert [*dropped({0: rival, 1: late}, 1 / 2, 2, MOST)] == [1]


def test_a_trial_in_its_warm_up_and_one_that_was_good_before_are_kept() -> None:
    rng = np.random.default_rng(5)
    good, bad = losses(0.3, rng), np.full(640, 1.386)
    at = RUNGS[0]
    courses = {0: Course(dict.fromkeys(SHARES, good)), 1: Course(dict.fromkeys(SHARES, bad), warmup=0.2)}
    assert not dropped(courses, at, 2, MOST)
    assert [*dropped(courses, 1 / 2, 2, MOST)] == [1]
    overfitted = Course({share: good if share < at else bad for share in SHARES})
    assert not dropped({0: courses[0], 1: overfitted}, at, 2, MOST), "its best checkpoint is kept"


def test_the_more_trials_began_the_more_evidence_it_takes() -> None:
    rng = np.random.default_rng(6)
    rows = losses(1.0, rng, 600)
    courses = {0: Course(dict.fromkeys(SHARES, 0.3 * rows)), 1: Course(dict.fromkeys(SHARES, 0.3 * rows + 0.3))}
    assert [n for n in (2, 10**9) if dropped(courses, RUNGS[1], n, MOST)] == [2]


@pytest.mark.parametrize(
    ("n_steps", "every", "expected"), [(30, 0.1, 3), (64, 1 / 16, 4), (100, 1 / 16, 7), (6, 1 / 16, 1)]
)
def test_evaluations_may_come_after_a_share_of_the_steps(n_steps: int, every: float, expected: int) -> None:
    train = TrainConfig(steps=n_steps, evaluate_every=every)
    assert length(train, np.full(200, 10), 100).evaluate_every == expected


class Records:
    """Evaluations at these steps of 24, each with the losses that its number says."""

    def __init__(self, steps: list[int]) -> None:
        self.found = [
            (step / 24, EvalRecord(step, 1.0, 0.1, 1e-3, 0, 0.1, 0.1, {}, False, losses=self.of(step)))
            for step in steps
        ]

    @staticmethod
    def of(step: int) -> str:
        return packed_losses(np.full(4, float(step)))

    def at(self, share: float, rung: float, *, is_done: bool = False) -> float | None:
        losses = racing._losses_at(self.found, share, rung, is_done)  # pyright: ignore[reportPrivateUsage]
        return None if losses is None else float(losses[0])


def test_a_rung_looks_back_at_no_later_evaluation_than_it_means() -> None:
    """A gain that took less than a doubling would pass for a whole one's, and slow starters be dropped."""
    records = Records([4, 8, 10, 12, 20])
    assert records.at(1 / 2, rung=1 / 2) == 12
    assert records.at(1 / 4, rung=1 / 2) == 4, "not 8, which comes after a quarter"
    assert records.at(3 / 4, rung=3 / 4) == 20, "the first one at the rung or after it"
    assert records.at(1, rung=1) is None, "it has not come so far"
    assert records.at(1, rung=1, is_done=True) == 20, "ended early, it stays as it was"


def test_copies_of_rows_are_no_more_evidence_than_the_rows(race: tuple[Path, Sweep]) -> None:
    _, found = race
    folders = found.outcomes[0].folders
    alone = racing.course(folders, RUNGS[0])
    assert alone is not None
    n = len(alone.losses[RUNGS[0]])
    pairs = racing.course(folders, RUNGS[0], np.arange(n) // 2)
    assert pairs is not None
    for share, rows in alone.losses.items():
        padded = np.append(rows, np.zeros(n % 2))
        np.testing.assert_allclose(pairs.losses[share], padded.reshape(-1, 2).sum(axis=1) / 2)
    copied = np.repeat(losses(0.2, np.random.default_rng(0), 64) - 0.15, 10)
    of_groups = np.bincount(np.arange(640) // 10, copied) / 10
    assert log_capital(of_groups, MOST) == pytest.approx(log_capital(copied[::10], MOST))


RACE = {"kind": "race", "factors": [{"key": "train.learning_rate", "values": [0.01, 0.0000001]}]}


@pytest.fixture(scope="module")
def base(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 400)
    own = {"data.source": str(rows), "train.steps": 48, "train.batch_size": 32, "train.evaluate_every": None}
    return {**own, "adapter.method": "none", "data.validation": 0.4}


@pytest.fixture(scope="module")
def race(
    settings: dict[str, Any], base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Sweep]:
    file = write_study(tmp_path_factory.mktemp("race"), settings, base=base, **RACE)
    return file, sweep(file)


def records(run: Path) -> list[Any]:
    """What a run's records say, without its times."""
    return [
        (each.step, each.loss, getattr(each, "losses", None), getattr(each, "scores", None))
        for each in Run(run).records()
    ]


def test_a_hopeless_rate_is_dropped_and_its_run_stays_where_it_paused(race: tuple[Path, Sweep]) -> None:
    _, found = race
    assert [outcome.state for outcome in found.outcomes] == ["done", "ruled out"]
    out = found.outcomes[1]
    assert str(out.why).startswith("ruled out: after 3/4 of its steps its log loss is ")
    assert "above that of learning_rate=0.01" in str(out.why)
    assert Run(out.folders[0]).records()[-1].step == 36
    assert Run(out.folders[0]).state == "interrupted"
    assert "the race trained 84 of the 96 steps of a grid (88 %), and dropped 1 of 2 trials" in found.notes
    record = study.read(found.folder)
    assert [point.share for point in record.trials[1].course] == [n * EVALUATE_EVERY for n in range(1, 13)]
    assert [point.share for point in record.trials[0].course] == [n * EVALUATE_EVERY for n in range(1, 17)]


def test_the_page_shows_where_trials_were_dropped(race: tuple[Path, Sweep]) -> None:
    report = pages.read(race[1].folder)
    section = next(each for each in pages.sections(report) if each.anchor == "race")
    assert section.title == "1 of 2 trials were dropped on the way"
    assert section.tables[0].rows == [
        ("1/4 of the steps", "2", "0"),
        ("1/2 of the steps", "2", "0"),
        ("3/4 of the steps", "2", "1"),
    ]
    assert "of a grid" in section.sentences[0]
    assert "race" in figures.draw(report, with_png=False)


def test_a_survivors_run_is_that_of_a_grid(
    race: tuple[Path, Sweep], settings: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    own = {**base, "train.evaluate_every": EVALUATE_EVERY}
    grid = sweep(write_study(tmp_path, settings, base=own, kind="grid", factors=RACE["factors"]))
    for raced, alone in zip(race[1].outcomes, grid.outcomes, strict=True):
        assert raced.folders[0].name == alone.folders[0].name
        n = len(records(raced.folders[0]))
        assert records(raced.folders[0]) == records(alone.folders[0])[:n]
        if raced.is_done:
            weights = [next((o.runs[0] / "adapter").glob("*.safetensors")).read_bytes() for o in (raced, alone)]
            assert weights[0] == weights[1]


def test_a_race_that_is_asked_again_trains_nothing(race: tuple[Path, Sweep]) -> None:
    again, begun = trained(race[0])
    assert begun == []
    assert [outcome.why for outcome in again.outcomes] == [outcome.why for outcome in race[1].outcomes]


@pytest.mark.parametrize("n_records", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_never_killed(
    n_records: int, race: tuple[Path, Sweep], settings: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    file = write_study(tmp_path, settings, base=base, **RACE)
    seen = 0

    def kill(record: Any) -> bool:
        nonlocal seen
        seen += record.kind != "phase"
        if seen == n_records:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        sweep(file, watch_run=kill)
    found = sweep(file)
    for killed, whole in zip(found.outcomes, race[1].outcomes, strict=True):
        assert (killed.state, killed.why) == (whole.state, whole.why)
        assert records(killed.folders[0]) == records(whole.folders[0])


def test_a_race_is_decided_again_from_its_folders_where_the_storage_is_lost(
    race: tuple[Path, Sweep], tmp_path: Path
) -> None:
    file, found = race
    copy = shutil.copytree(file.parent, tmp_path / "race")
    (copy / "runs" / "tiny" / "study.sqlite3").unlink()
    again, begun = trained(copy / "study.yaml", None, overrides={"out": str(copy / "runs")})
    assert begun == []
    assert [outcome.why for outcome in again.outcomes] == [outcome.why for outcome in found.outcomes]


@pytest.mark.slow
def test_two_processes_race_as_one(
    race: tuple[Path, Sweep], settings: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    found = sweep(write_study(tmp_path, settings, base=base, **RACE), how=How("processes", 2))
    assert [outcome.state for outcome in found.outcomes] == [outcome.state for outcome in race[1].outcomes]


RATES = [{"key": "train.learning_rate", "values": [0.003, 0.001]}]
REFUSED = {
    "one trial": ({"factors": [{"key": "adapter.rank", "values": [1]}]}, "the factors make one trial: vary more"),
    "evaluations": (
        {"factors": [{"key": "train.evaluate_every", "values": [0.01, 0.02]}]},
        "factor evaluate_every varies train.evaluate_every: trials are compared side by side",
    ),
    "counted": ({"base": {"train.evaluate_every": 3}}, "train.evaluate_every is 3, but a race compares trials"),
    "coarse": ({"base": {"train.evaluate_every": 0.25}}, "give a fraction of at most 0.0625, or null"),
    "old": ({"stop_early": True}, "stop_early was removed: kind: race drops trials of a grid that can no longer win"),
    "few rows": (
        {"base": {"data.validation": 0.3}},
        "kind is race, but there are only 36 validation rows: give at least 100",
    ),
}


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_raced_is_refused_before_anything_is_trained(
    keys: dict[str, Any], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = {"train.evaluate_every": None, **keys.pop("base", {})} if "base" in keys else {"train.evaluate_every": None}
    with pytest.raises(ConfigError, match=message):
        prepare(write_study(tmp_path, settings, base=base, **{"kind": "race", "factors": RATES, **keys}))
    assert not (tmp_path / "runs").exists()


def test_lengths_may_vary_and_what_a_race_is_expected_to_cost_is_said_before(
    settings: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    factors = [{"key": "train.steps", "values": [32, 64, 100]}, *RATES]
    found = prepare(write_study(tmp_path, settings, base=base, kind="race", factors=factors)).preview
    assert {trial.configs[0].train.evaluate_every for trial, _ in found.trials} == {EVALUATE_EVERY}
    assert any("of this many trials on this many validation rows trains about" in note for note in found.notes)
    assert 0 < found.expected_share < 1
    assert found.seconds < found.seconds_of(sum(n_flops for _, n_flops in found.trials))


def test_the_expected_costs_are_what_was_measured() -> None:
    measured = kept("racing")["rates"]
    for n_trials, of_rows in measured.items():
        for n_rows, each in of_rows.items():
            found = expected_cost(int(n_trials), int(n_rows))
            assert [found.value, found.low, found.high] == pytest.approx([each["cost"], *each["cost_of_nine_in_ten"]])
            assert each["best_dropped_percent"] <= 5
