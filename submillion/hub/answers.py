"""What an error of the Hub's client means: one sentence that says what is in the way, and what to type."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any, Literal

from submillion.errors import os_problem
from submillion.text import first_line

Kind = Literal["model", "dataset"]

_RESET = re.compile(r"\bt=(\d+)")  # of a RateLimit header: seconds until the Hub takes requests again
_ADDRESS = re.compile(r"(?:hf:/|https?://(?:www\.)?(?:huggingface|hf)\.co)/(?:datasets/|models/)?([\w.-]+/[\w.-]+)")
SETTING = {"model": ("model.name", "model.revision"), "dataset": ("data.source", "data.revision")}
_NOUN = {"model": "model", "dataset": "data set"}
_STATUS = "https://status.huggingface.co"
_LOG_IN = "`hf auth login`, or set HF_TOKEN"


def explanation(
    error: BaseException, name: str, kind: Kind, revision: str | None = None, is_upload: bool = False
) -> str | None:
    """Return what an error of the Hub's client means for a repository, and what to type; None if it is not known.

    Without `is_upload` it is of a download.
    """
    from huggingface_hub import constants, errors

    for cause in _causes(error):
        match cause:
            case errors.HFValidationError():
                return "this is neither the name of a Hub repository (organisation/name) nor a path on this disk"
            case errors.OfflineModeIsEnabled() if is_upload:
                return "HF_HUB_OFFLINE is set: unset it"
            case errors.OfflineModeIsEnabled():
                return (
                    f"it is not in the Hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set: unset it, "
                    f"or run `{_download_command(name, kind)}` where there is a network"
                )
            case errors.HfHubHTTPError():
                return _answer(cause, name, kind, revision, "write there" if is_upload else "read it")
            case OSError() if is_upload:
                continue  # of the uploaded files, not of the cache
            case OSError() if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return (
                    f"the disk of the Hub's cache is full ({constants.HF_HUB_CACHE}): free some space, or set "
                    "HF_HOME to a folder on another disk"
                )
            case PermissionError():
                return (
                    f"the Hub's cache cannot be written ({os_problem(cause)}; {constants.HF_HUB_CACHE}): set HF_HOME "
                    "to a folder of your own"
                )
    return _unreached(error, kind, is_upload) if is_connection(error) else None


def _unreached(error: BaseException, kind: Kind, is_upload: bool) -> str:
    what = f"the Hub was not reached ({endpoint()}: {first_line(list(_causes(error))[-1])})"
    if is_upload:
        return f"{what}: check the network"
    return (
        f"{what} and the cache has no complete copy: check the network, or give a "
        f"{'folder' if kind == 'model' else 'file'} on this disk; complete downloads are kept"
    )


def _answer(error: Any, name: str, kind: Kind, revision: str | None, wish: str) -> str:
    """Return what the Hub's answer to a `wish` ("read it") means, by its class and its HTTP status."""
    from huggingface_hub import errors, get_token

    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"
    has_token = get_token() is not None
    match error:
        case errors.GatedRepoError() if has_token:
            return f"it is gated, and your account has no access: ask for it on {page}"
        case errors.GatedRepoError():
            return f"it is gated: ask for access on {page}, then {_LOG_IN}"
        case errors.RevisionNotFoundError():
            what = f"{SETTING[kind][1]} is {revision}, which it does not have"
            return f"{what}: give a branch, a tag or a commit that {page} lists"
        case errors.DisabledRepoError():
            return f"the Hub has disabled it; see {page}"
        case errors.RepositoryNotFoundError():
            private = (
                "if it is private, your token must be allowed to read it" if has_token else f"if private, {_LOG_IN}"
            )
            return f"there is no such {_NOUN[kind]} on the Hub: check the spelling; {private}"
        case errors.RemoteEntryNotFoundError():
            return f"a file is missing there ({first_line(error)[:200]}): use another revision, or tell its owner"
    return _status(error, has_token, wish)


def _status(error: Any, has_token: bool, wish: str) -> str:
    """Return what an HTTP status means if the Hub's client has no class for it."""
    tokens = f"{endpoint()}/settings/tokens"
    match error.response.status_code:
        case 401:
            return f"the Hub does not accept your token: make a new one ({tokens}), then {_LOG_IN}"
        case 403:
            return f"your token may not {wish}: allow that on {tokens}, or {_LOG_IN}"
        case 429:
            headers = error.response.headers
            reset = _RESET.search(headers.get("RateLimit", ""))
            seconds = headers.get("Retry-After") or (reset and reset[1])
            wait = f"wait {seconds} seconds" if seconds else "wait a few minutes"
            more = "" if has_token else f"; with a token it allows more ({_LOG_IN})"
            return f"the Hub accepts no more requests from here for now (429): {wait} and try again{more}"
        case status if status >= 500:
            return f"the Hub is failing ({status}): wait and try again; {_STATUS} says more"
        case status:
            return f"the Hub answered {status}: {(error.server_message or first_line(error))[:200]}"


def _download_command(name: str, kind: Kind) -> str:
    # Files alone are not enough to read a data set offline: `datasets` must have made its rows from them.
    return f"hf download {name}" if kind == "model" else f"submillion data check {name}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; the Hub's client hides what happened behind "no local file"."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_connection(error: BaseException) -> bool:
    """Say whether no answer came; the class is that of the client's own HTTP library, whose name changes."""
    names = {base.__name__ for cause in _causes(error) for base in type(cause).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError", "OfflineModeIsEnabled"})


def is_reset(error: BaseException) -> bool:
    """Say whether a connection broke in the middle of an answer, which the client does not resume after."""
    return any(type(cause).__name__ == "ReadError" for cause in _causes(error))


def name_in(address: str) -> str | None:
    """Return the organisation/name that a Hub address holds; None for any other text.

    >>> name_in("https://huggingface.co/org/tiny/tree/main"), name_in("hf://datasets/org/rows"), name_in("org/tiny")
    ('org/tiny', 'org/rows', None)
    """
    match = _ADDRESS.match(address)
    return None if match is None else match[1]


def endpoint() -> str:
    """Return the Hub's address."""
    from huggingface_hub import constants

    return constants.ENDPOINT
