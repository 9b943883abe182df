"""Malformed requests: each is answered by 4xx with its problems in JSON, in time, and harms nobody."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from submillion import config
from submillion.runs import Run
from submillion.serving.app import Options, create_app, listen, server_of
from submillion.serving.folders import opened
from submillion.serving.guard import MAX_BODY_BYTES
from submillion.training import workflow
from tests.data import write_csv
from tests.malformed import assert_sentences, in_time

PREDICT = "/v1/predict"
TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def run(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("http")
    sets = {"model.name": encoders["bert"], "data.source": write_csv(folder / "rows.csv", 60), "out": folder / "runs"}
    sets |= {"train.steps": 2, "train.precision": "fp32", "model.max_length": 32}
    return workflow.train(config.load(overrides=[f"{key}={value}" for key, value in sets.items()]))


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[TestClient]:
    app = create_app(opened(run.path.parent))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def refused(answer: Any, *statuses: int) -> str:
    """Assert the law of an answer; return its sentences."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert not statuses or answer.status_code in statuses, (answer.status_code, answer.text[:300])
    problems = answer.json()["problems"]
    assert_sentences("\n".join(problems))
    return "\n".join(problems)


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "a text": b'"texts"',
    "an open brace": b"{",
    "single quotes": b"{'texts': ['a']}",
    "a comma too many": b'{"texts": ["a"],}',
    "two values": b'{"texts": ["a"]} {"texts": ["b"]}',
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "deep texts": b'{"texts": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "5,000 digits": b'{"texts": [' + b"9" * 5_000 + b"]}",
    "NUL": b"\0",
    "Latin-1": b'{"texts": ["\xff"]}',
    "a mark and half of UTF-16": '{"texts": ["a"]}'.encode("utf-16")[:-1],
    "packed": gzip.compress(b'{"texts": ["a"]}'),
    "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    "YAML": b"texts: [a]",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "a form": b"texts=a&run=b",
    "half a pair as key": b'{"\\ud800": 1, "texts": ["a"]}',
    "half a pair as text": b'{"texts": ["\\ud800"]}',
    "half a pair as run": b'{"texts": ["a"], "run": "\\ud800"}',
    "a long key": b'{"' + b"k" * 200_000 + b'": 1}',
    "many keys": json.dumps({f"k{i}": 1 for i in range(15_000)}).encode(),
    "a key in bold": b'{"\\u001b[1mbold": 1}',
    "texts that are one": b'{"texts": "a"}',
    "texts that are null": b'{"texts": null}',
    "no texts": b'{"texts": []}',
    "an empty text": b'{"texts": [""]}',
    "blanks": b'{"texts": [" \\n "]}',
    "a number as text": b'{"texts": [1]}',
    "not a number": b'{"texts": [NaN]}',
    "infinity as run": b'{"texts": ["a"], "run": Infinity}',
    "257 texts": json.dumps({"texts": ["a"] * 257}).encode(),
    "a text too long": json.dumps({"texts": ["a" * 20_001]}).encode(),
    "more pairs than texts": b'{"texts": ["a"], "text_pairs": ["b", "c"]}',
    "pairs that it does not take": b'{"texts": ["a"], "text_pairs": ["b"]}',
    "a run that is a list": b'{"texts": ["a"], "run": ["a"]}',
    "a run above": b'{"texts": ["a"], "run": "../../etc"}',
    "a run by its path": b'{"texts": ["a"], "run": "/etc"}',
    "a run with NUL": b'{"texts": ["a"], "run": "a\\u0000"}',
    "a run with a line": b'{"texts": ["a"], "run": "a\\nb"}',
    "a run of one dot": b'{"texts": ["a"], "run": "."}',
    "a run without a name": b'{"texts": ["a"], "run": ""}',
    "a run too long": json.dumps({"texts": ["a"], "run": "r" * 201}).encode(),
    "a key too many": b'{"texts": ["a"], "trust_remote_code": true}',
}
PATHS = (PREDICT, "/api/plan", "/api/runs/RUN/predict")


@pytest.mark.parametrize("case", BODIES)
def test_a_malformed_body_is_refused(client: TestClient, run: Run, case: str) -> None:
    for path in PATHS:
        with in_time():
            answer = client.post(
                path.replace("RUN", run.name), content=BODIES[case], headers={"content-type": "application/json"}
            )
        refused(answer, 400, 404, 422)


HEADERS: dict[str, tuple[dict[str, str], int]] = {
    "an origin that is not one": ({"origin": "http://[::1"}, 403),
    "an open bracket as origin": ({"origin": "http://["}, 403),
    "NUL as origin": ({"origin": "\0"}, 403),
    "no origin": ({"origin": ""}, 403),
    "a file as origin": ({"origin": "file:///etc/passwd"}, 403),
    "no host": ({"host": ""}, 400),
    "an open bracket as host": ({"host": "[::1"}, 400),
    "a host's port that is not one": ({"host": "127.0.0.1:x"}, 400),
    "a port too large": ({"host": "127.0.0.1:9999999"}, 400),
    "a host with a user": ({"host": "me@127.0.0.1"}, 400),
    "two hosts": ({"host": "127.0.0.1, evil.example"}, 400),
    "another host": ({"host": "evil.example"}, 400),
    "plain text": ({"content-type": "text/plain"}, 422),
    "a form": ({"content-type": "application/x-www-form-urlencoded"}, 422),
    "parts without end": ({"content-type": "multipart/form-data; boundary="}, 422),
    "a type that is not one": ({"content-type": "\xff/;;="}, 422),
    "a length too large": ({"content-length": "99999999999"}, 413),
    "a length of 400 digits": ({"content-length": "9" * 400}, 413),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malformed_header_is_refused(client: TestClient, case: str) -> None:
    headers, status = HEADERS[case]
    sent = {key: value.encode("latin-1") for key, value in ({"content-type": "application/json"} | headers).items()}
    with in_time():
        answer = client.post(PREDICT, content=b'{"texts": ["a"]}', headers=sent)
    refused(answer, status)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "GET", "PROPFIND", "X"])
