"""Who may send requests, and how large: the page itself and programs, by this machine's names, with bounded sizes.

A page of another site cannot reach the server: its name in the Host header is refused (DNS rebinding), and so is its
Origin. A request is read whole before anything is computed for it, and work for a client that leaves is cancelled. Each
answer says what the browser may do with it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from submillion.errors import MAX_PROBLEMS, SubmillionError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY_BYTES = 256 * 1024
# For all requests being read: one client with many connections cannot fill the memory.
MAX_BODIES_BYTES = 64 * 1024 * 1024
# An orchestrator that asks whether the server is up has no token, and uses the server's current address.
OPEN_PATHS = ("/healthz", "/readyz")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:/@]+)(:\d{1,5})?")
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

Check = Callable[[Request], Response | None]
Note = Callable[[str, int, float], None]


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON in ASCII: users' files may hold lone surrogates, which UTF-8 does not have."""
    return Response(json.dumps(value, allow_nan=False), status, headers, "application/json")


def refusal(status: int, problems: Sequence[str], headers: Mapping[str, str] | None = None) -> Response:
    """Return sentences as the answer; too many or too long ones are cut."""
    shown = SubmillionError(*problems[:MAX_PROBLEMS]).problems  # quotes of a request may be of any size
    n_more = len(problems) - len(shown)
    return as_json({"problems": [*shown, *([f"and {n_more} more"] if n_more else [])]}, status, headers)


# Starlette's TrustedHostMiddleware answers "Invalid host header" as text: neither which host nor what is allowed.
def known_host(names: Collection[str], request: Request) -> Response | None:
    """Refuse a request that calls the server by a name other than these (in lower case)."""
    host = request.headers.get("host", "")
    host_match = _HOST.fullmatch(host.lower())
    if _path(request.scope) in OPEN_PATHS or (host_match is not None and host_match[1] in names):
        return None
    known = ", ".join(sorted(names))
    return refusal(400, [f"the request asks for host {host[:100]!r}: this server is {known}; --public-url adds a name"])


def own_origin(public: str | None, request: Request) -> Response | None:
    """Refuse requests of pages from other origins; `public` is the origin of a proxy in front of this server."""
    origin = request.headers.get("origin")
    if origin is None or origin == public or origin.partition("://")[2] == request.headers.get("host"):
        return None
    return refusal(403, [f"the request comes from {origin[:100]!r}: this server answers only its own page"])


def with_token(token: str, request: Request) -> Response | None:
    """Refuse requests without the token: as Bearer, or for browsers as the password of any user."""
    if _path(request.scope) in OPEN_PATHS or _shows(request.headers.get("authorization", ""), token):
        return None
    answer = refusal(401, ["this server requires its token: send it as `Authorization: Bearer TOKEN`"])
    # Chromium asks for a password only if Basic has its own line.
    for challenge in ('Basic realm="the token is the password", charset="UTF-8"', "Bearer"):
        answer.headers.append("www-authenticate", challenge)
    return answer


def well_formed(request: Request) -> Response | None:
    """Refuse HTTP other than 1.0 and 1.1, and a request that declares itself too large, before its body is read."""
    if request.scope.get("http_version", "1.1") not in ("1.0", "1.1"):
        return refusal(400, [f"the request is HTTP/{request.scope['http_version']}: send HTTP/1.1"])
    length = request.headers.get("content-length", "")
    return _too_large() if length.isascii() and length.isdigit() and int(length[:20]) > MAX_BODY_BYTES else None


class Guard:
    """The app for requests that pass the checks, in their order; ASGI.

    `note` is called with the path, the status and the seconds of each answer; the status is 499, as in nginx, for a
    client that left before. `dropped` is the answer to a cancelled request: a stopping server cancels those that take
    longer than its patience. `failed` answers an error that the app does not handle. `prefix` is the app's path behind
    a proxy: paths may begin with it, or not.
    """

    def __init__(
        self,
        app: ASGIApp,
        checks: Sequence[Check],
        note: Note,
        dropped: Callable[[], Response],
        failed: Callable[[Exception], Response],
        prefix: str = "",
    ) -> None:
        self._prefix = prefix
        self._app, self._checks, self._note, self._dropped, self._failed = app, checks, note, dropped, failed
        self._n_bytes = 0  # of the bodies being read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; leave anything else, such as the server's start and end, to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, **_behind(self._prefix, scope["path"])}
        answering = _Answering(send)
        began = time.monotonic()
        try:
            await self._answer(scope, receive, answering)
        except asyncio.CancelledError:  # not an Exception, so no handler of the app sees it
            if answering.status is not None:
                raise
            await self._dropped()(scope, receive, answering)
        except Exception as error:
            if answering.status is None:
                await self._failed(error)(scope, receive, answering)
            raise
        finally:
            self._note(_path(scope), answering.status or 499, time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        refused = next(filter(None, (check(request) for check in self._checks)), None)
        body = None if refused is not None else await self._body(receive)
        if isinstance(body, bytes):
            await _until_gone(self._app(scope, _replay(body), send), receive)
        elif (refused or body) is not None:
            await (refused or body)(scope, receive, send)  # type: ignore[misc]

    async def _body(self, receive: Receive) -> bytes | Response | None:
        """Return the whole body, or why it is refused; None if the client left."""
        parts, n_bytes = list[bytes](), 0
        try:
            while (message := await receive())["type"] == "http.request":
                parts.append(message.get("body", b""))
                n_bytes += len(parts[-1])
                self._n_bytes += len(parts[-1])
                if n_bytes > MAX_BODY_BYTES:
                    return _too_large()
                if self._n_bytes > MAX_BODIES_BYTES:
                    return refusal(503, ["too many requests are being read: try again"], {"retry-after": "1"})
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self._n_bytes -= n_bytes
        return None


class _Answering:
    """Sends an answer with the headers that restrict the browser, unless it has its own, and notes its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


async def _until_gone(answer: Awaitable[None], receive: Receive) -> None:
    """Answer, unless the client closes the connection first: then its work is cancelled."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):  # the answer's own error was raised above
                await task


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes) -> Receive:
    """Return what the app receives: a body that was read, and then nothing until it is answered or cancelled."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return received


def _behind(prefix: str, path: str) -> Scope:
    """Return ASGI's values for a path below a prefix: the whole path, with routes beginning behind the prefix."""
    rest = path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else path
    return {"root_path": prefix, "path": prefix + (rest or "/")}


def _path(scope: Scope) -> str:
    """Return the path of a request as in routes."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"])


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


def _too_large() -> Response:
    return refusal(413, [f"the request has more than {MAX_BODY_BYTES:,} bytes: shorten the text"])
