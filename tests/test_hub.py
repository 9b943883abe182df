"""Laws of what comes from the Hub, through its real clients, on a stand-in: pinned, asked for once, and told at once
when it cannot be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import get_session, logging
from safetensors.torch import load, save

from submillion import hub
from tests.data import write_csv
from tests.kit.commands import Commands, Done
from tests.kit.hub import TOKEN, Fault, Hub, Repository

SETTINGS = (
    *("model.name=org/tiny", "train.steps=2", "train.batch_size=8", "train.evaluate_every=2", "train.precision=fp32"),
    *("data.test=0.2", "device=cpu"),
)
NAME = "model.safetensors"
LIMIT_S = 20  # to the sentence that says what is in the way


@dataclass
class Stage:
    """A Hub, a process that runs commands against it, the files of a tiny encoder, and rows."""

    hub: Hub
    commands: Commands
    home: Path
    files: dict[str, bytes]
    rows: Path

    def use_cache(self, folder: Path) -> Path:
        """Put a folder in place of the Hub's cache."""
        cache = self.home / "hub"
        cache.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        cache.symlink_to(folder)
        return folder

    def reset(self, cache: Path) -> None:
        """Make the stage as at first: no faults, and org/tiny on the Hub, at the same commit each time."""
        for held in (self.hub.repositories, self.hub.renamed, self.hub.faults, self.hub.stored):
            held.clear()
        self.hub.requests = []
        self.hub.accounts[TOKEN].access = frozenset()
        self.hub.add("models", "org/tiny", self.files)
        self.use_cache(cache)

    def train(self, out: Path, *settings: str, data: object = None, **fault: Any) -> Done:
        words = [word for each in (*SETTINGS, *settings) for word in ("--set", each)]
        return self.commands.run("train", *words, "--data", data or self.rows, "--out", out, **fault)

    def trained(self, out: Path, *settings: str, **fault: Any) -> Path:
        """Train, and return the only run of the folder."""
        done = self.train(out, *settings, **fault)
        assert done.code == 0, done.err
        (run,) = out.glob("run-*")
        return run

    def predict(self, run: Path, output: Path) -> Done:
        return self.commands.run("predict", run, "--input", self.rows, "--output", output, limit_s=LIMIT_S)

    def predictions(self, run: Path, output: Path) -> bytes:
        done = self.predict(run, output)
        assert done.code == 0, done.err
        return output.read_bytes()


