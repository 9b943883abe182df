"""Laws of connections: whatever a client sends, or does not send, it takes little memory, and holds up nobody."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn

from submillion.serving import app, folders, guard
from tests.kit.calls import beside

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
HALVES = {
    "nothing": b"",
    "half a line": b"GET /v1/mod",
    "half a head": HEAD,
    "no body": HEAD + b"Content-Length: 20\r\n\r\n",
    "half a body": HEAD + b'Content-Length: 20\r\n\r\n{"texts"',
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    "a body after its refusal": HEAD + b"Content-Length: 99999999\r\n\r\n{",
    "a request and a half": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /heal",
    "rubbish": b"\0\1\2\r\n\r\n",
}


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`submillion serve` of an empty folder, and its port."""
    command = [sys.executable, "-m", "submillion", "serve", str(folder), "--port", "0", "--json"]
    with beside(command) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rstrip("/").rpartition(":")[2])
        yield process, port


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that goes on from test to test."""
    with serving(tmp_path_factory.mktemp("served")) as process:
        yield process


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[uvicorn.Server, int]]:
    """A server in a thread, and its port."""
    server = app.server_of(app.create_app(folders.opened(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=[app.listen(server, listener)])
        thread.start()
        yield server, listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def opened(port: int, content: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=20)
    line.sendall(content)
    return line


def said(line: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    with suppress(ConnectionError):
        while part := line.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def is_up(port: int) -> bool:
    with closing(opened(port, b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")) as line:
        return b"200 OK" in said(line)


def rss_mib(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


ENDLESS: dict[str, Callable[[int], bytes]] = {
    "lines": lambda number: b"X-%d: %s\r\n" % (number, b"a" * 1000),
    "short lines": lambda number: b"a:b\r\n" * 2000,
    "one line": lambda number: b"a" * 10_000,
}


def test_an_answer_does_not_wait_for_acknowledgements() -> None:
    with app._listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ENDLESS)
def test_a_head_without_end_takes_no_memory(process: tuple[subprocess.Popen[str], int], kind: str) -> None:
    server, port = process
    assert is_up(port)
    before, n_sent = rss_mib(server), 0
    for _ in range(10):
        with closing(opened(port, HEAD + (b"X: " if kind == "one line" else b""))) as line:
            try:
                for number in range(5000):
                    line.sendall(ENDLESS[kind](number))
                    n_sent += len(ENDLESS[kind](number))
            except ConnectionError:
                continue
            pytest.fail(f"{n_sent} bytes were taken")
    assert is_up(port)
    assert rss_mib(server) - before < 20


@pytest.mark.parametrize("with_answer", [False, True])
def test_a_head_may_be_as_long_as_said(listening: tuple[uvicorn.Server, int], with_answer: bool) -> None:
    size = app.MAX_HEADER_BYTES - 200 if with_answer else app.MAX_HEADER_BYTES + 1
    with closing(opened(listening[1], b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\nX: ")) as line:
        line.sendall(b"a" * size)
        time.sleep(0.3)  # so that it does not come in one piece with its end
        line.sendall(b"\r\n\r\n")
        assert said(line).startswith(b"HTTP/1.1 200" if with_answer else b"HTTP/1.1 400")


def test_a_server_that_stops_waits_for_no_half_request(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, port), ExitStack() as stack:
        for content in HALVES.values():
            stack.enter_context(closing(opened(port, content)))
        assert is_up(port)
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=20)
        assert time.monotonic() - began < 8
        assert errors.replace("WARNING:  Invalid HTTP request received.\n", "") == ""
        assert server.returncode == -signal.SIGTERM


@pytest.mark.parametrize("kind", HALVES)
def test_a_quiet_connection_is_closed(
    listening: tuple[uvicorn.Server, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_QUIET_S", 0.5)
    with closing(opened(listening[1], HALVES[kind])) as line:
        began = time.monotonic()
        said(line)
        assert time.monotonic() - began < 10
    assert is_up(listening[1])


def test_bytes_now_and_then_hold_no_connection(
    listening: tuple[uvicorn.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_QUIET_S", 0.6)
    with closing(opened(listening[1], HEAD)) as line, suppress(ConnectionError):
        for _ in range(100):
            line.sendall(b"a:b\r\n")
            time.sleep(0.1)
        pytest.fail("it is open after 10 s")


def test_an_answer_that_nobody_reads_is_given_up(
    listening: tuple[uvicorn.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_QUIET_S", 0.5)
    server, port = listening
    with closing(opened(port)) as line:
        request = b"GET /page/style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with suppress(ConnectionError):
            for _ in range(20_000):
                line.sendall(request)
        deadline = time.monotonic() + 10
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.1)
    assert not server.server_state.connections


def test_of_too_many_connections_the_quietest_go(
    listening: tuple[uvicorn.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_CONNECTIONS", 5)
    server, port = listening
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(closing(opened(port)))
        deadline = time.monotonic() + 10
        while len(server.server_state.connections) > 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(server.server_state.connections) <= 5
        assert is_up(port)


def test_bodies_that_are_read_at_once_are_bounded(
    listening: tuple[uvicorn.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_BODIES_BYTES", 100_000)
    _, port = listening
    half = HEAD + b"Content-Length: 60000\r\n\r\n" + b" " * 50_000
    with ExitStack() as stack:
        lines = [stack.enter_context(closing(opened(port, half))) for _ in range(3)]
        (refused,) = [line for line in lines if _has_answer(line)]
        assert refused.recv(65_536).startswith(b"HTTP/1.1 503")
    with closing(opened(port, half.replace(b"HTTP/1.1", b"HTTP/1.0") + b" " * 10_000)) as line:  # there is room again
        assert said(line).startswith(b"HTTP/1.1 422")


def _has_answer(line: socket.socket) -> bool:
    line.settimeout(0.5)
    try:
        return bool(line.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
