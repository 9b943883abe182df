"""The server behind `submillion serve`: routes over a folder of runs, behind the guard, errors as sentences.

The page's routes and the service's share the folder and the loaded runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from submillion.config import Precision
from submillion.errors import ConfigError, SubmillionError
from submillion.serving import api, guard, pages
from submillion.serving.counting import Counts
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.guard import Check, Guard, refusal
from submillion.serving.listing import Listing
from submillion.serving.queue import FullError, Limits, stopping
from submillion.serving.service import Service

TOKEN_VARIABLE = "SUBMILLION_TOKEN"
_SHORTEST_TOKEN = 16
# For answers being computed when the server stops; longer ones get a 503, in time: Kubernetes and Slurm kill after 30
# s.
_PATIENCE_S = 25
# For a request to arrive whole, and for a connection without one: a client that sends a byte now and then is cut off.
_QUIET_S = 30
MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True)
class Options:
    """How a folder is served.

    token: None asks for none · precision: None is each run's own, as in `predict` · n_encoders: the most in memory,
    with all requested runs on them · hosts: names of the server, besides the loopback's · public_url: its address
    behind a proxy.
    """

    token: str | None = field(default=None, repr=False)
    precision: Precision | None = None
    n_encoders: int = 2
    limits: Limits = field(default_factory=Limits)
    hosts: tuple[str, ...] = ()
    public_url: str | None = None


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token of a file, else of `$SUBMILLION_TOKEN`, else None; ConfigError if it is unusable."""
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
                f"{file} cannot be read ({error}): give a file that holds the token, on one line"
            ) from None
    token = token.strip()
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError(
            f"the token of {source} has {len(token)} characters: it needs {_SHORTEST_TOKEN} or more, in "
            "ASCII and without blanks; `openssl rand -hex 32` makes one"
        )
    return token


def create_app(folder: Folder, options: Options | None = None) -> FastAPI:
    """Return the application that serves a folder; ConfigError if `public_url` is not an address."""
    options = options or Options()
    origin, host, prefix = _public(options.public_url)
    counts = Counts()
    # docs_url's pages load scripts from a CDN; openapi.json is among the service's routes.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.folder, app.state.listing, app.state.counts = folder, Listing(folder), counts
    app.state.service = Service(folder, counts, options.precision, options.n_encoders, options.limits)
    app.include_router(api.router)  # before the page's: routes are tried in turn at each request
    app.include_router(pages.router)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    checks: list[Check] = [partial(guard.own_origin, origin), guard.well_formed]
    if options.token is None:
        names = {name.lower() for name in (*guard.LOOPBACK, *options.hosts, *([host] if host else []))}
        checks.insert(0, partial(guard.known_host, names))
    else:  # a page that reaches the server by its own name (DNS rebinding) does not have the token
        checks.insert(0, partial(guard.with_token, options.token))
    app.add_middleware(
        Guard, checks=checks, note=counts.answered, dropped=lambda: _of_full(stopping()), failed=_of_us, prefix=prefix
    )
    return app


def serve(
    folder: Folder, host: str, port: int, announce: Callable[[str], None], options: Options | None = None
) -> None:
    """Serve a folder until Ctrl-C or SIGTERM; requests accepted by then are answered, or refused after `_PATIENCE_S`.

    `announce` is called with the URL once the port is bound (0: any free one). ConfigError if it cannot be bound.
    """
    with _listening(host, port) as listener:
        app = create_app(folder, options)
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{listener.getsockname()[1]}/")
        asyncio.run(listen(server_of(app), listener))


def server_of(app: FastAPI, patience_s: float = _PATIENCE_S) -> uvicorn.Server:
    """Return the server of an app; `listen` runs it.

    h11 bounds a request's head whatever the client sends; httptools, which uvicorn prefers, does not.
    """
    settings = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=_QUIET_S,
        timeout_graceful_shutdown=patience_s,  # type: ignore[arg-type]  # any number works
    )
    return uvicorn.Server(settings)


