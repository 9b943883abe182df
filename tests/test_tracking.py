"""Laws of tracking: a tracker gets each record once, whatever stops the run, and the run never knows of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from submillion import config, runs
from submillion.config import Config
from submillion.errors import install_line
from submillion.judging.metrics import Score
from submillion.runs import EvalRecord, Run, StepRecord
from submillion.training import tracking, workflow
from submillion.training.workflow import Phase, Stopwatch
from tests.data import write_csv

OVERRIDES = ["train.steps=12", "train.batch_size=8", "train.evaluate_every=5", "train.checkpoint_every=2"]
SECRET = "0123456789abcdef0123456789abcdef01234567"


class Recorder:
    """What a tracker of accelerate looks like from outside; `broken` names the method that fails."""

    def __init__(self, broken: str = "", after: int = 0) -> None:
        self.points: list[tuple[int, str, float]] = []
        self.settings: dict[str, Any] = {}
        self.broken, self.after, self.n_calls, self.is_finished = broken, after, 0, False

    def _fail(self, name: str) -> None:
        self.n_calls += name == self.broken
        if self.n_calls > self.after:
            raise ConnectionError(f"{name} has no connection")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._fail("store")
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self._fail("log")
        self.points += [(step, key, value) for key, value in values.items()]

    def finish(self) -> None:
        self._fail("finish")
        self.is_finished = True


class Started:
    """Stands for `tracking.start`: recorders by id; a known id goes on in its recorder."""

    def __init__(self) -> None:
        self.recorders: dict[str, Recorder] = {}
        self.next = Recorder

    def __call__(self, name: str, run: Run, group: str, known: str | None) -> tuple[Any, str]:
        if known is None:
            known = f"{name}-{len(self.recorders)}"
            self.recorders[known] = self.next()
        return self.recorders[known], known


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()
    monkeypatch.setattr(tracking, "start", found)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 80)
    return [
        *OVERRIDES,
        "train.precision=fp32",
        f"model.name={encoders['bert']}",
        f"data.source={rows}",
        "data.test=0.2",
    ]


def settings_of(base: list[str], out: Path, trackers: str = "[mlflow]") -> Config:
    return config.load(overrides=[*base, f"out={out}", f"tracking={trackers}"])


def trained(settings: Config) -> tuple[Run, list[str]]:
    """The run, and the notes of its phases about trackers."""
    notes: list[str] = []

    def watch(record: StepRecord | EvalRecord | Phase) -> bool:
        if record.kind == "phase" and "tracker" in record.name:
            notes.extend(record.notes)
        return False

    return workflow.train(settings, watch), notes


def killed_at(settings: Config, step: int, kind: str = "step") -> None:
    """Train until the watcher raises, as a kill would: the checkpoint is older than the last record."""

    def watch(record: StepRecord | EvalRecord | Phase) -> bool:
        if record.kind == kind and record.step == step:
            raise SystemExit
        return False

    with pytest.raises(SystemExit):
        workflow.train(settings, watch)


def expected(run: Run) -> list[tuple[int, str, float]]:
    """The points of a run folder's records and scores."""
    points = [(r.step, key, value) for r in run.records() for key, value in tracking.values_of(r).items()]
    last = points[-1][0]
    for split, named in run.scores().items():
        for name, score in named.items():
            values = {"": score.value, "_low": score.low, "_high": score.high}
            points += [(last, f"final/{split}/{name}{suffix}", value) for suffix, value in values.items()]
    return points


