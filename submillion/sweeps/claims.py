"""What a study expects, or was published with: which choice of a factor wins, with which scores, on how many rows.

Owns the claim's keys and their checks. Whether it holds is left to the study's report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from submillion.config.fields import Section, setting
from submillion.text import did_you_mean, shown


def label(value: Any) -> str:
    """Return a value as tables show it, which is also how claims name a choice.

    >>> label(2e-05), label(None), label(["query", "key"])
    ('2e-05', 'null', 'query+key')
    """
    match value:
        case None:
            return "null"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return "+".join(shown(part) if isinstance(part, (list, tuple, dict)) else label(part) for part in value)
        case dict() if any(isinstance(part, (list, tuple, dict)) for part in value.values()):
            return shown(value)  # no setting is as deep, and its text may be without end
        case _:
            return str(value)


def _labelled(values: Any) -> Any:
    return {label(key): value for key, value in values.items()} if isinstance(values, Mapping) else values


Label = Annotated[str, BeforeValidator(label)]
Share = Annotated[float, Field(ge=0, le=1)]


class Claim(Section):
    """A claim about one factor."""

    factor: str = setting(..., "the factor's name, else the last part of its key")
    winner: Label = setting(..., "the choice that is said to be the best")
    scores: Annotated[dict[str, Share], BeforeValidator(_labelled)] = setting(
        {}, "accuracies that are claimed, by choice, such as 0.914"
    )
    rows: PositiveInt | None = setting(None, "how many rows the scores come from; null = not known")
    says: str | None = setting(None, "the claim in words, and what stands behind it")


def problems(claims: Sequence[Claim], choices: Mapping[str, Sequence[str] | None]) -> list[str]:
    """Return what is wrong with the claims; choices: each factor's labels, None of a range."""
    found = []
    for claim in claims:
        if claim.factor not in choices:
            found.append(f"a claim names factor {claim.factor}: {did_you_mean(claim.factor, choices)}")
            continue
        labels = choices[claim.factor]
        if labels is None:
            found.append(f"a claim names factor {claim.factor}, which is a range: only choices can be claimed to win")
            continue
        unknown = [name for name in dict.fromkeys((claim.winner, *claim.scores)) if name not in labels]
        found += [
            f"the claim about {claim.factor} names {name!r}, which is no choice: {did_you_mean(name, labels)}"
            for name in unknown
        ]
    return found