@pytest.fixture(scope="module")
def _stage(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    hub = Hub()
    (folder / "home").mkdir()
    commands = Commands(folder / "cache", hub.environment(folder / "home"))
    files = {path.name: path.read_bytes() for path in encoders["bert"].iterdir()}
    yield Stage(hub, commands, folder / "home", files, write_csv(folder / "rows.csv", 60))
    commands.close()
    hub.close()


@dataclass(frozen=True)
class Before:
    """What one training on org/tiny left: the run, the Hub's cache, and the run's labels of the rows."""

    run: Path
    cache: Path
    labels: bytes


@pytest.fixture(scope="module")
def before(_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    _stage.reset(folder / "hub")
    run = _stage.trained(folder / "runs")
    return Before(run, folder / "hub", _stage.predictions(run, folder / "labels.csv"))


@pytest.fixture
def stage(_stage: Stage, tmp_path: Path) -> Stage:
    """The stage as at first, and nothing cached."""
    _stage.reset(tmp_path / "hub")
    return _stage


@pytest.fixture
def cached(before: Before, stage: Stage) -> Stage:
    """The stage with the Hub's cache as the training before left it."""
    shutil.copytree(before.cache, stage.home / "hub", symlinks=True, dirs_exist_ok=True)
    return stage


@pytest.fixture
def tiny(stage: Stage) -> Repository:
    return stage.hub.repositories["models", "org/tiny"]


def other_weights(files: dict[str, bytes]) -> bytes:
    """The same tensors with other numbers."""
    return save({name: -tensor for name, tensor in load(files[NAME]).items()}, {"format": "pt"})


def test_what_a_run_is_made_from_is_pinned_and_sent_once_and_its_token_kept(
    stage: Stage, tiny: Repository, tmp_path: Path
) -> None:
    stage.hub.add("datasets", "org/rows", {"train.csv": stage.rows.read_bytes()})
    stage.hub.accounts[TOKEN].access = frozenset({"org/tiny"})
    tiny.is_private = True
    done = stage.train(tmp_path / "runs", data="org/rows", token=TOKEN)
    assert done.code == 0, done.err
    (run,) = (tmp_path / "runs").glob("run-*")
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert (model["name"], model["revision"]) == ("org/tiny", tiny.refs["main"])
    environment = json.loads((run / "environment.json").read_text())
    assert environment["encoder_sha256"] == sha256(stage.files[NAME]).hexdigest()
    adapter = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/tiny", tiny.refs["main"])

    sent = stage.hub.sent()
    assert {f"org/tiny/{NAME}", "org/tiny/config.json", "org/rows/train.csv"} <= set(sent)
    assert len(sent) == len(set(sent)), "a file was sent twice"
    assert not [each for each in stage.hub.requests if each.path.startswith("/storage/") and each.has_token]
    assert TOKEN not in done.out + done.err
    for file in (tmp_path / "runs").rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


@pytest.fixture
def news(stage: Stage) -> Repository:
    """Rows by a bare name."""
    stage.hub.renamed["datasets", "news"] = "org/news"
    return stage.hub.add("datasets", "org/news", {"README.md": b"# News\n", "train.csv": stage.rows.read_bytes()})


def test_a_run_keeps_the_commit_that_it_read(stage: Stage, news: Repository, tmp_path: Path) -> None:
    commit = news.refs["main"]
    done = stage.train(tmp_path / "runs", data="news")
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    lines = done.err.splitlines()
    assert lines.index("downloading") < lines.index("reading")
    news.commit({"README.md": b"# News\nMore words.\n"})
    assert stage.train(tmp_path / "runs", data="news").code == 0
    (run,) = (tmp_path / "runs").glob("run-*")  # the same rows are the same question
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (data["source"], data["revision"]) == ("org/news", commit)


def test_a_study_asks_once_what_its_data_set_is(
    stage: Stage, news: Repository, encoders: dict[str, Path], tmp_path: Path
) -> None:
    study = tmp_path / "small.yaml"
    study.write_text("kind: grid\nname: small\nfactors: [{key: adapter.rank, values: [1, 2]}]\n")
    own = (f"model.name={encoders['bert']}", "data.source=news", "data.test=null", f"out={tmp_path / 'runs'}")
    words = [word for each in (*SETTINGS[1:], *own) for word in ("--set", each)]
    done = stage.commands.run("sweep", study, *words)
    assert done.code == 0, done.err
    runs = [*(tmp_path / "runs").glob("*/config.yaml")]
    assert [yaml.safe_load(run.read_text())["data"]["revision"] for run in runs] == [news.refs["main"]] * 2
    asked = [request.path for request in stage.hub.requests if request.method == "GET"]
    assert len(set(asked)) == len(asked), "nothing is asked for twice"
    assert not any(request.method == "CONNECT" for request in stage.hub.requests), "no other host is asked"


def test_a_finished_run_works_from_the_cache(before: Before, cached: Stage, tmp_path: Path) -> None:
    assert cached.commands.run("evaluate", before.run, "--data", cached.rows).code == 0
    assert cached.predictions(before.run, tmp_path / "labels.csv") == before.labels
    assert not [request for request in cached.hub.requests if NAME in request.path or request.file is not None]
    with cached.hub.closed():
        assert cached.predictions(before.run, tmp_path / "again.csv") == before.labels
        assert cached.trained(before.run.parent, limit_s=LIMIT_S) == before.run


@pytest.mark.parametrize("is_failing", [False, True], ids=["gone", "failing"])
def test_while_the_hub_does_not_answer_a_cached_encoder_trains_and_that_is_said(
    cached: Stage, tiny: Repository, tmp_path: Path, is_failing: bool
) -> None:
    cached.hub.faults.append(Fault("/", status=503))
    with nullcontext() if is_failing else cached.hub.closed():
        done = cached.train(tmp_path / "runs", limit_s=LIMIT_S)
    assert done.code == 0, done.err
    assert f"using the copy in its cache, commit {tiny.refs['main'][:12]}" in done.err


def test_other_names_of_a_commit_ask_the_same_question(before: Before, stage: Stage, tiny: Repository) -> None:
    tiny.refs["v1"] = tiny.refs["main"]
    tiny.commit({NAME: other_weights(stage.files)})
    stage.hub.renamed["models", "old/tiny"] = "org/tiny"
    for settings in (["model.revision=v1"], ["model.name=old/tiny", f"model.revision={tiny.refs['v1']}"]):
        assert stage.trained(before.run.parent, *settings) == before.run


def test_weights_swapped_behind_the_name_change_no_run(
    before: Before, cached: Stage, tiny: Repository, tmp_path: Path
) -> None:
    tiny.commit({NAME: other_weights(cached.files)})
    assert cached.predictions(before.run, tmp_path / "labels.csv") == before.labels
    cached.use_cache(tmp_path / "empty")
    assert cached.predictions(before.run, tmp_path / "downloaded.csv") == before.labels
    other = cached.trained(tmp_path / "runs")
    assert other.name != before.run.name
    assert yaml.safe_load((other / "config.yaml").read_text())["model"]["revision"] == tiny.refs["main"]
    assert cached.predictions(other, tmp_path / "other.csv") != before.labels


def test_other_weights_under_the_same_commit_are_refused(
    before: Before, stage: Stage, tiny: Repository, tmp_path: Path
) -> None:
    tiny.commits[tiny.refs["main"]][NAME] = other_weights(stage.files)
    done = stage.predict(before.run, tmp_path / "labels.csv")
    assert done.code == 1, done.out
    for part in (str(before.run), "org--tiny", "does not hold the weights"):
        assert part in done.err
    assert not (tmp_path / "labels.csv").exists()


def test_weights_that_are_not_what_the_hub_says_are_refused(stage: Stage, tmp_path: Path) -> None:
    stage.hub.stored[sha256(stage.files[NAME]).hexdigest()] = other_weights(stage.files)
    done = stage.train(tmp_path / "runs")
    assert done.code == 1
    assert "org/tiny" in done.err
    assert "SHA-256" in done.err
    assert not list((tmp_path / "runs").glob("run-*"))


def test_pickled_weights_are_refused_and_nobody_is_asked_to_convert_them(
    stage: Stage, tiny: Repository, tmp_path: Path
) -> None:
    tiny.commit({NAME: None, "pytorch_model.bin": b"pickled"})
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")  # that it has no text is not found out
    done = stage.train(tmp_path / "runs", data=tmp_path / "rows.csv")
    assert done.code == 1
    assert "org/tiny" in done.err
    assert "pytorch_model.bin" in done.err
    assert "save_pretrained" in done.err
    assert not stage.hub.sent()
    assert not [r for r in stage.hub.requests if "discussions" in r.path or r.method == "CONNECT"]
    assert not (tmp_path / "runs").exists()


def refused_at_once(stage: Stage, tmp_path: Path) -> str:
    """What is said of org/tiny before rows, which have no text, or weights."""
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    done = stage.train(tmp_path / "runs", data=tmp_path / "rows.csv")
    assert done.code == 1
    assert "model.name is org/tiny" in done.err
    assert not [name for name in stage.hub.sent() if NAME in name]
    return done.err


def test_a_model_of_another_type_is_refused_before_rows_and_weights(
    stage: Stage, tiny: Repository, tmp_path: Path
) -> None:
    tiny.commit({"config.json": b'{"model_type": "gpt2"}'})
    assert "(its config.json): model_type is 'gpt2', a decoder: only encoders" in refused_at_once(stage, tmp_path)


def test_so_is_one_without_a_tokenizer(stage: Stage, tiny: Repository, tmp_path: Path) -> None:
    tiny.commit({"tokenizer.json": None, "vocab.txt": None})
    assert "it has no tokenizer (tokenizer.json, or one of vocab.txt" in refused_at_once(stage, tmp_path)


@dataclass
class Trouble:
    """What is in the way, and parts of the sentence that says so and what to type.

    early: found before rows are read; else while files come down, before there is a run · default_s: how long the
    client waits for a word there, unless the user sets it, as these tests do.
    """

    told: tuple[str, ...]
    settings: tuple[str, ...] = ()
    token: str | None = None
    fault: Fault | None = None
    fields: dict[str, bool] = field(default_factory=dict)
    early: bool = True
    limit_s: int = LIMIT_S
    default_s: int = 0


def silent(pattern: str) -> Fault:
    return Fault(pattern, wait_s=60, times=MANY)


MANY = 1000
LIMITED = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
LOST = ("org/tiny", "the Hub was not reached", "check the network")
TROUBLES = {
    "gated": Trouble(("org/tiny", "gated", "ask for access", "hf auth login"), fields={"is_gated": True}),
    "gated for me": Trouble(
        ("org/tiny", "gated", "your account has no access: ask for it on"), token=TOKEN, fields={"is_gated": True}
    ),
    "private": Trouble(("org/tiny", "no such model", "spelling", "hf auth login"), fields={"is_private": True}),
    "private for me": Trouble(("org/tiny", "no such model", "token"), token=TOKEN, fields={"is_private": True}),
    "misspelt": Trouble(("org/tinny", "no such model", "spelling"), settings=("model.name=org/tinny",)),
    "unknown token": Trouble(("does not accept your token", "settings/tokens"), token="hf_" + "u" * 34),
    "forbidden": Trouble(("org/tiny", "may not read"), token=TOKEN, fault=Fault("/api/models", status=403)),
    "no such revision": Trouble(("model.revision is v9", "branch, a tag or a commit"), settings=("model.revision=v9",)),
    "too many requests": Trouble(("429", "55 seconds"), fault=Fault("/api/models", 429, LIMITED)),
    "too many requests by Retry-After": Trouble(("429", "7 s"), fault=Fault("/api/models", 429, {"Retry-After": "7"})),
    "too many downloads": Trouble(("429", "55 seconds"), fault=Fault("/resolve/", 429, LIMITED), early=False),
    "failing": Trouble(("503", "wait and try again"), fault=Fault("/api/models", status=503)),
    "failing downloads": Trouble(("503", "wait and try again"), fault=Fault("/resolve/", status=503), early=False),
    "failing storage": Trouble(("503", "wait and try again"), fault=Fault("/storage/", status=503), early=False),
    "silent": Trouble(LOST, fault=silent("/api/models"), default_s=10),
    "silent downloads": Trouble(LOST, fault=silent("/resolve/"), early=False, default_s=10),
    "silent storage": Trouble(LOST, fault=silent("/storage/"), early=False, limit_s=60, default_s=5),
    "lost": Trouble(LOST, fault=Fault("/api/models", cut=9)),
    "lost in a file": Trouble(LOST, fault=Fault("GET /storage/", cut=999), early=False),
    "reset in a file": Trouble(LOST, fault=Fault("GET /storage/", cut=999, resets=True), early=False),
}


def told_in_time(stage: Stage, folder: Path, trouble: Trouble) -> Done:
    """Run into a trouble; the rows have no text where it must be found before they are read."""
    (folder / "rows.csv").write_text("a,b\n1,2\n")
    data = folder / "rows.csv" if trouble.early else None
    start = time.perf_counter()
    fault = {"token": trouble.token, "limit_s": trouble.limit_s, "patience_s": min(trouble.default_s, 1)}
    done = stage.train(folder / "runs", *trouble.settings, data=data, **fault)
    assert done.code == 1, (done, time.perf_counter() - start)
    for part in trouble.told:
        assert part in done.err
    assert "electra-small" not in done.err, "a list of other models is noise"
    assert "Warning" not in done.err
    assert trouble.token is None or trouble.token not in done.out + done.err
    assert not list((folder / "runs").glob("*")), "nothing is left behind"
    return done


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(each, id=name, marks=[pytest.mark.slow] * ("silent" in name)) for name, each in TROUBLES.items()],
)
def test_each_trouble_is_told_in_time(stage: Stage, tiny: Repository, tmp_path: Path, trouble: Trouble) -> None:
    for name, value in trouble.fields.items():
        setattr(tiny, name, value)
    if trouble.fault is not None:
        stage.hub.faults.append(trouble.fault)
    told_in_time(stage, tmp_path, trouble)
    if trouble.default_s:
        assert trouble.fault is not None
        n_tries, pause_s = MANY - trouble.fault.times, 1
        assert 0 < n_tries * (trouble.default_s + pause_s) < trouble.limit_s, "so would it be with the usual patience"


