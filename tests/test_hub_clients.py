"""The real clients take the stand-in for the Hub: huggingface_hub and datasets, unpatched, in their own process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.hub import TOKEN, Fault, Hub, Repository

CARD = b"""---
configs:
- config_name: first
  data_files: [{split: train, path: first/train.csv}, {split: test, path: first/test.csv}]
- config_name: second
  default: true
  data_files: second/*.csv
---
"""
LARGE = bytes(range(256)) * 90_000  # three times what the client writes at once: only then does it ask for a range
IMPORTS = "import json, os\nfrom huggingface_hub import HfApi, hf_hub_download, snapshot_download\napi = HfApi()\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    running = Hub()
    yield running
    running.close()


@pytest.fixture
def model(hub: Hub) -> Repository:
    hub.renamed["models", "old/name"] = hub.renamed["models", "bare"] = "org/name"
    files = {"config.json": b"{}", "model.safetensors": LARGE, "folder/more.txt": b"more"}
    return hub.add("models", "org/name", files)


# Calls in a row, with or without a token: the class of each error, and the server's message.
RAISED = """
def raised(calls):
    for token, call in calls:
        os.environ.pop("HF_TOKEN", None)
        os.environ |= {} if token is None else {"HF_TOKEN": token}
        try:
            exec(call)
        except Exception as error:
            yield type(error).__name__, getattr(error, "server_message", None)
"""


def raised(hub: Hub, calls: list[tuple[str | None, str]], home: Path) -> list[list[str | None]]:
    return hub.python(f"{IMPORTS}{RAISED}\nprint(json.dumps(list(raised({calls!r}))))", home)


def test_names_revisions_and_files(hub: Hub, model: Repository, tmp_path: Path) -> None:
    before = model.refs["v1"] = model.refs["main"]
    now = model.commit({"config.json": b"[]"})
    told: dict[str, Any] = hub.python(
        IMPORTS + "info = api.model_info('old/name', files_metadata=True)\n"
        "files = [(s.rfilename, s.size, s.lfs and s.lfs.sha256) for s in info.siblings]\n"
        "tagged = api.model_info('bare', revision='v1').sha\n"
        "tree = [entry.path for entry in api.list_repo_tree('org/name', recursive=True)]\n"
        "paths = [entry.path for entry in api.get_paths_info('org/name', ['folder', 'nothing'])]\n"
        "print(json.dumps(dict(id=info.id, sha=info.sha, files=files, tagged=tagged, tree=tree, paths=paths)))",
        tmp_path,
    )
    sha256 = hashlib.sha256(LARGE).hexdigest()
    files = [["config.json", 2, None], ["folder/more.txt", 4, None], ["model.safetensors", len(LARGE), sha256]]
    tree = ["config.json", "folder", "folder/more.txt", "model.safetensors"]
    assert told == {"id": "org/name", "sha": now, "files": files, "tagged": before, "tree": tree, "paths": ["folder"]}


def test_files_come_from_the_commit_and_large_ones_from_a_storage_without_the_token(
    hub: Hub, model: Repository, tmp_path: Path
) -> None:
    hub.page = 2
    model.refs["v1"] = model.refs["main"]
    model.commit({"config.json": b"[]"})
    folder, file = hub.python(
        IMPORTS + "folder = snapshot_download('org/name', revision='v1')\n"
        "file = hf_hub_download('old/name', 'config.json')\nprint(json.dumps([folder, file]))",
        tmp_path,
        TOKEN,
    )
    assert Path(folder).name == model.refs["v1"]
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    assert contents == model.commits[model.refs["v1"]]
    assert Path(file).read_bytes() == b"[]"
    assert all(request.has_token != request.path.startswith("/storage/") for request in hub.requests[1:])
    names = ["config.json", "config.json", "folder/more.txt", "model.safetensors"]
    assert sorted(hub.sent()) == [f"org/name/{name}" for name in names]


def test_a_lost_connection_is_resumed_with_a_range(hub: Hub, model: Repository, tmp_path: Path) -> None:
    hub.faults.append(Fault("GET .*safetensors", cut=11 * 2**20, times=1))
    file = hub.python(IMPORTS + "print(json.dumps(hf_hub_download('org/name', 'model.safetensors')))", tmp_path)
    assert Path(file).read_bytes() == LARGE
    assert [r.status for r in hub.requests if r.file is not None] == [200, 206]


def test_refusals_are_told_apart(hub: Hub, model: Repository, tmp_path: Path) -> None:
    hub.add("models", "org/gated", {"a": b"a"}, is_gated=True)
    hub.add("models", "org/private", {"a": b"a"}, is_private=True)
    missing, gated = "RepositoryNotFoundError", "GatedRepoError"
    restricted = "Access to model org/gated is restricted"
    expected = {
        (None, "api.model_info('org/missing')"): (missing, "Invalid username or password."),
        (None, "api.model_info('org/private')"): (missing, "Invalid username or password."),
        (TOKEN, "api.model_info('org/private')"): (missing, "Repository not found"),
        (TOKEN, "hf_hub_download('org/private', 'a')"): (missing, "Repository not found"),
        (None, "hf_hub_download('org/gated', 'a')"): (gated, f"{restricted}. You must"),
        (TOKEN, "hf_hub_download('org/gated', 'a')"): (gated, f"{restricted} and you are not in the authorized list"),
        (TOKEN, "list(api.list_repo_tree('org/gated'))"): (gated, restricted),
        (None, "api.model_info('org/name', revision='v9')"): ("RevisionNotFoundError", "Invalid rev id: v9"),
        (None, "hf_hub_download('org/name', 'a', revision='v9')"): ("RevisionNotFoundError", "Invalid rev id: v9"),
        (None, "hf_hub_download('org/name', 'a')"): ("RemoteEntryNotFoundError", "Entry not found"),
        ("hf_unknown", "api.model_info('org/name')"): ("HfHubHTTPError", "Invalid credentials in Authorization header"),
        (TOKEN, "api.create_repo('other/new')"): ("HfHubHTTPError", "You don't have the rights to write"),
    }
    for found, (name, message) in zip(raised(hub, list(expected), tmp_path), expected.values(), strict=True):
        assert found[0] == name
        assert (found[1] or "").startswith(message)


def test_whoever_has_access_reads_what_is_gated_or_private(hub: Hub, tmp_path: Path) -> None:
    hub.add("models", "org/gated", {"a": b"a"}, is_gated=True)
    hub.add("models", "me/private", {"a": b"a"}, is_private=True)
    hub.accounts[TOKEN].access = frozenset({"org/gated"})
    code = "files = [hf_hub_download(name, 'a') for name in ('org/gated', 'me/private')]\nprint(json.dumps(len(files)))"
    assert hub.python(IMPORTS + code, tmp_path, TOKEN) == 2


def test_faults_reach_the_client(hub: Hub, model: Repository, tmp_path: Path) -> None:
    faults = {
        "HfHubHTTPError": Fault("/api/models", status=503, times=1),
        "RemoteProtocolError": Fault("/api/models", cut=3, times=1),
        "ReadError": Fault("/api/models", cut=3, resets=True, times=1),
        "ReadTimeout": Fault("/api/models", wait_s=2, times=1),
    }
    hub.faults += faults.values()
    calls: list[tuple[str | None, str]] = [(None, "api.model_info('org/name', timeout=0.5)")] * len(faults)
    assert [name for name, _ in raised(hub, calls, tmp_path)] == list(faults)
    hub.close()
    assert raised(hub, calls[:1], tmp_path)[0][0] == "ConnectError"


def test_data_sets_are_loaded_by_configuration_and_revision(hub: Hub, tmp_path: Path) -> None:
    rows = b"text,label\na,0\n"
    files = {"README.md": CARD, "first/train.csv": rows, "first/test.csv": rows, "second/all.csv": rows}
    data = hub.add("datasets", "org/rows", files)
    before = data.refs["main"]
    data.commit({"second/all.csv": rows + b"b,1\n"})
    code = f"""
import json, datasets
datasets.disable_progress_bars()
load = datasets.load_dataset
found = [load("org/rows"), load("org/rows", "first"), load("org/rows", revision="{before}")]
print(json.dumps([dict(each.num_rows) for each in found]))
"""
    assert hub.python(code, tmp_path) == [{"train": 2}, {"train": 1, "test": 1}, {"train": 1}]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_folder_is_uploaded(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = {"README.md": b"---\ntags: [a]\n---\n", "model.safetensors": bytes(1000)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    commit = hub.python(
        "import warnings; warnings.filterwarnings('ignore', \"Use 'content=\", DeprecationWarning)\n"
        + IMPORTS
        + "import huggingface_hub.utils as utils; utils.disable_progress_bars()\n"
        "[api.create_repo('me/new', private=True, exist_ok=True) for _ in range(2)]\n"
        f"print(json.dumps(api.upload_folder(repo_id='me/new', folder_path={str(folder)!r}).oid))",
        tmp_path,
        TOKEN,
    )
    repo = hub.repositories["models", "me/new"]
    assert repo.is_private
    assert repo.commits[commit] == files
