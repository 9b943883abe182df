"""What all tests share: no network, one torch thread, tiny encoders."""

from __future__ import annotations

import os
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
# A thread that waits for another's part of a product gives its core to other tests, in place of spinning on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for GPUs are run by its interpreter; read as it is imported

from collections import Counter
from pathlib import Path

import pytest

# Else each process that a test starts compiles all our files anew, and pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process and share what it prepared; files with slow tests begin first."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests fork, which threads do not outlive; tiny models gain nothing from them."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def each_number_of_threads(request: pytest.FixtureRequest):
    """C functions share their work between threads; a test runs with one, and with two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["on tiles", "in vectors"])
def on_tiles_and_in_vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that work on matrix tiles where there are some have to do the same without."""
    from submillion.model.packed import native

    if request.param == "in vectors":
        monkeypatch.setattr(native, "_has_tiles", False)
    elif not native.has_tiles():
        pytest.skip("this processor has no matrix tiles")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests neither use nor fill the user's own cache; the tweets that `make setup` fetched are there."""
    from submillion.data import cache

    found = cache.folder()
    own = tmp_path_factory.mktemp("cache")
    for archive in found.glob("vaderSentiment-*.tar.gz"):
        (own / archive.name).symlink_to(archive)
    os.environ["SUBMILLION_CACHE"] = str(own)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tiny random checkpoint for each family."""
    from tests.tiny import FAMILIES, PADDED, make_encoder

    parent = tmp_path_factory.mktemp("encoders")
    return {family: make_encoder(family, parent / family) for family in (*FAMILIES, "camembert", *PADDED)}


@pytest.fixture(autouse=True, scope="session")
def _no_reports():
    """A report takes longer than a tiny training; those that test reports write their own."""
    from submillion import reports

    reports.write = reports.write_study = lambda *_: []


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path]) -> Path:
    """A folder of runs and a study, some of them broken, as `tests.served` makes it."""
    from tests.served import make_folder

    return make_folder(tmp_path_factory.mktemp("served"), encoders["bert"])


@pytest.fixture(autouse=True, scope="session")
def _clients_end():
    """The apps that `tests.served` started end with the tests."""
    yield
    if (served := sys.modules.get("tests.served")) is not None:
        served.close_clients()
