"""How robustness looks in a terminal and as JSON: a line a perturbation, strengths as columns."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from submillion.cli.show import evaluation_values, warning_lines
from submillion.config import AugmentationKind
from submillion.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from submillion.judging.metrics import Score
    from submillion.prediction.robustness import Perturbed, Robustness

_STRENGTHS = ("mild", "moderate", "strong")


def parse_kinds(text: str) -> tuple[AugmentationKind, ...] | None:
    """Return the perturbations of a list such as "typos,lower", None for "all"; ConfigError names unknown ones."""
    allowed = {str(kind): kind for kind in get_args(AugmentationKind)}
    if text.strip() == "all":
        return None
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ConfigError(*(f"--perturb {name!r}: {did_you_mean(name, allowed)}, or all alone" for name in unknown))
    return tuple(allowed[name] for name in names)


def values(found: Robustness) -> dict[str, Any]:
    """Return what --json prints: the evaluation of the rows as they are, and an object a perturbation and strength."""
    return evaluation_values(found.plain) | {"perturbations": [asdict(each) for each in found.perturbed]}


def show(found: Robustness) -> None:
    """Print the accuracy of the rows as they are, and of each perturbation with its difference from it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for strength in _STRENGTHS:
        table.add_column(strength, no_wrap=True)
    for kind, levels in found.by_kind.items():
        rates = ", ".join(f"{100 * each.rate:.0f}" for each in levels)
        table.add_row(kind, *(_interval(each.accuracy) for each in levels))
        table.add_row(f"  {rates} %", *(_difference(each) for each in levels))
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    plain = found.plain["accuracy"]
    console.print(f"accuracy of the {plain.n:,} rows as they are: {_interval(plain)}; 95 % intervals\n")
    console.print(table)
    legend = "below each accuracy its paired difference; * = p < 0.05 after Holm's correction for all of them"
    console.print("\n".join(["", legend, *warning_lines(found.plain.warnings)]), soft_wrap=True)


def _interval(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _difference(each: Perturbed) -> str:
    found = each.difference
    mark = " *" if each.p_holm < 0.05 else ""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{mark}"
