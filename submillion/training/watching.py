"""Watchers of a training: the phases and records they see, their answers, and what each phase cost (`cost.json`).

Ctrl-C is such an answer: it waits for the end of a step.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch

from submillion import hub
from submillion.errors import ConfigError
from submillion.runs import EvalRecord, StepRecord
from submillion.text import shown
from submillion.training.loop import Wish


@dataclass(frozen=True)
class Phase:
    """The beginning of a part of the work; `n_steps` and `done_steps` if it trains, `notes` worth printing.

    One with countable work has `n_total` of its `unit`, and is shown again as `n_done` grows.
    """

    name: str
    n_steps: int = 0
    done_steps: int = 0
    n_total: int = 0
    n_done: int = 0
    unit: Literal["rows", "MiB"] = "rows"
    notes: tuple[str, ...] = ()
    kind: Literal["phase"] = "phase"


Answer = Literal["pause", "stop"] | bool | None
Watch = Callable[[StepRecord | EvalRecord | Phase], Answer]


def wish_of(answer: Answer) -> Wish | None:
    """Return what a watcher asks for; None to continue. ConfigError for any other answer.

    >>> wish_of(None), wish_of(False), wish_of(True), wish_of("stop")
    (None, None, 'pause', 'stop')
    """
    match answer:
        case None | bool() | np.bool_():
            return "pause" if answer else None
        case "pause" | "stop":
            return answer
    raise ConfigError(
        f"watch returned {shown(answer)}: allowed are None (continue), 'pause' (or True) and 'stop' (finish now)"
    )


def downloads(watch: Watch) -> Callable[[hub.Download], None]:
    """Return a watcher of one download from the Hub, which shows it as a phase, in MiB."""
    phase = Phase("downloading", unit="MiB")

    def show(download: hub.Download) -> None:
        nonlocal phase
        done, total = (-(-n // 2**20) for n in (download.done, download.total))
        if (done, total) != (phase.n_done, phase.n_total):  # the client reports every few hundred KiB
            notes = (f"{download.repository}, {total:,} MiB",) if phase.n_total == 0 else ()
            phase = replace(phase, n_done=done, n_total=total, notes=notes)
            watch(phase)

    return show


class Stopwatch:
    """A watcher that passes everything on and records when each phase began."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.phases_s: dict[str, float] = {}
        self.name, self.began = "", time.perf_counter()
        self.resumed_from_step = 0
        self.is_interrupted = False
        self._answer: Wish | None = None  # to the last record

    def __call__(self, record: StepRecord | EvalRecord | Phase) -> None:
        """Show the record to the watcher; ConfigError for an answer that is not allowed."""
        if record.kind == "phase" and not record.n_done:
            self._stop()
            self.name = record.name
            self.resumed_from_step = max(self.resumed_from_step, record.done_steps)
        wish = wish_of(self.watch(record))
        if record.kind != "phase":
            self._answer = wish

    def wish(self) -> Wish | None:
        """Return what the watcher wants: its answer to the last record; an interrupted one pauses."""
        return "pause" if self.is_interrupted else self._answer

    def cost(self, device: torch.device) -> dict[str, Any]:
        """Return seconds by phase, summed by name, and the process's and the device's peak memory in MiB."""
        self._stop()
        peak_mib = {"process": _peak_resident_mib()}
        if device.type == "cuda":
            peak_mib["device"] = torch.cuda.max_memory_allocated(device) / 2**20
        return {"phases_s": {**self.phases_s}, "peak_mib": peak_mib, "resumed_from_step": self.resumed_from_step}

    def cost_of(self, phase: str) -> dict[str, float]:
        """Return the seconds of one phase, and the process's peak memory up to now in MiB."""
        self._stop()
        return {"seconds": self.phases_s.get(phase, 0.0), "peak_mib": _peak_resident_mib()}

    def _stop(self) -> None:
        now = time.perf_counter()
        if self.name:
            self.phases_s[self.name] = self.phases_s.get(self.name, 0.0) + now - self.began
        self.began = now


@contextmanager
def deferred_interrupt(watch: Stopwatch) -> Iterator[None]:
    """Let Ctrl-C wait for the end of a step, so that the step is not lost; a second one is not deferred."""

    def note(number: int, frame: FrameType | None) -> None:
        if watch.is_interrupted:
            raise KeyboardInterrupt
        watch.is_interrupted = True

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _peak_resident_mib() -> float:
    """Return the process's peak memory; the system counts in KiB, on macOS and Windows in bytes."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
