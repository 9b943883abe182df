"""Who may ask and how much: the page itself and programs, by this machine's names, in requests of bounded size.

A page of another site cannot reach the server: its name in the Host header is refused (DNS rebinding), and so is its
Origin. What is answered says what the browser may do with it.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY_BYTES = 256 * 1024
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/@]+)(:\d{1,5})?")
_TOO_LARGE = f"the request has more than {MAX_BODY_BYTES:,} bytes: shorten the text"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "content-security-policy": _PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def with_headers(app: ASGIApp) -> ASGIApp:
    """Return the app with the headers that bind the browser, where an answer has no stricter ones of its own."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, sending)

    return asked


def by_known_names_only(app: ASGIApp, names: Sequence[str]) -> ASGIApp:
    """Return the app without what asks for the server by another name than these."""
    known = {name.lower() for name in names}

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        found = _HOST.fullmatch(host.lower())
        if scope["type"] == "http" and (found is None or found[1] not in known):
            problem = f"the request asks for host {host[:100]!r}: this server is {', '.join(sorted(known))}"
            await JSONResponse({"problems": [problem]}, 400)(scope, receive, send)
            return
        await app(scope, receive, send)

    return asked


def own_origin_only(app: ASGIApp) -> ASGIApp:
    """Return the app without what pages of other origins ask of it."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            problem = f"the request comes from {origin[:100]!r}: this server answers its own page only"
            await JSONResponse({"problems": [problem]}, 403)(scope, receive, send)
            return
        await app(scope, receive, send)

    return asked


def with_token(app: ASGIApp, token: str | None) -> ASGIApp:
    """Return the app for those who show the token: as Bearer, or for browsers as the password of any user.

    /healthz is open to all; without a token everything is.
    """
    if token is None:
        return app

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        is_closed = scope["type"] == "http" and scope["path"] != "/healthz"
        if is_closed and not _shows(Headers(scope=scope).get("authorization", ""), token):
            problem = "this server asks for its token: send it as `Authorization: Bearer TOKEN`"
            challenge = {"www-authenticate": 'Bearer, Basic realm="the token is the password", charset="UTF-8"'}
            await JSONResponse({"problems": [problem]}, 401, challenge)(scope, receive, send)
            return
        await app(scope, receive, send)

    return asked


def _shows(authorization: str, token: str) -> bool:
    scheme, _, shown = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no UTF-8
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.encode(), token.encode())  # as long for a wrong token as for a nearly right one


def bounded(app: ASGIApp) -> ASGIApp:
    """Return the app without requests of more than `MAX_BODY_BYTES`, whether they say so or not."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        n_bytes = 0
        said = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if said.isascii() and said.isdigit() and int(said[:20]) > MAX_BODY_BYTES:  # before any of it is sent
            await JSONResponse({"problems": [_TOO_LARGE]}, 413)(scope, receive, send)
            return

        async def receiving() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await app(scope, receiving, send)

    return asked
