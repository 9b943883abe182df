"""Run folders that were cut, flipped, emptied, mixed up or are newer: refused with the file named, by every command."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from submillion import config, reports, runs
from submillion.errors import RunError, SubmillionError
from submillion.model.adapters.saving import WEIGHTS
from submillion.prediction import journal
from submillion.runs import Run, study
from submillion.serving.app import create_app
from submillion.serving.folders import opened
from submillion.sweeps.space import load_study
from submillion.training import checkpoints, workflow
from tests.data import write_csv
from tests.kit.pairs import each
from tests.malformed import assert_sentences, called, in_time, inside, refused

FILES = (
    *("config.yaml", "plan.json", "environment.json", "labels.json", "data.json", "scores.json", "cost.json"),
    *("metrics.jsonl", "predictions-validation.parquet", "predictions-test.parquet"),
    *(f"adapter/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "config.json", "labels.json")),
    *("adapter/tokenizer.json", "adapter/tokenizer_config.json"),
)
COMMANDS = ("predict", "evaluate", "export", "compare", "report", "shift", "teacher", "start from", "serve")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _linked_out(path: Path) -> None:
    other = path.parents[-2] / "dev" / "null"
    path.unlink()
    path.symlink_to(other)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _flipped,
    "cut": _cut,
    "emptied": lambda path: path.write_bytes(b""),
    "removed": Path.unlink,
    "a link to elsewhere": _linked_out,
    "a folder": _a_folder,
    "a pipe": _a_pipe,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 90)


@pytest.fixture(scope="module")
def settings(encoders: dict[str, Path], rows: Path) -> list[str]:
    sets = {"model.name": encoders["bert"], "data.source": rows, "model.max_length": 32, "data.test": 20}
    sets |= {"train.steps": 4, "train.precision": "fp32", "train.evaluate_every": 2}
    return [f"{key}={value}" for key, value in sets.items()]


@pytest.fixture(scope="module")
def pair(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two finished runs that differ in their seeds."""
    out = tmp_path_factory.mktemp("pair")
    seeds = (0, 1)
    first, second = (workflow.train(config.load(overrides=[*settings, f"out={out}", f"train.seed={s}"])) for s in seeds)
    return first, second


@pytest.fixture
def run(pair: tuple[Run, Run], tmp_path: Path) -> Run:
    """A copy of a finished run, to be broken."""
    place = tmp_path / "runs" / pair[0].name
    shutil.copytree(pair[0].path, place)
    return Run(place)


@pytest.fixture
def ask(
    pair: tuple[Run, Run], rows: Path, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, Run], tuple[int, str]]:
    """Ask a command for a run; return its exit code and its sentences. Of a refusal nothing may be left."""

    def asked(command: str, run: Run) -> tuple[int, str]:
        if command == "report":  # its command is silenced in tests, as training's reports are
            try:
                with in_time():
                    reports.read(run)
            except SubmillionError as error:
                return 1, str(error)
            return 0, ""
        if command == "serve":
            with in_time(), TestClient(create_app(opened(run.path.parent)), base_url="http://127.0.0.1") as client:
                answer = client.post("/v1/predict", json={"run": run.name, "texts": ["a good film"]})
                return int(answer.status_code >= 400), "\n".join(answer.json().get("problems", ()))
        sets = [word for text in settings for word in ("--set", text)]
        train = ["train", "--json", "--out", tmp_path / "others", *sets, "--set"]
        arguments: dict[str, list[str | Path]] = {
            "predict": ["predict", run.path, "--input", rows, "--output", tmp_path / "labels.csv", "--json"],
            "evaluate": ["evaluate", run.path, "--data", rows, "--json"],
            "export": ["export", run.path, "--format", "merged", "--output", tmp_path / "exported", "--json"],
            "compare": ["compare", run.path, pair[1].path, "--json"],
            "shift": ["shift", run.path, "--input", rows, "--json"],
            "teacher": [*train, f"distillation.teacher={run.path}"],
            "start from": [*train, f"adapter.start_from={run.path}"],
        }
        code, out, err = called(capsys, *arguments[command])
        assert code == 0 or not out, out
        assert not (tmp_path / "labels.csv").exists() or code == 0
        assert not (tmp_path / "exported").exists() or code == 0
        return code, err

    return asked


