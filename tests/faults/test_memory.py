"""Out of memory in a batch: halved and retried, said, the same result; what does not fit at all is told."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from submillion import config, prediction
from submillion.cli import main
from submillion.errors import RunError
from submillion.model.batching import Batch, Fitting, within
from submillion.model.classifier import Classifier
from submillion.runs import Run
from submillion.training import workflow
from tests.data import write_csv

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    MemoryError(),
)
QUIET = ["model.dropout=0", "adapter.dropout=0", "train.accumulation=2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 120)
    sizes = ["train.steps=6", "train.batch_size=16", "train.evaluate_every=3", "train.checkpoint_every=2"]
    return [*sizes, "train.precision=fp32", f"model.name={encoders['bert']}", f"data.source={rows}"]


@pytest.fixture(scope="module")
def plain(base: list[str]) -> list[str]:
    """Without randomness, and with plain SGD: a step is its gradient."""
    return [*base, *QUIET, "train.optimizer=sgd", "train.learning_rate=0.1"]


@pytest.fixture(scope="module")
def whole(plain: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(plain, tmp_path_factory.mktemp("whole"))[0]


def short(
    monkeypatch: pytest.MonkeyPatch,
    max_tokens: int,
    error: Exception,
    training: bool = True,
    nth: int | None = None,
) -> list[int]:
    """Let every pass over more tokens, or the nth alone, run out of memory in its backward pass, or after it.

    Returns the tokens of the passes that did.
    """
    n_passes = 0
    forward: Callable[..., torch.Tensor] = Classifier.forward
    failed: list[int] = []

    def run_out(*_: Any) -> None:
        raise error

    def forward_short(self: Classifier, batch: Batch) -> torch.Tensor:
        nonlocal n_passes
        logits = forward(self, batch)
        n_passes += self.training == training
        if batch.n_tokens > max_tokens and self.training == training and nth in (None, n_passes):
            failed.append(batch.n_tokens)
            logits.register_hook(run_out) if logits.requires_grad else run_out()
        return logits

    monkeypatch.setattr(Classifier, "forward", forward_short)
    return failed


def trained(overrides: list[str], out: Path, watch: Callable[[Any], Any] = lambda _: None) -> tuple[Run, list[str]]:
    """The run, and what it said."""
    said: list[str] = []

    def note(record: Any) -> bool:
        said.extend(record.notes if record.kind == "phase" else ())
        return bool(watch(record))

    return workflow.train(config.load(overrides=[*overrides, f"out={out}"]), note), said


def losses(run: Run) -> list[float]:
    return [record.loss for record in run.records()]


def facts(run: Run) -> list[dict[str, Any]]:
    """The records without their times."""
    return [{k: v for k, v in vars(record).items() if k not in ("seconds", "evaluation_s")} for record in run.records()]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_parts_hold_every_row_in_order_and_no_more_tokens_than_asked(lengths: list[int], max_tokens: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    parts = list(within(sizes, max_tokens))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(lengths)))
    assert all(sizes[part].sum() <= max_tokens or part.stop - part.start == 1 for part in parts)


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "onednn", "python"])
def test_every_kind_of_lack_is_known_and_halves_until_it_fits(error: Exception) -> None:
    said: list[str] = []
    fitting = Fitting(say=said.append)
    lengths = np.array([5, 4, 40, 3, 3, 2])

    def work() -> list[int]:
        parts = []
        for part in fitting.parts(np.array([0, 1, 3, 4, 5]), lengths):
            if lengths[part].sum() > 9:
                raise error
            parts.append(part.tolist())
        return parts

    assert fitting.until_it_fits(work) == [[0], [1, 3], [4, 5]]
    assert fitting.max_tokens == 8
    assert len(said) == 1


def test_a_halved_batch_has_the_gradients_of_the_whole(
    plain: list[str], whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = short(monkeypatch, 0, ERRORS[2], nth=2)  # a step's second micro-batch: the first has left gradients
    halved, said = trained(plain, tmp_path)
    assert len(failed) == 1, "what is known to be too large is not tried again"
    (note,) = (text for text in said if "does not fit in memory" in text)
    assert f"in parts of at most {failed[0] // 2:,} tokens" in note
    assert halved.read_json("cost.json")["halved_to_tokens"] == {"training": failed[0] // 2, "evaluation": None}
    assert losses(halved) == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = (load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (halved, whole))
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-4, atol=1e-6), name


def test_resumed_it_ends_as_never_interrupted_also_where_there_is_memory_again(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = [*base, "adapter.method=adalora", "adapter.rank=4", "model.dropout=0.2", "train.accumulation=2"]
    with monkeypatch.context() as patched:
        short(patched, 60, MemoryError())
        whole, _ = trained(wild, tmp_path / "whole")
        paused, _ = trained(wild, tmp_path / "paused", lambda record: record.kind == "step" and record.step == 3)
    assert paused.state == "interrupted"
    resumed, said = trained(wild, tmp_path / "paused")
    assert not any("does not fit in memory" in text for text in said), "a size is said once"
    assert facts(resumed) == facts(whole)
    for file in ("predictions-validation.parquet", "scores.json"):
        assert (resumed.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_a_text_that_does_not_fit_stops_the_run_which_goes_on_where_there_is_memory(
    plain: list[str], whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrink(record: Any) -> None:
        if record.kind == "step" and record.step == 4:
            short(monkeypatch, 3, ERRORS[0])

    with pytest.raises(
        RunError,
        match=r"one text of \d+ tokens does not fit in memory \(CUDA out of .*lower model.max_length.*checkpointing",
    ):
        trained(plain, tmp_path, shrink)
    monkeypatch.undo()
    run, _ = trained(plain, tmp_path)
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)


def test_evaluation_and_prediction_are_the_same_in_parts(
    whole: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"a good film of the team {i}" for i in range(40)]
    expected = prediction.predict(whole, texts)
    failed = short(monkeypatch, 100, ERRORS[1], training=False)
    parts = prediction.predict(whole, texts)
    np.testing.assert_allclose(parts.probs, expected.probs, atol=1e-6)
    assert len(failed) == len(caplog.messages) > 0
    assert all("does not fit in memory: from now on" in message for message in caplog.messages)


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = short(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        trained(base, tmp_path)
    assert len(failed) == 1


def test_a_lack_of_memory_elsewhere_is_no_internal_error(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("submillion.data.read", run_out)
    with pytest.raises(SystemExit) as stop:
        main(["train", *(word for each in base for word in ("--set", each)), "--out", str(tmp_path)])
    assert stop.value.code == 1
    assert "error: out of memory (MemoryError); close other programs" in capsys.readouterr().err


# The address space is limited to what is in use when training begins and some more, until memory has run out once: what
# the C library keeps in its heap from then on may be any part of it, and no other room is left to oneDNN.
SCRIPT = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from submillion import config
from submillion.training import workflow
from submillion.model.batching import fitting

before, said = resource.getrlimit(resource.RLIMIT_AS), []
give_back = fitting._give_back

def relieved():
    give_back()
    resource.setrlimit(resource.RLIMIT_AS, before)

fitting._give_back = relieved

def watch(record):
    if record.kind != "phase":
        return False
    said.extend(record.notes)
    if record.name == "training":
        in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv[1]) * 2**20, before[1]))
    elif record.name == "saving":
        resource.setrlimit(resource.RLIMIT_AS, before)
    return False

run = workflow.train(config.load(overrides=sys.argv[2:]), watch)
print(json.dumps({"run": str(run.path), "said": said}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="needs Linux' address space")
def test_with_too_little_memory_a_run_is_that_with_enough(tmp_path: Path) -> None:
    from tests.tiny import make_encoder

    encoder = make_encoder("bert", tmp_path / "encoder", n_layers=2, width=64, ffn_width=1024)
    rows = write_csv(tmp_path / "rows.csv", 1000)
    sizes = ["train.steps=2", "train.batch_size=700", "train.evaluate_every=2", "data.validation=0.3"]
    overrides = [*sizes, *QUIET[:2], "train.precision=fp32", f"model.name={encoder}", f"data.source={rows}"]
    whole, _ = trained(overrides, tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "80", *overrides, f"out={tmp_path / 'short'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert any("does not fit in memory: from now on" in text for text in found["said"])
    assert losses(Run(Path(found["run"]))) == pytest.approx(losses(whole), rel=1e-4)
