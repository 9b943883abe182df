"""Processes that work for this one, here or on a Ray cluster: how they begin, share the cores, and end.

Owns the number of threads that torch computes with: another number gives float32 products other last bits, so it is
decided once for what is computed together, recorded, and kept. `workflow`, `prediction` and `sweeps` decide what is
computed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Event, Thread
from typing import Any, Literal, TypeVar

import torch

from submillion.errors import ConfigError, RunError, SubmillionError, install_line

Where = Literal["inline", "processes", "ray"]
J = TypeVar("J")
R = TypeVar("R")

interrupted = Event()  # of a worker process: Ctrl-C was pressed


@dataclass(frozen=True)
class Threads:
    """How many threads torch computes with: in this process, and in each worker."""

    here: int = 1
    each: int = 1


def share(where: Where, n_workers: int) -> Threads:
    """Return the threads available here: workers share this process's; on a Ray cluster each has a core."""
    here = torch.get_num_threads()
    match where:
        case "inline":
            return Threads(here, here)
        case "processes":
            return Threads(here, max(1, here // n_workers))
        case "ray":
            return Threads(here, 1)


@contextmanager
def threads(n_threads: int) -> Iterator[None]:
    """Let torch compute with this many threads, even more than there are cores: results depend on the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_notes(n_threads: int, n_given: int, where: Where = "inline", n_workers: int = 1) -> tuple[str, ...]:
    """Return notes about each worker's threads; `n_given` is how many it would have if it began now."""
    n_all, n_cores = n_threads * (n_workers if where == "processes" else 1), _n_cores()
    notes = []
    if n_threads != n_given:
        notes.append(f"threads: {n_threads}, as when it began, instead of {n_given}, which would change the last bits")
    if n_all > n_cores:
        notes.append(f"{n_all} threads share {n_cores} cores")
    return tuple(notes)


def _n_cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pool(n_workers: int) -> ProcessPoolExecutor:
    """Return processes that share none of this one's state.

    On Linux they are forks of one that has imported torch and the others once, and serves later pools too: they have
    the current environment, but what a library reads on import is as it was for the first pool. Ctrl-C sets their
    `interrupted`; they end with this process. The calling script needs `if __name__ == "__main__":`.
    """
    if sys.platform == "linux":  # macOS libraries do not survive a fork
        context = get_context("forkserver")
        context.set_forkserver_preload(["submillion.training.workflow"])  # uses no card: else a fork could use none
    else:
        context = get_context("spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_begin, initargs=(dict(os.environ),))


def completed(
    pool: ProcessPoolExecutor, function: Callable[[J], R], jobs: Iterable[J], n_ahead: int, advice: str
) -> Iterator[R]:
    """Yield the results of a pool's jobs as they come; at most `n_ahead` jobs are submitted at a time.

    RunError with the advice if a process dies. Jobs not begun when this ends are cancelled.
    """
    waiting, running = iter(jobs), set[Future[R]]()
    try:
        while True:
            running |= {pool.submit(function, job) for job in islice(waiting, n_ahead - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise RunError(f"a worker process died, perhaps out of memory: {advice}") from None
    finally:
        for future in running:
            future.cancel()


def _begin(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    parent = parent_process()
    assert parent is not None, "a worker has one"

    def watch_parent() -> None:
        parent.join()
        os._exit(1)  # an orphan would hold its run's lock against the same command started again

    Thread(target=watch_parent, daemon=True).start()


@contextmanager
def ray_cluster(n_workers: int | None, address: str | None) -> Iterator[Any]:
    """Yield the `ray` module, connected to the cluster at the address.

    None is $RAY_ADDRESS; if that is not set either, a local cluster of n_workers cores is started.

    ConfigError without Ray, RunError if the cluster cannot be reached. Our own errors inside a task are raised
    unchanged here.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError:
        raise ConfigError(f"--executor ray needs Ray: {install_line('ray')}") from None
    address = address or os.environ.get("RAY_ADDRESS") or "local"  # else Ray connects to any cluster on this machine
    # Ray prints about its workers and nodes until the end of its shutdown: stdout is for results.
    with redirect_stdout(sys.stderr):
        try:
            size = {"num_cpus": n_workers, "include_dashboard": False} if address == "local" else {}
            ray.init(address=address, log_to_driver=False, configure_logging=False, **size)
        except Exception as error:  # Ray's own classes differ with what failed: connection, authentication, versions
            raise RunError(_ray_sentence(address, error)) from None
        try:
            yield ray
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, SubmillionError) else error) from None
        finally:
            ray.shutdown()


def _ray_sentence(address: str, error: Exception) -> str:
    is_local = address == "local"
    where = "a local Ray cluster cannot be started" if is_local else f"the Ray cluster {address} cannot be reached"
    reason = " ".join(str(error).split())[:300]
    advice = "check the address, and that Ray's versions agree"
    if any(word in reason.lower() for word in ("auth", "token", "credential")):
        advice = (
            "the cluster needs a token: set RAY_AUTH_MODE=token here and where the cluster is started, with the same "
            "token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
    return f"{where} ({type(error).__name__}: {reason}): {advice}"
