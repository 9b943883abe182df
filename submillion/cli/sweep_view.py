"""What people watch while a sweep runs, on stderr: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from submillion.sweeps.study import Outcome, Prepared, Status

_N_ROWS = 15  # trials in the live table; a longer one would not fit a terminal


class SweepView:
    """A watcher for a sweep; on Ctrl-C it sums up what is finished."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.status: Status | None = None  # before the table, which asks for it at once
        self.live = Live(console=self.console, transient=True, get_renderable=self._table, refresh_per_second=1)

    def __enter__(self) -> SweepView:
        if self.console.is_terminal:
            self.live.start()
        self._say(f"about {self._duration(self.prepared.preview.seconds)}, an estimate; --dry-run tells more")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        if kind is not None and self.status is not None:
            for line in self._summary(self.status):
                self._say(line)

    def __call__(self, status: Status) -> None:
        """Show where the study stands."""
        self.status = status
        self._say(f"{status.line}  ({self._duration(status.left_s)} left)")

    def _table(self) -> Group:
        """The last trials and the steps they are at; their run folders tell, whatever process or machine works."""
        from submillion.sweeps import summary

        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "trial", "state", "validation accuracy"):
            table.add_column(heading, no_wrap=True)
        if self.status is None:
            return Group()
        for outcome in self.status.outcomes[-_N_ROWS:]:
            candidate = outcome.trial.candidate
            score = summary.score_text(outcome) if outcome.is_done else ""
            table.add_row(candidate.stage, candidate.name, _state(outcome), score)
        return Group(table, Text(f"about {self._duration(self.status.left_s)} left", style="dim"))

    def _summary(self, status: Status) -> list[str]:
        from submillion.sweeps import summary

        done = [outcome for outcome in status.outcomes if outcome.is_done]
        best = max(done, key=lambda outcome: outcome.accuracy or 0.0, default=None)
        lines = [f"{len(done)} of {self.prepared.preview.n_asked} trials are finished and kept"]
        if best is not None:
            lines.append(f"best so far: {summary.outcome_line(best)}")
        return [*lines, "the same command goes on where it stopped"]

    def _duration(self, seconds: float) -> str:
        from submillion.sweeps.timing import duration

        return duration(seconds)

    def _say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False)
        sys.stderr.flush()


def _state(outcome: Outcome) -> str:
    if outcome.is_done or outcome.why is not None:
        return outcome.state
    return "waiting" if outcome.step is None else f"step {outcome.step:,}"