async def listen(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve on a listening socket until the server is told to exit."""
    closing = asyncio.create_task(_close_quiet(server))
    try:
        await server.serve(sockets=[listener])
    finally:
        closing.cancel()


async def _close_quiet(server: uvicorn.Server) -> None:
    """Close connections that for too long bring no whole request and read no answer.

    At once when the server stops, and the quietest if there are too many.
    """
    quiet: dict[Any, tuple[Any, float]] = {}  # connections without a request in work: their last request, since when
    while True:
        now = time.monotonic()
        was_quiet, quiet = quiet, {}
        for connection in list(server.server_state.connections):
            last = getattr(connection, "cycle", None)
            is_at_work = last is not None and not last.more_body and not last.response_started
            if not is_at_work or connection.transport.get_write_buffer_size():
                before, since = was_quiet.get(connection, (last, now))
                quiet[connection] = last, since if before is last else now
        longest = sorted(quiet, key=lambda connection: quiet[connection][1])
        n_too_many = max(0, len(server.server_state.connections) - MAX_CONNECTIONS)
        for number, connection in enumerate(longest):
            too_long = now - quiet[connection][1] > _QUIET_S
            unread = connection.transport.get_write_buffer_size() > 0 and not too_long
            if too_long or number < n_too_many or (server.should_exit and not unread):
                connection.transport.abort()
        await asyncio.sleep(0.2)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.service.running():
        yield


def _public(url: str | None) -> tuple[str | None, str | None, str]:
    """Return the origin, the host and the path's prefix of an address."""
    if url is None:
        return None, None, ""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        valid = parts.scheme in ("http", "https") and host and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        valid, host = False, None
    if not valid or host is None:
        raise ConfigError(f"--public-url is {url!r}: give an address such as https://example.org/models")
    return f"{parts.scheme}://{parts.netloc}", f"[{host}]" if ":" in host else host, parts.path.rstrip("/")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        # Connections inherit it. asyncio sets it itself only if the protocol is named, which `create_server` cannot do;
        # without it an answer's body waits some 40 ms for the client to acknowledge its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        # create_server appends the address to the system's message; names that are not found have no such number
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
        match error.errno:
            case errno.EADDRINUSE:
                remedy = "stop the program that uses it, or give another with --port (0: any free one)"
            case errno.EACCES:
                remedy = "give a port from 1024 up with --port"
            case _:
                remedy = "give an address of this machine with --host"
        raise ConfigError(f"port {port} of {host} cannot be used ({reason}): {remedy}") from None


def _of_user(error: SubmillionError) -> Response:
    return refusal(404 if isinstance(error, UnknownNameError) else 400, error.problems)


def _of_full(error: FullError) -> Response:
    return refusal(503, [str(error)], {"retry-after": str(error.retry_after_s)})


def _of_http(error: HTTPException) -> Response:
    allowed = (error.headers or {}).get("Allow")
    match error.status_code:
        case 400:  # FastAPI's, for a body that its parser gives up on
            return refusal(422, ["the request is not JSON"])
        case 404:
            return refusal(404, ["there is no such address: GET /openapi.json lists the API"])
        case 405:
            return refusal(
                405, [f"this address does not allow the request's method: allowed: {allowed}"], error.headers
            )
        case _:
            return refusal(error.status_code, [str(error.detail)], error.headers)


def _of_fields(error: RequestValidationError) -> Response:
    """Return what is wrong with a body's fields, without repeating what was sent."""
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return refusal(422, ["the request is not JSON"])
    return refusal(422, [_field(".".join(map(str, each["loc"][1:])), each["msg"]) for each in error.errors()])


def _field(name: str, message: str) -> str:
    """Return pydantic's message about a field, or without a name about the whole body."""
    message = message.removeprefix("Value error, ")
    message = message.removesuffix(" or object to extract fields from").replace("a valid dictionary", "a JSON object")
    return f"{name}: {message}" if name else message


def _of_machine(error: OSError) -> Response:
    reason = f"{error.filename or 'output'}: {error.strerror or error}"
    return refusal(500, [f"{reason}; check the disk and the permissions, and reload the list"])


def _of_us(error: Exception) -> Response:
    return refusal(500, [f"internal error: {type(error).__name__}: {error}; this is a bug in submillion"])


def _handler(answer: Callable[[Any], Response]) -> Callable[[Request, Exception], Any]:
    async def handled(_: Request, error: Exception) -> Response:  # on the event loop: a plain function takes a thread
        return answer(error)

    return handled


_HANDLERS: dict[type[Exception], Any] = {
    kind: _handler(answer)
    for kind, answer in (
        (SubmillionError, _of_user),
        (FullError, _of_full),
        (HTTPException, _of_http),
        (RequestValidationError, _of_fields),
        (OSError, _of_machine),
    )
}