def test_how_long_the_hubs_client_waits_for_a_word_unless_the_user_says_otherwise(stage: Stage, tmp_path: Path) -> None:
    usual = {each.default_s for each in TROUBLES.values()} - {0}
    assert set(stage.hub.python(PATIENCE, tmp_path / "home")) == usual


PATIENCE = """
import json
from huggingface_hub import constants
from submillion import hub
with hub.impatient():
    print(json.dumps([constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT]))
"""


@pytest.mark.parametrize("is_part", [False, True], ids=["nothing", "a part"])
def test_without_a_network_and_with_too_little_cached_that_is_said(stage: Stage, tmp_path: Path, is_part: bool) -> None:
    if is_part:
        assert stage.commands.run("plan", "--set", "model.name=org/tiny").code == 0
        assert stage.hub.sent() == ["org/tiny/config.json"]
    with stage.hub.closed():
        told_in_time(stage, tmp_path, Trouble(("org/tiny", "network", "cache"), early=not is_part))


def test_offline_the_commit_that_came_down_is_named_where_main_was_never_asked_for(
    stage: Stage, tiny: Repository, tmp_path: Path
) -> None:
    commit = tiny.refs["main"]
    stage.trained(tmp_path / "runs", f"model.revision={commit}")
    with stage.hub.closed():
        done = stage.train(tmp_path / "again", limit_s=LIMIT_S)
        assert done.code == 1
        assert f"is in the cache: give --set model.revision={commit}" in done.err
        stage.trained(tmp_path / "again", f"model.revision={commit}")