@pytest.mark.parametrize("path", [PREDICT, "/api/plan"])
def test_another_method_is_refused(client: TestClient, method: str, path: str) -> None:
    refused(client.request(method, path), 405)


ADDRESSES = (
    *("/page/..%2f..%2fapp.py", "/page/%2e%2e%2fapp.py", "/page/%00", "/page/%ff", "/page//etc/passwd"),
    *("/page/C:%5cboot.ini", "/page/app.py", "/page/index.html%00.css", "/docs", "/v1", "/static/x", "/.git/config"),
    *(
        "/runs/..%2f..%2fetc/report.html",
        "/runs/%2e%2e/config",
        "/runs/./config",
        "/runs/RUN%00/config",
        "/runs/RUN/DONE",
    ),
    *("/runs/RUN%2f..%2f..%2fx/config", "/runs/RUN;x/config", "/runs/RUN;x/report.html", "/runs/RUN/../../config"),
    *("/runs/" + "a" * 5000 + "/config", "/runs/%20/config", "/runs/~root/config", "/runs/%EF%BC%8E%EF%BC%8E/config"),
    *("/runs/%00/report.html", "/curves.svg?runs=..%2f..", "/curves.svg?runs=%00", "/api/runs/%2e%2e/load"),
)


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda text: text[:40])
def test_an_address_leads_nowhere_else(client: TestClient, run: Run, address: str) -> None:
    for method in ("GET", "POST"):
        refused(client.request(method, address.replace("RUN", run.name)), 404, 405)


@pytest.mark.parametrize("value", ["bytes=99-1", "x", "bytes=" + ",".join(["0-1"] * 3000), "bytes=-0", "bytes=9e9-"])
def test_a_part_of_a_file_is_not_sent(client: TestClient, run: Run, value: str) -> None:
    answer = client.get(f"/runs/{run.name}/config", headers={"range": value})
    assert (answer.status_code, answer.content) == (200, (run.path / "config.yaml").read_bytes())


