"""What people watch while something long runs, on stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.progress import TaskID

    from submillion.prediction import Progress as RowProgress
    from submillion.runs import EvalRecord, StepRecord
    from submillion.training.workflow import Phase

_LINE_EVERY_S = 30.0
_SPEED_OVER_S = 300.0  # chunks begin with their longest texts: a short window sees only those


class TrainingView:
    """A watcher for `submillion.train` that draws a bar, or prints a line now and then where none can be drawn.

    In a notebook it needs ipywidgets for a bar. `train` starts and ends it; elsewhere `with` does.

        submillion.train(config, watch=[submillion.progress(), mine])
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} loss {task.fields[loss]}  validation {task.fields[validation]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not (self.console.is_terminal or _has_widgets(self.console)),
        )
        self.task, self.rows = None, None
        self.smooth_loss: float | None = None
        self.tokens, self.seconds, self.printed_at = 0, 0.0, time.monotonic()

    def __enter__(self) -> TrainingView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, record: StepRecord | EvalRecord | Phase) -> bool:
        """Show the record; never stops a training."""
        match record.kind:
            case "phase":
                self._phase(record)
            case "step":
                self._step(record)
            case "eval":
                self._evaluation(record)
        return False

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, style="dim", markup=False)

    def _phase(self, phase: Phase) -> None:
        if not phase.n_done:
            self.say(phase.name)
        for note in phase.notes:
            self.say(f"  {note}")
        if phase.n_steps:
            if phase.done_steps:
                self.say(f"  going on after step {phase.done_steps}")
            self.smooth_loss, self.tokens, self.seconds = None, 0, 0.0  # a teacher's training may have gone before
            self.task = self.progress.add_task(
                "step", total=phase.n_steps, completed=phase.done_steps, rate="", loss="–", validation="–"
            )
        if phase.n_total:
            self._through(phase)

    def _through(self, phase: Phase) -> None:
        if not phase.n_done:
            self.rows = self.progress.add_task(phase.unit, total=phase.n_total, rate="", loss="–", validation="–")
        elif self.rows is not None and phase.n_done < phase.n_total:
            self.progress.update(self.rows, completed=phase.n_done)
            self._line(f"{phase.n_done:,} of {phase.n_total:,} {phase.unit}")
        elif self.rows is not None:
            self.progress.remove_task(self.rows)
            self.rows = None

    def _step(self, record: StepRecord) -> None:
        self.smooth_loss = record.loss if self.smooth_loss is None else 0.95 * self.smooth_loss + 0.05 * record.loss
        self.tokens += record.tokens
        self.seconds += record.seconds
        rate = f"{self.tokens / self.seconds:,.0f} tokens/s " if self.seconds else ""
        if self.task is not None:
            self.progress.update(self.task, completed=record.step, rate=rate, loss=f"{self.smooth_loss:.3f}")
        self._line(f"step {record.step}: {rate}loss {self.smooth_loss:.3f}")

    def _line(self, text: str) -> None:
        """Print a line now and then where there is no bar."""
        if self.progress.disable and time.monotonic() - self.printed_at > _LINE_EVERY_S:
            self.printed_at = time.monotonic()
            self.say(text)

    def _evaluation(self, record: EvalRecord) -> None:
        accuracy = record.scores["accuracy"]
        shown = f"{accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}]"
        if self.task is not None:
            self.progress.update(self.task, validation=f"{accuracy.value:.4f}")
        self.say(f"step {record.step}: validation accuracy {shown}{', best so far' if record.best else ''}")
        sys.stderr.flush()


def _has_widgets(console: Console) -> bool:
    """Whether a notebook can show a bar; rich would print one below the other without, and warn of it."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


class RowsView:
    """A watcher for `prediction.predict_file`: a bar with the time left, or a line now and then without a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rows]} rows"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            speed_estimate_period=_SPEED_OVER_S,
        )
        self.task: TaskID | None = None
        self.phase, self.n_before = "", 0
        self.began = self.printed_at = time.monotonic()

    def __enter__(self) -> RowsView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, done: RowProgress) -> None:
        """Show how far the phase is."""
        for note in done.notes:
            self.console.print(note, style="dim", markup=False)
        rows = f"{done.n_done:,}" + (f" of {done.n_rows:,}" if done.n_rows is not None else "")
        if done.phase != self.phase:
            self._begin(done, rows)
        elif self.task is not None:
            self.progress.update(self.task, completed=done.n_done, rows=rows)
        if not self.console.is_terminal and time.monotonic() - self.printed_at > _LINE_EVERY_S:
            self.printed_at = time.monotonic()
            self.console.print(f"{done.phase}: {rows} rows{self._left(done)}", style="dim", markup=False)

    def _begin(self, done: RowProgress, rows: str) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.phase, self.n_before, self.began = done.phase, done.n_done, time.monotonic()
        self.task = self.progress.add_task(done.phase, total=done.n_rows, completed=done.n_done, rows=rows)

    def _left(self, done: RowProgress) -> str:
        """The time that the rest takes at the speed so far; "" before there is one."""
        if done.n_rows is None or done.n_done <= self.n_before:
            return ""
        s_per_row = (time.monotonic() - self.began) / (done.n_done - self.n_before)
        return f", about {timedelta(seconds=round(s_per_row * (done.n_rows - done.n_done)))} left"


class StepsView:
    """A watcher of steps, some of them through rows: `watch(step, rows done, rows in all)`.

    A line for each step, and a bar over its rows on a terminal.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rows"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("rows", visible=False)
        self.step: str | None = None

    def __enter__(self) -> StepsView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.update(self.task, visible=False)
        self.progress.stop()

    def __call__(self, step: str, n_done: int, n_rows: int) -> None:
        """Show the step, and how far it is."""
        if step != self.step:
            self.console.print(step, style="dim", markup=False)
            self.progress.reset(self.task)
            self.step = step
        self.progress.update(self.task, completed=n_done, total=n_rows, visible=n_rows > 0)
