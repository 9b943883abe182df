"""A stand-in for the Hugging Face Hub on loopback, as far as the real clients ask it; nothing in them is patched.

A test fills a `Hub` with repositories, scripts what goes wrong as `Fault`s, gives a process `Hub.environment`, and
reads in `Hub.requests` what was asked: other hosts too, since the stand-in is that process's proxy for https. It
answers as the clients' source and what others saw of the real one say:

* An API call or a file of a renamed repository: 307, to the same path with the new name. Bare names such as `ag_news`
  are old names too.
* A small file is sent with its git hash as ETag. A large one (LFS) is a 302 to a storage on another host, which must
  never see a token; SHA-256 and size are in X-Linked-Etag and X-Linked-Size. Both say X-Repo-Commit and take ranges.
* A repository that is private, or that is not there: 401 without a token, 404 with one; nobody can tell them apart.
* A gated repository tells everybody what it is, its commit and the names of its files. Its files and its tree are
  401 without a token, 403 for whoever has no access.
* A token that is not valid is a 401 everywhere, for public repositories too.

Left out: Xet (clients take the storage when no X-Xet-Hash is sent), the dataset viewer's host, search.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.kit import forks

Kind = Literal["models", "datasets"]
TOKEN = "hf_" + "s" * 34
DATE = "2026-01-01T00:00:00.000Z"
_LARGE = (".arrow", ".bin", ".h5", ".onnx", ".parquet", ".pt", ".safetensors")  # as the Hub's first .gitattributes
_VERBS = ("commit", "discussions", "paths-info", "preupload", "revision", "tree")  # after a repository's name


@dataclass
class Account:
    """Who a token belongs to, whether it may write ("read" or "write"), and what is open to it beside its own."""

    name: str = "me"
    role: str = "write"
    access: frozenset[str] = frozenset()


@dataclass
class Repository:
    """A repository: for each commit all its files, for each branch and tag its commit."""

    kind: Kind
    id: str
    is_private: bool = False
    is_gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes | None], branch: str = "main") -> str:
        """Commit files over those of the branch, None deletes one; return the commit."""
        parent = self.refs.get(branch, "")
        merged = {**self.commits.get(parent, {}), **files}
        kept = {name: content for name, content in sorted(merged.items()) if content is not None}
        hashes = [(name, _git_hash(content)) for name, content in kept.items()]
        made = hashlib.sha1(repr((self.id, parent, hashes)).encode()).hexdigest()
        self.commits[made] = kept
        self.refs[branch] = made
        return made


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path?query" has a part that matches `pattern`, `times` times.

    status: sent in the answer's place · cut: the connection is lost after so many bytes of the body, or reset, which
    clients take for another error · wait_s: before anything is sent.
    """

    pattern: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    resets: bool = False
    wait_s: float = 0
    times: float = float("inf")


@dataclass(frozen=True)
class Request:
    """A request as it came, and the status of its answer; `file` is organisation/name/path if it was sent one."""

    method: str
    path: str
    status: int
    has_token: bool
    file: str | None


@dataclass
class _Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: str | None = None


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.answer = _json({"error": message}, status, {**told, **headers})


