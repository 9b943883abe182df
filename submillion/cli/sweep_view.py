"""The progress display of a sweep: a live table of trials on a terminal, lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from submillion.cli.progress import View
from submillion.text import duration

if TYPE_CHECKING:
    from submillion.sweeps.study import Outcome, Prepared, Status

_N_ROWS = 15  # trials in the live table; a longer one would not fit a terminal


class SweepView:
    """A watcher for a sweep, drawn by a `View`; on Ctrl-C it sums up what is finished."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.status: Status | None = None
        self.view = View(self._table)

    def __enter__(self) -> SweepView:
        self.view.__enter__()
        seconds = self.prepared.preview.seconds
        self.view.say(f"about {duration(seconds, is_rough=True)} (estimated); --dry-run shows more")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.view.__exit__(kind, error, trace)
        if kind is not None and self.status is not None:
            self._sum_up(self.status)

    def __call__(self, status: Status) -> None:
        """Show how far the study is."""
        self.status = status
        self.view.say(f"{status.line}  ({duration(status.left_s, is_rough=True)} left)")

    def _table(self) -> RenderableType:
        """The last trials and the steps they are at, from their run folders, whatever process or machine works."""
        if self.status is None:
            return Group()
        table = Table(box=None, pad_edge=False)
        for heading in ("stage", "trial", "state", "validation score"):
            table.add_column(heading, no_wrap=True)
        for outcome in self.status.outcomes[-_N_ROWS:]:
            candidate = outcome.trial.candidate
            table.add_row(candidate.stage, candidate.name, *_state(outcome))
        return Group(table, Text(f"about {duration(self.status.left_s, is_rough=True)} left", style="dim"))

    def _sum_up(self, status: Status) -> None:
        from submillion.sweeps import summary

        done = [outcome for outcome in status.outcomes if outcome.is_done]
        self.view.say(f"{len(done)} of {self.prepared.preview.n_asked} trials are finished and kept")
        if done:
            best = max(done, key=lambda outcome: outcome.height)
            self.view.say(f"best so far: {summary.outcome_line(best)}")
        self.view.say("run the same command again to resume")


def _state(outcome: Outcome) -> tuple[str, str]:
    """What became of a trial, and its score."""
    from submillion.sweeps import summary

    if outcome.is_done or outcome.why is not None:
        return outcome.state, summary.score_text(outcome) if outcome.is_done else ""
    return "waiting" if outcome.step is None else f"step {outcome.step:,}", ""
