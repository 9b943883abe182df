"""A loss that is not a number: the run stops and says why; what was best is kept, and of use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from submillion import config, runs
from submillion.errors import DivergedError, RunError
from submillion.model.batching import Batch
from submillion.model.classifier import Classifier
from submillion.runs import Run
from submillion.training import workflow
from tests.data import write_csv

ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> list[str]:
    rows = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", 60)
    sizes = ["train.steps=4", "train.batch_size=8", "train.evaluate_every=2", "train.precision=fp32"]
    return [*sizes, f"model.name={encoders['bert']}", f"data.source={rows}"]


def train(base: list[str], out: Path, *more: str) -> Run:
    return workflow.train(config.load(overrides=[*base, f"out={out}", *more]))


def spoil(monkeypatch: pytest.MonkeyPatch, from_step: int, gradient: bool) -> None:
    """From a step on, let the training's logits be no numbers, or their gradient while the loss is one."""
    forward: Callable[..., torch.Tensor] = Classifier.forward
    n_steps = 0

    def spoilt(self: Classifier, batch: Batch) -> torch.Tensor:
        nonlocal n_steps
        logits = forward(self, batch)
        n_steps += self.training
        if not self.training or n_steps < from_step:
            return logits
        if not gradient:
            return logits * torch.nan
        logits.register_hook(lambda grad: grad * torch.nan)
        return logits

    monkeypatch.setattr(Classifier, "forward", spoilt)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (False, r"the loss is nan at step 4: lower train\.learning_rate \(it is .*train\.precision to fp32"),
        (True, r"probabilities of validation rows are not numbers after step 4: lower train\.learning_rate"),
    ],
    ids=["loss", "last gradient"],
)
def test_the_best_evaluation_is_kept_and_can_be_started_from(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: bool, message: str
) -> None:
    with monkeypatch.context() as patched:
        spoil(patched, 4, gradient)
        with pytest.raises(DivergedError, match=rf"{message}.*; the best weights, after step 2, are in .*adapter, for"):
            train(base, tmp_path)
    (stopped,) = runs.list_runs(tmp_path)
    assert stopped.state == "interrupted"
    kept, best = load_file(stopped.path / ADAPTER), load_file(stopped.path / "checkpoints" / "best-0000002.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert sorted(float(t.sum()) for t in kept.values()) == sorted(float(t.sum()) for t in best.values())
    assert train(base, tmp_path / "on", f"adapter.start_from={stopped.path / 'adapter'}", "train.steps=1").is_done
    with pytest.raises(RunError, match="is not finished"):
        runs.load(stopped.path)
    whole = train(base, tmp_path / "whole")
    again = train(base, tmp_path)  # the fault has gone: the run ends as ever
    assert (again.path / ADAPTER).read_bytes() == (whole.path / ADAPTER).read_bytes()


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_before_anything_was_evaluated_there_is_nothing_to_keep(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: bool
) -> None:
    spoil(monkeypatch, 1, gradient)
    first = r"at step 1, before anything was learnt: set train\.precision to fp32, or start from other weights"
    with pytest.raises(DivergedError, match=rf"{'at step 2: lower' if gradient else first}.*; nothing was evaluated"):
        train(base, tmp_path)
    found = runs.list_runs(tmp_path)
    assert len(found) == gradient  # a first step without a loss leaves no run
    assert not list(tmp_path.glob("*/adapter"))
    assert not list(tmp_path.glob("*/checkpoints/best-*"))
