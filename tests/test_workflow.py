"""Laws of a whole run: what it leaves behind, what it answers the second time, what it never does."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from submillion import config, data, prediction, runs
from submillion.cli import main
from submillion.config import Config
from submillion.data.long_texts import Reading
from submillion.errors import BudgetError, ConfigError, DataError, RunError
from submillion.judging.metrics import score
from submillion.model import backbone, batching, packed
from submillion.model.batching import order, tokens
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.training import describing, evaluation, workers, workflow
from tests.data import write_csv

ARCHITECTURE = Path(__file__).parent.parent / "docs" / "architecture.md"
OVERRIDES = ["train.steps=20", "train.batch_size=8", "train.evaluate_every=6", "train.precision=fp32", "data.test=0.2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    """The overrides of a small run, without its out folder."""
    data = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)
    return [*OVERRIDES, f"model.name={encoders['bert']}", f"data.source={data}"]


@pytest.fixture(scope="module")
def finished(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Run]:
    settings = config.load(overrides=[*base, f"out={tmp_path_factory.mktemp('runs')}"])
    return settings, workflow.train(settings)


def settings_of(base: list[str], out: Path, *more: str) -> Config:
    return config.load(overrides=[*base, f"out={out}", *more])


def records_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_the_run_folder_holds_what_is_promised(finished: tuple[Config, Run]) -> None:
    settings, run = finished
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")}
    expected = {"config.yaml", "plan.json", "environment.json", "labels.json", "data.json", "metrics.jsonl", "adapter"}
    assert expected | {"predictions-validation.parquet", "predictions-test.parquet", "scores.json", "DONE"} <= names
    assert run.config() == settings
    assert run.labels() == ("art", "money", "sport")
    plan = run.read_json("plan.json")
    assert plan["total"] <= plan["budget"] == 1_000_000


def test_records_are_complete_and_in_order(finished: tuple[Config, Run]) -> None:
    records = records_of(finished[1])
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, 21))
    assert [record["step"] for record in records if record["kind"] == "eval"] == [6, 12, 18, 20]
    keys = {"step", "epoch", "loss", "learning_rate", "tokens", "seconds"}
    assert all(keys <= record.keys() and record["seconds"] >= 0 for record in records)
    assert all(record["tokens"] > 0 and math.isfinite(record["loss"]) for record in steps)
    for record in records:
        if record["kind"] == "eval":
            accuracy = record["accuracy"]
            assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_scores_come_from_the_saved_predictions(finished: tuple[Config, Run]) -> None:
    _, run = finished
    written = json.loads((run.path / "scores.json").read_text())
    assert set(written) == {"test", "validation"}
    for split, scores in written.items():
        recomputed = {name: vars(value) for name, value in score(run.load_predictions(split)).items()}
        assert scores == recomputed
        assert set(scores) == {"accuracy", "macro_f1", "log_loss", "ece"}


def test_the_best_checkpoint_is_the_result_even_if_it_is_not_the_last(base: list[str], tmp_path: Path) -> None:
    # A rate that never falls and a step too large: accuracy goes up and down.
    wild = [
        "adapter.method=none",
        "train.decide=accuracy",
        "train.schedule=constant",
        "train.learning_rate=3e-3",
        "train.evaluate_every=1",
    ]
    run = workflow.train(
        settings_of(base, tmp_path, *wild, "train.steps=60", "train.precision=fp32", "data.validation=0.3")
    )
    evaluations = [record for record in records_of(run) if record["kind"] == "eval"]
    best = max(evaluations, key=lambda record: (record["accuracy"]["value"], -record["loss"]))
    assert best["accuracy"]["value"] > evaluations[-1]["accuracy"]["value"]
    saved = run.scores()["validation"]
    assert vars(saved["accuracy"]) == best["accuracy"]
    assert saved["log_loss"].value == pytest.approx(best["loss"], abs=1e-6)


def test_records_count_the_real_tokens(base: list[str], tmp_path: Path) -> None:
    settings = settings_of(base, tmp_path, "train.steps=null", "train.epochs=1")
    run = workflow.train(settings)
    splits = data.read(settings.data)
    split = batching.tokenize(splits.train, backbone.load_tokenizer(settings.model.name), splits.labels, Reading(128))
    assert sum(record["tokens"] for record in records_of(run)) == len(split.tokens)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.class_weights=balanced", "train.label_smoothing=0.1", "train.head_learning_rate=1e-3"],
        ["train.gradient_checkpointing=true", "adapter.dropout=0.1", "adapter.bias=all", "train.max_grad_norm=null"],
        ["train.precision=bf16", "adapter.method=dora", "model.head=linear", "train.schedule=cosine-restarts"],
        ["adapter.method=ia3", "train.optimizer=rmsprop", "train.schedule=polynomial", "model.dropout=0.3"],
        [
            "adapter.init=pissa",
            "adapter.rslora=true",
            "adapter.layers=top:1",
            "model.head=bottleneck",
            "model.head_width=4",
        ],
        ["adapter.method=none", "train.schedule=constant", "train.warmup=3", "train.steps=9"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_kind_of_run_ends_and_predicts(base: list[str], tmp_path: Path, overrides: list[str]) -> None:
    run = workflow.train(settings_of(base, tmp_path, *overrides))
    texts = ["the game of the team", "a film"]
    assert len(prediction.predict(run, texts).labels) == 2
    assert run.scores()["test"]["accuracy"].n == 24


def test_the_evaluation_batch_size_does_not_change_predictions(
    finished: tuple[Config, Run], base: list[str], tmp_path: Path
) -> None:
    one_by_one = workflow.train(settings_of(base, tmp_path, "train.evaluation_batch_size=1"))
    ours, theirs = one_by_one.load_predictions("test"), finished[1].load_predictions("test")
    assert ours.ids == theirs.ids
    np.testing.assert_allclose(ours.probs, theirs.probs, atol=1e-5)


@pytest.mark.parametrize("bound", [1, 40, 100])
def test_the_token_bound_of_evaluation_does_not_change_predictions(
    finished: tuple[Config, Run], base: list[str], bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = finished[0].data.source
    assert source is not None
    usual = prediction.predict(finished[1], Path(source))
    monkeypatch.setattr(order, "EVALUATION_TOKENS", bound)
    np.testing.assert_allclose(prediction.predict(finished[1], Path(source)).probs, usual.probs, atol=1e-5)


def test_batches_by_tokens_keep_their_bound_and_pass_over_all_rows(base: list[str], tmp_path: Path) -> None:
    cut = ["train.steps=null", "train.epochs=2", "model.max_length=32", "train.batch_tokens=200"]
    settings = settings_of(base, tmp_path, *cut)
    steps = [record for record in records_of(workflow.train(settings)) if record["kind"] == "step"]
    splits = data.read(settings.data)
    split = batching.tokenize(splits.train, backbone.load_tokenizer(settings.model.name), splits.labels, Reading(32))
    assert len(steps) == 2 * batching.n_batches(split.lengths, settings.train)
    assert steps[-1]["epoch"] == 2
    assert all(0 < record["tokens"] <= 200 for record in steps)
    for epoch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
        assert sum(record["tokens"] for record in epoch) == len(split.tokens)


def test_without_a_writable_cache_a_run_trains_and_says_so(
    finished: tuple[Config, Run], base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBMILLION_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tokens, "_CACHED_ROWS", 1)
    notes: list[str] = []

    def note(record: StepRecord | EvalRecord | workflow.Phase) -> bool:
        notes.extend(record.notes if record.kind == "phase" else ())
        return False

    run = workflow.train(settings_of(base, tmp_path / "runs"), note)
    assert sum(text.startswith("token ids are not kept") for text in notes) == 1
    assert run.path.name == finished[1].path.name
    assert (run.path / "scores.json").read_bytes() == (finished[1].path / "scores.json").read_bytes()


def test_training_starts_from_a_finished_run_of_the_same_encoder(
    finished: tuple[Config, Run], encoders: dict[str, Path], base: list[str], tmp_path: Path
) -> None:
    start = f"adapter.start_from={finished[1].path}"
    notes: list[str] = []

    def note(record: StepRecord | EvalRecord | workflow.Phase) -> bool:
        notes.extend(record.notes if record.kind == "phase" else ())
        return False

    workflow.train(settings_of(base, tmp_path, start, "train.steps=2"), note)
    assert any(text.endswith(": adapter and head") for text in notes)
    assert not any("which was trained on" in text for text in notes)
    workflow.train(settings_of(base, tmp_path, start, "train.steps=2", "data.seed=5"), note)
    assert any("which was trained on" in text for text in notes)
    with pytest.raises(ConfigError, match=r"start_from is .*: it adapts .*bert, not model\.name"):
        workflow.train(settings_of(base, tmp_path, start, f"model.name={encoders['electra']}"))
    phases: list[str] = []
    for text, advice in (("nobody", "give the path of a finished run"), (finished[1].name, f"did you mean {tmp_path}")):
        wishes = settings_of(base, tmp_path, f"adapter.start_from={text}")
        os.symlink(finished[1].path, tmp_path / finished[1].name) if advice.startswith("did") else None
        with pytest.raises(ConfigError, match=rf"start_from is {text}: no such folder; {re.escape(advice)}"):
            workflow.train(wishes, lambda record: phases.append(record.kind))
    assert not phases  # nothing is read before
    half_done = workflow.train(settings_of(base, tmp_path, "train.seed=7"), lambda record: record.kind == "step")
    with pytest.raises(RunError, match="is not finished"):
        workflow.train(settings_of(base, tmp_path, f"adapter.start_from={half_done.path}"))


@pytest.mark.parametrize("file", ["labels.json", "config.yaml", "scores.json", "adapter/adapter_model.safetensors"])
def test_an_edited_run_is_refused_by_name(
    finished: tuple[Config, Run], base: list[str], tmp_path: Path, file: str
) -> None:
    settings, run = settings_of(base, tmp_path), Run(tmp_path / finished[1].name)
    shutil.copytree(finished[1].path, run.path)
    assert workflow.train(settings).path == run.path
    (run.path / file).write_bytes((run.path / file).read_bytes().replace(b"art", b"tra").replace(b"0", b"1"))
    for use in (lambda: prediction.predict(run, ["a"]), lambda: workflow.train(settings)):
        with pytest.raises(RunError, match=f"{file} is not what training wrote"):
            use()


def test_a_changed_encoder_is_noticed(base: list[str], encoders: dict[str, Path], tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    settings = settings_of(base, tmp_path / "runs", f"model.name={encoder}", "train.steps=2")
    run = workflow.train(settings)
    weights = load_file(encoder / "model.safetensors")
    changed = {name: tensor + 1 for name, tensor in weights.items()}
    (encoder / "model.safetensors").unlink()
    save_file(changed, encoder / "model.safetensors", metadata={"format": "pt"})
    for use in (lambda: prediction.predict(run, ["a"]), lambda: workflow.train(settings)):
        with pytest.raises(RunError, match="does not hold the weights"):
            use()


def test_a_run_on_a_relative_path_works_from_another_folder(
    base: list[str], encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoders["bert"].parent)
    run = workflow.train(settings_of(base, tmp_path, "model.name=./bert", "train.steps=2"))
    monkeypatch.chdir(tmp_path)
    assert len(prediction.predict(run, ["a film"]).labels) == 1


def test_pairs_are_trained_and_predicted_as_pairs(base: list[str], tmp_path: Path) -> None:
    rows = tmp_path / "pairs.csv"
    lines = [f"the team {i},a game of {i % 7},{'same' if i % 2 else 'other'}" for i in range(60)]
    rows.write_text("\n".join(["text,second,label", *lines]), encoding="utf-8")
    run = workflow.train(settings_of(base, tmp_path, f"data.source={rows}", "data.text_pair=second", "train.steps=3"))
    assert set(prediction.predict(run, [("a game", "the team")]).labels) <= {"same", "other"}
    with pytest.raises(DataError, match="give pairs"):
        prediction.predict(run, ["a game"])


def test_it_learns(base: list[str], tmp_path: Path) -> None:
    settings = settings_of(base, tmp_path, "train.steps=250", "train.learning_rate=3e-3", "adapter.method=none")
    run = workflow.train(settings)
    assert run.scores()["test"]["accuracy"].low > 0.5


def test_the_test_split_is_opened_once_and_noted(finished: tuple[Config, Run]) -> None:
    settings, run = finished
    fingerprint = run.read_json("data.json")["test_fingerprint"]
    assert runs.count_test_reads(settings.out, fingerprint) == 1
    workflow.train(settings)
    assert runs.count_test_reads(settings.out, fingerprint) == 1


def test_the_same_question_is_answered_from_the_folder(finished: tuple[Config, Run]) -> None:
    settings, run = finished
    before = (run.path / "DONE").stat().st_mtime_ns
    renamed = settings.model_copy(update={"name": "another"})
    assert workflow.train(renamed).path == run.path
    assert (run.path / "DONE").stat().st_mtime_ns == before


def test_the_same_seed_gives_the_same_run_and_another_another(
    finished: tuple[Config, Run], base: list[str], tmp_path: Path
) -> None:
    _, run = finished
    again = workflow.train(settings_of(base, tmp_path))
    assert (again.path / "predictions-test.parquet").read_bytes() == (
        run.path / "predictions-test.parquet"
    ).read_bytes()
    other = workflow.train(settings_of(base, tmp_path, "train.seed=1"))
    assert other.path != again.path
    assert (other.path / "predictions-test.parquet").read_bytes() != (
        run.path / "predictions-test.parquet"
    ).read_bytes()


def test_accumulated_batches_equal_one_large_batch(base: list[str], tmp_path: Path) -> None:
    # Every step passes over all rows, so both runs see the same ones, however they are cut into batches.
    rows = write_csv(tmp_path / "few.csv", 40)
    quiet = [f"data.source={rows}", "model.dropout=0", "train.steps=5", "train.evaluate_every=5"]
    losses = [
        [record["loss"] for record in records_of(workflow.train(settings_of(base, tmp_path, *quiet, *sizes)))]
        for sizes in (
            ["train.batch_size=64"],
            ["train.batch_size=7", "train.accumulation=8"],
            ["model.max_length=40", "train.batch_tokens=160", "train.accumulation=16"],
        )
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_a_watcher_pauses_a_run_that_goes_on_to_the_same_end(
    finished: tuple[Config, Run], base: list[str], tmp_path: Path
) -> None:
    settings = settings_of(base, tmp_path)
    paused = workflow.train(settings, lambda record: record.kind == "eval" and record.step == 6)
    assert paused.state == "interrupted"
    assert records_of(paused)[-1]["step"] == 6
    assert not (tmp_path / "test-reads.jsonl").exists()
    run = workflow.train(settings)
    assert run.path == paused.path
    assert (run.path / "scores.json").read_bytes() == (finished[1].path / "scores.json").read_bytes()


def test_a_run_keeps_the_threads_that_it_began_with(base: list[str], tmp_path: Path) -> None:
    settings, seen = settings_of(base, tmp_path), list[int]()
    notes: list[str] = []

    def watch(record: Any) -> bool:
        if record.kind == "phase":
            notes.extend(record.notes)
        else:
            seen.append(torch.get_num_threads())
        return record.kind == "eval" and record.step == 6 and len(seen) < 10

    with workers.threads(2):
        paused = workflow.train(settings, watch)
        assert torch.get_num_threads() == 2
    assert not any("threads" in note for note in notes)
    with workers.threads(1):
        run = workflow.train(settings, watch, as_trial=True)
        assert torch.get_num_threads() == 1
    assert (run.path, run.is_done, set(seen)) == (paused.path, True, {2})
    environment = run.environment() or {}
    assert environment["threads"] == 2
    assert "begun_with" not in environment
    assert set(environment["bits_depend_on"]) <= environment.keys()
    assert notes.count("threads: 2, as when it began, instead of 1, which would change the last bits") == 1


@pytest.mark.parametrize(
    ("called", "typed"),
    [
        ("/venv/bin/submillion", ("submillion",)),
        ("/lib/submillion/__main__.py", ("python", "-m", "submillion")),
        ("fit.py", ("fit.py",)),
    ],
)
def test_the_command_is_noted_as_it_is_typed(called: str, typed: tuple[str, ...]) -> None:
    assert describing.program(called) == typed


def test_test_rows_are_opened_later_with_the_threads_of_the_run(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, open_test = list[int](), evaluation.open_test
    with workers.threads(2):
        workflow.train(settings_of(base, tmp_path), as_trial=True)

    def opened(*arguments: Any) -> None:
        seen.append(torch.get_num_threads())
        open_test(*arguments)

    monkeypatch.setattr(evaluation, "open_test", opened)
    run = workflow.train(settings_of(base, tmp_path))
    assert (seen, set(run.scores())) == ([2], {"validation", "test"})


def test_a_run_that_goes_on_elsewhere_says_what_its_last_bits_come_from(base: list[str], tmp_path: Path) -> None:
    settings, notes = settings_of(base, tmp_path), list[str]()
    paused = workflow.train(settings, lambda record: record.kind == "eval")
    environment = paused.environment() or {}
    paused.write_json("environment.json", environment | {"processor": "Zilog Z80", "threads": 3})

    def watch(record: Any) -> bool:
        notes.extend(record.notes if record.kind == "phase" else ())
        return False

    run = workflow.train(settings, watch)
    assert (run.environment() or {})["begun_with"] == {"processor": "Zilog Z80"}
    assert any(note.startswith("started in another environment (processor): ") for note in notes)
    n_cores = workers._n_cores()
    assert (f"3 threads share {n_cores} cores" in notes) == (n_cores < 3)


def test_ctrl_c_keeps_the_last_step(base: list[str], tmp_path: Path) -> None:
    settings = settings_of(base, tmp_path)

    def interrupt(record: StepRecord | EvalRecord | workflow.Phase) -> bool:
        if record.kind == "step" and record.step == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        workflow.train(settings, interrupt)
    (run,) = runs.list_runs(tmp_path)
    assert run.state == "interrupted"
    seen: list[int] = []

    def note(record: StepRecord | EvalRecord | workflow.Phase) -> bool:
        if record.kind == "step":
            seen.append(record.step)
        return False

    workflow.train(settings, note)
    assert seen == list(range(10, 21))


def test_patience_ends_early(base: list[str], tmp_path: Path) -> None:
    settings = settings_of(base, tmp_path, "train.patience=1", "train.learning_rate=1e-15", "train.evaluate_every=2")
    run = workflow.train(settings)
    evaluations = [record for record in records_of(run) if record["kind"] == "eval"]
    assert [record["step"] for record in evaluations] == [2, 4]
    assert len({record["accuracy"]["value"] for record in evaluations}) == 1, "a tie is not a better score"


def test_a_loss_that_is_no_number_stops_with_the_reason(
    base: list[str], encoders: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoders["bert"], broken)
    weights = load_file(broken / "model.safetensors")
    save_file({name: tensor * 1e30 for name, tensor in weights.items()}, broken / "model.safetensors")
    with pytest.raises(RunError, match=r"the loss is nan at step 1, before anything was learnt: .* nothing to keep"):
        workflow.train(settings_of(base, tmp_path / "runs", f"model.name={broken}"))


def test_two_processes_cannot_write_one_run(base: list[str], tmp_path: Path) -> None:
    settings = settings_of(base, tmp_path)

    def train_again(record: StepRecord | EvalRecord | workflow.Phase) -> bool:
        if record.kind == "step" and record.step == 1:
            with pytest.raises(RunError, match="another process"):
                workflow.train(settings)
        return False

    assert workflow.train(settings, train_again).is_done


def test_over_budget_stops_before_anything_is_written(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(BudgetError):
        workflow.train(settings_of(base, tmp_path, "budget=1000", "adapter.rank=8"))
    assert runs.list_runs(tmp_path) == []


@pytest.mark.parametrize("written", ["1", "1.0", "1."])
def test_class_weights_name_numbers_as_files_do(base: list[str], tmp_path: Path, written: str) -> None:
    rows = "".join(f"text number {i},{i % 2}.0\n" for i in range(20))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    settings = settings_of(base, tmp_path, f"data.source={tmp_path / 'rows.csv'}", "data.test=null")
    weighed = config.changed(settings, {"train.class_weights": {"0": 1.0, written: 5.0}})
    run = workflow.train(weighed, as_trial=True)
    assert run.config().train.class_weights == {"0": 1.0, "1": 5.0}
    with pytest.raises(ConfigError, match=r"names a class twice: 1, 1\.0"):
        workflow.train(config.changed(settings, {"train.class_weights": {"1": 1.0, "1.0": 5.0}}))


def test_class_weights_must_name_labels(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_weights"):
        workflow.train(settings_of(base, tmp_path, "train.class_weights={nobody: 2.0}"))


def test_a_trial_that_is_trained_for_good_opens_test_once_and_is_reported_anew(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[set[str]] = []

    def write(run: Run, _: Any) -> None:
        run.write("report.html", "")
        scored.append(set(run.scores()))

    monkeypatch.setattr("submillion.reports.write", write)
    settings = settings_of(base, tmp_path)
    run = workflow.train(settings, as_trial=True)
    run.write("report.html", "of validation")  # asked for by hand
    assert (set(run.scores()), scored) == ({"validation"}, [])
    for _ in range(2):
        workflow.train(settings)
    assert scored == [{"validation", "test"}]
    assert len((tmp_path / "test-reads.jsonl").read_text().splitlines()) == 1


def test_a_batch_crosses_six_frames_from_the_command_to_the_packed_pass(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/architecture.md names them; a reader who follows a batch reads these functions and no others."""
    stacks: list[list[str]] = []
    encode, here = packed.encode, str(Path(packed.__file__).parents[2])

    def noting(*arguments: Any, **named: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(here)]
            stacks.append([frame.name for frame in frames])
        return encode(*arguments, **named)

    monkeypatch.setattr(packed, "encode", noting)
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--out", str(tmp_path), *(word for override in base for word in ("--set", override))])
    (stack,) = {tuple(names[names.index("train") :]) for names in stacks}
    assert stack == ("train", "train", "fit", "step", "forward")  # and `encode` itself
    assert "command → `workflow.train` → `fit` → `step` → `forward` → `encode`" in ARCHITECTURE.read_text()