# A seal knows no kinds of files: each with a change and a loss, and each damage of some.
FOUND = {
    *product(FILES, ("flipped", "removed")),
    *product(("config.yaml", "plan.json"), DAMAGES),
    *each(FILES, DAMAGES),
}


@pytest.mark.parametrize(("name", "damage"), sorted(FOUND))
def test_every_damage_of_every_file_is_found(run: Run, name: str, damage: str) -> None:
    DAMAGES[damage](run.path / name)
    with in_time(), pytest.raises(SubmillionError) as error:
        runs.verify(runs.load(run.path))
    is_alone = name == "config.yaml" and damage not in ("flipped", "cut", "emptied")
    assert_sentences(str(error.value), str(run.path) if is_alone else str(run.path / name))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", range(0, len(FILES), 6))
def test_every_command_refuses_a_damaged_run(
    run: Run, command: str, number: int, ask: Callable[[str, Run], tuple[int, str]]
) -> None:
    number = (number + COMMANDS.index(command)) % len(FILES)
    name, damage = FILES[number], list(DAMAGES)[(number + COMMANDS.index(command)) % len(DAMAGES)]
    DAMAGES[damage](run.path / name)
    code, sentences = ask(command, run)
    assert code == 1
    assert_sentences(sentences, run.name if name == "config.yaml" else name)


SEALS: dict[str, tuple[Callable[[dict], object], str]] = {
    "a newer format": (lambda done: {**done, "format": 2, "submillion": "9.9"}, "submillion 9.9, in format 2"),
    "a format of long ago": (lambda done: {**done, "format": 0}, "DONE"),
    "a format that is text": (lambda done: {**done, "format": "1"}, "DONE"),
    "true as format": (lambda done: {**done, "format": True}, "DONE"),
    "no format": (lambda done: {"files": done["files"]}, "DONE"),
    "no files": (lambda done: {**done, "files": {}}, "does not seal config.yaml"),
    "files in a list": (lambda done: {**done, "files": list(done["files"])}, "DONE"),
    "a list": (lambda done: [done], "DONE"),
    "null": (lambda _: None, "DONE"),
    "hashes that are numbers": (lambda done: {**done, "files": dict.fromkeys(done["files"], 7)}, "SHA-256"),
    "a file above": (lambda done: {**done, "files": {**done["files"], "../secret": "0"}}, "leads out"),
    "a file by its path": (lambda done: {**done, "files": {**done["files"], "/etc/passwd": "0"}}, "leads out"),
    "a file that never was": (lambda done: {**done, "files": {**done["files"], "more.json": "0"}}, "more.json"),
}


@pytest.mark.parametrize("case", SEALS)
def test_a_strange_seal_is_refused(run: Run, case: str, capsys: pytest.CaptureFixture[str], rows: Path) -> None:
    change, named = SEALS[case]
    (run.path / "DONE").write_text(json.dumps(change(json.loads((run.path / "DONE").read_text()))))
    before = inside(run.path.parent)
    output = run.path.parent / "labels.csv"
    refused(capsys, "predict", run.path, "--input", rows, "--output", output, "--json", named=(named,))
    with pytest.raises(RunError):
        reports.read(run)
    assert inside(run.path.parent) == before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": 1e400}', b"NaN"])
def test_a_broken_seal_is_refused(run: Run, content: bytes) -> None:
    (run.path / "DONE").write_bytes(content)
    with in_time(), pytest.raises(RunError) as error:
        runs.verify(runs.load(run.path))
    assert_sentences(str(error.value), "DONE")


STRANGERS = ("adapter_model.bin", "pytorch_model.bin", "added_tokens.json", "vocab.txt", "modeling_x.py", "a/b.json")


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_that_training_did_not_write_is_named(run: Run, name: str) -> None:
    """transformers and PEFT read some of them, if they are there."""
    path = run.path / "adapter" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(RunError, match=f"{name} was not written by training"):
        runs.verify(run)
    for kept in ("README.md", ".gitattributes"):
        (run.path / "adapter" / kept).write_text("")
    path.unlink()
    runs.verify(run)


