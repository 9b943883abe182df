"""Who may ask and how much: the page itself, by this machine's names, in requests of bounded size.

A page of another site cannot reach the server: its name in the Host header is refused (DNS rebinding), and so is its
Origin. What is answered says what the browser may do with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY_BYTES = 256 * 1024
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report is one file with its style and figures inside. Sandboxed, it has no origin: whatever it holds, it runs
# nothing and asks this server nothing.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-popups"
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


def own_origin_only(app: ASGIApp) -> ASGIApp:
    """Return the app without what pages of other origins ask of it."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            problem = f"the request comes from {origin[:100]}: this server answers its own page only"
            await JSONResponse({"problems": [problem]}, 403)(scope, receive, send)
            return
        await app(scope, receive, send)

    return asked


def bounded(app: ASGIApp) -> ASGIApp:
    """Return the app without requests of more than `MAX_BODY_BYTES`, whether they say so or not."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        n_bytes = 0

        async def receiving() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, f"the request has more than {MAX_BODY_BYTES:,} bytes: shorten the text")
            return message

        await app(scope, receiving, send)

    return asked
