"""Laws of a sweep: what it runs, what it never runs twice, what it may say, and that test stays sealed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from safetensors.torch import load_file, save_file
from scipy import stats

from submillion import data, runs
from submillion.errors import ConfigError
from submillion.runs import StepRecord
from submillion.sweeps import executors, storage, study_names
from submillion.sweeps.sitting import sweep
from submillion.sweeps.strategies import Ranking, correlation, correlation_sentence, strategy
from submillion.sweeps.study import How, Status, Sweep, prepare
from submillion.sweeps.trials import Candidate, Failure
from submillion.training import workers
from tests.kit.studies import GRID, settings, trained, write_study

__all__ = ["settings"]  # a fixture


@pytest.fixture(scope="module")
def grid(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sweep]:
    file = write_study(tmp_path_factory.mktemp("grid"), settings)
    found, begun = trained(file)
    assert len(begun) == 4
    return file, found


def test_a_grid_runs_every_combination_once(grid: tuple[Path, Sweep]) -> None:
    _, found = grid
    hashes = [path.name[-8:] for outcome in found.outcomes for path in outcome.runs]
    assert len(hashes) == len(set(hashes)) == 4
    pairs = {(o.trial.configs[0].adapter.rank, o.trial.configs[0].train.learning_rate) for o in found.outcomes}
    assert pairs == {(rank, rate) for rank in (1, 2) for rate in (0.001, 0.01)}


def test_asked_twice_is_answered_once(grid: tuple[Path, Sweep]) -> None:
    file, found = grid
    before = {path: (path / "DONE").stat().st_mtime_ns for outcome in found.outcomes for path in outcome.runs}
    again, begun = trained(file)
    assert begun == []
    assert again.recommended.path == found.recommended.path
    assert {path: (path / "DONE").stat().st_mtime_ns for path in before} == before


def test_a_run_that_was_trained_again_in_this_process_is_read_anew(settings: dict[str, Any], tmp_path: Path) -> None:
    file = write_study(tmp_path, settings, factors=[{"key": "adapter.rank", "values": [1, 2]}])
    first = sweep(file).outcomes[0]
    (path,) = first.runs
    run = runs.load(path)
    scores = run.read_json("scores.json")
    scores["validation"]["accuracy"] |= {"value": 1.0, "high": 1.0}
    run.write_json("scores.json", scores)
    lines = [json.loads(line) | {"seconds": 100.0} for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.mark_done()
    again = sweep(file).outcomes[0]
    assert again.runs == [path]
    assert first.score != again.score == 1.0
    assert again.seconds[0].training == 100 * len(lines)


def test_only_the_recommended_run_opens_test_and_once(grid: tuple[Path, Sweep]) -> None:
    _, found = grid
    out = found.recommended.path.parent
    reads = [json.loads(line) for line in (out / "test-reads.jsonl").read_text().splitlines()]
    assert [each["run"] for each in reads] == [found.recommended.name]
    opened = [run.name for run in runs.list_runs(out) if (run.path / "predictions-test.parquet").exists()]
    assert opened == [found.recommended.name]
    assert found.n_test_reads == 1
    runs.verify(found.recommended)


def test_a_trial_at_work_shows_its_step_and_a_waiting_one_none(settings: dict[str, Any], tmp_path: Path) -> None:
    shown: list[Status] = []
    seen: list[tuple[int, list[int | None]]] = []

    def note(record: Any) -> bool:
        if isinstance(record, StepRecord):
            seen.append((record.step, [outcome.step for outcome in shown[-1].outcomes]))
        return False

    sweep(write_study(tmp_path, settings, factors=GRID[:1]), watch=shown.append, watch_run=note)
    assert shown[0].left_s > 0
    assert shown[-1].left_s == 0
    first = seen[: len(seen) // 2]
    assert [steps for _, steps in first] == [[step, None] for step, _ in first]
    assert all(outcome.step is None for outcome in shown[-1].outcomes), "a finished one needs none"


def results(found: Sweep) -> dict[str, Any]:
    """What a sweep found, without times and paths."""
    scores = {
        o.trial.candidate.name: list(zip([p.name for p in o.runs], o.scores, strict=True)) for o in found.outcomes
    }
    # Of equally large runs the faster is recommended, and a clock never says the same twice: its size is compared.
    size = found.recommended.read_json("plan.json")["total"]
    return {"scores": scores, "recommended": size, "notes": found.notes}


def test_a_new_value_of_a_finished_study_runs_only_what_is_new(settings: dict[str, Any], tmp_path: Path) -> None:
    first, begun = trained(write_study(tmp_path, settings, factors=[{"key": "adapter.rank", "values": [1, 2]}]))
    assert len(begun) == 2
    second, begun = trained(write_study(tmp_path, settings, factors=[{"key": "adapter.rank", "values": [1, 2, 3]}]))
    assert len(begun) == 1
    assert [o.runs for o in second.outcomes][:2] == [o.runs for o in first.outcomes]


def test_a_study_keeps_its_models_commit_where_the_name_means_another_by_now(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    storage = tmp_path / "hub" / "models--org--tiny"
    (storage / "refs").mkdir(parents=True)
    commits = ["1" * 40, "2" * 40]
    for commit in commits:
        shutil.copytree(settings["model.name"], storage / "snapshots" / commit)
    (storage / "refs" / "main").write_text(commits[0])
    file = write_study(tmp_path, {**settings, "model.name": "org/tiny"}, factors=GRID[:1])
    first, begun = trained(file)
    (storage / "refs" / "main").write_text(commits[1])
    lost = first.outcomes[1].runs[0]
    shutil.rmtree(lost)
    again, begun_again = trained(file)
    assert (len(begun), len(begun_again)) == (2, 1)
    assert [each.runs for each in again.outcomes] == [each.runs for each in first.outcomes]
    assert again.recommended == first.recommended
    assert runs.load(lost).config().model.revision == commits[0]


def test_a_model_that_the_hub_does_not_give_is_a_problem_of_its_trials(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    factors = [{"key": "model.name", "values": ["nobody/one", "nobody/two"]}]
    with pytest.raises(ConfigError) as no:
        prepare(write_study(tmp_path, settings, factors=factors))
    assert len(no.value.problems) == 2
    for name, problem in zip(("one", "two"), no.value.problems, strict=True):
        assert problem.startswith(f"name=nobody/{name}: model.name is nobody/{name}: ")


def test_over_budget_is_listed_with_what_fits_and_never_started(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "adapter.rank", "values": [1, 16]}]
    found, begun = trained(write_study(tmp_path, settings, factors=factors, base={"budget": 6000}))
    assert len(begun) == 1
    over = found.outcomes[1]
    assert over.why == "over budget"
    assert over.runs == []
    assert over.trial.largest_rank is not None
    assert over.trial.plan.total > 6000
    assert f"is {over.trial.largest_rank} (" in str(over.trial.excess)
    assert len(runs.list_runs(tmp_path / "runs")) == 1


def test_a_recipe_that_teaches_is_trained_once_and_taught_trials_are_found_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    sections: dict[str, dict[str, Any]] = {"adapter": {"method": "none"}}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    teacher = tmp_path / "teacher.yaml"
    teacher.write_text(yaml.safe_dump({"name": "teacher", **sections}), encoding="utf-8")
    taught = [
        {"label": name, "settings": {"distillation.teacher": to}} for name, to in (("no", None), ("yes", str(teacher)))
    ]
    factors = [{"name": "teacher", "alternatives": taught}, {"key": "adapter.rank", "values": [1, 2]}]
    file = write_study(tmp_path, settings, factors=factors)
    found, begun = trained(file)
    assert len(begun) == 5  # two that are not taught, the teacher, two that are
    assert len({path for outcome in found.outcomes for path in outcome.runs}) == 4
    opened = [run.name for run in runs.list_runs(tmp_path / "runs") if (run.path / "predictions-test.parquet").exists()]
    assert opened == [found.recommended.name]
    assert trained(file)[1] == []


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(
    grid: tuple[Path, Sweep], settings: dict[str, Any], tmp_path: Path
) -> None:
    found, _ = trained(write_study(tmp_path, settings), How("processes", 2))
    assert results(found) == results(grid[1])


def test_seeds_make_settings_of_runs(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "adapter.rank", "values": [1, 2]}]
    found, begun = trained(write_study(tmp_path, settings, factors=factors, seeds=2))
    assert len(begun) == 4
    assert found.comparison is not None
    assert [len(setting.runs) for setting in found.comparison.settings] == [2, 2]
    assert all(pair.about == "settings" for pair in found.comparison.pairs)
    assert found.recommended.config().train.seed == 0


def test_no_setting_is_left_behind_by_one_seed(settings: dict[str, Any], tmp_path: Path) -> None:
    rates = [{"key": "train.learning_rate", "values": [1e-7, 0.01, 0.015]}]
    lines = [f"{word} {word} {word} {i},{word}" for i in range(60) for word in ("game", "market", "film")]
    (tmp_path / "easy.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    own = {"train.steps": 28, "train.evaluate_every": 14, "data.source": str(tmp_path / "easy.csv")}
    file = write_study(tmp_path, settings, factors=rates, tie_seeds=3, base=own)
    found, begun = trained(file)
    n_runs = [len(outcome.runs) for outcome in found.outcomes]
    assert n_runs[0] >= 2, "1e-7 is no worse before it has two seeds"
    assert n_runs[1:] == [3, 3]
    assert len(begun) == sum(n_runs)
    assert found.comparison is not None
    told = {pair.setting: pair.about for pair in found.comparison.pairs}
    assert sorted(told.values()) == ["settings", "settings"]
    assert [outcome.trial.configs[-1].train.seed + 1 for outcome in found.outcomes] == n_runs
    again, begun = trained(file)
    assert begun == []
    assert [outcome.runs for outcome in again.outcomes] == [outcome.runs for outcome in found.outcomes]


@pytest.mark.parametrize(
    ("kind", "keys", "n_seeds"),
    [
        ("one-factor", {}, {"rank": 2, "learning_rate": 2}),
        ("two-stage", {"short": {"train.steps": 3}, "full": {"train.steps": 6}, "keep": 2}, {"short": 1, "full": 2}),
        ("random", {"n_trials": 2}, {"drawn": 2}),
    ],
)
def test_each_kind_settles_its_ties_and_nothing_is_left_when_the_last_trial_has_ended(
    settings: dict[str, Any], tmp_path: Path, kind: str, keys: dict[str, Any], n_seeds: dict[str, int]
) -> None:
    seen: list[Status] = []
    found = sweep(write_study(tmp_path, settings, kind=kind, tie_seeds=2, **keys), watch=seen.append)
    compared = {stage.name: stage.comparison for stage in found.stages}
    if kind == "random":
        compared["drawn"] = found.comparison
    for outcome in found.outcomes:
        stage = outcome.trial.candidate.stage
        assert outcome.runs[0].name in {name for each in compared[stage].settings for name in each.runs}
        assert len(outcome.runs) == n_seeds[stage]
    assert any(len(outcome.runs) == 2 for outcome in found.outcomes)
    assert seen[0].left_s > 0
    assert seen[-1].left_s == 0
    if kind != "random":
        assert all(status.left_s > 0 for status in seen if status.stage == seen[0].stage), "another stage follows"


@pytest.mark.slow
def test_ties_get_their_seeds_from_workers_too(settings: dict[str, Any], tmp_path: Path) -> None:
    base = {"train.learning_rate": 1e-7}  # nothing is learned: all tie
    factors = [{"key": "adapter.rank", "low": 1, "high": 8}]
    file = write_study(tmp_path, settings, kind="random", n_trials=2, factors=factors, tie_seeds=2, base=base)
    found = sweep(file, how=How("processes", 2))
    assert [len(outcome.runs) for outcome in found.outcomes] == [2, 2]


def test_a_study_keeps_the_threads_that_it_began_with(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = tmp_path / "teacher.yaml"
    teacher.write_text(
        f"name: teacher\nmodel: {{name: {settings['model.name']}}}\ntrain: {{steps: 3, batch_size: 8}}\n"
    )
    taught = {"label": "taught", "settings": {"distillation.teacher": str(teacher)}}
    alone = {"label": "alone", "settings": {"distillation.teacher": None}}
    kind = {"kind": "one-factor", "factors": [*GRID[:1], {"name": "teacher", "alternatives": [alone, taught]}]}
    file, said = write_study(tmp_path, settings, **kind), list[str]()
    real = executors.run_job

    def interrupted(job: executors.Job, watch: Any) -> executors.Result:
        if job.number == 1:
            raise KeyboardInterrupt
        return real(job, watch)

    monkeypatch.setattr(executors, "run_job", interrupted)
    with workers.threads(2), pytest.raises(KeyboardInterrupt):
        sweep(file)
    monkeypatch.undo()
    found = sweep(file, watch=lambda status: said.append(status.line))
    assert [outcome.is_done for outcome in found.outcomes] == [True] * 4
    trained = runs.list_runs(tmp_path / "runs")
    assert sum(run.name.startswith("teacher-") for run in trained) == 1
    assert {(run.environment() or {})["threads"] for run in trained} == {2}
    assert said[0] == "threads: 2, as when it began, instead of 1, which would change the last bits"


def test_one_setting_has_one_score_whatever_a_factor_calls_it(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "train.weight_decay", "values": [0, 0.1]}, {"key": "adapter.alpha", "values": ["2r", 4, "1r"]}]
    base = {"adapter.rank": 2, "adapter.alpha": 4, "train.learning_rate": 1e-7}  # nothing is learned: all tie
    file = write_study(tmp_path, settings, kind="one-factor", tie_seeds=2, factors=factors, base=base)
    found, begun = trained(file)
    runs = {outcome.trial.candidate.choices["alpha"]: outcome.runs for outcome in found.outcomes[2:]}
    assert runs["2r"] == runs["4"]
    assert runs["4"] in [outcome.runs for outcome in found.outcomes[:2]], "the factor before asked for it first"
    assert [len(outcome.runs) for outcome in found.outcomes] == [2] * 5
    assert len(begun) == 6
    assert found.comparison is not None
    assert {pair.about for pair in found.comparison.pairs} == {"settings"}


def test_more_seeds_for_ties_are_announced_and_must_be_more(settings: dict[str, Any], tmp_path: Path) -> None:
    preview = prepare(write_study(tmp_path, settings, tie_seeds=3)).preview
    assert preview.n_runs == 4
    assert any("gets 3 seeds instead of 1" in note for note in preview.notes)
    with pytest.raises(ConfigError, match="tie_seeds is 3 and seeds is 3: give tie_seeds above seeds"):
        prepare(write_study(tmp_path, settings, tie_seeds=3, seeds=3))


def test_one_factor_fixes_winners_and_says_when_they_are_tied(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [
        {"key": "train.optimizer", "values": ["sgd", "adamw"]},
        {"key": "adapter.sites", "subsets": ["query", "value"], "settings": {"adapter.rank": None}},
        {"key": "adapter.alpha", "values": ["1r", "2r"]},
    ]
    found, _ = trained(write_study(tmp_path, settings, kind="one-factor", factors=factors, base={"budget": 3000}))
    stages = [outcome.trial.candidate.stage for outcome in found.outcomes]
    assert stages == ["optimizer"] * 2 + ["sites"] * 3 + ["alpha"] * 2
    by_stage = {
        stage: [o for o in found.outcomes if o.trial.candidate.stage == stage] for stage in dict.fromkeys(stages)
    }
    for stage, following in (("optimizer", "sites"), ("sites", "alpha")):
        best = max(by_stage[stage], key=lambda outcome: outcome.score or 0)
        assert {o.trial.candidate.choices[stage] for o in by_stage[following]} == {best.trial.candidate.choices[stage]}
    # 36 rows cannot tell these apart, and each note says so.
    assert len(found.notes) == 3
    assert all("inside a tie" in note for note in found.notes)
    sites = by_stage["sites"]
    assert all(o.trial.plan.total <= 3000 for o in sites)
    assert len({o.trial.plan.ranks["query"] for o in sites if "query" in o.trial.plan.ranks}) == 2
    for outcome, times in zip(by_stage["alpha"], (1, 2), strict=True):
        (rank,) = set(outcome.trial.plan.ranks.values())
        assert outcome.trial.configs[0].adapter.alpha == times * rank


@pytest.mark.parametrize(("fix", "rank"), [("best", "2"), ("cheapest", "1")])
def test_of_tied_settings_the_one_that_the_study_asks_for_is_fixed(
    fix: str, rank: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    study = prepare(write_study(tmp_path, settings, kind="one-factor", fix=fix)).study
    batches = strategy(study, lambda _: ())
    cheap, best = next(batches).candidates
    following = batches.send(Ranking(((best, 0.9), (cheap, 0.8)), (best, cheap), cheap))
    assert following.fixed == rank
    assert {candidate.choices["rank"] for candidate in following.candidates} == {rank}


def test_two_stages_correlate_short_with_full_results(settings: dict[str, Any], tmp_path: Path) -> None:
    factors = [{"key": "train.learning_rate", "values": [0.0001, 0.001, 0.01, 0.03]}]
    stages = {"short": {"train.steps": 4}, "full": {"train.steps": 12}, "keep": 3}
    file = write_study(tmp_path, settings, kind="two-stage", factors=factors, **stages)
    found, begun = trained(file)
    assert len(begun) == 7
    full = [o for o in found.outcomes if o.trial.candidate.stage == "full"]
    short = {o.trial.candidate.name: o.height for o in found.outcomes if o.trial.candidate.stage == "short"}
    best = sorted(short, key=lambda name: -short[name])[:3]
    assert {o.trial.candidate.name for o in full} == set(best)
    assert all(o.trial.configs[0].train.steps == 12 for o in full)
    pairs = [(short[o.trial.candidate.name], o.height) for o in full]
    every = sorted(short.values(), reverse=True)
    assert found.ending.correlation == correlation(*map(list, zip(*pairs, strict=True)), every)
    assert "3 settings" in found.notes[-1]
    assert set(found.ending.contenders) == {o.trial.candidate for o in full}


@pytest.mark.parametrize("n", [3, 6, 20])
def test_the_correlation_is_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    short, full = rng.normal(size=n).round(1).tolist(), rng.normal(size=n).round(1).tolist()
    found = correlation(short, full)
    assert found.n == n
    assert found.tau == pytest.approx(stats.kendalltau(short, full).statistic)
    assert found.rho == pytest.approx(stats.spearmanr(short, full).statistic)
    if n >= 5:
        assert found.of_all_low is not None
        assert found.of_all_high is not None
        assert -1 <= found.of_all_low <= found.rho <= found.of_all_high <= 1


def test_the_correlation_of_a_reversed_order_is_minus_one_and_ties_have_none() -> None:
    assert correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).tau == -1
    assert correlation([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]).tau is None
    assert correlation([], []).n == 0
    assert "fewer than two" in correlation_sentence(correlation([0.5], [0.6]))


DRAWN = [
    {"key": "train.learning_rate", "low": 0.0001, "high": 0.1, "log": True},
    {"key": "adapter.rank", "low": 1, "high": 4},
    {"key": "train.schedule", "values": ["linear", "cosine"]},
]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_drawn_settings_lie_in_their_ranges_and_are_drawn_again(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    found, begun = trained(write_study(tmp_path, settings, kind=kind, factors=DRAWN, n_trials=2))
    assert len(found.outcomes) == 2 == len(begun)
    for outcome in found.outcomes:
        config = outcome.trial.configs[0]
        assert 0.0001 <= config.train.learning_rate <= 0.1
        assert config.adapter.rank in (1, 2, 3, 4)
        assert config.train.schedule in ("linear", "cosine")
    again, begun = trained(write_study(tmp_path, settings, kind=kind, factors=DRAWN, n_trials=3))
    assert len(begun) == 1
    assert [o.runs for o in again.outcomes][:2] == [o.runs for o in found.outcomes]
    elsewhere = write_study(tmp_path, settings, kind=kind, factors=DRAWN, n_trials=3, base={"out": str(tmp_path / "b")})
    assert results(sweep(elsewhere)) == results(again)


def test_a_drawn_study_takes_another_choice(settings: dict[str, Any], tmp_path: Path) -> None:
    factor = {"key": "train.schedule", "values": ["linear", "cosine"]}
    trained(write_study(tmp_path, settings, kind="tpe", factors=[factor], n_trials=2))
    factor = {"key": "train.schedule", "values": ["linear", "cosine", "constant"]}
    found, _ = trained(write_study(tmp_path, settings, kind="tpe", factors=[factor], n_trials=4))
    assert len(found.outcomes) == 4


@pytest.mark.parametrize(
    "how", [How(), pytest.param(How("processes", 1), marks=pytest.mark.slow)], ids=lambda h: h.where
)
def test_a_diverged_trial_is_a_result_and_the_study_goes_on(
    settings: dict[str, Any], tmp_path: Path, encoders: dict[str, Path], how: How
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoders["bert"], broken)
    weights = load_file(broken / "model.safetensors")
    save_file({k: v * 1e30 for k, v in weights.items()}, broken / "model.safetensors", metadata={"format": "pt"})
    both = [{"label": str(path), "settings": {"model.name": str(path)}} for path in (broken, encoders["bert"])]
    file = write_study(tmp_path, settings, factors=[{"name": "encoder", "alternatives": both}])
    found, _ = trained(file, how)
    assert str(found.outcomes[0].why).startswith("diverged: the loss is nan at step 1")
    assert found.outcomes[1].is_done
    assert trained(file)[1] == []


def test_a_storage_of_before_states_were_noted_still_tells_them(settings: dict[str, Any], tmp_path: Path) -> None:
    study = prepare(write_study(tmp_path, settings)).study
    store = storage.in_memory(study)
    for why in ("diverged: the loss is nan", "ruled out: another is better", "over budget"):
        candidate = Candidate("grid", {"rank": why}, {})
        number = store.begin(candidate)
        optuna.Trial(store.optuna_study, store.optuna_study.trials[number]._trial_id).set_user_attr("why", why)
        assert store.failure(candidate) == Failure(why.partition(":")[0], why)  # type: ignore[arg-type]


def test_only_trials_are_limited_and_not_the_space_that_they_are_drawn_from(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    keys = ("train.learning_rate", "train.weight_decay", "train.warmup", "train.label_smoothing")
    factors = [{"key": key, "values": [0.001 * n for n in range(1, 9)]} for key in keys]
    assert prepare(write_study(tmp_path, settings, factors=factors, kind="random", n_trials=3)).preview.n_runs == 3
    assert prepare(write_study(tmp_path, settings, factors=factors, kind="one-factor")).preview.n_asked == 32
    with pytest.raises(ConfigError, match="the factors make 4,096 trials: at most 2,000 are run; vary less"):
        prepare(write_study(tmp_path, settings, factors=factors))


def test_scale_cuts_rows_and_steps_and_gives_other_runs(grid: tuple[Path, Sweep], settings: dict[str, Any]) -> None:
    prepared = prepare(grid[0], scale=0.5)
    whole = prepare(grid[0])
    assert prepared.folder != whole.folder
    assert any("0.5" in note for note in prepared.preview.notes)
    for (cut, _), (full, _) in zip(prepared.preview.trials, whole.preview.trials, strict=True):
        assert cut.configs[0].train.steps == 3
        assert full.configs[0].train.steps == 6
        assert len(data.read(cut.configs[0].data).train) == pytest.approx(
            len(data.read(full.configs[0].data).train) / 2, abs=2
        )
        assert data.read(cut.configs[0].data).validation == data.read(full.configs[0].data).validation


@pytest.mark.parametrize("name", study_names())
def test_shipped_studies_plan_offline(name: str, tmp_path: Path) -> None:
    overrides = [f"out={tmp_path}"] + (["data.source=ag_news"] if name == "quick" else [])
    found = prepare(name, overrides).preview
    assert found.n_runs > 0
    assert found.seconds > 0
    configs = [trial.configs[0].model_dump_json() for trial, _ in found.trials]
    assert len(set(configs)) == len(configs)
    assert all(trial.plan.total <= 1_000_000 for trial, _ in found.trials if trial.fits)
    assert list(tmp_path.iterdir()) == []


def test_the_studies_have_the_counts_of_their_reports(tmp_path: Path) -> None:
    trials = {name: [trial for trial, _ in prepare(f"study-{name}").preview.trials] for name in "abc"}
    a = trials["a"]
    assert len(a) == 3 * 3 * 5 * 2
    assert {(t.plan.ranks["query"], t.fits, t.largest_rank) for t in a} == {
        (8, True, None),
        (16, False, 11),
        (32, False, 11),
    }
    sites = {t.candidate.choices["sites"]: t for t in trials["b"] if t.candidate.stage == "sites"}
    counts = {name: (max(t.plan.ranks.values()), t.plan.total) for name, t in sites.items()}
    one, two, three = (22, 999_172), (11, 999_172), (7, 980_740)
    names = ("query", "key", "value", "query+key", "query+value", "key+value", "query+key+value")
    assert counts == dict(zip(names, (one, one, one, two, two, two, three), strict=True))
    largest = {t.plan.total for t in trials["c"] if t.candidate.choices["rank"] == "max"}
    assert largest == {999_172, 980_740}
