"""The application: a folder of runs, the routes over it, the guards before them, errors as sentences.

The page's routes and the service's answer over the same folder, and from the same loaded runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from submillion.config import Precision
from submillion.errors import MAX_PROBLEMS, SubmillionError
from submillion.serving import api, guarding, pages
from submillion.serving.counting import Counts
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.listing import Listing
from submillion.serving.models import Loads, Models
from submillion.serving.options import Options
from submillion.serving.queue import FullError, stopping
from submillion.serving.service import Service


def create_app(folder: Folder, hosts: Sequence[str] = (), options: Options | None = None) -> FastAPI:
    """Return the application that serves a folder.

    It may be asked by the loopback's names and `hosts`; where a token is asked for, by any name.
    """
    options = options or Options()
    # The pages of docs_url load scripts from a CDN; openapi.json is among the service's routes.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.folder = folder
    app.state.listing = Listing(folder)
    app.state.models = Models(partial(_loader, options.precision), options.n_encoders)
    app.state.counts = Counts()
    app.state.service = Service(folder, app.state.models, app.state.counts, options.limits)
    app.include_router(api.router)  # before the page's: routes are tried in turn at each request
    app.include_router(pages.router)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(_answering)  # the last one added is the first one asked
    app.add_middleware(guarding.bounded)
    app.add_middleware(guarding.own_origin_only)
    # A page that reaches the server by a name of its own (DNS rebinding) does not have the token.
    app.add_middleware(guarding.with_token, token=options.token)
    if options.token is None:
        app.add_middleware(guarding.by_known_names_only, names=[*guarding.LOOPBACK, *hosts])
    app.add_middleware(guarding.with_headers)
    app.add_middleware(app.state.counts.counting, paths=api.COUNTED)
    return app


def _loader(precision: Precision | None) -> Loads:
    from submillion.serving.sharing import Loader  # imports torch, which a server that is not asked does not need

    return Loader(precision)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.service.running():
        yield


def _answering(app: ASGIApp) -> ASGIApp:
    """Return the app with a 503 for a request that is dropped before its answer: a server that stops drops those that
    its patience does not last for."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, sending)
        except asyncio.CancelledError:  # not an Exception, so that no handler below sees it
            if has_begun or scope["type"] != "http":
                raise
            await _of_full(Request(scope), stopping())(scope, receive, send)

    return asked


def _problems(status: int, problems: Sequence[str]) -> Response:
    shown = SubmillionError(*problems[:MAX_PROBLEMS]).problems  # what they quote of a request may be of any size
    n_more = len(problems) - len(shown)
    return JSONResponse({"problems": [*shown, *([f"and {n_more} more"] if n_more else [])]}, status)


def _of_user(request: Request, error: Exception) -> Response:
    assert isinstance(error, SubmillionError)
    return _problems(404 if isinstance(error, UnknownNameError) else 400, error.problems)


def _of_full(request: Request, error: Exception) -> Response:
    assert isinstance(error, FullError)
    return JSONResponse({"problems": [str(error)]}, 503, {"retry-after": str(error.retry_after_s)})


def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problems(error.status_code, [str(error.detail)])


def _of_fields(request: Request, error: Exception) -> Response:
    """What is wrong with a body's fields, without repeating what was sent."""
    assert isinstance(error, RequestValidationError)
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return _problems(422, ["the request is not JSON"])
    return _problems(422, [f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors()])


def _of_machine(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    reason = f"{error.filename or 'output'}: {error.strerror or error}"
    return _problems(500, [f"{reason}; check the disk and the permissions, and reload the list"])


def _of_us(request: Request, error: Exception) -> Response:
    return _problems(500, [f"internal error: {type(error).__name__}: {error}; this is a fault of submillion"])


_HANDLERS: dict[type[Exception], Any] = {
    SubmillionError: _of_user,
    FullError: _of_full,
    HTTPException: _of_http,
    RequestValidationError: _of_fields,
    OSError: _of_machine,
    Exception: _of_us,
}