SHAPES = (None, [1.5], {"a": [1]}, {"total": "x"}, 7)
SEALED_TABLES = ("plan.json", "environment.json", "labels.json", "data.json", "scores.json", "cost.json")


@pytest.mark.parametrize("name", SEALED_TABLES)
@pytest.mark.parametrize("shape", SHAPES, ids=json.dumps)
def test_a_table_of_another_shape_is_no_fault_of_ours_though_it_is_sealed(
    run: Run, name: str, shape: object, ask: Callable[[str, Run], tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / name).write_text(json.dumps(shape))
    run.mark_done()
    for command in ("report", "compare"):
        code, sentences = ask(command, run)
        assert code in (0, 1)
        if code:
            assert_sentences(sentences, name)
    for arguments in (["runs", "show", run.path], ["runs", "list", "--out", run.path.parent, "--json"]):
        code, _, err = called(capsys, *arguments)
        assert code in (0, 1)
        assert code == 0 or assert_sentences(err, name) is None


ADAPTER_TABLES = ("adapter_config.json", "config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", ADAPTER_TABLES)
@pytest.mark.parametrize("shape", [None, [1], "x", 7], ids=json.dumps)
def test_an_adapters_table_of_another_shape_is_no_fault_of_ours_though_it_is_sealed(
    run: Run, name: str, shape: object, ask: Callable[[str, Run], tuple[int, str]]
) -> None:
    (run.path / "adapter" / name).write_text(json.dumps(shape))
    run.mark_done()
    code, sentences = ask("predict", run)
    assert code == 1
    assert_sentences(sentences, "adapter")


def _header(length: int, content: bytes = b"") -> Callable[[Path], object]:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + content)


def _tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    return lambda path: save_file(change(load_file(path)), path, {"format": "pt"})


def _with(number: float, tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = number
    return tensor


def _in_base(value: object) -> Callable[[Path], object]:
    def changed(path: Path) -> None:
        table = path.with_name("adapter_config.json")
        table.write_text(json.dumps(json.loads(table.read_text()) | {"base_model_name_or_path": value}))

    return changed


WEIGHTS_CASES: dict[str, Callable[[Path], object]] = {
    "a header of 8 EiB": _header(2**63),
    "a header of 1 TiB": _header(2**40, b"{}"),
    "a header of nothing": _header(0),
    "a header that is not JSON": _header(8, b"abcdefgh"),
    "a header of null": _header(4, b"null"),
    "a deep header": _header(60_000, b"[" * 60_000),
    "offsets beyond the end": _header(64, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,99999]}}      '),
    "an unknown type": _header(64, b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}          0000'),
    "a pickle by its name": lambda path: path.write_bytes(b"\x80\x04\x95\x00"),
    "a zip by its name": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "no tensors": _tensors(lambda _: {}),
    "one tensor less": _tensors(lambda found: dict(list(found.items())[1:])),
    "other shapes": _tensors(lambda found: {name: torch.zeros(3, 5) for name in found}),
    "other names": _tensors(lambda found: {f"x{name}": tensor for name, tensor in found.items()}),
    "a weight that is NaN": _tensors(lambda found: {name: _with(math.nan, tensor) for name, tensor in found.items()}),
    "a weight that is infinite": _tensors(
        lambda found: {**found, (name := next(iter(found))): _with(-math.inf, found[name])}
    ),
    "scalars": _tensors(lambda found: {name: torch.tensor(1.0) for name in found}),
    "a pickle in its place": lambda path: path.rename(path.with_name("adapter_model.bin")),
    "no base model": _in_base(None),
    "a base that is nowhere": _in_base("/no/such/encoder"),
    "a base that is a number": _in_base(7),
}


@pytest.mark.parametrize("case", WEIGHTS_CASES)
def test_a_malformed_adapter_is_refused_though_it_is_sealed(
    run: Run, case: str, ask: Callable[[str, Run], tuple[int, str]]
) -> None:
    WEIGHTS_CASES[case](run.path / "adapter" / WEIGHTS)
    run.mark_done()
    code, sentences = ask("predict", run)
    assert code == 1
    assert_sentences(sentences, "encoder" if "nowhere" in case else "adapter")


