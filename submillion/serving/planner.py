"""The planner's answers: the plan that `submillion plan` makes from the same wishes, with its command.

Only checkpoints known offline are allowed, so a page can neither look for files nor reach the network.
"""

from __future__ import annotations

import json
import shlex
import typing
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from submillion import config, planning
from submillion.config import Config, Head, Method
from submillion.errors import ConfigError
from submillion.planning import architectures
from submillion.planning.targets import GROUPS, site_keys
from submillion.text import did_you_mean

_MOST = 10**12


class Wish(BaseModel):
    """The planner's form; rank None is the largest that fits, layers None are all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(max_length=100)]
    n_classes: Annotated[int, Field(ge=2, le=100_000)]
    budget: Annotated[int, Field(ge=1, le=_MOST)]
    method: Method
    sites: Annotated[tuple[str, ...], Field(max_length=20)]
    layers: Annotated[str, Field(max_length=20)] | None
    rank: Annotated[int, Field(ge=1, le=_MOST)] | None
    head: Head


def choices() -> dict[str, Any]:
    """Return what the form offers, and its defaults."""
    defaults = Config()
    names = architectures.known()
    return {
        "models": {name: architectures.hub_id(name) for name in names},
        "n_layers": {name: architectures.load(name).n_layers for name in names},
        "methods": typing.get_args(Method),
        "heads": typing.get_args(Head),
        "sites": architectures.SEPARATE_SITES,
        "groups": GROUPS,
        "start": {
            "model": defaults.model.name,
            "budget": defaults.budget,
            "method": defaults.adapter.method,
            "sites": site_keys(architectures.load(defaults.model.name), defaults.adapter.sites),
            "head": defaults.model.head,
        },
    }


def answer(wish: Wish) -> dict[str, Any]:
    """Return the plan of a wish as JSON values; ConfigError if its encoder does not allow it.

    Over the budget, `overrun` has the message and the largest rank that fits, and the plan is as wished.
    """
    if wish.model not in architectures.known():
        raise ConfigError(
            f"model {wish.model!r} is not known offline: {did_you_mean(wish.model, architectures.known())}"
        )
    overrides = _overrides(wish)
    settings = config.load(overrides=overrides)
    wishes = planning.resolve(settings, wish.n_classes)
    draft = planning.draft(wishes)
    message = planning.overrun(wishes, draft)
    command = ["submillion", "plan", "--classes", str(wish.n_classes)]
    return planning.values(draft, planning.alternatives(wishes)) | {
        "overrun": None if message is None else planning.overrun_values(wishes, draft, message),
        "encoder_words": planning.encoder_words(draft),
        "wish_words": planning.wish_words(draft),
        "total_words": planning.total_words(draft),
        "slack_words": planning.slack_words(draft),
        "command": shlex.join([*command, *(part for override in overrides for part in ("--set", override))]),
    }


def _overrides(wish: Wish) -> list[str]:
    """Return the wish as `--set` texts, without defaults."""
    keys = {
        "model.name": wish.model,
        "budget": wish.budget,
        "adapter.method": wish.method,
        "adapter.sites": "+".join(wish.sites),
        "adapter.layers": wish.layers,
        "adapter.rank": wish.rank,
        "model.head": wish.head,
    }
    defaults = config.flat(Config().model_dump(mode="json"))
    defaults["adapter.sites"] = "+".join(architectures.SEPARATE_SITES)
    return [f"{key}={_yaml(value)}" for key, value in keys.items() if defaults[key] != config.as_text(value)]


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
