"""A sweep on a Ray cluster of two nodes outlives one of them. Both nodes are on this machine: raylets of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from submillion.runs import Run
from submillion.sweeps.sitting import sweep
from tests.kit.calls import beside
from tests.kit.studies import RANK, command, settings, training_in, write_study

__all__ = ["settings"]  # a fixture


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.xdist_group("cluster")
def test_a_study_on_two_nodes_finishes_without_one_of_them(settings: dict[str, Any], tmp_path: Path) -> None:
    utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed: pip install -e '.[ray]'")
    base = {"train.steps": 300, "train.evaluate_every": 100}  # long enough to be seen
    (tmp_path / "cluster").mkdir()
    (tmp_path / "inline").mkdir()
    file = write_study(tmp_path / "cluster", settings, base=base, factors=[RANK])
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        raylet = node.all_processes["raylet"][0].process.pid
        out = tmp_path / "cluster" / "runs"
        with beside(command(file, "--executor", "ray", "--address", cluster.address, "--json")) as child:
            lost, _ = training_in(out, child, lambda worker: _parent(worker) == raylet)
            cluster.remove_node(node, allow_graceful=False)
            stdout, stderr = child.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert child.returncode == 0, stderr
    assert [trial["state"] for trial in json.loads(stdout)["trials"]] == ["done", "done"]
    whole = sweep(write_study(tmp_path / "inline", settings, base=base, factors=[RANK]))
    found = {path.name: Run(path) for path in out.glob("tiny-*")}
    assert lost.name in found
    for outcome in whole.outcomes:
        (path,) = outcome.runs
        ours = found[path.name].load_predictions("validation")
        assert (ours.probs == Run(path).load_predictions("validation").probs).all()


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return os.getpid()
