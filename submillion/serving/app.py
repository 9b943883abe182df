"""The application: a folder of runs, the routes over it, the guards before them, errors as sentences.

Another part that answers over the same folder adds its router here and takes runs from `app.state.models`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from submillion.errors import SubmillionError
from submillion.serving import guarding, pages
from submillion.serving.folders import Folder, UnknownNameError
from submillion.serving.listing import Listing
from submillion.serving.models import Models


def create_app(folder: Folder, hosts: Sequence[str] = ()) -> FastAPI:
    """Return the application that serves a folder; it may be asked by the loopback's names and `hosts`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)  # the pages of docs_url load scripts from a CDN
    app.state.folder = folder
    app.state.listing = Listing(folder)
    app.state.models = Models()
    app.include_router(pages.router)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(guarding.bounded)  # the last one added is the first one asked
    app.add_middleware(guarding.own_origin_only)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*guarding.LOOPBACK, *hosts], www_redirect=False)
    app.add_middleware(guarding.with_headers)
    return app


def _problems(status: int, problems: Sequence[str]) -> Response:
    return JSONResponse({"problems": list(problems)}, status)


def _of_user(request: Request, error: Exception) -> Response:
    assert isinstance(error, SubmillionError)
    return _problems(404 if isinstance(error, UnknownNameError) else 400, error.problems)


def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problems(error.status_code, [str(error.detail)])


def _of_fields(request: Request, error: Exception) -> Response:
    """What a body's fields have against them, without repeating what was sent."""
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
    HTTPException: _of_http,
    RequestValidationError: _of_fields,
    OSError: _of_machine,
    Exception: _of_us,
}
