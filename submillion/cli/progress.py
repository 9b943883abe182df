"""The progress display of long work, on stderr: a bar on a terminal, lines elsewhere; one view for all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from submillion.judging import metrics
from submillion.runs import EvalRecord, StepRecord
from submillion.text import interval

if TYPE_CHECKING:
    from submillion import prediction
    from submillion.training.workflow import Phase

_LINE_EVERY_S = 30.0
_SPEED_OVER_S = 300.0  # chunks begin with their longest texts: a short window sees only those


class View:
    """A watcher for all long work that draws a bar, or prints a line now and then if none can be drawn.

    In a notebook it needs ipywidgets for a bar. `train` starts and ends it; elsewhere `with` does. `table` is drawn
    above the bar while the view lasts.

        submillion.train(config, watch=[submillion.progress(), mine])
    """

    def __init__(self, table: Callable[[], RenderableType] | None = None) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.is_drawn = self.console.is_terminal or _has_widgets(self.console)
        self.table = table
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.is_drawn,
            speed_estimate_period=_SPEED_OVER_S,
        )
        self.live = Live(console=self.console, get_renderable=self._drawing, transient=table is not None)
        self.training: TaskID | None = None
        self.phase, self.n_steps, self.rows = "", 0, None
        self.smooth_loss: float | None = None
        self.validation = "–"
        self.tokens, self.seconds = 0, 0.0
        self.n_before, self.began = 0, time.monotonic()
        self.printed_at = time.monotonic()

    def __enter__(self) -> View:
        if self.is_drawn:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()
        self.live.stop()

    def __call__(self, record: StepRecord | EvalRecord | Phase | prediction.Progress) -> Literal[False]:
        """Show the record; never stops a training."""
        match record.kind:
            case "phase":
                self._phase(record)
            case "step":
                self._step(record)
            case "eval":
                self._evaluation(record)
            case "progress":
                self.through(record.phase, record.n_done, record.n_rows)
                for note in record.notes:
                    self.say(f"  {note}")
        return False

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, style="dim", markup=False)
        sys.stderr.flush()

    def through(self, phase: str, n_done: int, n_total: int | None, unit: str = "rows") -> None:
        """Show how far a phase is through its rows: a line at its start, then a bar; n_total is None if not known yet,
        0 for a phase without rows."""
        if phase != self.phase:
            self._end_bar()
            self.say(phase)
            self.phase, self.n_before, self.began = phase, n_done, time.monotonic()
        if n_total == 0:
            return
        counts = f"{n_done:,}" + (f" of {n_total:,}" if n_total is not None else "") + f" {unit}"
        if n_done == n_total:
            self._end_bar()
        elif self.rows is None:
            self.rows = self.bars.add_task(phase, total=n_total, completed=n_done, counts=counts)
        else:
            self.bars.update(self.rows, total=n_total, completed=n_done, counts=counts)
            self._line(f"{counts}{self._left(n_done, n_total)}")

    def _phase(self, phase: Phase) -> None:
        if not phase.n_done:
            self.phase = ""  # one of the same name may have come before
        if not phase.n_done or phase.n_total:
            self.through(phase.name, phase.n_done, phase.n_total, phase.unit)
        for note in phase.notes:
            self.say(f"  {note}")
        if phase.n_steps:
            if phase.done_steps:
                self.say(f"  resuming after step {phase.done_steps}")
            self.smooth_loss, self.tokens, self.seconds = None, 0, 0.0  # a teacher's training may have come before
            self.n_steps, self.validation = phase.n_steps, "–"
            self.training = self.bars.add_task("step", total=phase.n_steps, completed=phase.done_steps, counts="")

    def _step(self, record: StepRecord) -> None:
        self.smooth_loss = record.loss if self.smooth_loss is None else 0.95 * self.smooth_loss + 0.05 * record.loss
        self.tokens += record.tokens
        self.seconds += record.seconds
        rate = f"{self.tokens / self.seconds:,.0f} tokens/s " if self.seconds else ""
        if self.training is not None:
            counts = f"{record.step}/{self.n_steps} {rate}loss {self.smooth_loss:.3f}  validation {self.validation}"
            self.bars.update(self.training, completed=record.step, counts=counts)
        self._line(f"step {record.step}: {rate}loss {self.smooth_loss:.3f}")

    def _evaluation(self, record: EvalRecord) -> None:
        key, score = metrics.leading(record.scores)
        self.validation = f"{score.value:.4f}"
        scaled = record.scores.get("scaled_log_loss")
        loss = "" if scaled is None else f", {metrics.NAMES['scaled_log_loss']} {scaled.value:.4f}"
        best = ", best so far" if record.best else ""
        self.say(f"step {record.step}: validation {metrics.NAMES[key]} {interval(score)}{loss}{best}")

    def _line(self, text: str) -> None:
        """Print a line now and then where there is no bar."""
        if not self.is_drawn and time.monotonic() - self.printed_at > _LINE_EVERY_S:
            self.printed_at = time.monotonic()
            self.say(text)

    def _left(self, n_done: int, n_total: int | None) -> str:
        """The time that the rest takes at the speed so far; "" before there is one."""
        if n_total is None or n_done <= self.n_before:
            return ""
        s_each = (time.monotonic() - self.began) / (n_done - self.n_before)
        return f", about {timedelta(seconds=round(s_each * (n_total - n_done)))} left"

    def _end_bar(self) -> None:
        if self.rows is not None:
            self.bars.remove_task(self.rows)
            self.rows = None

    def _drawing(self) -> RenderableType:
        return self.bars if self.table is None else Group(self.table(), self.bars)


def _has_widgets(console: Console) -> bool:
    """Whether a notebook can show a bar; if not, rich would print one below the other, and warn."""
    return console.is_jupyter and find_spec("ipywidgets") is not None