class Hub:
    """The server and what it holds."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.renamed: dict[tuple[Kind, str], str] = {}
        self.accounts = {TOKEN: Account()}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.stored: dict[str, bytes] = {}  # SHA-256 → content of large files
        self.page = 1000  # entries of a tree in one answer
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self.open()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = f"http://localhost:{self._server.server_port}/storage"  # another host to clients

    def open(self, port: int = 0) -> None:
        """Listen, on a free port or on one that is given."""
        self.closing.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop listening: connections are refused."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Do not listen for a while."""
        self.close()
        try:
            yield
        finally:
            self.open(self._server.server_port)

    def add(self, kind: Kind, name: str, files: Mapping[str, bytes], **fields: Any) -> Repository:
        """Add a repository with its first commit on main."""
        made = self.repositories[kind, name] = Repository(kind, name, **fields)
        made.commit(files)
        return made

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a process to whom this is the Hub, with its own cache under `home`."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
        }
        own = {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return {**kept, **own, "HTTPS_PROXY": self.url, **({} if token is None else {"HF_TOKEN": token})}

    def python(self, code: str, home: Path, token: str | None = None) -> Any:
        """Run Python code in such a process; return what it printed, as JSON."""
        done = forks.run(code, self.environment(home, token))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sent(self) -> list[str]:
        """Return the files whose content was sent, in order: organisation/name/path."""
        return [request.file for request in self.requests if request.file is not None]

    def take_fault(self, line: str) -> Fault:
        """Return the first fault for a request, and count it; an empty one if there is none."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return Fault("")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.hub.take_fault(f"{self.command} {self.path}")
        requests = self.hub.requests  # of the test that asked; after a wait it may be the next one's turn
        if fault.wait_s:
            self.hub.closing.wait(fault.wait_s)
        if fault.status is not None:
            answer = _json({"error": "scripted"}, fault.status)
        else:
            try:
                answer = self._answer(body)
            except _RefusedError as refused:
                answer = refused.answer
        answer.headers |= fault.headers
        has_token = "authorization" in self.headers
        requests.append(Request(self.command, self.path, answer.status, has_token, answer.file))
        with suppress(OSError):  # the client may leave first
            self._send(answer, fault)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - http.server's names

    def do_CONNECT(self) -> None:
        self.hub.requests.append(Request("CONNECT", self.path, 403, False, None))
        self.send_error(403)

    def _send(self, answer: _Answer, fault: Fault) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: fault.cut])
        if fault.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        pass

    @property
    def _token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    def _answer(self, body: bytes) -> _Answer:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        if parts[0] == "storage":
            return self._stored(parts[1], "/".join(parts[2:]), body)
        if self._token is not None and self._token not in self.hub.accounts:
            raise _RefusedError(401, "Invalid credentials in Authorization header")
        match parts:
            case ["api", "whoami-v2"]:
                return self._whoami()
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                return _json({"errors": [], "warnings": []})
            case ["api", ("models" | "datasets") as kind, *rest]:
                n_parts = 1 if len(rest) == 1 or rest[1] in _VERBS else 2
                repo = self._repository(kind, "/".join(rest[:n_parts]))
                return self._api(repo, rest[n_parts:] or ["revision", "main"], parse_qs(url.query), body)
            case [*_, "info", "lfs", "objects", "batch"]:
                objects = json.loads(body)["objects"]
                for each in objects:
                    each["actions"] = {"upload": {"href": f"{self.hub.storage}/{each['oid']}"}}
                return _json({"transfer": "basic", "objects": objects})
            case [*_] if "resolve" in parts:
                at = parts.index("resolve")
                is_dataset = parts[0] == "datasets"
                repo = self._repository("datasets" if is_dataset else "models", "/".join(parts[is_dataset:at]))
                return self._file(repo, _commit(repo, parts[at + 1]), "/".join(parts[at + 2 :]))
        raise _RefusedError(404, "Sorry, we can't find the page you are looking for.")

    def _repository(self, kind: Kind, name: str) -> Repository:
        """The repository, if this caller may know of it."""
        if (new := self.hub.renamed.get((kind, name))) is not None:
            raise _RefusedError(307, f"moved to {new}", Location=self.path.replace(f"/{name}", f"/{new}", 1))
        repo = self.hub.repositories.get((kind, name))
        if repo is None or (repo.is_private and not self._has_access(repo)):
            # The real one sends no code with its 401; the client knows it by the address, but only an https one.
            if self._token is None:
                raise _RefusedError(401, "Invalid username or password.", "RepoNotFound")
            raise _RefusedError(404, "Repository not found", "RepoNotFound")
        return repo

    def _has_access(self, repo: Repository) -> bool:
        account = self.hub.accounts.get(self._token or "")
        return account is not None and (repo.id in account.access or repo.id.startswith(f"{account.name}/"))

    def _pass_gate(self, repo: Repository) -> None:
        if not repo.is_gated or self._has_access(repo):
            return
        restricted = f"Access to {repo.kind[:-1]} {repo.id} is restricted"
        if self._token is None:
            must = "You must have access to it and be authenticated to access it. Please log in."
            raise _RefusedError(401, f"{restricted}. {must}", "GatedRepo")
        visit = f"Visit https://huggingface.co/{repo.id} to ask for access."
        raise _RefusedError(403, f"{restricted} and you are not in the authorized list. {visit}", "GatedRepo")

    def _api(self, repo: Repository, words: list[str], query: dict[str, list[str]], body: bytes) -> _Answer:
        match words:
            case ["revision", revision]:
                return _json(_info(repo, _commit(repo, revision), query))
            case ["discussions"]:
                return _json({"discussions": [], "count": 0, "start": 0})
            case ["tree", revision, *folder]:
                self._pass_gate(repo)
                return self._tree(repo, _commit(repo, revision), "/".join(folder), query)
            case ["paths-info", revision]:
                self._pass_gate(repo)
                paths = parse_qs(body.decode())["paths"]
                return _json([entry for entry in _entries(repo, _commit(repo, revision)) if entry["path"] in paths])
            case ["preupload", _]:
                files = json.loads(body)["files"]
                for file in files:
                    file |= {"uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular", "shouldIgnore": False}
                return _json({"files": files})
            case ["commit", branch]:
                self._refuse_writing(repo.id.partition("/")[0])
                made = repo.commit(dict(self._added(body)), branch)
                return _json({"commitUrl": f"{self.hub.url}/{repo.id}/commit/{made}", "commitOid": made})
        raise _RefusedError(404, "Sorry, we can't find the page you are looking for.")

    def _tree(self, repo: Repository, commit: str, folder: str, query: dict[str, list[str]]) -> _Answer:
        prefix = f"{folder}/" if folder else ""
        inside = [entry for entry in _entries(repo, commit) if entry["path"].startswith(prefix)]
        if folder and not inside:
            raise _RefusedError(404, f"{folder} does not exist on {commit}", "EntryNotFound")
        if query.get("recursive", ["false"])[0].lower() != "true":
            inside = [entry for entry in inside if "/" not in entry["path"].removeprefix(prefix)]
        start = int(query.get("cursor", ["0"])[0])
        end = start + self.hub.page
        more = f'<{self.hub.url}{self.path.partition("&cursor=")[0]}&cursor={end}>; rel="next"'
        return _json(inside[start:end], headers={"Link": more} if end < len(inside) else {})

    def _file(self, repo: Repository, commit: str, name: str) -> _Answer:
        self._pass_gate(repo)
        content = repo.commits[commit].get(name)
        if content is None:
            raise _RefusedError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not name.endswith(_LARGE):
            headers["ETag"] = f'"{_git_hash(content)}"'
            return self._ranged(content, headers, f"{repo.id}/{name}")
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.stored.setdefault(sha256, content)
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"{self.hub.storage}/{sha256}/{quote(repo.id)}/{quote(name)}"
        return _Answer(302, headers=headers)

    def _stored(self, sha256: str, file: str, body: bytes) -> _Answer:
        if self.command == "PUT":
            self.hub.stored[sha256] = body
            return _Answer()
        return self._ranged(self.hub.stored[sha256], {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}, file)

    def _ranged(self, content: bytes, headers: dict[str, str], file: str) -> _Answer:
        sent = None if self.command == "HEAD" else file
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if found is None:
            return _Answer(200, content, headers, sent)
        start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        if start > end:
            return _Answer(416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return _Answer(206, content[start : end + 1], headers, sent)

    def _account(self) -> Account:
        if self._token is None:
            raise _RefusedError(401, "Invalid username or password.")
        return self.hub.accounts[self._token]

    def _whoami(self) -> _Answer:
        account = self._account()
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
        return _json({"type": "user", "name": account.name, "orgs": [], "auth": auth})

    def _refuse_writing(self, owner: str) -> None:
        account = self._account()
        if account.role != "write" or account.name != owner:
            raise _RefusedError(403, f'You don\'t have the rights to write under the namespace "{owner}"')

    def _create(self, asked: dict[str, Any]) -> _Answer:
        kind: Kind = "datasets" if asked.get("type") == "dataset" else "models"
        owner = asked.get("organization") or self._account().name
        self._refuse_writing(owner)
        name = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            return _json({"url": url, "error": f"You already created this {kind[:-1]} repo"}, 409)
        self.hub.add(kind, name, {}, is_private=asked.get("visibility") == "private")
        return _json({"url": url, "name": name})

    def _added(self, body: bytes) -> Iterator[tuple[str, bytes]]:
        """The files of a commit; large ones came to the storage before."""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    yield value["path"], base64.b64decode(value["content"])
                case "lfsFile":
                    yield value["path"], self.hub.stored[value["oid"]]


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


def _commit(repo: Repository, revision: str) -> str:
    commit = repo.refs.get(revision, revision)
    if commit not in repo.commits:
        raise _RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entries(repo: Repository, commit: str) -> list[dict[str, Any]]:
    """Files and folders of a commit, as /tree and /paths-info name them."""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in repo.commits[commit].items():
        for end in (match.start() for match in re.finditer("/", path)):
            entries[path[:end]] = {"type": "directory", "oid": _git_hash(path[:end].encode()), "size": 0}
        entries[path] = {"type": "file", "oid": _git_hash(content), "size": len(content)}
        if path.endswith(_LARGE):
            lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries[path]["lfs"] = lfs
    last = {"id": commit, "title": "a commit", "date": DATE}
    return [{"path": path, **entry, "lastCommit": last} for path, entry in entries.items()]


def _info(repo: Repository, commit: str, query: dict[str, list[str]]) -> dict[str, Any]:
    """What the API says of a repository; sizes and hashes of files only where ?blobs=true asks for them."""
    siblings = []
    for entry in (entry for entry in _entries(repo, commit) if entry["type"] == "file"):
        siblings.append({"rfilename": entry["path"]})
        if query.get("blobs") == ["true"]:
            lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
            siblings[-1] |= {"size": entry["size"], "blobId": entry["oid"], **lfs}
    gated = "manual" if repo.is_gated else False
    told = {"sha": commit, "private": repo.is_private, "gated": gated, "disabled": False, "lastModified": DATE}
    told |= {"author": repo.id.partition("/")[0], "tags": [], "siblings": siblings}
    return {"id": repo.id} | {name: told[name] for name in query.get("expand", told)}