SHOWN = ("", "Bearer", "Bearer ", "Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"bearer\t{TOKEN}", TOKEN)
SHOWN += ("Basic", "Basic =", "Basic " + "é" * 9, "Basic Og==", "Digest x", "Bearer " + "x" * 50_000, "\xff")


@pytest.mark.parametrize("shown", SHOWN, ids=lambda text: text[:20])
def test_a_wrong_token_opens_nothing_and_is_not_repeated(run: Run, shown: str) -> None:
    app = create_app(opened(run.path.parent), Options(token=TOKEN))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for path in ("/", "/v1/models", f"/runs/{run.name}/config", "/metrics", "/openapi.json", "/nowhere"):
            answer = client.get(path, headers={"authorization": shown.encode("latin-1")})
            assert TOKEN not in refused(answer, 401)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PATHS[:3]),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(st.characters(codec=None), max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["texts", "run", "runs", "model", "\ud800", ""]) | st.text(), inner, max_size=3
            )
        ),
        max_leaves=8,
    ),
)
def test_any_json_is_answered_or_refused(client: TestClient, path: str, value: Any) -> None:
    with in_time():
        answer = client.post(path, content=json.dumps(value), headers={"content-type": "application/json"})
    if answer.status_code != 200:
        refused(answer)


@contextmanager
def listening(run: Run) -> Iterator[int]:
    """A real server of the run's folder in a thread; gives its port."""
    server = server_of(create_app(opened(run.path.parent)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=[listen(server, listener)])
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def sent(port: int, content: bytes, until_s: float = 5.0) -> bytes:
    """What the server says to bytes on a connection, until it closes it or is silent for so long."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=until_s) as line:
        try:
            line.sendall(content)
            while part := line.recv(65_536):
                said += part
                if b"\r\n\r\n" in said and (b'"}' in said or b"]}" in said or b"Invalid" in said):
                    break
        except OSError:  # closed on us, or silent
            pass
    return said


def asked(body: bytes, *headers: str, method: str = "POST", path: str = PREDICT) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


RAW: dict[str, bytes] = {
    "rubbish": bytes(range(256)) * 8,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "a line of 100,000": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a header of 100,000": asked(b"", "X: " + "a" * 100_000, method="GET", path="/nowhere"),
    "a header without a name": asked(b"", ": x", method="GET", path="/nowhere"),
    "NUL in a header": asked(b"", "X: a\0b", method="GET", path="/nowhere"),
    "a negative length": asked(b"{}", "Content-Length: -1"),
    "a length of no number": asked(b"{}", "Content-Length: many"),
    "two lengths": asked(b"{}", "Content-Length: 2", "Content-Length: 3"),
    "a length without end": asked(b"{}", "Content-Length: 99999999999999"),
    "length and chunks": asked(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "a chunk of no size": asked(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a chunk without end": asked(b"ffffffffffffffffff\r\n{}", "Transfer-Encoding: chunked"),
    "an unknown coding": asked(b"{}", "Transfer-Encoding: gzip"),
    "a body too large in chunks": asked(
        b"".join(b"10000\r\n" + b"x" * 0x10000 + b"\r\n" for _ in range(MAX_BODY_BYTES // 0x10000 + 2)) + b"0\r\n\r\n",
        "Transfer-Encoding: chunked",
    ),
    "pipelined rubbish": asked(b"[]", "Content-Length: 2") + b"\0\1\2 rubbish\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    "another server's address": b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
}


def test_rubbish_on_the_line_is_refused_and_the_server_answers_on(run: Run) -> None:
    slow = asked(b'{"texts"', "Content-Length: 16")
    with listening(run) as port, socket.create_connection(("127.0.0.1", port)) as stuck:
        stuck.sendall(slow)  # and nothing more: it must hold up nobody
        for name, content in RAW.items():
            with in_time():
                said = sent(port, content)
            assert b" 500 " not in said, name
            assert b"Traceback" not in said, name
            assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (name, said[:80])
            began = time.monotonic()
            assert sent(port, asked(b"", method="GET", path="/healthz")).startswith(b"HTTP/1.1 200"), name
            assert time.monotonic() - began < 5, name
        stuck.sendall(b": [7]}  ")
        stuck.settimeout(5)
        assert stuck.recv(4096).startswith(b"HTTP/1.1 422")
