"""Laws of data sets from the Hub, through its real clients, on a stand-in: one commit and one configuration or a
sentence, at once; what is on this disk is not asked for.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.kit.hub import TOKEN, Fault, Hub, Repository

LIMIT_S = 15  # of a sentence, on a loaded machine: half of what the clients alone would ask again for
NAMES = ("World", "Sports", "Business", "Sci/Tech")

# Settings in a row, each with the environment's changes: what was read, watched and noted, or the error and its kind.
READ = """
import json, os, sys, time
from submillion import data
from submillion.config import DataConfig

def told(values):
    watched, notes = [], []
    began = time.monotonic()
    try:
        pinned = data.pinned(DataConfig(**values), notes.append)
        data.download(pinned, lambda download: watched.append([download.repository, download.done, download.total]))
        splits = data.read(pinned)
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error), "seconds": time.monotonic() - began}
    rows = {name: [example.text for example in getattr(splits, name)] for name in ("train", "validation", "test")}
    warnings = list(splits.warnings)
    return {**vars(pinned), **rows, "labels": splits.labels, "warnings": warnings, "watched": watched, "notes": notes}
"""


def parquet(tag: str, n: int, labels: Sequence[int] = (0, 1)) -> bytes:
    rows = [{"text": f"{tag} {i} {i * i}", "label": labels[i % len(labels)]} for i in range(n)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def card(configs: dict[str, Sequence[str]], names: Sequence[str] = ("no", "yes"), default: str | None = None) -> bytes:
    """A data set's README.md: configurations, each with its splits, and the names of the labels."""
    label = {"class_label": {"names": {str(i): name for i, name in enumerate(names)}}}
    features = [{"name": "text", "dtype": "string"}, {"name": "label", "dtype": label}]
    values = {
        "configs": [
            {"config_name": name, "data_files": [{"split": s, "path": f"{name}/{s}-*"} for s in splits]}
            | ({"default": True} if name == default else {})
            for name, splits in configs.items()
        ],
        "dataset_info": [{"config_name": name, "features": features} for name in configs],
    }
    return f"---\n{yaml.safe_dump(values)}---\n# A data set\n".encode()


def news(tag: str = "one") -> dict[str, bytes]:
    return {
        "README.md": card({"default": ("train", "test")}, NAMES),
        "default/train-0.parquet": parquet(tag, 40, range(4)),
        "default/test-0.parquet": parquet(f"{tag} test", 8, range(4)),
    }


def glue() -> dict[str, bytes]:
    """Three configurations, none of them the default; one keeps the labels of its test split back."""
    files = {"README.md": card({"cola": ("train",), "sst2": ("train", "test"), "rte": ("train",)})}
    files |= {f"{name}/train-0.parquet": parquet(name, 20) for name in ("cola", "sst2", "rte")}
    return {**files, "sst2/test-0.parquet": parquet("hidden", 6, (-1,))}


@pytest.fixture
def hub() -> Iterator[Hub]:
    running = Hub()
    yield running
    running.close()


@pytest.fixture
def ag_news(hub: Hub) -> Repository:
    hub.renamed["datasets", "ag_news"] = "fancyzhx/ag_news"
    return hub.add("datasets", "fancyzhx/ag_news", news())


def read(hub: Hub, home: Path, *settings: dict[str, Any], before: str = "", token: str | None = None) -> list[Any]:
    """What `data.read` gives for each of the settings, in one new process."""
    return hub.python(f"{before}\n{READ}\nprint(json.dumps([told(each) for each in {settings!r}]))", home, token)


def offline(hub: Hub, home: Path, *settings: dict[str, Any]) -> list[Any]:
    return read(hub, home, *settings, before="import os; os.environ['HF_HUB_OFFLINE'] = '1'")


