"""The keys that a study varied, as axes of parallel coordinates: values in order, evenly apart.

Distances on such an axis mean nothing, the order does: powers of ten and names of sites fit one figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from submillion.reports.sweep.reading import Trial

_MAX_TICKS = 8  # of more values the first, the middle and the last are named


@dataclass(frozen=True)
class Axis:
    """A key with its values as text, from the bottom up."""

    key: str
    values: tuple[str, ...]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return the heights, from 0 to 1, of the values that are named."""
        n = len(self.values)
        named = range(n) if n <= _MAX_TICKS else (0, n // 2, n - 1)
        return [(self.height(self.values[i]), self.values[i]) for i in named]

    def height(self, value: str) -> float:
        """Return where a value stands, from 0 to 1, with a margin as wide as half a step."""
        return (self.values.index(value) + 0.5) / len(self.values)


def axes_of(trials: Sequence[Trial]) -> list[Axis]:
    """Return an axis for each key that has more than one value in the trials."""
    keys = dict.fromkeys(key for trial in trials for key in trial.resolved)
    found = [Axis(key, tuple(map(text, _ordered([trial.resolved.get(key) for trial in trials])))) for key in keys]
    return [axis for axis in found if len(axis.values) > 1]


def place(axis: Axis, trial: Trial, apart: float) -> float:
    """Return the height of a trial's line on an axis; apart, from -0.5 to 0.5, parts lines of one value."""
    return axis.height(text(trial.resolved.get(axis.key))) + 0.6 * apart / len(axis.values)


def text(value: Any) -> str:
    """Return a value as figures show it.

    >>> text(None), text(0.00005), text(["query", "key"])
    ('null', '5e-05', 'query+key')
    """
    match value:
        case None:
            return "null"
        case float():
            return f"{value:.4g}"
        case list():
            return "+".join(map(text, value))
        case _:
            return str(value)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, then others as they came."""
    once = list({text(value): value for value in values}.values())
    numbers = sorted(value for value in once if isinstance(value, (int, float)))
    return [*numbers, *(value for value in once if not isinstance(value, (int, float)))]