def untimed(points: list[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
    """Sorted, without how long things took: steps that are done twice take two times."""
    return sorted((step, key, value) for step, key, value in points if not key.endswith(("seconds", "_s")))


def test_a_tracker_gets_every_record_and_the_final_scores(base: list[str], tmp_path: Path, started: Started) -> None:
    run, notes = trained(settings_of(base, tmp_path, "[mlflow, wandb, mlflow]"))
    assert set(started.recorders) == {"mlflow-0", "wandb-1"}
    for recorder in started.recorders.values():
        assert recorder.points == expected(run)
        assert recorder.is_finished
        plan = run.read_json("plan.json")
        assert recorder.settings["plan.total"] == plan["total"]
        assert recorder.settings["train.steps"] == "12"
        assert recorder.settings["run"] == run.name
    assert notes == [f"they write into {tmp_path / 'tracking'}"]
    keys = {key for _, key, _ in started.recorders["mlflow-0"].points}
    assert {"train/loss", "validation/accuracy", "validation/accuracy_low", "final/test/log_loss_high"} <= keys


@pytest.mark.parametrize(("step", "kind"), [(1, "step"), (5, "eval"), (7, "step"), (12, "eval")])
def test_a_killed_run_goes_on_without_doubled_or_missing_points(
    base: list[str], tmp_path: Path, started: Started, step: int, kind: str
) -> None:
    settings = settings_of(base, tmp_path)
    killed_at(settings, step, kind)
    run, _ = trained(settings)
    (recorder,) = started.recorders.values()
    assert untimed(recorder.points) == untimed(expected(run))


def test_a_tracker_that_comes_later_gets_what_it_missed(base: list[str], tmp_path: Path, started: Started) -> None:
    for trackers, step in (("[]", 3), ("[wandb]", 5), ("[]", 7)):
        killed_at(settings_of(base, tmp_path, trackers), step)
    run, _ = trained(settings_of(base, tmp_path, "[mlflow, wandb]"))
    first, second, third = started.recorders
    assert [first[:-2], second[:-2], third[:-2]] == ["wandb", "mlflow", "wandb"], "wandb had missed steps: a new run"
    for name in (second, third):
        assert untimed(started.recorders[name].points) == untimed(expected(run))


def test_a_finished_run_is_not_mirrored_again(base: list[str], tmp_path: Path, started: Started) -> None:
    run, _ = trained(settings_of(base, tmp_path))
    n_points = len(started.recorders["mlflow-0"].points)
    again, notes = trained(settings_of(base, tmp_path, "[mlflow, trackio]"))
    assert (again.path, notes, [*started.recorders]) == (run.path, [], ["mlflow-0"])
    assert len(started.recorders["mlflow-0"].points) == n_points


@pytest.mark.parametrize(("broken", "after"), [("store", 0), ("log", 0), ("log", 6), ("finish", 0)])
def test_a_tracker_that_fails_costs_one_warning_and_nothing_else(
    base: list[str], tmp_path: Path, started: Started, broken: str, after: int
) -> None:
    started.next = lambda: Recorder(broken, after)
    run, notes = trained(settings_of(base, tmp_path))
    plain, _ = trained(settings_of(base, tmp_path / "plain", "[]"))
    assert len(notes) == 2
    assert notes[1].startswith(
        f"mlflow failed (ConnectionError: {broken} has no connection); the run continues without it"
    )
    assert started.recorders["mlflow-0"].n_calls == after + 1, "it is left alone from then on"
    for name in ("scores.json", "predictions-test.parquet"):
        assert (run.path / name).read_bytes() == (plain.path / name).read_bytes()
    runs.verify(run)


def test_a_tracker_that_cannot_start_leaves_the_others_alone(
    base: list[str], tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str, *arguments: Any) -> tuple[Any, str]:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return started(name, *arguments)

    monkeypatch.setattr(tracking, "start", start)
    run, notes = trained(settings_of(base, tmp_path, "[wandb, mlflow]"))
    assert notes[1:] == [
        f"wandb is not installed: {install_line('tracking')}; the run continues without it, metrics.jsonl "
        "has every record"
    ]
    assert started.recorders["mlflow-0"].points == expected(run)
    assert run.read_json(tracking.IDS) == {"mlflow": "mlflow-0"}


def test_a_tracker_that_failed_is_begun_anew_with_everything(base: list[str], tmp_path: Path, started: Started) -> None:
    settings = settings_of(base, tmp_path)
    started.next = lambda: Recorder("log", 4)
    killed_at(settings, 7)
    started.next = Recorder
    run, _ = trained(settings)
    assert untimed(started.recorders["mlflow-1"].points) == untimed(expected(run))


def test_the_run_folder_holds_ids_alone_and_they_are_not_sealed(
    base: list[str], tmp_path: Path, started: Started
) -> None:
    run, _ = trained(settings_of(base, tmp_path))
    plain, _ = trained(settings_of(base, tmp_path / "plain", "[]"))
    names = {path.name for path in run.path.iterdir()}
    assert names - {path.name for path in plain.path.iterdir()} == {tracking.IDS}
    (run.path / tracking.IDS).unlink()
    runs.verify(run)
    assert run.name == plain.name, "the hash does not cover tracking"
    assert [found.name for found in runs.list_runs(tmp_path)] == [run.name], "its folder is not a run"


def test_numbers_that_are_not_finite_and_odd_keys_are_kept_away(
    base: list[str], tmp_path: Path, started: Started
) -> None:
    step = StepRecord(1, 0.5, float("nan"), 1e-3, 10, 0.1)
    assert tracking.values_of(step).keys() == {"train/learning_rate", "train/epoch", "train/tokens", "train/seconds"}
    run, _ = trained(settings_of([*base, "train.class_weights={sport: 2.0}"], tmp_path))
    assert started.recorders["mlflow-0"].settings["train.class_weights.sport"] == "2"
    odd = config.changed(run.config(), {"train.class_weights": {"a,b=c": 1.0}})
    assert tracking.hyperparameters(run, odd)["train.class_weights.a_b_c"] == "1"


# The real ones: two sittings of a run, the second from a checkpoint at step 4, and back from what they wrote


def records(first: int, last: int) -> Iterator[StepRecord | EvalRecord]:
    for step in range(first, last + 1):
        yield StepRecord(step, step / 10, 1 / step, 1e-3, 100, 0.5)
        if step % 4 == 0:
            yield EvalRecord(step, step / 10, 0.5, 1e-3, 0, 0.5, 0.1, {"accuracy": Score(step / 10, 0, 1, 9)}, True)


STEPS = list(range(1, 9))
EVALUATIONS = [(4, 0.4), (8, 0.8)]


@pytest.fixture
def two_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    for variable in ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.delenv(variable, raising=False)

    def make(tracker: str) -> Run:
        run = runs.create(tmp_path / "out", "group", "0123abcd")
        settings = config.load(overrides=["name=group", f"tracking=[{tracker}]"])
        failures: list[str] = []

        def noted(record: StepRecord | EvalRecord | Phase) -> None:
            if record.kind == "phase" and record.name != "starting trackers":
                failures.extend(record.notes)

        counts = {"total": 9, "adapter_params": 4, "head_params": 5, "all_params": 90}
        run.write_json("plan.json", counts)
        for first, last in ((1, 6), (5, 8)):
            with tracking.mirrored(run, settings, Stopwatch(noted)) as mirror:
                run.cut_back(first - 1, first - 1)
                for record in records(first, last):
                    run.append(record)
                    mirror(record)
                if last == STEPS[-1]:
                    mirror.log_scores({"test": {"accuracy": Score(0.75, 0.5, 1, 9)}})
        assert failures == []
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]
        assert {path.name for path in run.path.iterdir()} == {"metrics.jsonl", "plan.json", tracking.IDS}
        return run

    return make


@pytest.mark.slow
def test_tensorboard_reads_back(two_sittings: Callable[[str], Run]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = two_sittings("tensorboard")
    folder = tracking.folder_of(run) / "tensorboard" / run.name
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == STEPS
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([1 / step for step in STEPS])
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("validation/accuracy")] == EVALUATIONS
    assert [(e.step, e.value) for e in events.Scalars("final/test/accuracy")] == [(8, 0.75)]
    (parameters,) = folder.glob("*/hparams.yml")
    assert "train.learning_rate: '0.0005'" in parameters.read_text()


def wandb_records(content: bytes) -> Iterator[Any]:
    """The protocol buffers of a .wandb file: LevelDB's log format after a header of 7 bytes, blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert content[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(content):
        if -place % 32768 < 7 and place % 32768:
            place += -place % 32768  # too near the block's end for a header
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_wandb_reads_back_offline(two_sittings: Callable[[str], Run]) -> None:
    run = two_sittings("wandb")
    import wandb

    wandb.teardown()  # its service may write on after the run's end
    points: dict[str, list[tuple[int, float]]] = {}
    settings: dict[str, Any] = {}
    groups: set[tuple[str, str, str]] = set()
    for file in sorted((tracking.folder_of(run) / "wandb").glob("offline-run-*/*.wandb")):
        for record in wandb_records(file.read_bytes()):
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                points.setdefault(key, []).append((row["_step"], value))
            settings |= {item.key: json.loads(item.value_json) for item in record.config.update}
            if record.HasField("run"):
                groups.add((record.run.run_id, record.run.run_group, record.run.project))
    assert [step for step, _ in points["train/loss"]] == STEPS
    assert points["validation/accuracy"] == EVALUATIONS
    assert points["final/test/accuracy"] == [(8, 0.75)]
    assert settings["train.learning_rate"] == "0.0005"
    assert groups == {(run.read_json(tracking.IDS)["wandb"], "group", "submillion")}


@pytest.mark.slow
def test_mlflow_reads_back_from_sqlite(two_sittings: Callable[[str], Run]) -> None:
    from mlflow import MlflowClient

    run = two_sittings("mlflow")
    client = MlflowClient(f"sqlite:///{tracking.folder_of(run) / 'mlflow.db'}")
    found = client.get_run(run.read_json(tracking.IDS)["mlflow"])
    history = {key: client.get_metric_history(found.info.run_id, key) for key in found.data.metrics}
    assert [point.step for point in history["train/loss"]] == STEPS
    assert [(point.step, point.value) for point in history["validation/accuracy"]] == EVALUATIONS
    assert found.data.metrics["final/test/accuracy"] == 0.75
    assert found.data.params["train.learning_rate"] == "0.0005"
    assert (found.info.run_name, found.data.tags["group"]) == (run.name, "group")
    experiment = client.get_experiment_by_name("submillion")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.slow
def test_trackio_reads_back(two_sittings: Callable[[str], Run]) -> None:
    run = two_sittings("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("submillion", run.name)
    losses = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert losses == [(step, 1 / step) for step in STEPS]
    assert [(row["step"], row["validation/accuracy"]) for row in rows if "validation/accuracy" in row] == EVALUATIONS
    assert [row["final/test/accuracy"] for row in rows if "final/test/accuracy" in row] == [0.75]
    assert SQLiteStorage.get_runs("submillion") == [run.name]
