"""The `Batch`: rows for one forward pass, and how they get to a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from submillion.model.batching.windows import ranges


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor whose copies to `device` do not wait: for a GPU in pinned memory.

    It may be dropped at once: the memory is reused only after the copy.
    """
    return tensor.pin_memory() if device.type == "cuda" and tensor.is_cpu else tensor


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on `device`, without waiting for a GPU."""
    return pinned(tensor, device).to(device, non_blocking=device.type == "cuda")


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass: T tokens of B texts, one after the other, without padding.

    tokens, token_types: int64 [T] · offsets: int64 [W + 1], window i is tokens[offsets[i]:offsets[i+1]], kept on the
    CPU · n_windows: of each text, int64 [B], the windows being in the texts' order; None if each text is one, and W is
    B · label_ids: int64 [B], for several labels 0 or 1 in [B, C] · teacher_logits: float32 [B, C] or None · hidden:
    [T, D], the output of the model's frozen lower layers if it is kept, or None · layout: the places of its tokens in
    the packed pass, if already known.
    """

    tokens: torch.Tensor
    token_types: torch.Tensor
    offsets: torch.Tensor
    label_ids: torch.Tensor
    teacher_logits: torch.Tensor | None
    example_ids: tuple[str, ...]
    hidden: torch.Tensor | None = None
    layout: Any = None
    n_windows: torch.Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Return B."""
        return len(self.example_ids)

    @property
    def n_tokens(self) -> int:
        """Return T, the real tokens."""
        return int(self.tokens.numel())

    def take(self, texts: torch.Tensor) -> Batch:
        """Return a batch of these texts (int64 [R], on the CPU), some of them several times."""
        counts = None if self.n_windows is None else self.n_windows.cpu()
        windows = texts if counts is None else ranges((counts.cumsum(0) - counts)[texts], counts[texts])
        lengths = self.offsets.diff()[windows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        index = ranges(self.offsets[windows], lengths)
        tokens, rows = index.to(self.tokens.device), texts.to(self.tokens.device)
        return Batch(
            tokens=self.tokens[tokens],
            token_types=self.token_types[tokens],
            offsets=offsets,
            label_ids=self.label_ids[rows],
            teacher_logits=None if self.teacher_logits is None else self.teacher_logits[rows],
            example_ids=tuple(self.example_ids[i] for i in texts.tolist()),
            hidden=None if self.hidden is None else self.hidden[tokens],
            n_windows=None if self.n_windows is None else self.n_windows[rows],
        )

    def each_window(self, values: torch.Tensor) -> torch.Tensor:
        """Return each text's value, [B] on the CPU, for each of its windows, [W]."""
        return values if self.n_windows is None else values.repeat_interleave(self.n_windows.cpu())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors, except the offsets, on `device`, without waiting for a GPU."""
        place = torch.device(device)
        return replace(
            self,
            tokens=on_device(self.tokens, place),
            token_types=on_device(self.token_types, place),
            label_ids=on_device(self.label_ids, place),
            teacher_logits=None if self.teacher_logits is None else on_device(self.teacher_logits, place),
            hidden=None if self.hidden is None else on_device(self.hidden, place),
            n_windows=None if self.n_windows is None else on_device(self.n_windows, place),
        )
