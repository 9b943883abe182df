"""Laws of uploading: asked before the work, all files arrive, the token goes to the Hub alone, and a failure says where
the finished files lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from submillion import exports
from submillion.errors import ConfigError, ExportError, HubError
from submillion.exports import manifest
from submillion.exports.manifest import Question
from tests.kit.hub import TOKEN, Account, Fault, Hub

REPO = "me/my-model"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


@pytest.fixture
def made(tmp_path: Path) -> exports.Upload:
    """An export as far as uploading looks at it; no other file of the folder belongs to it."""
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 64)
    (folder / "README.md").write_text("---\ntags:\n- onnx\n---\n\n# a model\n")
    written = manifest.write(folder, Question("onnx", "0" * 32, "validation", None), "run-00000000", {}, {})
    (folder / "notes.txt").write_text("mine")
    return exports.of_export(exports.Written(folder, written, is_new=True))


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub's client to httpx
def test_every_file_arrives_and_nothing_else(server: Hub, made: exports.Upload) -> None:
    exports.check(REPO, private=True)
    address = exports.push(made, REPO, private=True)
    assert address.endswith(f"/{REPO}")
    repository = server.repositories["models", REPO]
    assert repository.is_private
    names = ("README.md", "manifest.json", "model.onnx")
    assert repository.commits[repository.refs["main"]] == {name: (made.folder / name).read_bytes() for name in names}
    stored = [request for request in server.requests if request.path.startswith("/storage/")]
    assert stored
    assert not any(request.has_token for request in stored), "that may be anybody's machine"


def test_what_may_not_be_written_is_refused_before_there_is_anything(server: Hub) -> None:
    server.add("models", "other/model", {})
    server.add("models", "me/open", {})
    for owner in ("other", "nobody"):
        sentence = f"the token is me's, who is not a member of {owner}: push to one of me; nothing was exported"
        with pytest.raises(HubError, match=f"--push-to is {owner}/model: {sentence}"):
            exports.check(f"{owner}/model", private=False)
    with pytest.raises(HubError, match="me/open exists and is public, but --private was given"):
        exports.check("me/open", private=True)
    for fine in (REPO, "my-model", "me/open"):
        exports.check(fine, private=False)
    server.accounts[TOKEN] = Account(role="read")
    with pytest.raises(HubError, match="the token is read-only: make one with write access"):
        exports.check(REPO, private=False)
    del server.accounts[TOKEN]
    with pytest.raises(
        HubError, match=f"does not accept your token: make a new one .{server.url}/settings/tokens"
    ) as no:
        exports.check(REPO, private=False)
    assert TOKEN not in str(no.value)
    assert not any(request.method in ("POST", "PUT") for request in server.requests), "nothing was made"


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_fails_is_told_before_the_work(server: Hub, status: int) -> None:
    server.faults.append(Fault("whoami", status=status))
    with pytest.raises(HubError, match=f"{status}.*nothing was exported"):
        exports.check(REPO, private=False)
    assert len(server.requests) == 1


def test_a_public_repository_is_not_taken_for_a_private_one(server: Hub, made: exports.Upload) -> None:
    before = server.add("models", REPO, {}).refs["main"]
    with pytest.raises(ExportError, match="exists and is public"):
        exports.push(made, REPO, private=True)
    assert server.repositories["models", REPO].refs["main"] == before


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "the Hub does not accept your token"),
        (403, "your token may not write there"),
        (400, "the Hub answered 400: scripted"),
        (429, "the Hub accepts no more requests"),
        (500, "the Hub is failing .500.: wait and try again"),
    ],
)
def test_a_refusal_says_where_the_export_lies_and_keeps_the_token(
    server: Hub, made: exports.Upload, status: int, told: str
) -> None:
    server.faults.append(Fault("", status=status))
    before = f"the export is finished, in {made.folder}, but it was not uploaded: "
    with pytest.raises(ExportError, match=f"{before}{told}") as no:
        exports.push(made, REPO, private=False)
    assert TOKEN not in str(no.value)
    assert len(server.requests) <= 2, "nobody waits in silence"  # the client asks whether the repository is there


def test_without_a_token_nobody_is_asked(server: Hub, made: exports.Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ExportError, match=r"not uploaded: there is no token: `hf auth login`, or set HF_TOKEN"):
        exports.push(made, REPO, private=False)
    with pytest.raises(HubError, match=r"there is no token: .*nothing was exported"):
        exports.check(REPO, private=False)
    assert not server.requests


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_error_says_so(
    made: exports.Upload, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    told = "HF_HUB_OFFLINE is set: unset it;" if offline else "the Hub was not reached .*: check the network;"
    with pytest.raises(ExportError, match=told) as no:
        exports.push(made, REPO, private=False)
    assert str(made.folder) in str(no.value)
    with pytest.raises(HubError, match=told):
        exports.check(REPO, private=False)


@pytest.mark.parametrize("name", ["a/b/c", "me/a b", "-x", "me/..", ""])
def test_a_name_that_the_hub_cannot_have_is_refused_first(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a Hub repository"):
        exports.check(name, private=False)
