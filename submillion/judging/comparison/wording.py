"""A comparison as sentences and as plain values, for the command line, reports and sweeps.

What is said was decided in `conclusion`; here it is only worded.
"""

from __future__ import annotations

from typing import Any

from submillion.judging.comparison.conclusion import Comparison, Pair


def values(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON holds it: settings by name, the best first."""
    settings = [
        {
            "setting": setting.name,
            "keys": dict(setting.keys),
            "runs": list(setting.runs),
            "n_seeds": len(setting.runs),
            "scores": {metric: vars(score) for metric, score in scores.items()},
            "after_selection": found.split == "validation" and setting.n_evaluations > 1,
            "n_params": setting.n_params,
            "training_s": setting.training_s,
        }
        for setting, scores in zip(found.settings, found.scores, strict=True)
    ]
    return {
        "split": found.split,
        "n_rows": found.n_rows,
        "settings": settings,
        "against_best": [_pair_values(pair) for pair in found.pairs],
        "tie_group": list(found.group),
        "recommended": found.recommended,
        "n_rows_needed": found.n_rows_needed,
        "notes": list(found.notes),
    }


def p_value(p: float) -> str:
    """Return a p value as tables have it.

    >>> p_value(0.03125), p_value(1e-9)
    ('0.0312', '< 0.0001')
    """
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _pair_values(pair: Pair) -> dict[str, Any]:
    differences = {name: vars(each) | {"p_holm": pair.p_holm[name]} for name, each in pair.differences.items()}
    return {"setting": pair.setting, "about": pair.about, "is_tied": pair.is_tied, "differences": differences}


def sentences(found: Comparison) -> list[str]:
    """Return the conclusion in sentences; settings by their number, the best first, from 1."""
    if not found.pairs:
        return []
    numbers = {setting.name: number for number, setting in enumerate(found.settings, start=1)}
    group = [numbers[name] for name in found.group]
    lines = [_group_sentence(found, group)]
    if found.recommended is not None:
        number = numbers[found.recommended]
        setting = found.settings[number - 1]
        reason = "the only one left" if len(group) == 1 else "the cheapest of these"
        cost = f"{setting.n_params:,} parameters, {setting.training_s:,.1f} s of training"
        lines.append(f"take {number}, {reason} ({cost}): {setting.name}")
    return [*lines, _rows_sentence(found)] if found.pairs[0].is_tied else lines


def _group_sentence(found: Comparison, group: list[int]) -> str:
    spoken_of = [pair for pair in found.pairs if pair.is_tied] or found.pairs
    what = "settings" if all(pair.about == "settings" for pair in spoken_of) else "runs"
    if len(found.settings) == 2:
        several = what == "runs" and sum(len(setting.runs) for setting in found.settings) > 2
        what = "the runs of 1 and 2" if several else f"these two {what}"
        return f"{what} cannot be told apart" if len(group) == 2 else f"{what} differ: 1 is better than 2"
    if len(group) == 1:
        return f"1 is better than each other of these {what}"
    return f"these {what} cannot be told from the best: {', '.join(map(str, group))}"


def _rows_sentence(found: Comparison) -> str:
    first, n_rows = found.pairs[0], found.n_rows_needed
    difference = first.differences["accuracy"].value
    if difference == 0:
        return "1 and 2 have the same accuracy on these rows: there is no difference that more rows could confirm"
    if n_rows is None:
        return "no number of rows would separate 1 and 2: their seeds vary too much; train more of them"
    return (
        f"to separate 1 and 2 about {n_rows:,} {found.split} rows are needed, if the true difference is the one seen "
        f"({abs(difference):.4f}; power 0.8, level 0.05, these two alone); there are {found.n_rows:,}"
    )
