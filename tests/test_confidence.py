"""Laws of acting on confidence: what is stated is kept over many draws, and every front end says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import special, stats
from starlette.testclient import TestClient

import submillion
from submillion import prediction
from submillion.errors import ConfigError, RunError
from submillion.judging import confidence, metrics
from submillion.judging.confidence import Answering
from submillion.judging.metrics import Predictions
from submillion.prediction import Form, predict_file
from submillion.reports import acting
from submillion.runs import Run
from submillion.serving import folders
from submillion.serving.app import Options, create_app
from tests.data import write_csv
from tests.kit.calls import call
from tests.kit.several import drawn as several_drawn
from tests.kit.untrained import THREE, TWO, make_run

Risk = Callable[[np.ndarray], np.ndarray]
GRID = (np.arange(20_000) + 0.5) / 20_000  # of confidence's quantiles, by which a threshold's true error is known
RISKS: dict[str, Risk] = {  # how often rows are wrong, by the quantile of their confidence
    "surer rows are better": lambda u: 0.5 * (1 - u) ** 4,
    "all are just too bad": lambda u: np.full(len(u), 0.0505),
    "the surest are worst": lambda u: np.where(u > 0.8, 0.2, 0.0135),
    "a bad band": lambda u: np.where((u > 0.5) & (u < 0.7), 0.3, 0.01),
}


def sample(rng: np.random.Generator, n: int, risk: Risk, steps: int | None = None) -> Predictions:
    """Rows of two classes, of confidence 0.5 to 1; `steps` rounds it, so that many rows are equally sure."""
    quantiles = rng.random(n)
    is_wrong = rng.random(n) < risk(quantiles)
    sure = 0.5 + quantiles / 2 if steps is None else 0.5 + np.floor(quantiles * steps) / steps / 2
    return Predictions([str(i) for i in range(n)], is_wrong.astype(np.int64), np.stack([sure, 1 - sure], axis=1))


def true_error(threshold: float, risk: Risk) -> float:
    """The share of wrong rows among those at least as sure."""
    return float(risk(GRID[2 * threshold - 1 <= GRID]).mean())


def plugged_in(found: Predictions, max_error: float) -> float | None:
    """The lowest threshold above which no more of these very rows are wrong: what promises nothing."""
    order = np.argsort(-found.probs.max(axis=1))
    shares = np.cumsum(~found.right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(shares <= max_error)
    return float(found.probs.max(axis=1)[order][good[-1]]) if len(good) else None


@pytest.mark.parametrize("name", RISKS)
@pytest.mark.parametrize("steps", [None, 20])
def test_a_stated_error_is_exceeded_in_at_most_five_in_a_hundred_samples(name: str, steps: int | None) -> None:
    rng, risk, n_draws = np.random.default_rng(7), RISKS[name], 300
    draws = [sample(rng, 400, risk, steps) for _ in range(n_draws)]
    thresholds = [confidence.selection(draw, 0.05).threshold for draw in draws]
    n_exceeded = sum(each is not None and true_error(each, risk) > 0.05 for each in thresholds)
    assert n_exceeded <= stats.binom.ppf(0.999, n_draws, 0.05)
    if name == "surer rows are better":
        shares = [0.0 if each is None else 2 - 2 * max(each, 0.5) for each in thresholds]
        assert np.mean(shares) > 0.6, "it answers where it can; by the true errors 0.84 could be answered"
    naive = [plugged_in(draw, 0.05) for draw in draws]
    n_naive = sum(each is not None and true_error(each, risk) > 0.05 for each in naive)
    assert n_naive > 0.3 * n_draws, "this test tells a threshold without a proof"


def test_a_checkpoint_that_validation_chose_exceeds_it_no_more_often() -> None:
    """Twelve equally good checkpoints, whose errors are on the same rows in part, and the best by validation."""
    rng, risk, n_draws = np.random.default_rng(3), RISKS["surer rows are better"], 80
    exceeded, numbers = np.zeros(2), []
    for _ in range(n_draws):
        first = sample(rng, 1200, risk)
        others = [sample(rng, 1200, risk) for _ in range(11)]
        share = rng.random((11, 1200)) < 0.3  # rows that a checkpoint decides anew
        mixed = [
            Predictions(
                first.ids, np.where(own, o.label_ids, first.label_ids), np.where(own[:, None], o.probs, first.probs)
            )
            for own, o in zip(share, others, strict=True)
        ]
        every = [first, *mixed]
        best = max(every, key=lambda each: each.right.mean())
        numbers.append(confidence.n_choices(np.stack([each.right for each in every])))
        for i, n_choices in enumerate((1.0, numbers[-1])):
            threshold = confidence.selection(best, 0.05, n_choices).threshold
            exceeded[i] += threshold is not None and true_error(threshold, risk) > 0.05
    assert 2 < np.mean(numbers) < 8
    assert exceeded[1] <= 0.06 * n_draws
    assert exceeded[0] > exceeded[1], "of a level that knows nothing of the choice"


def test_the_number_of_choices_is_that_of_checkpoints_that_might_have_been_chosen() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((4, 500)) < 0.9
    assert confidence.n_choices(right[:1]) == 1
    assert confidence.n_choices(np.stack([right[0], right[0] & (rng.random(500) < 0.5)])) == pytest.approx(1)
    assert 1 < confidence.n_choices(right) <= 4
    groups = np.repeat(np.arange(50), 10)
    assert confidence.n_choices(right, groups) >= 1
    with_choices = confidence.selection(sample(rng, 60, lambda u: np.zeros(len(u))), 0.05, 4.0)
    assert "it takes 96" in with_choices.problem


@pytest.mark.parametrize(("max_error", "n_needed"), [(0.05, 66), (0.02, 166), (0.01, 333)])
def test_too_few_rows_are_told_with_how_many_it_takes(max_error: float, n_needed: int) -> None:
    def right(n: int) -> Predictions:
        return sample(np.random.default_rng(0), n, lambda u: np.zeros(len(u)))

    few, enough = (confidence.selection(right(n), max_error) for n in (n_needed - 1, n_needed))
    assert few.threshold is None
    assert f"it takes {n_needed}" in few.problem
    assert enough.threshold == 0.0, "of right rows all are answered as soon as it can be promised"
    for n in (1, 2, 9):
        assert f"it takes {n_needed}" in confidence.selection(right(n), max_error).problem


def test_a_bound_is_that_of_clopper_and_pearson() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, e = int(rng.integers(1, 400)), float(rng.uniform(0.005, 0.3))
        k = int(rng.integers(0, n + 1))
        upper = 1.0 if k == n else stats.beta.ppf(0.95, k + 1, n - k)
        assert confidence._passes(n, k, e, confidence.LEVEL) == (upper <= e), (n, k, e)


def test_a_sample_without_a_sure_threshold_says_what_is_wrong() -> None:
    found = confidence.selection(sample(np.random.default_rng(0), 500, lambda u: np.full(len(u), 0.3)), 0.05)
    assert found.threshold is None
    assert not found.answered(np.array([[1.0, 0.0]])).any()
    assert "most confident validation rows" in found.problem
    assert "ask for a larger error" in found.problem


def test_promises_do_not_depend_on_the_order_of_rows() -> None:
    found = sample(np.random.default_rng(5), 500, RISKS["surer rows are better"])
    order = np.random.default_rng(1).permutation(500)
    assert confidence.selection(found.rows(order), 0.05) == confidence.selection(found, 0.05)
    assert confidence.label_sets(found.rows(order), 0.9) == confidence.label_sets(found, 0.9)


def classes(rng: np.random.Generator, n: int, heat: float = 1.0) -> Predictions:
    """Rows of four classes, drawn by probabilities that are then sharpened or dulled."""
    logits = 2 * rng.normal(size=(n, 4))
    truth = (special.softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 3)
    return Predictions([str(i) for i in range(n)], truth, special.softmax(logits * heat, axis=1))


@pytest.mark.parametrize("coverage", [0.8, 0.95])
@pytest.mark.parametrize("heat", [1.0, 4.0])
def test_sets_hold_the_true_label_as_often_as_stated(coverage: float, heat: float) -> None:
    rng, n_draws, held = np.random.default_rng(0), 400, []
    for _ in range(n_draws):
        sets, new = confidence.label_sets(classes(rng, 99, heat), coverage), classes(rng, 50, heat)
        members = sets.members(new.probs)
        assert members.any(axis=1).all()
        held.append(members[np.arange(50), new.label_ids].mean())
    assert np.mean(held) >= coverage - 3 * np.std(held) / np.sqrt(n_draws)
    assert np.mean(held) < coverage + 0.04, "no larger than it takes"


def test_sets_are_refused_where_they_would_hold_every_label() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(RunError, match="there are 18 validation rows, and it takes 19"):
        confidence.label_sets(classes(rng, 18), 0.95)
    assert confidence.label_sets(classes(rng, 19), 0.95).threshold > 0


@pytest.mark.parametrize("has_several", [False, True])
def test_temperature_changes_no_label_and_ends_where_rows_end(has_several: bool) -> None:
    rng = np.random.default_rng(0)
    sharp = several_drawn(0, 600) if has_several else classes(rng, 600, heat=5.0)
    heat = metrics.temperature(sharp)
    scaled = metrics.scaled(sharp.probs, heat, has_several)
    thresholds = metrics.scaled(np.full(sharp.probs.shape[1], 0.3), heat, has_several)
    if has_several:
        assert ((scaled >= thresholds) == (sharp.probs >= 0.3)).all()
    else:
        assert heat == pytest.approx(5.0, rel=0.15)
        assert (scaled.argmax(axis=1) == sharp.predicted).all()
    log_loss = [metrics.score(replace(sharp, probs=each))["log_loss"].value for each in (sharp.probs, scaled)]
    assert log_loss[1] < log_loss[0]


@pytest.mark.parametrize("n", [1, 20, 500])
def test_rows_that_are_all_right_do_not_make_a_model_certain(n: int) -> None:
    all_right = Predictions([str(i) for i in range(n)], np.zeros(n, np.int64), np.tile([0.9, 0.1], (n, 1)))
    sure = metrics.scaled(all_right.probs, metrics.temperature(all_right))[:, 0]
    assert sure == pytest.approx(1 - 0.5 / (n + 2), abs=1e-3)
    several = Predictions(all_right.ids, np.tile([1, 0], (n, 1)), all_right.probs)
    assert metrics.scaled(several.probs, metrics.temperature(several), True)[:, 0] == pytest.approx(sure, abs=1e-3)


def test_reports_say_what_would_be_answered_and_what_cannot_be_promised() -> None:
    rng = np.random.default_rng(0)
    validation, judged = (sample(rng, n, RISKS["surer rows are better"]) for n in (300, 2000))
    never, _, often = found = acting.read(validation, judged)
    assert [each.max_error for each in found] == [0.01, 0.02, 0.05]
    assert never.answers is None
    assert often.answers is not None
    answered = confidence.selection(validation, 0.05).answered(judged.probs)
    assert often.answers.answered.value == answered.mean()
    assert often.answers.error is not None
    assert often.answers.error.value == (answered & ~judged.right).sum() / answered.sum()
    for label_id, share in enumerate(often.by_class):
        assert share.value == answered[judged.label_ids == label_id].mean()
    section = acting.section(found, ("yes", "no"), "test", is_selected=True)
    text = " ".join((section.title, *section.sentences))
    assert "at 5.0 % errors" in text
    assert "it takes 333 validation rows" in text
    assert "ends when the data shift" in text
    assert "chose the checkpoint" in text
    assert "chose the checkpoint" not in str(acting.section(found, ("yes", "no"), "test", is_selected=False))
    assert [row[0] for row in section.tables[1].rows] == ["yes", "no"]
    assert acting.read(several_drawn(0, 60), several_drawn(1, 60)) == []


def test_a_file_without_labels_is_told_the_share_that_would_be_answered_there() -> None:
    validation = sample(np.random.default_rng(0), 600, RISKS["surer rows are better"])
    dull = validation.probs[validation.probs.max(axis=1) < 0.7]
    *_, often = found = acting.here(validation, dull)
    assert (found[0].validation, found[0].here) == (None, None)
    assert often.here is not None
    assert often.validation is not None
    assert often.here.value < often.validation.value
    section = acting.section_of_shift(found)
    assert "on validation" in section.title
    assert section.tables[0].rows[0][1:] == ("–", "–")
    none = "No error of 1, 2 or 5 % can be promised"
    assert none in acting.section_of_shift(acting.here(validation.rows(np.arange(20)), dull)).title
    few = acting.read(validation.rows(np.arange(20)), validation)
    assert acting.section(few, ("no", "yes"), "test", is_selected=False).title == none
    assert acting.MAX_ERRORS == (0.01, 0.02, 0.05), "the title names them"


@pytest.mark.parametrize("value", [0, 1, -0.1, 2, 5, float("nan"), float("inf"), "0.02", True])
@pytest.mark.parametrize("name", ["max_error", "coverage"])
def test_what_is_no_share_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\({name}\) is .*: give a share between 0 and 1"):
        Answering(**{name: value})
    with pytest.raises(ConfigError, match="give one"):
        Answering(max_error=0.1, coverage=0.9)


# What follows asks a run that was not trained: its validation labels are drawn by its own probabilities, dulled.


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("source") / "rows.csv", 40, seed=1)


def judged(run: Run, source: Path, n: int = 400, seed: int = 0) -> Run:
    """A run with validation predictions, as the end of a training leaves them: of rows like those of `source`."""
    rng, run_probs = np.random.default_rng(seed), prediction.predict(run, source).probs
    probs = run_probs[rng.integers(0, len(run_probs), n)]
    if run.has_several():
        probs = special.expit(special.logit(probs) + rng.normal(0, 0.05, probs.shape))
        truth = (rng.random(probs.shape) < special.expit(special.logit(probs) / 2)).astype(np.int64)
        found = Predictions([str(i) for i in range(n)], truth, probs, run.thresholds())
    else:
        probs = special.softmax(np.log(probs) + rng.normal(0, 0.05, probs.shape), axis=1)
        quantiles = stats.rankdata(probs.max(axis=1)) / n
        truth = np.where(rng.random(n) < 0.5 * (1 - quantiles) ** 2, probs.argmin(axis=1), probs.argmax(axis=1))
        found = Predictions([str(i) for i in range(n)], truth, probs)
    run.save_predictions("validation", found)
    run.write_temperature()
    run.write_json("data.json", {"validation_fingerprint": f"{n}-{seed}"})
    run.mark_done()
    return run


@pytest.fixture(scope="module")
def made(encoders: dict[str, Path], source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    out = tmp_path_factory.mktemp("runs")
    return {
        "one": judged(make_run(out, encoders["bert"], THREE), source),
        "other": judged(make_run(out, encoders["bert"], THREE), source),
        "elsewhere": judged(make_run(out, encoders["bert"], THREE), source, seed=1),
        "several": judged(make_run(out, encoders["bert"], THREE, thresholds=(0.2, 0.5, 0.8)), source),
        "few": judged(make_run(out, encoders["bert"], TWO), source, n=12),
    }


def stated(run: Run, source: Path) -> float:
    """An error at which some of the rows are answered and some are not."""
    validation, raw = run.load_predictions("validation"), submillion.predict(run, source).probs

    def share(max_error: float) -> float:
        return float(confidence.selection(validation, max_error).answered(raw).mean())

    return next(e for e in np.arange(0.02, 0.6, 0.01).tolist() if 0.2 < share(e) < 0.9)


def test_every_front_end_answers_the_same_rows(made: dict[str, Run], source: Path, tmp_path: Path) -> None:
    run = made["one"]
    max_error, raw = stated(run, source), submillion.predict(run, source)
    found = submillion.predict(run, source, max_error=max_error)
    selected = confidence.selection(run.load_predictions("validation"), max_error)
    assert found.answered is not None
    assert selected.threshold is not None
    assert (found.answered == (raw.probs.max(axis=1) >= selected.threshold)).all()
    assert 0 < found.answered.sum() < len(found.labels)
    assert found.labels == [label if own else None for label, own in zip(raw.labels, found.answered, strict=True)]
    assert (found.probs == raw.probs).all()
    form = Form(answering=Answering(max_error=max_error))
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        written = predict_file(run, source, tmp_path / name, form)
        assert sum(written.counts.values()) == found.answered.sum()
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [
        {"id": i, "label": label, "answered": bool(own)}
        for i, label, own in zip(found.ids, found.labels, found.answered, strict=True)
    ]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "id,label,answered",
        *(f"{each['id']},{each['label'] or ''},{each['answered']}" for each in lines),
    ]
    texts = [row["text"] for row in json_rows(source)]
    with TestClient(create_app(folders.opened(run.path.parent), Options()), base_url="http://127.0.0.1:8000") as client:
        asked = {"texts": texts, "run": run.name, "max_error": max_error}
        answers = client.post("/v1/predict", json=asked).json()["predictions"]
    assert [(each["label"], each["answered"]) for each in answers] == [(e["label"], e["answered"]) for e in lines]


def json_rows(source: Path) -> list[dict[str, str]]:
    import csv

    with open(source, newline="") as file:
        return list(csv.DictReader(file))


def test_sets_are_lists_and_joined_in_files_of_text(made: dict[str, Run], source: Path, tmp_path: Path) -> None:
    found = submillion.predict(made["one"], source, coverage=0.9)
    assert found.label_sets is not None
    assert all(label in own for label, own in zip(found.labels, found.label_sets, strict=True))
    assert len({len(own) for own in found.label_sets}) > 1
    form = Form(label_ids=True, answering=Answering(coverage=0.9))
    predict_file(made["one"], source, tmp_path / "a.csv", form)
    numbers = ["|".join(str(THREE.index(str(label))) for label in own) for own in found.label_sets]
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == [
        f"{i},{THREE.index(str(label))},{own}" for i, label, own in zip(found.ids, found.labels, numbers, strict=True)
    ]
    predict_file(made["one"], source, tmp_path / "a.parquet", Form(answering=Answering(coverage=0.9)))
    assert pq.read_table(tmp_path / "a.parquet")["labels"].to_pylist() == [list(own) for own in found.label_sets]


@pytest.mark.parametrize("name", ["one", "several"])
def test_calibrated_probabilities_leave_labels(made: dict[str, Run], source: Path, tmp_path: Path, name: str) -> None:
    run, heat = made[name], made[name].temperature()
    raw, found = submillion.predict(run, source), submillion.predict(run, source, calibrated=True)
    assert found.labels == raw.labels
    assert found.probs == pytest.approx(metrics.scaled(raw.probs, heat, run.has_several()))
    assert not np.allclose(found.probs, raw.probs)
    form = Form(probabilities=True, answering=Answering(calibrated=True))
    predict_file(run, source, tmp_path / "a.parquet", form)
    table = pq.read_table(tmp_path / "a.parquet")
    assert np.stack([table[f"prob_{label}"] for label in THREE], axis=1) == pytest.approx(found.probs)
    texts = [row["text"] for row in json_rows(source)]
    with TestClient(create_app(folders.opened(run.path.parent), Options()), base_url="http://127.0.0.1:8000") as client:
        asked = {"texts": texts, "run": run.name, "calibrated": True}
        answers = client.post("/v1/predict", json=asked).json()["predictions"]
    assert [[*each["probs"].values()] for each in answers] == pytest.approx(found.probs, abs=1e-5)
    if run.has_several():
        assert found.thresholds is not None
        assert [*answers[0]["thresholds"].values()] == pytest.approx(found.thresholds)
        assert [tuple(each["labels"]) for each in answers] == found.labels


def test_several_runs_promise_together_what_their_common_validation_rows_show(
    made: dict[str, Run], source: Path
) -> None:
    both = [made["one"], made["other"]]
    found, raw = submillion.predict(both, source, calibrated=True), submillion.predict(both, source)
    mean = np.mean([run.load_predictions("validation").probs for run in both], axis=0)
    pooled = replace(both[0].load_predictions("validation"), probs=mean)
    assert found.probs == pytest.approx(metrics.scaled(raw.probs, metrics.temperature(pooled)), rel=1e-6)
    assert found.labels == raw.labels
    with pytest.raises(RunError, match="have different validation rows"):
        submillion.predict([made["one"], made["elsewhere"]], source, max_error=0.1)
    submillion.predict([made["one"], made["elsewhere"]], source)


def test_evaluate_says_what_became_of_the_promise(
    made: dict[str, Run], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made["one"]
    max_error, rows = stated(run, source), tmp_path / "rows.jsonl"
    truth = [THREE[i % 3] for i in range(40)]
    texts = [row["text"] for row in json_rows(source)]
    rows.write_text(
        "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in zip(texts, truth, strict=True))
    )
    found = submillion.predict(run, texts, max_error=max_error)
    answers = submillion.evaluate(run, rows, max_error=max_error).answers
    assert found.answered is not None
    assert answers is not None
    assert answers.error is not None
    wrong = [label != said for label, said in zip(truth, found.labels, strict=True) if said is not None]
    assert (answers.answered.value, answers.error.n) == (found.answered.mean(), found.answered.sum())
    assert answers.error.value == pytest.approx(np.mean(wrong))
    assert submillion.evaluate(run, rows).answers is None
    words = ["evaluate", run.path, "--data", rows, "--max-error", str(max_error)]
    assert call(*words) == 0
    assert acting.kept(answers) in capsys.readouterr().out
    assert call(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["answers"]["error"]["value"] == answers.error.value
    assert call(*words, "--perturb", "lower") == 1
    assert "give one at a time" in capsys.readouterr().err


def test_runs_of_before_have_the_temperature_of_their_validation_rows(made: dict[str, Run], source: Path) -> None:
    run = made["one"]
    file, heat = run.path / "calibration.json", run.temperature()
    assert "calibration.json" in run.read_json("DONE")["files"]
    content = file.read_bytes()
    file.write_text('{"temperature": "hot"}')
    with pytest.raises(RunError, match="no temperature above 0"):
        run.temperature()
    file.unlink()
    run.mark_done()
    assert run.temperature() == heat
    assert (submillion.predict(run, source, calibrated=True).probs != submillion.predict(run, source).probs).any()
    file.write_bytes(content)
    run.mark_done()


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("few", ["--max-error", "0.02"], "it takes 166 validation rows"),
        ("few", ["--coverage", "0.95"], "it takes 19"),
        ("several", ["--max-error", "0.1"], "rows with one label"),
        ("several", ["--coverage", "0.9"], "--coverage (coverage) is for rows with one label"),
        ("one", ["--max-error", "5"], "--max-error (max_error) is 5.0: give a share"),
        (
            "one",
            ["--max-error", "0.1", "--coverage", "0.9"],
            "--max-error (max_error) and --coverage (coverage) are both set",
        ),
        ("one", ["--calibrated"], "--calibrated (calibrated) changes only probabilities"),
        ("one", ["--id", "nope"], "name one of these with --id"),
        ("one", ["--max-error", "0.3", "--keep", "label", "--id", "answered"], "two columns"),
    ],
)
def test_what_cannot_be_promised_is_said_before_a_row_is_predicted(
    made: dict[str, Run],
    source: Path,
    tmp_path: Path,
    name: str,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.csv"
    words = ["predict", made[name].path, "--input", source, "--output", output, *options]
    assert call(*words) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_says_how_many_rows_are_answered(
    made: dict[str, Run], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    max_error = stated(made["one"], source)
    words = ["predict", made["one"].path, "--input", source, "--output", tmp_path / "a.csv"]
    assert call(*words, "--max-error", str(max_error)) == 0
    n = sum(line.endswith("True") for line in (tmp_path / "a.csv").read_text().splitlines())
    assert f"{n} rows are answered" in capsys.readouterr().out
    assert call(*words, "--max-error", str(max_error), "--json") == 0
    assert json.loads(capsys.readouterr().out)["answered"] == n


def test_the_service_says_what_it_cannot_promise(made: dict[str, Run]) -> None:
    with TestClient(
        create_app(folders.opened(made["few"].path.parent), Options()), base_url="http://127.0.0.1:8000"
    ) as client:

        def ask(name: str, **more: Any) -> tuple[int, str]:
            answer = client.post("/v1/predict", json={"texts": ["good film"], "run": made[name].name, **more})
            return answer.status_code, answer.text

        for name, more, status, sentence in (
            ("few", {"max_error": 0.02}, 400, "it takes 166 validation rows"),
            ("several", {"coverage": 0.9}, 400, "rows with one label"),
            ("one", {"max_error": 2}, 422, "less than 1"),
            ("one", {"max_error": 0.1, "coverage": 0.9}, 422, "give one"),
        ):
            code, text = ask(name, **more)
            assert (code, sentence in text) == (status, True), text
        code, text = ask("one", coverage=0.9)
        found = json.loads(text)["predictions"][0]
        assert found["label"] in found["labels"]
        for e in np.linspace(0.5, 0.9, 100):  # any number of them
            assert ask("one", max_error=float(e))[0] == 200


@pytest.mark.parametrize(("max_error", "least"), [(0.05, 66), (0.02, 166), (0.2, 16)])
def test_rows_that_are_enough_without_an_error_always_are(max_error: float, least: int) -> None:
    rng = np.random.default_rng(3)
    for n in (least, least + 1, least + least // 3, 2 * least):
        sure = rng.uniform(0.5, 1, n)
        rows = Predictions([f"{n} {i}" for i in range(n)], np.zeros(n, np.int64), np.column_stack([sure, 1 - sure]))
        assert confidence.selection(rows, max_error).threshold is not None