def test_a_bare_name_is_pinned_to_an_id_and_a_commit(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    (found,) = read(hub, tmp_path, {"source": "ag_news"})
    assert (found["source"], found["revision"]) == ("fancyzhx/ag_news", ag_news.refs["main"])
    assert found["labels"] == list(NAMES)
    assert [len(found[name]) for name in ("train", "validation", "test")] == [36, 4, 8]
    size = sum(len(content) for name, content in news().items() if name.endswith(".parquet"))
    assert (found["watched"][0], found["watched"][-1]) == ([ag_news.id, 0, size], [ag_news.id, size, size])
    assert any(0 < done < size for _, done, _ in found["watched"]), "the bar moves"
    assert sorted(hub.sent()) == sorted(f"fancyzhx/ag_news/{name}" for name in news()), "each file once"


def test_rows_that_are_here_are_not_asked_for(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    (first,) = read(hub, tmp_path, {"source": "ag_news"})
    pinned = {"source": first["source"], "revision": first["revision"]}
    hub.requests.clear()
    (again,) = read(hub, tmp_path, pinned)
    assert not hub.requests
    assert again == {**first, "watched": []}
    names = [{"source": name} for name in ("fancyzhx/ag_news", "ag_news")]
    assert offline(hub, tmp_path, pinned, *names) == [again] * 3
    assert not hub.requests
    hub.close()
    (cut_off,) = read(hub, tmp_path, {"source": "fancyzhx/ag_news"})
    assert cut_off == {**again, "notes": cut_off["notes"]}
    assert "the Hub did not answer" in cut_off["notes"][0]


@pytest.mark.parametrize("file", ["dataset_info.json", "*-train.arrow"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"{")], ids=["gone", "damaged"])
def test_prepared_rows_that_are_damaged_are_prepared_again_or_named(
    hub: Hub, ag_news: Repository, tmp_path: Path, file: str, spoil: Any
) -> None:
    asked = {"source": "fancyzhx/ag_news", "revision": ag_news.refs["main"]}
    (first,) = read(hub, tmp_path, asked)
    (found,) = (tmp_path / "datasets").rglob(file)
    spoil(found)
    (again,) = read(hub, tmp_path, asked)
    if "error" in again:
        assert (again["error"], f"remove {found.parent}" in again["text"]) == ("DataError", True), again["text"]
        shutil.rmtree(found.parent)
        (again,) = read(hub, tmp_path, asked)
    assert again["train"] == first["train"]


def test_a_watchers_own_error_comes_out_unchanged(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    for error in ("ZeroDivisionError", "ConnectionError"):
        code = f"""
def watch(download):
    raise {error}("mine")
try:
    data.download(data.pinned(DataConfig(source="ag_news")), watch)
except {error} as error:
    print(json.dumps(str(error)))
"""
        assert hub.python(READ + code, tmp_path) == "mine"


def test_a_revision_gives_its_own_rows(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    old = ag_news.refs["v1"] = ag_news.refs["main"]
    name = {"source": "fancyzhx/ag_news"}
    (before,) = read(hub, tmp_path, name)
    new = ag_news.commit({file: content for file, content in news("two").items() if file != "README.md"})
    by_name, by_tag, by_commit, by_old = read(
        hub, tmp_path, name, *({**name, "revision": each} for each in ("v1", new, old))
    )
    assert (by_name["revision"], by_commit["revision"]) == (new, new)
    assert all(text.startswith("two") for text in [*by_name["train"], *by_commit["train"]])
    for each in (by_tag, by_old):
        assert {**each, "watched": []} == {**before, "watched": []}
    rows = offline(hub, tmp_path, name, {**name, "revision": "v1"}, {**name, "revision": old})
    assert [each["train"] for each in rows] == [by_name["train"], before["train"], before["train"]]


def test_another_commit_or_configuration_is_never_given_instead(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    hub.add("datasets", "nyu-mll/glue", glue())
    asked = {"source": "nyu-mll/glue", "config": "sst2"}
    read(hub, tmp_path, {"source": "ag_news"}, asked)
    other = ag_news.commit({"default/train-0.parquet": parquet("two", 40, range(4))})
    unread = {"source": "fancyzhx/ag_news", "revision": other}
    for found in offline(hub, tmp_path, unread, {**asked, "config": "cola"}, {"source": "nyu-mll/glue"}):
        assert found["error"] == "HubError"
        assert "the Hub's cache" in found["text"] or "are not cached on this machine" in found["text"]
    # The Hub fails after it named the commit: `datasets` alone would take the other one, of which it has rows.
    hub.faults.append(Fault(f"{other}/README.md|{other}.*py", status=503))
    (failing,) = read(hub, tmp_path, unread)
    assert (failing["error"], "503" in failing["text"]) == ("HubError", True)


def test_configurations(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "nyu-mll/glue", glue())
    many = {f"c{i}": ("train",) for i in range(60)}
    hub.add("datasets", "o/many", {"README.md": card(many), "c0/train-0.parquet": parquet("x", 20)})
    marked = {"README.md": card({"a": ("train",), "b": ("train",)}, default="b")}
    marked |= {f"{name}/train-0.parquet": parquet(name, 20) for name in "ab"}
    hub.add("datasets", "o/marked", marked)
    hub.add(
        "datasets", "o/plain", {"train.csv": b"text,label\n" + b"".join(b"t%d,%d\n" % (i, i % 2) for i in range(9))}
    )
    glues = [{"source": "nyu-mll/glue", "config": name} for name in ("sst2", "rte", "sst", "xx")]
    more = [{"source": "o/marked"}, {"source": "o/marked", "config": "a"}, {"source": "o/plain"}]
    none, of_many, sst2, rte, slip, far, by_default, by_name, plain = read(
        hub, tmp_path, {"source": "nyu-mll/glue"}, {"source": "o/many"}, *glues, *more
    )
    assert none["text"] == (
        "data.source is nyu-mll/glue: it has 3 configurations (cola, sst2, rte): choose one with --set data.config=NAME"
    )
    assert "c19 and 40 more" in of_many["text"]
    assert slip["text"].endswith("does not have: did you mean 'sst2'? it has cola, sst2, rte")
    assert far["text"].endswith("does not have: it has cola, sst2, rte")
    assert all(text.startswith("sst2") for text in sst2["train"])
    assert all(text.startswith("rte") for text in rte["train"])
    assert all(text.startswith("b") for text in by_default["train"])
    assert all(text.startswith("a") for text in by_name["train"])
    assert len(plain["train"]) == 7
    # The default is known offline too, beside others that are there.
    assert offline(hub, tmp_path, more[0])[0]["train"] == by_default["train"]


def test_labels_that_are_kept_back_leave_their_rows_out(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "nyu-mll/glue", glue())
    some = {"README.md": card({"default": ("train",)}), "default/train-0.parquet": parquet("x", 30, (0, 1, -1))}
    hub.add("datasets", "o/some", some)
    csv = b"text,label\n" + b"".join(b"t%d,%d\n" % (i, i % 3 - 1) for i in range(30))
    hub.add("datasets", "o/signs", {"train.csv": csv})
    hidden, partly, signs = read(
        hub, tmp_path, {"source": "nyu-mll/glue", "config": "sst2"}, {"source": "o/some"}, {"source": "o/signs"}
    )
    assert hidden["test"] == []
    assert "nyu-mll/glue (test): the labels (column 'label') of all 6 rows are withheld" in hidden["warnings"][0]
    assert len(partly["train"]) + len(partly["validation"]) == 20
    assert "10 of 30 rows are withheld: they are left out" in partly["warnings"][0]
    assert signs["labels"] == ["-1", "0", "1"], "beside others, and without names, -1 is a class"


def test_the_advice_for_a_split_without_labels_is_what_is_not_done_yet(hub: Hub, tmp_path: Path) -> None:
    files = {"README.md": card({"default": ("train", "validation", "test")})}
    files |= {f"default/{split}-0.parquet": parquet(split, 9, (-1,)) for split in ("validation", "test")}
    hub.add("datasets", "o/hidden", {**files, "default/train-0.parquet": parquet("train", 40)})
    found, followed = read(hub, tmp_path, {"source": "o/hidden"}, {"source": "o/hidden", "test": 0.25})
    ends = [warning.rpartition("withheld: ")[2] for warning in found["warnings"]]
    assert ends == [
        "the split is not used; data.validation=0.1 takes its place",
        "the split is not used; data.test=0.1 takes one from the training rows",
    ]
    assert followed["warnings"] == found["warnings"][:1]
    assert [len(followed[split]) for split in ("validation", "test")] == [4, 10]


def test_training_rows_that_are_in_the_test_split_are_left_out(hub: Hub, tmp_path: Path) -> None:
    both = {**news(), "default/test-0.parquet": parquet("ONE", 3, range(3))}
    hub.add("datasets", "o/both", both)
    (found,) = read(hub, tmp_path, {"source": "o/both"})
    assert len(found["train"]) + len(found["validation"]) == 37
    assert "3 train rows of o/both are left out: they are also in its test split" in found["warnings"]


def test_only_sets_of_the_hub_have_revisions_and_configurations(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na,x\n")
    for source in (str(file), str(tmp_path), "packaged:tweets"):
        (found,) = read(hub, tmp_path, {"source": source, "revision": "v1", "config": "sst2"})
        assert found["error"] == "DataError"
        assert f"data.revision is 'v1', but data.source is {source}: only Hub sets have one" in found["text"]
        assert "data.config is 'sst2'" in found["text"]
    assert not hub.requests


def test_each_trouble_is_one_sentence_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "o/private", news(), is_private=True)
    hub.add("datasets", "o/gated", news(), is_gated=True)
    hub.add("datasets", "o/gated-bare", {"train.csv": b"text,label\na,x\n"}, is_gated=True)
    hub.add("datasets", "o/script", {"README.md": b"# x\n", "script.py": b"raise SystemExit(7)\n"})
    hub.add("datasets", "o/empty", {"README.md": b"# x\n"})
    hub.add("datasets", "o/damaged", {"README.md": b"# x\n", "train.json": b"{"})
    hub.add("datasets", "o/fine", news())
    told = {
        "o/nothing": (
            "HubError",
            "there is no such data set on the Hub: check the spelling; if private, `hf auth login`",
        ),
        "nothing": ("HubError", "there is no such data set on the Hub"),
        "o/private": ("HubError", "there is no such data set on the Hub: check the spelling; if private"),
        "o/gated": ("HubError", f"it is gated: ask for access on {hub.url}/datasets/o/gated, then `hf auth login`"),
        "o/gated-bare": ("HubError", f"it is gated: ask for access on {hub.url}/datasets/o/gated-bare, then `hf auth"),
        "https://huggingface.co/datasets/o/fine": (
            "DataError",
            "is an address of the Hub: give organisation/name: o/f",
        ),
        "o/script": ("DataError", "its rows are made by a program (script.py), and a data set's code is never run"),
        "o/empty": ("DataError", "doesn't contain any data files"),
        "o/damaged": ("DataError", "`datasets` cannot read it (An error occurred while generating the dataset: JSON"),
    }
    for status, sentence in ((429, "accepts no more requests from here for now (429)"), (503, "is failing (503)")):
        for number, where in enumerate(("api/datasets/{}/revision.*blobs", "{}/.*README", "{}/tree/", "storage/.*{}/")):
            name = f"o/s{status}-{number}"
            hub.add("datasets", name, news(name))
            hub.faults.append(Fault(where.format(name), status=status))
            told[name] = ("HubError", sentence)
    for number, where in enumerate(("api/datasets/{}.*blobs", "{}/.*README", "{}/tree/", "GET /storage/.*{}/")):
        name = f"o/lost-{number}"
        hub.add("datasets", name, news(name))
        hub.faults.append(Fault(where.format(name), cut=10, resets=True))
        told[name] = ("HubError", "the Hub was not reached")
    hub.add(
        "datasets", "o/tests", {"README.md": card({"default": ("test",)}), "default/test-0.parquet": parquet("x", 9)}
    )
    told["o/tests"] = ("DataError", "o/tests on the Hub has no train split; it has test")
    revisions = {"source": "o/fine", "revision": "v9"}, {"source": "o/fine", "revision": "0" * 40}
    found = read(hub, tmp_path, *({"source": name} for name in told), *revisions)
    for each, (kind, sentence) in zip(found, told.values(), strict=False):
        assert (each["error"], sentence in each["text"]) == (kind, True), each["text"]
        assert "\n" not in each["text"]
    for each, revision in zip(found[-2:], ("v9", "0" * 40), strict=True):
        assert f"data.revision is {revision}, which it does not have" in each["text"]
    assert max(each["seconds"] for each in found) < LIMIT_S
    assert "o/script/script.py" not in hub.sent()


def test_what_a_token_may_not_read(hub: Hub, tmp_path: Path) -> None:
    hub.add("datasets", "o/private", news(), is_private=True)
    hub.add("datasets", "o/gated", news(), is_gated=True)
    private, gated = read(hub, tmp_path, {"source": "o/private"}, {"source": "o/gated"}, token=TOKEN)
    assert "your token must be allowed to read it" in private["text"]
    assert "your account has no access" in gated["text"]
    (unknown,) = read(hub, tmp_path, {"source": "o/gated"}, token="hf_" + "z" * 34)
    assert "the Hub does not accept your token" in unknown["text"]
    hub.accounts[TOKEN].access = frozenset({"o/private", "o/gated"})
    for found in read(hub, tmp_path, {"source": "o/private"}, {"source": "o/gated"}, token=TOKEN):
        assert len(found["train"]) == 36
    assert not any(TOKEN.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_without_a_network_and_nothing_cached(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    (alone,) = offline(hub, tmp_path, {"source": "ag_news"})
    assert "HF_HUB_OFFLINE is set: unset it, or run `submillion data check ag_news` where" in alone["text"]
    assert not hub.requests
    commit = ag_news.refs["main"]
    read(hub, tmp_path, {"source": "fancyzhx/ag_news", "revision": commit})
    (unnamed,) = offline(hub, tmp_path / "by-name", {"source": "fancyzhx/ag_news"})
    assert "HF_HUB_OFFLINE is set" in unnamed["text"]
    (unnamed,) = offline(hub, tmp_path, {"source": "fancyzhx/ag_news"})
    assert unnamed["text"].endswith(f"commit {commit[:12]} is in the cache: give --set data.revision={commit}")
    shutil.rmtree(tmp_path / "hub")
    hub.close()
    began = time.monotonic()
    (lost,) = read(hub, tmp_path, {"source": "fancyzhx/ag_news"})
    assert "the Hub was not reached" in lost["text"]
    assert time.monotonic() - began < LIMIT_S


@pytest.mark.parametrize("n_bytes", [5_000, 60_000], ids=["while downloading", "while preparing"])
def test_a_full_disk(hub: Hub, tmp_path: Path, n_bytes: int) -> None:
    hub.add("datasets", "o/long", {**news(), "default/train-0.parquet": parquet("long", 4_000, range(4))})
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))"
    (found,) = read(hub, tmp_path, {"source": "o/long"}, before=limit)
    assert "is full" in found["text"]
    (whole,) = read(hub, tmp_path, {"source": "o/long"})
    assert len(whole["train"]) == 3_600, "what was cut is not taken for whole"


def test_without_datasets_the_line_that_installs_it(hub: Hub, ag_news: Repository, tmp_path: Path) -> None:
    (found,) = read(hub, tmp_path, {"source": "ag_news"}, before="import sys; sys.modules['datasets'] = None")
    assert found["error"] == "DataError"
    assert "pip install -e" in found["text"]
    assert "[hub]" in found["text"]
