"""Laws of uploading: all files arrive, the token goes to the Hub alone, a failure says where the export lies.

A small server stands in for the network and speaks the few endpoints that the Hub's client calls.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from submillion import export
from submillion.errors import ConfigError, ExportError
from submillion.export import hub, manifest
from submillion.export.manifest import Question

TOKEN = "hf_" + "x" * 20
REPO = "me/my-model"


class _Hub(BaseHTTPRequestHandler):
    """What the Hub answers: `files` of each commit, `calls` with their token, `is_private`, `refuses` with a status."""

    files: dict[str, bytes]
    stored: dict[str, bytes]
    calls: list[tuple[str, str | None]]
    created: dict[str, Any] | None
    is_private: bool
    refuses: int | None

    def do_POST(self) -> None:
        body = self._body()
        match self.path.split("?")[0]:
            case "/api/repos/create":
                type(self).created = json.loads(body)
                self._answer({"url": f"{self._address()}/{REPO}", "name": REPO})
            case "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            case path if path == f"/api/models/{REPO}/preupload/main":
                files = [
                    {"path": f["path"], "uploadMode": "lfs" if "model." in f["path"] else "regular"}
                    for f in json.loads(body)["files"]
                ]
                self._answer({"files": [{**f, "shouldIgnore": False} for f in files]})
            case path if path == f"/{REPO}.git/info/lfs/objects/batch":
                objects = [
                    {**o, "actions": {"upload": {"href": f"{self._address()}/store/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                self._answer({"transfer": "basic", "objects": objects})
            case path if path == f"/api/models/{REPO}/commit/main":
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                    elif line["key"] == "lfsFile":
                        self.files[line["value"]["path"]] = self.stored[line["value"]["oid"]]
                self._answer(
                    {"commitUrl": f"{self._address()}/{REPO}/commit/1", "commitOid": "1" * 40, "success": True}
                )
            case _:
                self._answer({"error": self.path}, 404)

    def do_PUT(self) -> None:
        self.stored[self.path.rpartition("/")[2]] = self._body()
        self._answer({})

    def do_GET(self) -> None:
        self._body()
        if self.path.split("?")[0] == f"/api/models/{REPO}":
            self._answer({"id": REPO, "private": self.is_private, "siblings": [], "sha": "1" * 40})
        else:
            self._answer({"error": self.path}, 404)

    def _body(self) -> bytes:
        self.calls.append((self.path, self.headers.get("authorization")))
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, values: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(values if self.refuses is None else {"error": "no"}).encode()
        self.send_response(status if self.refuses is None else self.refuses)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[type[_Hub]]:
    class Fresh(_Hub):
        files, stored, calls = {}, {}, []
        created, is_private, refuses = None, True, None

    running = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{running.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield Fresh
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def made(tmp_path: Path) -> export.Export:
    """An export as far as uploading looks at it; no other file of the folder belongs to it."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 64)
    (folder / "README.md").write_text("---\ntags:\n- onnx\n---\n\n# a model\n")
    written = manifest.write(folder, Question("onnx", "0" * 32, "validation", None), "run-00000000", {}, {})
    (folder / "notes.txt").write_text("mine")
    return export.Export(folder, written, is_new=True)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub's client to httpx
def test_every_file_arrives_and_nothing_else(server: type[_Hub], made: export.Export) -> None:
    address = export.push(made, REPO, private=True)
    assert address.endswith(f"/{REPO}")
    assert server.created is not None
    assert server.created["visibility"] == "private"
    assert server.files == {
        name: (made.folder / name).read_bytes() for name in ("model.onnx", "README.md", "manifest.json")
    }
    with_token = {path for path, authorization in server.calls if authorization == f"Bearer {TOKEN}"}
    assert {"/api/repos/create", f"/api/models/{REPO}/commit/main"} <= with_token
    assert not any(path.startswith("/store/") for path in with_token)  # that may be anybody's machine


def test_a_public_repository_is_not_taken_for_a_private_one(server: type[_Hub], made: export.Export) -> None:
    server.is_private = False
    with pytest.raises(ExportError, match="is there and public"):
        export.push(made, REPO, private=True)
    assert not server.files


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_says_where_the_export_lies_and_keeps_the_token(
    server: type[_Hub], made: export.Export, status: int
) -> None:
    server.refuses = status
    with pytest.raises(ExportError, match=f"the export is finished, in {made.folder}, but it was not uploaded") as no:
        export.push(made, REPO, private=False)
    assert str(status) in str(no.value)
    assert TOKEN not in str(no.value)


def test_without_a_token_nobody_is_asked(server: type[_Hub], made: export.Export, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ExportError, match=r"not uploaded: there is no token: `hf auth login`, or set HF_TOKEN"):
        export.push(made, REPO, private=False)
    assert not server.calls


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_error_says_so(made: export.Export, monkeypatch, offline: bool) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(ExportError, match=r"offline mode|refused") as no:
        export.push(made, REPO, private=False)
    assert str(made.folder) in str(no.value)


@pytest.mark.parametrize("name", ["a/b/c", "me/a b", "-x", "me/..", ""])
def test_a_name_that_the_hub_cannot_have_is_refused_first(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a Hub repository"):
        hub.check_name(name)
