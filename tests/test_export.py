"""Laws of exports: equal to their run, readable by strangers, whole or not there."""

from __future__ import annotations

import copy
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from submillion import cli, config, exports, prediction, runs
from submillion.data.long_texts import Reading
from submillion.errors import ConfigError, DataError, ExportError, RunError, install_line
from submillion.exports import checking, formats, manifest
from submillion.model import adapters
from submillion.model.batching import gives_types
from submillion.runs import Run
from submillion.training import workflow
from tests.adapted import FUSED, HEADS, LABELS, METHODS, SEPARATE, adapted, shaken, stock_model
from tests.data import write_csv
from tests.kit import forks
from tests.kit.pairs import each
from tests.kit.strangers import STRANGER
from tests.tiny import FAMILIES, TEXTS

FORMATS: tuple[exports.Format, ...] = ("merged", "onnx", "onnx-int8")
WIDE = 0.9  # a margin that two dozen rows can show
ODD_LABELS = ("ü|*_#", 'a "b" \\', "<i>\nx</i>")

# What a stranger has who installed onnxruntime and tokenizers alone.
GRAPH_STRANGER = """
import json, sys
for name in ("submillion", "torch", "transformers"):
    sys.modules[name] = None
import numpy as np
import onnxruntime
from tokenizers import Tokenizer
texts, folders = json.loads(sys.stdin.read())
found = {}
for folder in folders:
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    def logits(texts):
        rows = tokenizer.encode_batch(texts)
        columns = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        inputs = {each.name: np.array(columns[each.name], dtype=np.int64) for each in session.get_inputs()}
        return session.run(["logits"], inputs)[0].tolist()
    found[folder] = [logits(texts), [logits([text])[0] for text in texts]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def finished(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)
    return _trained(encoders["bert"], rows, tmp_path_factory.mktemp("runs"), "data.validation=24")


@pytest.fixture(scope="module")
def odd(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on pairs, with a linear head and labels that JSON, YAML and Markdown have to escape."""
    parent = tmp_path_factory.mktemp("odd")
    rows = [
        {"text": f"good {i} film", "other": f"{'news ' * (i % 7)}{i}", "label": ODD_LABELS[i % 3]} for i in range(90)
    ]
    (parent / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = ("data.text_pair=other", "model.head=linear", "train.steps=3")
    return _trained(encoders["roberta"], parent / "rows.jsonl", parent / "runs", *options)


def _trained(encoder: Path, rows: Path, out: Path, *more: str) -> Run:
    sizes = ("train.steps=12", "train.batch_size=8", "train.evaluate_every=6", "train.precision=fp32")
    overrides = [*sizes, f"model.name={encoder}", f"data.source={rows}", f"out={out}", "model.max_length=24", *more]
    return workflow.train(config.load(overrides=overrides))


@pytest.fixture(scope="module")
def exported(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, exports.Written]:
    parent = tmp_path_factory.mktemp("exports")
    return {kind: exports.write(finished, kind, parent / kind, margin=_margin(kind)) for kind in FORMATS}


def _margin(kind: str) -> float | None:
    return WIDE if kind == "onnx-int8" else None


@pytest.mark.parametrize("kind", FORMATS)
def test_the_manifest_names_every_file_and_what_was_measured(exported, finished: Run, kind: str) -> None:
    folder = exported[kind].folder
    values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {*values["files"], "manifest.json"}
    for name, facts in values["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]
        assert (folder / name).stat().st_mode == (folder / "config.json").stat().st_mode
    parity, accuracy = values["checks"]["parity"], values["checks"]["accuracy"]
    assert parity["n"] == accuracy["difference"]["n"] == 24
    assert accuracy["run"]["value"] == finished.scores()["validation"]["accuracy"].value
    if kind != "onnx-int8":
        assert 0 < parity["max_difference"] <= parity["tolerance"] == exports.TOLERANCE
        assert parity["n_same_label"] == 24
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{parity['max_difference']:.1e}" in card
    assert str(finished.path.parent) not in card


@pytest.mark.parametrize("kind", FORMATS)
def test_the_example_of_the_readme_runs_without_submillion(exported, finished: Run, kind: str) -> None:
    folder = exported[kind].folder
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    absent = ("submillion", "peft") if kind == "merged" else ("submillion", "peft", "torch", "transformers")
    blocked = f"import sys\nsys.modules |= dict.fromkeys({absent})\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (texts,) = re.findall(r"^texts = (.*)$", code, flags=re.MULTILINE)
    assert done.stdout.strip() == str(prediction.predict(finished, json.loads(texts)).labels)


def _merged_cases() -> list[tuple[str, str, str]]:
    """Each family with each head; each method, and full fine-tuning, on two families."""
    methods = [*METHODS, "none"]
    chosen = {*each(SEPARATE, methods), *each(SEPARATE[::-1], methods), *each(FUSED, ["lora", "ia3", "none"])}
    cases = [(family, "full", method) for family, method in chosen]
    return sorted(cases + [(family, head, "lora") for family, head in HEADS if head != "full"])


@pytest.fixture(scope="module")
def merged(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Any]:
    """{case: (our unmerged logits, a stranger's of the merged files)}, all reloaded in one process."""
    parent = tmp_path_factory.mktemp("merged")
    ours, folders = {}, {}
    for number, case in enumerate(_merged_cases()):
        family, head, method = case
        model, _ = adapted(encoders[family], head, **({"method": "none"} if method == "none" else METHODS[method]))
        tokenizer = AutoTokenizer.from_pretrained(encoders[family])
        with torch.no_grad():
            ours[case] = shaken(model)(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits
        if method != "none":  # as an export does: from what was saved
            adapters.save(
                model, parent / "adapter", tokenizer, LABELS, str(encoders[family]), stock_model(encoders[family])[1]
            )
            model = adapters.load(copy.deepcopy(stock_model(encoders[family])[0]), parent / "adapter")
        folders[case] = parent / str(number)
        folders[case].mkdir()
        formats.write_merged(adapters.merged(model), folders[case])
        formats.write_tokenizer(tokenizer, Reading(128), folders[case])
    logits = _strangers_logits([str(folder) for folder in folders.values()], parent / "logits")
    return {case: (ours[case], logits[str(folders[case])]) for case in ours}


def _strangers_logits(folders: list[str], file: Path) -> dict[str, torch.Tensor]:
    cases = json.dumps([TEXTS, [[folder, None, len(LABELS)] for folder in folders]])
    code = "import sys\nsys.modules['submillion'] = None\n" + STRANGER
    done = forks.run(code, os.environ, "peft", words=[str(file)], stdin=cases)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(names == list(LABELS) for names in json.loads(done.stdout).values())
    return load_file(file)


@pytest.mark.parametrize("case", _merged_cases(), ids="-".join)
def test_merged_files_are_the_unmerged_model(merged, case: tuple[str, str, str]) -> None:
    ours, theirs = merged[case]
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert (ours.max(0).values - ours.min(0).values).max() > 1e-3, "logits that hardly differ prove nothing"


@pytest.fixture(scope="module")
def graphs(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """{family: (the merged model's logits, a stranger's of its graph, the same of texts that come alone)}."""
    parent = tmp_path_factory.mktemp("graphs")
    ours = {}
    for family in FAMILIES:
        model = adapters.merged(shaken(adapted(encoders[family])[0]))
        tokenizer = AutoTokenizer.from_pretrained(encoders[family])
        with torch.no_grad():
            ours[family] = model(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).logits.numpy()
        (parent / family).mkdir()
        formats.write_tokenizer(tokenizer, Reading(128), parent / family)
        formats.write_graph(model, parent / family / "model.onnx", gives_types(tokenizer))
    wanted = json.dumps([TEXTS, [str(parent / family) for family in FAMILIES]])
    done = subprocess.run(
        [sys.executable, "-c", GRAPH_STRANGER], input=wanted, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout)
    return {family: (ours[family], *map(np.array, theirs[str(parent / family)])) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_computes_what_the_model_does_for_batches_and_alone(graphs, family: str) -> None:
    ours, together, alone = graphs[family]
    assert np.allclose(together, ours, rtol=0, atol=1e-5)
    assert np.allclose(alone, ours, rtol=0, atol=1e-5)


def test_the_same_question_is_answered_at_once(exported, finished: Run) -> None:
    def watch(*_: object) -> None:
        raise AssertionError("something was computed")

    for kind, first in exported.items():
        again = exports.write(finished, kind, first.folder, margin=_margin(kind), watch=watch)
        assert not again.is_new
        assert again.manifest == first.manifest


def test_a_folder_that_holds_something_else_is_left_alone(exported, finished: Run, odd: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    cases = [
        (finished, "merged", tmp_path / "mine", "holds files that are not an export"),
        (finished, "merged", tmp_path / "file", "is a file"),
        (finished, "onnx", exported["merged"].folder, "holds this run as merged, not as onnx"),
        (finished, "onnx-int8", exported["onnx-int8"].folder, "tested with --margin 0.9, not 0.01"),
        (odd, "merged", exported["merged"].folder, f"the export of another run, {finished.name}"),
    ]
    for run, kind, folder, message in cases:
        with pytest.raises(ConfigError, match=re.escape(message)):
            exports.write(run, kind, folder)
    assert (tmp_path / "mine" / "letter.txt").read_text() == (tmp_path / "file").read_text() == "dear"


def test_an_export_that_was_changed_is_not_the_answer(exported, finished: Run, tmp_path: Path) -> None:
    shutil.copytree(exported["onnx"].folder, tmp_path / "onnx")
    (tmp_path / "onnx" / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"changed or truncated since the export \(config.json\)"):
        exports.write(finished, "onnx", tmp_path / "onnx")


def test_pairs_odd_labels_and_the_linear_head_are_exported(odd: Run) -> None:
    for kind in ("merged", "onnx"):
        made = exports.write(odd, kind)
        assert made.folder == odd.path / "exports" / kind
        assert made.manifest.checks["parity"]["max_difference"] <= exports.TOLERANCE
        saved = json.loads((made.folder / "config.json").read_text(encoding="utf-8"))
        assert tuple(saved["id2label"].values()) == odd.labels() == tuple(sorted(ODD_LABELS))
        assert "Rows are pairs" in (made.folder / "README.md").read_text(encoding="utf-8")
    runs.verify(odd)


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2"])  # has token types, has but is given none, has none
def test_a_graph_reads_pairs_as_its_run(encoders: dict[str, Path], odd: Run, tmp_path: Path, family: str) -> None:
    rows, options = Path(str(odd.config().data.source)), ("data.text_pair=other", "train.steps=1")
    run = _trained(encoders[family], rows, tmp_path / "runs", *options)
    checks = exports.write(run, "onnx", tmp_path / "onnx").manifest.checks
    assert checks["parity"]["max_difference"] <= exports.TOLERANCE


def test_a_wrong_export_is_refused_and_leaves_nothing(finished: Run, tmp_path: Path, monkeypatch) -> None:
    whole = formats.write_graph

    def broken(model: Any, file: Path, has_types: bool) -> None:
        model.classifier.bias.data[0] += 2 * exports.TOLERANCE
        whole(model, file, has_types)

    monkeypatch.setattr(formats, "write_graph", broken)
    with pytest.raises(ExportError, match="onnx is refused: its logits differ"):
        exports.write(finished, "onnx", tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_int8_is_refused_where_the_rows_cannot_show_that_it_loses_little(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"24 rows.*above -0.01 \(--margin\)") as refusal:
        exports.write(finished, "onnx-int8", tmp_path / "int8")
    assert "too few rows" in str(refusal.value) or "allow more" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("n_lost", "n_won", "margin", "passes"),
    [
        (0, 0, 0.01, True),
        (10, 10, 0.01, True),
        (30, 0, 0.01, False),
        (30, 0, 0.03, True),
        (0, 30, 0.01, True),
        (60, 60, 0.01, False),
        (12, 0, 0.01, False),
    ],
)
def test_the_interval_decides_not_the_difference_seen(n_lost: int, n_won: int, margin: float, passes: bool) -> None:
    """Of 1,500 rows with label 1: the run has all right but the first n_won, the export all but the next n_lost."""
    labels = np.ones(1500, dtype=np.int64)
    reference, found = np.tile([0.0, 1.0], (1500, 1)), np.tile([0.0, 1.0], (1500, 1))
    reference[:n_won] = [1.0, 0.0]
    found[n_won : n_won + n_lost] = [1.0, 0.0]
    checks = checking.judge("onnx-int8", "rows", found, reference, labels)
    assert checks.accuracy is not None
    assert checks.accuracy.difference.value == pytest.approx((n_won - n_lost) / 1500)
    if passes:
        checking.refuse("onnx-int8", checks, margin)
    else:
        with pytest.raises(ExportError, match="onnx-int8 is refused: its accuracy"):
            checking.refuse("onnx-int8", checks, margin)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1])
def test_the_fewest_rows_that_can_show_a_margin_are_named(margin: float) -> None:
    """Where no label changes: so many rows pass, and one fewer is refused with their number."""

    def refuse(n_rows: int) -> None:
        right = np.tile([0.0, 1.0], (n_rows, 1))
        checks = checking.judge("onnx-int8", "rows", right, right, np.ones(n_rows, dtype=np.int64))
        checking.refuse("onnx-int8", checks, margin)

    with pytest.raises(ExportError, match="too few rows to tell") as refusal:
        refuse(20)
    (n_rows,) = re.findall(r"([\d,]+) labelled", str(refusal.value))
    refuse(int(n_rows.replace(",", "")))
    with pytest.raises(ExportError, match=f"{n_rows} labelled"):
        refuse(int(n_rows.replace(",", "")) - 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_logits_that_are_no_numbers_are_refused(kind: exports.Format) -> None:
    checks = checking.judge(kind, "rows", np.full((3, 2), np.nan), np.zeros((3, 2)), np.zeros(3, dtype=np.int64))
    with pytest.raises(ExportError, match="is refused"):
        checking.refuse(kind, checks, None)


def test_rows_that_are_gone_or_changed_are_named_and_a_file_serves_instead(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "rows.csv", 60)
    run = _trained(encoders["distilbert"], rows, tmp_path / "runs", "train.steps=2")
    write_csv(rows, 60, seed=1)
    with pytest.raises(DataError, match=r"no longer gives the run's validation rows.*--data FILE"):
        exports.write(run, "onnx")
    rows.unlink()
    with pytest.raises(DataError, match=r"cannot be read again: .*rows.csv.*--data FILE"):
        exports.write(run, "onnx")
    (tmp_path / "texts.csv").write_text("text\ngood film\nbad book of the world\n")
    made = exports.write(run, "onnx", file=tmp_path / "texts.csv")
    assert made.manifest.checks["rows"] == "texts.csv"
    assert made.manifest.checks["accuracy"] is None
    assert not exports.write(run, "onnx", file=tmp_path / "texts.csv").is_new
    with pytest.raises(DataError, match="label"):
        exports.write(run, "onnx-int8", file=tmp_path / "texts.csv")
    labelled = write_csv(tmp_path / "labelled.csv", 40, seed=2)
    made = exports.write(run, "onnx-int8", file=labelled, margin=WIDE)
    assert made.manifest.checks["accuracy"]["difference"]["n"] == 40
    assert made.manifest.checks["rows"] == "labelled.csv"
    seen = exports.write(run, "onnx-int8", tmp_path / "seen", write_csv(tmp_path / "seen.csv", 60), WIDE)
    assert re.match(r"seen.csv; \d\d of 60 rows were trained on: scores on rows", seen.manifest.checks["rows"])
    reads = (run.path.parent / "test-reads.jsonl").read_text().splitlines()
    assert [json.loads(line)["purpose"] for line in reads] == ["export"] * 2


def test_what_cannot_be_asked_for(finished: Run, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="--margin is for onnx-int8"):
        exports.write(finished, "onnx", margin=0.01)
    for margin in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            exports.write(finished, "onnx-int8", margin=margin)
    (tmp_path / "run-00000000").mkdir()
    (tmp_path / "run-00000000" / "config.yaml").write_text("")
    with pytest.raises(RunError, match="is not finished"):
        exports.write(Run(tmp_path / "run-00000000"), "merged")
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else there(name))
    with pytest.raises(ConfigError, match=re.escape(f"onnx needs onnxruntime: {install_line('onnx')}")):
        exports.write(finished, "onnx")


def test_a_full_disk_leaves_no_export(finished: Run, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left on device"):
        exports.write(finished, "merged", tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_no_obstacle(finished: Run, tmp_path: Path) -> None:
    part = tmp_path / ".merged.part"
    (part / "folder").mkdir(parents=True)
    (part / "model.safetensors").write_text("half")
    made = exports.write(finished, "merged", tmp_path / "merged")
    assert set(made.manifest.files) == {path.name for path in made.folder.iterdir()} - {manifest.FILE}
    assert list(tmp_path.iterdir()) == [made.folder]


def test_two_processes_do_not_write_one_export(finished: Run, tmp_path: Path) -> None:
    (tmp_path / ".merged.part").mkdir()
    with runs.locked(tmp_path / ".merged.part"), pytest.raises(RunError, match="another process is writing it"):
        exports.write(finished, "merged", tmp_path / "merged")


def _command(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *map(str, arguments)])
    return stop.value.code


def test_the_command_prints_what_was_found_and_where(exported, finished: Run, capsys) -> None:
    asked = (finished.path, "--format", "onnx", "--output", exported["onnx"].folder)
    assert _command(*asked, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["folder"] == str(exported["onnx"].folder)
    assert not values["is_new"]
    assert values["checks"]["parity"]["n_same_label"] == 24
    assert _command(*asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("(already there)")
    assert "24 labels are the same" in lines[1]
    assert lines[-1] == f"{exported['onnx'].folder / 'README.md'} shows how to load it"


def test_the_command_shows_its_steps_on_stderr(finished: Run, tmp_path: Path, capsys) -> None:
    asked = ("--format", "onnx-int8", "--margin", WIDE, "--output", tmp_path / "int8")
    assert _command(finished.path, *asked) == 0
    printed = capsys.readouterr()
    steps = ("reading the validation rows", "computing the run's logits", "writing onnx-int8", "computing the export's")
    assert all(step in printed.err for step in steps)
    assert "int8 loses less than 0.9 of accuracy" in printed.out


def test_what_the_command_refuses(finished: Run, exported, monkeypatch, capsys) -> None:
    assert _command(finished.path, "--format", "tflite") == 2
    assert "'merged', 'onnx', 'onnx-int8', 'adapter'" in capsys.readouterr().err
    assert _command(finished.path, "--format", "merged", "--push-to", "a/b/c") == 1
    assert "--push-to is 'a/b/c', not the name of a Hub repository" in capsys.readouterr().err
    assert _command(finished.path, "--format", "merged", "--private") == 1
    assert "--private is for --push-to" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert _command(finished.path, "--format", "merged", "--push-to", "me/mine") == 1
    assert "there is no token: `hf auth login`, or set HF_TOKEN; nothing was exported" in capsys.readouterr().err
    assert _command(finished.path, "--format", "adapter", "--margin", "0.1", "--push-to", "me/mine") == 1
    assert "--margin: --format adapter writes and checks nothing" in capsys.readouterr().err
    assert _command(finished.path, "--format", "adapter", "--push-to", "me/mine") == 1
    assert "a folder on this machine" in capsys.readouterr().err
