"""Laws of checkpoints: what is saved comes back bit for bit, a failed write changes nothing, damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from submillion.errors import RunError
from submillion.training.checkpoints import Checkpoints, Progress, optimizer_tensors, restore_optimizer

PARTS = {
    "trainable": {"a.weight": torch.randn(3, 4), "b": torch.randn(2)},
    "method": {},
    "optimizer": {"0.step": torch.tensor(3.0)},
}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save_best(4, PARTS["trainable"])
    checkpoints.save(
        Progress(
            step=6,
            evaluated_step=4,
            best_step=4,
            best_score=0.5,
            best_loss=1.0,
            best_right="8A==",
            scaler={"scale": 2.0},
        ),
        PARTS,
    )
    return checkpoints


def test_what_is_saved_comes_back(saved: Checkpoints) -> None:
    found = saved.load()
    assert found is not None
    progress, parts = found
    assert progress == saved.progress()
    assert progress == Progress(
        6, 4, best_step=4, best_score=0.5, best_loss=1.0, best_right="8A==", scaler={"scale": 2.0}
    )
    for part, tensors in PARTS.items():
        for name, tensor in tensors.items():
            assert torch.equal(parts[part][name], tensor)
    assert torch.equal(saved.load_best(4)["b"], PARTS["trainable"]["b"])


def test_only_the_best_that_the_checkpoint_names_is_kept(saved: Checkpoints) -> None:
    saved.save_best(8, PARTS["trainable"])
    saved.save(Progress(step=8, evaluated_step=8, best_step=8, best_score=0.6), PARTS)
    assert sorted(file.name for file in saved.folder.iterdir()) == ["best-0000008.safetensors", "last.safetensors"]


def test_an_empty_folder_is_the_start(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").load() is None
    assert Checkpoints(tmp_path / "none").progress() == Progress()


@pytest.mark.parametrize("cut", [0, 7, 100, -1])
def test_damage_is_named(saved: Checkpoints, cut: int) -> None:
    file = saved.folder / "last.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(RunError, match=r"last\.safetensors is missing or damaged"):
        saved.load()


@pytest.mark.parametrize("name", ["last.safetensors", "best-0000004.safetensors"])
def test_a_flipped_bit_is_noticed(saved: Checkpoints, name: str) -> None:
    content = bytearray((saved.folder / name).read_bytes())
    content[-3] ^= 1
    (saved.folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name}.*damaged"):
        saved.load() if name.startswith("last") else saved.load_best(4)


def test_a_failed_write_leaves_the_last_checkpoint(saved: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match=r"No space left.*the last checkpoint is untouched"):
        saved.save(Progress(step=7), PARTS)
    monkeypatch.undo()
    assert saved.progress().step == 6
    assert not list(saved.folder.glob("*.tmp"))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_a_restored_optimizer_goes_on_as_the_first(kind: type[torch.optim.Optimizer]) -> None:
    def make() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        parameter = torch.nn.Parameter(torch.ones(5))
        extra = {} if kind is torch.optim.AdamW else {"momentum": 0.9}
        return parameter, kind([parameter], lr=0.1, **extra)

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, power: int) -> None:
        optimizer.zero_grad()
        (parameter**power).sum().backward()
        optimizer.step()

    first, optimizer = make()
    step(first, optimizer, 2)
    second, restored = make()
    with torch.no_grad():
        second.copy_(first)
    restore_optimizer(restored, {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()})
    step(first, optimizer, 3)
    step(second, restored, 3)
    assert torch.equal(first, second)
