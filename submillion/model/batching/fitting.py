"""Batches that do not fit in memory: they are halved, and the halves are tried.

Owns how large a part of a batch may be, and the warning when that falls. What is computed for the parts, and how it is
combined, is up to the caller: a loss that is a sum over rows, and rows of logits, do not depend on the cut.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from submillion.errors import RunError, is_out_of_memory
from submillion.model.batching.order import within
from submillion.text import first_line

# oneDNN found no memory for its code. The thread in which this happened never makes code again (xbyak keeps the error
# in the thread; torch 2.13): work continues in another.
_STUCK = "could not create a primitive"

P = ParamSpec("P")
T = TypeVar("T")


def _no_room() -> bool:
    """Free nothing; a function with a name, so that a classifier can be pickled."""
    return False


@dataclass
class Fitting:
    """What is known about the memory: a part of a batch has at most `max_tokens` tokens, or is one text.

    None while every batch has fitted. limit: tokens of a part from the start; None for whole batches. `say` gets a
    sentence each time `max_tokens` falls. `make_room` frees what is dispensable and returns whether there was any; then
    the same part is tried again.
    """

    max_tokens: int | None = None
    limit: int | None = None
    say: Callable[[str], object] = logging.getLogger("submillion").warning
    make_room: Callable[[], bool] = _no_room
    _at_hand: tuple[int, int] = field(default=(0, 0), init=False)  # rows and tokens of the part that is tried
    _lack: str | None = field(default=None, init=False)  # why it did not fit
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)

    def parts(self, rows: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the rows of a batch (int64 [B]), in their order, in parts that fit; lengths: of the split's rows.

        Each is the current part until the next is requested.
        """
        sizes = lengths[rows]
        whole, limits = int(sizes.sum()), [most for most in (self.limit, self.max_tokens) if most is not None]
        for part in within(sizes, min([whole, *limits])):
            self._at_hand = len(rows[part]), int(sizes[part].sum())
            yield rows[part]

    def __enter__(self) -> None:
        """Begin to compute `parts`; what the block leaves behind if it fails is ignored."""
        self._at_hand, self._lack = (0, 0), None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """If memory ran out on a part, note it and continue after the block, where `here` must be called."""
        if self._at_hand == (0, 0) or not isinstance(error, MemoryError | RuntimeError) or not is_out_of_memory(error):
            return False
        self._lack = first_line(error)
        return True

    def here(self, work: Callable[P, T]) -> Callable[P, T]:
        """Return what to call in place of `work`; if its parts did not fit before, they are smaller from here on.

        That is `work` itself, unless this thread cannot compute it: then another does, whose grad mode is torch's
        default. RunError if memory ran out on a single text.
        """
        if self._lack is not None:
            # The error is gone by now, and with it the frames that held the attempt's tensors.
            _give_back()
            if _STUCK in self._lack:
                self._thread = ThreadPoolExecutor(1, "batches")
            if not self.make_room():
                self._halve(*self._at_hand, self._lack)
            self._lack = None
        thread = self._thread
        return work if thread is None else lambda *args, **kwargs: thread.submit(work, *args, **kwargs).result()

    def until_it_fits(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which computes `parts` and leaves nothing behind if it fails."""

        def attempt() -> list[T]:
            results = []
            with self:
                results.append(work())
            return results

        while not (results := self.here(attempt)()):
            pass
        return results[0]

    def _halve(self, n_rows: int, n_tokens: int, reason: str) -> None:
        if n_rows == 1:
            raise RunError(
                f"one text of {n_tokens:,} tokens does not fit in memory ({reason}): lower "
                "model.max_length or model.max_windows, set train.gradient_checkpointing to true when training, "
                "close other programs, or use a smaller encoder; finished work is kept"
            )
        self.max_tokens = n_tokens // 2
        self.say(
            f"a batch of {n_rows:,} texts, {n_tokens:,} tokens does not fit in memory: from now on "
            f"batches are computed in parts of at most {self.max_tokens:,} tokens; results are the same up to "
            "rounding (training with dropout draws different random numbers)"
        )


def _give_back() -> None:
    """Free what the attempt left, also to the system: the C library and accelerators keep it for blocks of one size."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
