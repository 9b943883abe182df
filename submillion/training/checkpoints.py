"""Everything that resuming needs, in one atomically replaced safetensors file.

`last.safetensors` holds the trainable parameters, the optimiser's state, AdaLoRA's allocator and,
as metadata, the progress. `best-<step>.safetensors` holds the parameters of the best evaluation and
is written before the checkpoint that names it. Random state is not stored: it is keyed by step.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from submillion.errors import RunError, command
from submillion.text import first_line

_LAST = "last.safetensors"
_FORMAT = "3"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Progress:
    """The state of a training after `step` optimiser steps.

    evaluated_step is the step of the last evaluation (0 before the first); best_step, best_score (by the deciding
    score), best_loss and best_right (`runs.packed_rows`) belong to the best one; n_worse counts evaluations since;
    scaler is the state of fp16's loss scale, empty in other precisions; max_tokens is that of the training's `Fitting`;
    is_stopped: it was told to end before its last step.
    """

    step: int = 0
    evaluated_step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    best_loss: float | None = None
    best_right: str | None = None
    n_worse: int = 0
    scaler: dict[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    is_stopped: bool = False


@dataclass(frozen=True)
class Checkpoints:
    """The `checkpoints/` folder of a run."""

    folder: Path

    def save(self, progress: Progress, parts: Mapping[str, Tensors]) -> None:
        """Write the checkpoint (`parts`: name → tensors), then drop best files it does not name."""
        tensors = {f"{part}/{key}": tensor for part, entries in parts.items() for key, tensor in entries.items()}
        metadata = {"format": _FORMAT, "progress": json.dumps(asdict(progress))}
        self._write(_LAST, tensors, metadata)
        for file in self.folder.glob("best-*.safetensors"):
            if progress.best_step is None or file.name != _best_name(progress.best_step):
                file.unlink()

    def progress(self) -> Progress:
        """Return the progress of the last checkpoint, or of the start."""
        file = self.folder / _LAST
        if not file.exists():
            return Progress()
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
            if metadata.get("format", _FORMAT) != _FORMAT:
                raise RunError(
                    f"{file} has checkpoint format {metadata['format']}; this version reads {_FORMAT}: resume "
                    f"with the submillion that started it, or remove the run (`{self._removal}`)"
                )
            return Progress(**json.loads(metadata["progress"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise self._damaged(file, str(error)) from None

    def load(self) -> tuple[Progress, dict[str, Tensors]] | None:
        """Return the last checkpoint as it was saved, or None; RunError names a damaged file."""
        if not (self.folder / _LAST).exists():
            return None
        progress, parts = self.progress(), dict[str, Tensors]()
        for name, tensor in self._read(_LAST).items():
            part, _, key = name.partition("/")
            parts.setdefault(part, {})[key] = tensor
        return progress, parts

    def save_best(self, step: int, parameters: Tensors) -> None:
        """Write the trainable parameters of the evaluation at `step`."""
        self._write(_best_name(step), parameters, {"format": _FORMAT})

    def load_best(self, step: int) -> Tensors:
        """Return the trainable parameters of the evaluation at `step`; RunError if they are gone."""
        return self._read(_best_name(step))

    def remove(self) -> None:
        """Delete the checkpoints; a finished run does not need them."""
        for file in self.folder.glob("*.safetensors*"):
            file.unlink()
        with suppress(OSError):  # it was never made, or somebody put something there
            self.folder.rmdir()

    def _read(self, name: str) -> Tensors:
        file = self.folder / name
        try:
            with safe_open(file, framework="pt") as opened:
                expected = (opened.metadata() or {}).get("sha256")
            tensors = load_file(file)
        except (SafetensorError, OSError) as error:
            raise self._damaged(file, str(error)) from None
        if _digest(tensors) != expected:
            raise self._damaged(file, "its tensors are not those that were written")
        return tensors

    def _write(self, name: str, tensors: Tensors, metadata: dict[str, str]) -> None:
        temporary = self.folder / f"{name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            save_file(stored, temporary, metadata | {"sha256": _digest(stored)})
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / name)
        except (SafetensorError, OSError) as error:
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"{self.folder / name} cannot be written: {first_line(error)}; the last checkpoint is untouched: "
                "free some space, or make the folder writable, and the same command resumes from there"
            ) from None

    def _damaged(self, file: Path, reason: str) -> RunError:
        return RunError(f"{file} is missing or damaged ({reason}): remove the run (`{self._removal}`) and train again")

    @property
    def _removal(self) -> str:
        return command("runs", "remove", self.folder.parent)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimiser's state as named tensors: `<parameter's number>.<entry>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{entry}": torch.as_tensor(value)
        for number, entries in state.items()
        for entry, value in entries.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Restore `optimizer_tensors` of an equally built optimiser."""
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        number, _, entry = name.partition(".")
        state.setdefault(int(number), {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _digest(tensors: Tensors) -> str:
    """Return the SHA-256 of names and bytes: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _best_name(step: int) -> str:
    return f"best-{step:07d}.safetensors"
