"""Sweeps and predictions by Ray outlive a worker that is killed and a node that is lost.

A cluster of two nodes, on this machine, raylets of their own, serves all tests but one: most of their time is Ray's
start, and what its workers import.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from submillion.data import chunks
from submillion.prediction import Form, How, Progress, predict_file
from submillion.runs import Run
from submillion.sweeps.sitting import sweep
from submillion.sweeps.study import Sweep
from tests.data import write_csv
from tests.kit.calls import beside, call
from tests.kit.studies import RANK, command, settings, training_in, write_study

__all__ = ["settings"]  # a fixture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.xdist_group("cluster"),
]

# Ray's workers would leave the cores to whatever else runs, and one more would start to tell Ray's makers of the use.
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
LONG = {"train.steps": 150, "train.evaluate_every": 50}  # long enough to be seen


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each of one core."""
    utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed: pip install -e '.[ray]'")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in RAY.items():
            patched.setenv(name, value)
        found = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            found.add_node(num_cpus=1)
            yield found
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The study, by this process."""
    return sweep(write_study(tmp_path_factory.mktemp("whole"), settings, base=LONG, factors=[RANK]))


@pytest.mark.usefixtures("cluster")
def test_ray_starts_a_trial_again_whose_worker_was_killed(settings: dict[str, Any], tmp_path: Path) -> None:
    """By a cluster that the command itself starts, though there is another on this machine."""
    file = write_study(tmp_path, settings, base=LONG, factors=[RANK])
    words = command(file, "--executor", "ray", "--workers", "1", "--json")
    with beside(words, env={**os.environ, **RAY}) as child:
        found = training_in(tmp_path / "runs", lambda: child.poll() is not None)
        if found is not None:
            os.kill(found[1], signal.SIGKILL)
        stdout, stderr = child.communicate(timeout=300)
    assert found is not None, f"no run was being trained: {stderr}"
    assert child.returncode == 0, stderr
    assert [trial["state"] for trial in json.loads(stdout)["trials"]] == ["done", "done"]


def test_predictions_give_every_row_once_though_a_worker_is_killed(
    cluster: Any, whole: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 8)
    n_rows = 50
    source = write_csv(tmp_path / "source.csv", n_rows, seed=1)
    run = Run(whole.outcomes[0].runs[0])
    killed: list[int] = []

    def kill_one(done: Progress) -> None:
        if done.phase == "predicting" and 0 < done.n_done < n_rows and not killed:
            killed.extend(actors_of(cluster)[:1])
            os.kill(killed[0], signal.SIGKILL)

    form, how = Form(probabilities=True), How("ray", address=cluster.address)
    predict_file(run, source, tmp_path / "alone.csv", form)
    predict_file(run, source, tmp_path / "out.csv", form, how=how, watch=kill_one)
    assert killed
    assert not (tmp_path / "out.csv.partial").exists()
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def actors_of(cluster: Any) -> list[int]:
    """The processes of a cluster's nodes that predict."""
    nodes = {each.process.pid for node in cluster.list_all_nodes() for each in node.all_processes["raylet"]}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _parent(int(process.name)) in nodes and b"MapBatches(_Actor)" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


# The last one: a node is lost.
def test_a_study_on_two_nodes_finishes_without_one_of_them(
    cluster: Any, whole: Sweep, settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = write_study(tmp_path, settings, base=LONG, factors=[RANK]), tmp_path / "runs"
    (node,) = cluster.worker_nodes
    raylet = node.all_processes["raylet"][0].process.pid
    over = threading.Event()

    def lose() -> tuple[Path, int] | None:
        found = training_in(out, over.is_set, lambda worker: _parent(worker) == raylet)
        cluster.remove_node(node, allow_graceful=False)
        return found

    with ThreadPoolExecutor(1) as thread:
        losing = thread.submit(lose)
        try:
            code = call("sweep", file, "--executor", "ray", "--address", cluster.address, "--json")
        finally:
            over.set()
        lost = losing.result()
    stdout, stderr = capfd.readouterr()
    assert code == 0, stderr
    assert [trial["state"] for trial in json.loads(stdout)["trials"]] == ["done", "done"]
    assert lost is not None, "no run was being trained there"
    found = {path.name: Run(path) for path in out.glob("tiny-*")}
    assert lost[0].name in found
    for outcome in whole.outcomes:
        (path,) = outcome.runs
        ours = found[path.name].load_predictions("validation")
        assert (ours.probs == Run(path).load_predictions("validation").probs).all()


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return os.getpid()
