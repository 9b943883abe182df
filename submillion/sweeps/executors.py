"""Where trials run: in this process, in several, or on a Ray cluster; and what stops one that is already beaten.

Each way gives a function from jobs to results as they come. A job is an ordinary run, without test; which jobs there
are, and what results mean, is left to `study`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submillion import runs
from submillion.config import Config
from submillion.errors import DivergedError, RunError
from submillion.judging import comparison
from submillion.runs import EvalRecord, StepRecord
from submillion.sweeps.trials import Failure
from submillion.training import workers, workflow
from submillion.training.workers import Where
from submillion.training.workflow import Answer, Phase, Watch


@dataclass(frozen=True)
class Job:
    """A run to be trained, with so many threads; `best` is a file that names the best finished run so far, which may
    rule it out early."""

    number: int
    config: Config
    n_threads: int
    best: Path | None = None


@dataclass(frozen=True)
class Result:
    """What became of a job: its run's folder, or why there is none."""

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
    """Train one job; a diverged or ruled-out one is a result, every other error is raised."""
    stop = Stopper(job.best)

    def both(record: StepRecord | EvalRecord | Phase) -> Answer:
        answer = watch(record)
        return stop(record) or answer

    try:
        with workers.threads(job.n_threads):
            run = workflow.train(job.config, both, as_trial=True)
    except DivergedError as error:
        return Result(job.number, None, Failure("diverged", f"diverged: {error}"))
    if not run.is_done:
        return Result(job.number, None, Failure("ruled out", f"ruled out: {stop.reason}"))
    return Result(job.number, run.path)


@dataclass
class Stopper:
    """A watcher for `workflow.train` that says True once the best finished run rules the trial out: the paired
    sequential test, at each evaluation, of the rows of `EvalRecord.right`.

    best: a file that names that run's folder, looked at anew each time; None or no such file never stops a trial.
    reason says, at the end, which run was better and where.
    """

    best: Path | None
    reason: str = ""
    rivals: dict[Path, dict[int, str]] = field(default_factory=dict)  # rows that each had right, by step

    def __call__(self, record: StepRecord | EvalRecord | Phase) -> bool:
        """Look at an evaluation; other records never stop a trial."""
        if not isinstance(record, EvalRecord) or record.right is None or self.best is None or not self.best.exists():
            return False
        rival = Path(self.best.read_text(encoding="utf-8"))
        if rival not in self.rivals:
            self.rivals[rival] = _right_at(rival)
        at_step = self.rivals[rival]
        other = at_step.get(record.step)
        if other is not None and comparison.is_ruled_out(
            runs.unpacked_rows(other), runs.unpacked_rows(record.right), n_checkpoints=len(at_step)
        ):
            self.reason = f"{rival.name} is better at step {record.step}"
        return bool(self.reason)


def _right_at(rival: Path) -> dict[int, str]:
    """The rows that a finished run had right, by step."""
    records = runs.load(rival).records()
    return {r.step: r.right for r in records if isinstance(r, EvalRecord) and r.right is not None}


def _inline(jobs: Sequence[Job], watch: Watch) -> Iterator[Result]:
    for job in jobs:
        yield run_job(job, watch)


@contextmanager
def _processes(n_workers: int) -> Iterator[Execute]:
    """Fresh processes that share the cores; the pool lives as long as the study."""
    with workers.pool(n_workers) as pool:

        def execute(jobs: Sequence[Job], watch: Watch) -> Iterator[Result]:
            advice = "finished trials are kept; start the same command again, with fewer --workers"
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
    """Ray tasks, one core each; a task whose worker dies is started again, and its run goes on where it was."""
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
                    f"Ray gave up on a trial ({type(error).__name__}): finished trials are kept; the same command "
                    "goes on"
                ) from None
            finally:
                for each in waiting:
                    ray.cancel(each)

        yield execute


def _reached(result: Result) -> Result:
    if result.run is not None and not result.run.is_dir():
        raise RunError(
            f"{result.run} was trained on another machine and is not here: give an --out that all machines share, "
            "such as a network folder"
        )
    return result