def test_offline_mode_with_nothing_cached_is_said(stage: Stage) -> None:
    environment = {**stage.hub.environment(stage.home), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "submillion", "plan", "--set", "model.name=org/tiny"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for part in ("org/tiny", "HF_HUB_OFFLINE is set", "unset it", "hf download org/tiny"):
        assert part in done.stderr
    assert not stage.hub.requests


def test_a_full_disk_under_the_cache_is_said(before: Before, stage: Stage, tmp_path: Path) -> None:
    if not stage.commands.can_mount:
        pytest.skip("needs a mount namespace, which this machine gives neither to root nor to this user")
    cache = stage.use_cache(tmp_path / "small")
    stage.commands.small_disk(cache, "96k")
    told_in_time(stage, tmp_path, Trouble(("org/tiny", "full", str(stage.home / "hub"), "HF_HOME"), early=False))
    stage.commands.mount("-o", "remount,size=8m", cache)
    assert stage.predictions(before.run, tmp_path / "labels.csv") == before.labels


def test_predict_without_a_network_says_which_encoder_is_not_cached(
    before: Before, stage: Stage, tmp_path: Path
) -> None:
    with stage.hub.closed():
        done = stage.predict(before.run, tmp_path / "labels.csv")
    assert done.code == 1
    for part in LOST:
        assert part in done.err


FETCH = """
import json
from submillion import hub
seen = []
repository = hub.resolve("org/large", "model")
folder = hub.fetch(repository, ["model.safetensors"], lambda each: seen.append((each.done, each.total)))
print(json.dumps([str(folder), seen]))
"""


@pytest.mark.parametrize("resets", [False, True])
def test_a_file_lost_in_the_middle_goes_on_or_begins_again(stage: Stage, tmp_path: Path, resets: bool) -> None:
    content = bytes(range(256)) * 2**17  # three times what the Hub's client writes at once
    stage.hub.add("models", "org/large", {NAME: content})
    # What came before a reset may be lost with it, in the kernel: the second try is cut as well.
    stage.hub.faults += [Fault("GET /storage/", cut=21 * 2**20, resets=resets, times=2)]
    folder, seen = stage.hub.python(FETCH, tmp_path / "home")
    assert (Path(folder) / NAME).read_bytes() == content
    last = [r.status for r in stage.hub.requests if r.file is not None][-1]
    assert last == (200 if resets else 206), "the client goes on after a connection that was closed alone"
    assert seen[0] == [0, len(content)]
    assert seen[-1] == [len(content), len(content)]
    assert resets or seen == sorted(seen)


def test_the_bar_of_a_file_that_the_cache_has_under_another_commit_ends(stage: Stage, tmp_path: Path) -> None:
    large = stage.hub.add("models", "org/large", {NAME: b"weights", "README.md": b"one"})
    stage.hub.python(FETCH, tmp_path / "home")
    large.commit({"README.md": b"two"})
    _, seen = stage.hub.python(FETCH, tmp_path / "home")
    assert stage.hub.sent() == [f"org/large/{NAME}"]
    assert seen == [[0, 7], [7, 7]]


def test_threads_leave_the_hubs_client_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        return get_session().event_hooks, constants.HF_HUB_DOWNLOAD_TIMEOUT, logging.get_verbosity()

    def work(entered: threading.Event, other: threading.Event) -> None:
        with hub.quiet(), hub.without_bars(), hub.impatient():
            entered.set()
            other.wait(0.1)  # without turns, the second one enters here, and leaves last

    before, first, second = state(), threading.Event(), threading.Event()
    threads = [threading.Thread(target=work, args=args) for args in ((first, second), (second, threading.Event()))]
    for thread in threads:
        thread.start()
        first.wait(10)
    for thread in threads:
        thread.join(10)
    assert second.is_set()
    assert state() == before


READ = """
import json
from importlib.resources import files
import yaml
from submillion import config
from submillion.data.sources import open_source, pinned
studies = [yaml.safe_load(file.read_text())["base"] for file in (files("submillion") / "studies").iterdir()]
asked = [(name, []) for name in config.recipe_names()]
asked += [(base["recipe"], [f"{k}={v}" for k, v in base.get("settings", {}).items()]) for base in studies]
found = {}
for recipe, overrides in asked:
    settings = config.load(recipe=recipe, overrides=overrides)
    if settings.data.source and not settings.data.source.startswith("packaged:"):
        problems = []
        found[settings.data.source] = [sorted(open_source(pinned(settings.data), problems, [])), problems]
print(json.dumps(found))
"""


def test_every_shipped_data_name_is_had(stage: Stage, tmp_path: Path) -> None:
    rows = b"text,label\n" + b"".join(b"text %d,%d\n" % (i, i % 4) for i in range(40))
    stage.hub.add("datasets", "fancyzhx/ag_news", {"train.csv": rows, "test.csv": rows})
    stage.hub.renamed["datasets", "ag_news"] = "fancyzhx/ag_news"
    found = stage.hub.python(READ, tmp_path / "home")
    assert found
    assert all(each == [["test", "train"], []] for each in found.values()), found


# Two runs, on an encoder of the Hub and on a folder; every format of both is pushed, and what is refused is printed.
PUSHED = """
import json
from submillion import config, exports
from submillion.errors import ConfigError
from submillion.training import workflow

rows, encoder, out = {given!r}
shared = ["data.source=" + rows, "data.validation=24", "train.steps=3", "train.batch_size=16", "train.precision=fp32"]
shared += ["model.max_length=32", "device=cpu", "out=" + out]
refused = {{}}
for owner, name in (("hub", "org/tiny"), ("disk", encoder)):
    run = workflow.train(config.load(overrides=[*shared, "model.name=" + name, "name=" + owner]))
    for kind, margin in (("merged", None), ("onnx", None), ("onnx-int8", 0.9), ("adapter", None)):
        try:
            upload = exports.of_adapter(run) if kind == "adapter" else exports.of_export(
                exports.write(run, kind, margin=margin)
            )
            exports.push(upload, f"me/{{owner}}-{{kind}}", False)
        except ConfigError as error:
            refused[f"{{owner}}-{{kind}}"] = str(error)
print(json.dumps(refused))
"""


@pytest.mark.slow
def test_nothing_that_is_published_names_a_folder_of_this_machine(
    stage: Stage, encoders: dict[str, Path], tmp_path: Path
) -> None:
    given = (str(write_csv(tmp_path / "rows.csv", 120)), str(encoders["bert"]), str(tmp_path / "runs"))
    done = stage.commands.run(python=PUSHED.format(given=given), token=TOKEN)
    assert done.code == 0, done.err
    refused = json.loads(done.out)
    assert list(refused) == ["disk-adapter"]
    assert f"on top of {encoders['bert'].name}, a folder on this machine" in refused["disk-adapter"]
    published = {
        (repo, name): content
        for (_, repo), repository in stage.hub.repositories.items()
        if repo.startswith("me/")
        for name, content in repository.commits[repository.refs["main"]].items()
    }
    assert len({repo for repo, _ in published}) == 7
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "README.md", "tokenizer.json"} <= {
        name for repo, name in published if repo == "me/hub-adapter"
    }
    folders = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), str(tmp_path), TOKEN}
    named = {(*key, folder) for key, content in published.items() for folder in folders if folder.encode() in content}
    assert not named
