"""How a server is set up: its batches, its precision, how much it keeps in memory, and the token that it asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from submillion.config import Precision
from submillion.errors import ConfigError
from submillion.serving.queue import Limits

TOKEN_VARIABLE = "SUBMILLION_TOKEN"
_SHORTEST = 16


@dataclass(frozen=True)
class Options:
    """`token` None asks for none; `precision` None is each run's own, as `predict` has it; at most `n_encoders`
    encoders are kept, with all runs on them that were asked for."""

    token: str | None = field(default=None, repr=False)
    precision: Precision | None = None
    n_encoders: int = 2
    limits: Limits = field(default_factory=Limits)


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token of a file, else of `$SUBMILLION_TOKEN`, else None; ConfigError if it cannot be used."""
    if file is None:
        source, token = f"${TOKEN_VARIABLE}", environment.get(TOKEN_VARIABLE)
        if token is None:
            return None
    else:
        source = str(file)
        try:
            token = Path(os.path.expanduser(file)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{file} cannot be read ({error}): give a file that holds the token, a line of it"
            ) from None
    token = token.strip()
    if len(token) < _SHORTEST or not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(
            f"the token of {source} has {len(token)} characters: it takes {_SHORTEST} or more, in ASCII and without "
            "blanks; `openssl rand -hex 32` makes one"
        )
    return token
