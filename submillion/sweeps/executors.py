"""Where trials run: in this process, in several, or on a Ray cluster; and how far, if a race looks on the way.

Each way gives a function from jobs to results as they come. A job is an ordinary run, without test; which jobs there
are, and what results mean, is left to `sitting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submillion.config import Config
from submillion.errors import DivergedError, RunError
from submillion.runs import EvalRecord, StepRecord
from submillion.sweeps.trials import Failure
from submillion.training import workers, workflow
from submillion.training.workers import Where
from submillion.training.workflow import Answer, Phase, Watch


@dataclass(frozen=True)
class Job:
    """A run to train with n_threads threads, to its end; or to the first evaluation at or after the share `until` of
    its steps, where it pauses: a later job resumes it there."""

    number: int
    config: Config
    n_threads: int
    until: float = 1.0


@dataclass(frozen=True)
class Result:
    """What became of a job: the folder of its finished run, why there will be none, or neither if it paused."""

    number: int
    run: Path | None
    failure: Failure | None = None


Execute = Callable[[Sequence[Job], Watch], Iterator[Result]]


def executor(where: Where, n_workers: int, address: str | None) -> Any:
    """Return a context manager that gives an `Execute`; the address is a Ray cluster's, None starts a local one."""
    match where:
        case "inline":
            return nullcontext(_inline)
        case "processes":
            return _processes(n_workers)
        case "ray":
            return _ray(n_workers, address)


def run_job(job: Job, watch: Watch = lambda _: None) -> Result:
    """Train one job; a diverged or paused run is a result, every other error is raised."""
    n_steps = 0

    def watched(record: StepRecord | EvalRecord | Phase) -> Answer:
        nonlocal n_steps
        answer = watch(record)
        if isinstance(record, Phase):
            n_steps = record.n_steps or n_steps
            return answer
        is_there = isinstance(record, EvalRecord) and job.until * n_steps <= record.step < n_steps
        return "pause" if is_there else answer

    try:
        with workers.threads(job.n_threads):
            run = workflow.train(job.config, watched, as_trial=True)
    except DivergedError as error:
        return Result(job.number, None, Failure("diverged", f"diverged: {error}"))
    return Result(job.number, run.path if run.is_done else None)


def _inline(jobs: Sequence[Job], watch: Watch) -> Iterator[Result]:
    for job in jobs:
        yield run_job(job, watch)


@contextmanager
def _processes(n_workers: int) -> Iterator[Execute]:
    """Fresh processes that share the cores; the pool lives as long as the study."""
    with workers.pool(n_workers) as pool:

        def execute(jobs: Sequence[Job], watch: Watch) -> Iterator[Result]:
            advice = "finished trials are kept; run the same command again, with fewer --workers"
            return workers.completed(pool, _worker_job, jobs, len(jobs), advice)

        yield execute


def _worker_job(job: Job) -> Result:
    """Train in a worker; Ctrl-C before the first step pauses after it."""
    result = run_job(job, lambda _: workers.interrupted.is_set())
    if workers.interrupted.is_set() and result.run is None:
        raise KeyboardInterrupt
    return result


@contextmanager
def _ray(n_workers: int, address: str | None) -> Iterator[Execute]:
    """Ray tasks, one core each; a task whose worker dies is started again, and its run resumes where it was."""
    with workers.ray_cluster(n_workers, address) as ray:
        task = ray.remote(num_cpus=1, max_retries=3)(run_job)

        def execute(jobs: Sequence[Job], watch: Watch) -> Iterator[Result]:
            waiting = [task.remote(job) for job in jobs]
            try:
                while waiting:
                    (done,), waiting = ray.wait(waiting, num_returns=1)
                    yield _reached(ray.get(done))
            except ray.exceptions.RayTaskError:
                raise
            except ray.exceptions.RayError as error:
                raise RunError(
                    f"Ray gave up on a trial ({type(error).__name__}): finished trials are kept; the "
                    "same command resumes"
                ) from None
            finally:
                for each in waiting:
                    ray.cancel(each)

        yield execute


def _reached(result: Result) -> Result:
    if result.run is not None and not result.run.is_dir():
        raise RunError(
            f"{result.run} was trained on another machine and is not here: use an --out that all machines share, "
            "such as a network folder"
        )
    return result
