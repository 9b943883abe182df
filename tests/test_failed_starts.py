"""A training that fails before its first record leaves nothing behind, whatever the reason; what was there stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import submillion
from submillion import config, prediction, runs
from submillion.config import ModelConfig
from submillion.errors import ConfigError, DataError, HubError, RunError, SubmillionError
from submillion.planning.architectures import files
from submillion.runs import Run
from submillion.training import workflow
from submillion.training.workflow import Phase
from tests.data import write_csv
from tests.malformed import inside, refused


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 60)


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def halve(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def lack_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.0" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


# What is done to the encoder's folder, and the settings beside it.
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json", "vocab.txt"), ""),
    "half a tokenizer": (halve("tokenizer.json"), ""),
    "pickled weights alone": (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), ""),
    "no weights": (remove("model.safetensors"), ""),
    "half the weights": (halve("model.safetensors"), ""),
    "weights of half a model": (lack_weights, ""),
    "half a config": (halve("config.json"), ""),
    "texts longer than positions": (lambda folder: None, "model.max_length=256"),
    "a precision that is not there": (lambda folder: None, "train.precision=fp16"),
    "a device that is not there": (lambda folder: None, "device=mps"),
    "nothing to start from": (lambda folder: None, "adapter.start_from=./nowhere"),
    "no teacher": (lambda folder: None, "distillation.teacher=./nowhere"),
    "a class that is not there": (lambda folder: None, "train.class_weights={nobody: 1}"),
    "over budget": (lambda folder: None, "budget=10"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_begin_leaves_nothing(fault: str, rows: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    spoil, override = FAULTS[fault]
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    spoil(encoder)
    before = inside(tmp_path)
    overrides = [f"model.name={encoder}", f"data.source={rows}", "train.steps=2", f"out={tmp_path / 'runs'}"]
    with pytest.raises(SubmillionError):
        workflow.train(config.load(overrides=[*overrides, *([override] if override else [])]))
    assert inside(tmp_path) == before


@pytest.mark.parametrize(
    "fault", ["no tokenizer", "pickled weights alone", "no weights", "half the weights", "half a config"]
)
def test_what_is_wrong_with_an_encoders_files_is_said_before_rows_are_read(
    fault: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    FAULTS[fault][0](encoder)
    (tmp_path / "rows.csv").write_text("no such,columns\n")
    overrides = [f"model.name={encoder}", f"data.source={tmp_path / 'rows.csv'}", f"out={tmp_path / 'runs'}"]
    with pytest.raises(ConfigError, match=str(encoder)):
        workflow.train(config.load(overrides=overrides))


@pytest.mark.parametrize("fault", ["no weights", "half the weights", "weights of half a model"])
def test_a_runs_encoder_is_checked_before_the_rows_to_predict(
    fault: str, rows: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    overrides = [f"model.name={encoder}", f"data.source={rows}", "train.steps=2", f"out={tmp_path / 'runs'}"]
    run = workflow.train(config.load(overrides=overrides))
    FAULTS[fault][0](encoder)
    (tmp_path / "new.csv").write_text("no such column\n")
    for predicted in (
        lambda: prediction.predict_file(run, tmp_path / "new.csv", tmp_path / "labels.csv"),
        lambda: submillion.predict(run, tmp_path / "new.csv"),
        lambda: submillion.evaluate(run, tmp_path / "new.csv"),
        lambda: submillion.export(run, "merged", data=tmp_path / "new.csv"),
    ):
        with pytest.raises((ConfigError, RunError), match=str(encoder)):
            predicted()


@pytest.mark.parametrize(
    ("source", "told"),
    [("", "data.source is empty"), ("rws.csv", "no such file"), ("https://example.org/rows.csv", "is a URL")],
)
def test_rows_that_are_not_there_are_named_before_the_encoder_is_looked_for(
    source: str, told: str, tmp_path: Path
) -> None:
    settings = config.load(overrides={"data.source": source, "model.name": "roberta-base", "out": str(tmp_path)})
    with pytest.raises(DataError, match=told):
        workflow.train(settings)


def test_who_named_no_encoder_is_told_of_one_that_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelConfig()
    for package, is_told in ((tmp_path, True), (None, False)):
        monkeypatch.setattr(files, "_package", lambda name, package=package: package if "MiniLM" in name else None)
        with pytest.raises(HubError, match="HF_HUB_OFFLINE is set") as error:
            files.pinned(settings)
        hint = "or train all-MiniLM-L6-v2, which is on this machine: --set model.name=all-MiniLM-L6-v2"
        assert str(error.value).endswith(hint) == is_told
    with pytest.raises(HubError) as error:
        files.pinned(ModelConfig(name="bert-base-uncased"))
    assert "all-MiniLM" not in str(error.value)


def test_a_folder_for_runs_that_was_there_stays(rows: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    overrides = [f"model.name={encoders['bert']}", f"data.source={rows}", "train.precision=fp16"]
    (tmp_path / "mine").mkdir()
    for out in ("mine", "new"):
        with pytest.raises(SubmillionError):
            workflow.train(config.load(overrides=[*overrides, f"out={tmp_path / out}"]))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("phase", ["tokenising", "building", "training"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_what_stops_it_before_the_first_step_leaves_nothing_and_takes_nothing_else_along(
    phase: str, error: type[BaseException], rows: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    def watch(record: object) -> bool:
        if isinstance(record, Phase) and record.name == phase:
            raise error
        return False

    (tmp_path / "notes.txt").write_text("kept")
    before = inside(tmp_path)
    overrides = [f"model.name={encoders['bert']}", f"data.source={rows}", "train.steps=2", f"out={tmp_path}"]
    with pytest.raises(error):
        workflow.train(config.load(overrides=overrides), watch)
    assert inside(tmp_path) == before


def test_a_run_that_was_there_before_stays(rows: Path, encoders: dict[str, Path], tmp_path: Path) -> None:
    """One that a crash left, or that has records: the same command goes on with it once the fault is gone."""
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    overrides = [f"model.name={encoder}", f"data.source={rows}", "train.steps=3", f"out={tmp_path / 'runs'}"]
    settings = config.load(overrides=[*overrides, "train.precision=fp32"])
    paused = workflow.train(settings, lambda record: record.kind == "step")
    assert paused.state == "interrupted"
    for state in ("interrupted", "empty"):
        if state == "empty":
            shutil.rmtree(paused.path / "checkpoints")
            (paused.path / "metrics.jsonl").unlink()
        assert paused.state == state
        (encoder / "vocab.txt").unlink(missing_ok=True)
        (encoder / "tokenizer.json").rename(encoder / "elsewhere.json")
        with pytest.raises(SubmillionError):
            workflow.train(settings)
        assert [run.path for run in runs.list_runs(tmp_path / "runs")] == [paused.path]
        (encoder / "elsewhere.json").rename(encoder / "tokenizer.json")
    assert workflow.train(settings) == Run(paused.path)
    assert paused.is_done


def test_a_finished_run_without_its_encoder_writes_nothing(
    rows: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoders["bert"], encoder)
    overrides = [f"model.name={encoder}", f"data.source={rows}", "train.steps=2", f"out={tmp_path / 'runs'}"]
    run = workflow.train(config.load(overrides=overrides))
    (encoder / "model.safetensors").unlink()
    before = inside(tmp_path)
    for command in (
        ("predict", run.path, "--input", rows, "--output", tmp_path / "labels.csv"),
        ("evaluate", run.path, "--data", rows),
        ("shift", run.path, "--input", rows),
        ("export", run.path, "--format", "merged"),
    ):
        refused(capsys, *command, named=(str(encoder),))
        assert inside(tmp_path) == before, command