def test_an_adapter_of_another_encoder_is_refused(
    run: Run, encoders: dict[str, Path], ask: Callable[[str, Run], tuple[int, str]]
) -> None:
    _in_base(str(encoders["electra"]))(run.path / "adapter" / WEIGHTS)
    run.mark_done()
    code, sentences = ask("predict", run)
    assert code == 1
    assert_sentences(sentences, "electra")


def test_a_newer_checkpoint_and_journal_and_study_are_refused(tmp_path: Path) -> None:
    place = checkpoints.Checkpoints(tmp_path / "checkpoints")
    place.save(checkpoints.Progress(step=3), {"parameters": {"a": torch.zeros(1)}})
    file = tmp_path / "checkpoints" / "last.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"format": "4", "progress": "{}"})
    with pytest.raises(RunError) as error:
        place.load()
    assert_sentences(str(error.value), str(file), "format 4", "reads 3", "submillion")

    output = tmp_path / "labels.csv"
    with journal.opened(output, {"runs": ["a"]}) as begun:
        begun.note(done=1)
        begun.write("0" * 32, journal.packed(["1"], np.ones((1, 2)), np.zeros(1, bool)))
    manifest = begun.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(SubmillionError) as error, journal.opened(output, {"runs": ["a"]}):
        pass
    assert_sentences(str(error.value), str(begun.folder), "format 3", "reads 2", "update submillion")

    (tmp_path / "summary.json").write_text('{"format": 99}')
    with pytest.raises(RunError) as error:
        study.read(tmp_path)
    assert_sentences(str(error.value), "summary.json", "format 99", "update submillion")


@pytest.mark.parametrize("content", ["null", "[]", "7", '"x"', "{", "", '{"format": null}', "[" * 100_000, "\0"])
def test_a_manifest_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    output = tmp_path / "labels.csv"
    with journal.opened(output, {"runs": ["a"]}) as begun:
        begun.write("0" * 32, journal.packed(["1"], np.ones((1, 2)), np.zeros(1, bool)))
    (begun.folder / "manifest.json").write_text(content)
    with pytest.raises(SubmillionError) as error, journal.opened(output, {"runs": ["a"]}):
        pass
    assert_sentences(str(error.value), str(begun.folder))


LINES = (
    "null",
    "[]",
    "7",
    '{"kind": "x"}',
    '{"kind": "step"}',
    "{",
    '{"kind": "eval", "scores": 1}',
    "[" * 10_000,
    "\0",
)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:12])
def test_a_strange_record_is_named_with_its_line(run: Run, line: str) -> None:
    file = run.path / "metrics.jsonl"
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(RunError) as error:
        run.records()
    assert_sentences(str(error.value), f"{file}, line")


STUDY_TABLES = ("null", "[]", "{}", '{"format": 1}', "{", '{"format": "1"}', '{"format": 1, "trials": 7}', "[" * 99_999)


@pytest.mark.parametrize("content", STUDY_TABLES, ids=lambda text: text[:12])
def test_a_summary_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with in_time(), pytest.raises(RunError) as error:
        study.read(tmp_path)
    assert_sentences(str(error.value), "summary.json")


@pytest.fixture
def damaged_study(tmp_path: Path, settings: list[str]) -> Path:
    """A study file whose storage is no database."""
    folder = tmp_path / "runs" / "study"
    folder.mkdir(parents=True)
    (folder / "study.sqlite3").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    file = tmp_path / "study.yaml"
    table = dict(text.split("=", 1) for text in settings) | {"out": str(tmp_path / "runs"), "data.test": "null"}
    lines = [f"    {key}: {value}" for key, value in table.items()]
    factors = "factors: [{key: adapter.rank, values: [1, 2]}]"
    file.write_text("\n".join(["kind: grid", factors, "base:", "  settings:", *lines]) + "\n")
    return file


def test_a_storage_that_is_none_is_named(damaged_study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_study(damaged_study)
    refused(capsys, "sweep", damaged_study, "--json", named=("study.sqlite3",))
