"""The processes of one launch (`torchrun`, `accelerate launch --multi_gpu`): their numbers, and what they do together.

All run the same program. Before anything is exchanged they agree, by one small number, that none has failed: an error
anywhere ends all of them with that error, and none waits for a process that is gone. In one process every function here
does nothing. `training`, `evaluation` and `workflow` decide what is shared, and when.
"""

from __future__ import annotations

import atexit
import inspect
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.distributed import ProcessGroup, ReduceOp

from submillion.errors import ConfigError, RunError

_FINE, _ASKED, _FAILED = 0, 1, 2
# A process may wait for another as long as work can take. One that died is noticed at once: its connection breaks.
_PATIENCE = timedelta(days=30)
_LEAVING = timedelta(seconds=10)
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")

T = TypeVar("T")


class _State:
    """group: the connections over which the processes agree · inside: within `together` · failed: an error is known ·
    alone: the main process does what the others wait for."""

    group: ProcessGroup | None = None
    inside = False
    failed = False
    alone = False


@contextmanager
def together() -> Iterator[None]:
    """Let the processes of the launch work as one: an error in one of them is raised in all.

    Blocks may be nested; the outermost counts. It ends when all have reached its end. ConfigError for a launch that
    cannot work, RunError if a process is lost.
    """
    if not _is_launched() or _State.inside:
        yield
        return
    _connect()
    _State.inside, _State.failed = True, False
    try:
        yield
        _agree(_FINE)
    except Exception as error:
        if not _State.failed:
            _agree(_FAILED, error)
        raise
    finally:
        _State.inside = False


def count() -> int:
    """Return the number of processes that work together."""
    return distributed.get_world_size() if _State.inside else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if _State.inside else 0


def is_main() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return rank() == 0


def place(device: torch.device) -> None:
    """Select this process's own GPU, if the device is cuda; ConfigError if there is none for it."""
    if count() == 1 or device.type == "cpu":
        return
    if device.type != "cuda":
        raise ConfigError(f"device is {device.type}, which supports one process only: start without a launcher")
    n_gpus = torch.cuda.device_count()
    if _local_rank() >= n_gpus:
        raise ConfigError(
            f"more processes than GPUs were started here ({n_gpus}): start one per GPU, or set device=cpu"
        )
    torch.cuda.set_device(_local_rank())


def part() -> slice:
    """Return this process's part of any rows: each n-th, so that rows sorted by length give equal work."""
    return slice(rank(), None, count())


def anybody(asks: bool) -> bool:
    """Return whether any process asks."""
    return asks if count() == 1 else _agree(_ASKED if asks else _FINE)


def on_main(work: Callable[[], T]) -> T:
    """Return in every process what `work` returns in the main one, which must be picklable; the others wait."""
    if count() == 1 or _State.alone:
        return work()
    results = [_alone(work) if is_main() else None]
    _agree(_FINE)
    with _reaching():
        distributed.broadcast_object_list(results, src=0, group=_State.group)
    return cast("T", results[0])


def _alone(work: Callable[[], T]) -> T:
    _State.alone = True
    try:
        return work()
    finally:
        _State.alone = False


def of_main(thing: T) -> T:
    """Return the main process's object, such as a folder, for use in all processes.

    In one process that is the object itself; else each method call and property runs `on_main`. All processes must make
    the same calls, in the same order.
    """
    return thing if count() == 1 else cast("T", _OfMain(thing))


class _OfMain:
    """See `of_main`."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    @property
    def __class__(self) -> type:  # for isinstance
        return type(self._thing)

    def __getattr__(self, name: str) -> Any:
        kind = inspect.getattr_static(type(self._thing), name, None)
        if isinstance(kind, property):
            return on_main(lambda: getattr(self._thing, name))
        value = getattr(self._thing, name)
        return (lambda *args, **kwargs: on_main(lambda: value(*args, **kwargs))) if callable(kind) else value


@contextmanager
def in_turn() -> Iterator[None]:
    """Run the block in the main process first, then in one of each other machine, then in the rest.

    What the block leaves in a cache is thus computed once per cache.
    """
    if count() == 1:
        yield
        return
    turn = 0 if is_main() else 1 if _local_rank() == 0 else 2
    for _ in range(turn):
        _agree(_FINE)
    yield
    for _ in range(turn, 3):
        _agree(_FINE)


def add_up(tensor: torch.Tensor) -> None:
    """Replace a tensor by its sum over the processes: the same bits in all of them."""
    if count() > 1:
        _agree(_FINE)
        with _reaching():
            distributed.all_reduce(tensor)


def add_gradients(parameters: Sequence[torch.nn.Parameter], *numbers: float) -> tuple[float, ...]:
    """Replace each gradient by its sum over the processes; return the sums of the numbers.

    A process without rows has no gradients; a parameter that has none anywhere keeps none, so that optimisers
    leave it alone.
    """
    if count() == 1:
        return numbers
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    has = [float(p.grad is not None) for p in parameters]
    flat = torch.cat([*(part.flatten() for part in parts), parts[0].new_tensor([*has, *numbers])])
    add_up(flat)
    *sums, last = flat.split([*(p.numel() for p in parameters), len(has) + len(numbers)])
    values = last.tolist()
    for parameter, total, n_having in zip(parameters, sums, values, strict=False):
        if n_having and parameter.grad is not None:
            parameter.grad.copy_(total.view_as(parameter))  # in place: recorded work adds to it there
        else:
            parameter.grad = total.view_as(parameter) if n_having else None
    return tuple(values[len(has) :])


def _is_launched() -> bool:
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        missing = [name for name in _NEEDED if name not in os.environ]
        if missing:
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and {', '.join(missing)} not set: start with torchrun, or "
                "unset WORLD_SIZE to train in one process"
            )
        return True
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "accelerate was asked for several processes and started one (with --cpu it leaves that to MPI): give "
            "--multi_gpu instead of --cpu, also without GPUs, or use torchrun"
        )
    return False


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK") or 0)


def _connect() -> None:
    """Find the other processes, once: gloo for tensors on the CPU, NCCL on GPUs, and gloo again to agree."""
    if _State.group is not None:
        return
    try:
        if not distributed.is_initialized():
            distributed.init_process_group()
            atexit.register(distributed.destroy_process_group)
        _State.group = cast("ProcessGroup", distributed.new_group(backend="gloo", timeout=_PATIENCE))
        atexit.register(_leave, _State.group)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the processes of this launch cannot find one another: {error}") from None


def _leave(group: ProcessGroup) -> None:
    """Wait for the others at the end: once one is gone, the launcher ends the rest, perhaps before they report why."""
    with suppress(RuntimeError):
        distributed.monitored_barrier(group, _LEAVING)


def _agree(signal: int, error: Exception | None = None) -> bool:
    """Return whether any process sent `_ASKED`. If one sent `_FAILED`, raise its own error, else the first."""
    status, errors = torch.tensor(signal), [None] * count()
    with _reaching():
        distributed.all_reduce(status, ReduceOp.MAX, group=_State.group)
        if int(status) == _FAILED:
            distributed.all_gather_object(errors, error and _portable(error), group=_State.group)
    if int(status) == _FAILED:
        _State.failed = True
        raise error or next(each for each in errors if each is not None)
    return int(status) == _ASKED


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn what torch raises when a connection breaks into a RunError."""
    try:
        yield
    except RuntimeError:
        _State.failed = True
        raise RunError(
            "another process of this launch is gone (killed, or out of memory): the run is kept up to its "
            "last checkpoint; the same command resumes from there"
        ) from None


def _portable(error: Exception) -> Exception:
    """Return the error itself, with where it was raised, if it can be pickled; else its text."""
    if not is_main():  # the main process prints its own
        error.add_note(f"raised in process {rank()}:\n{''.join(traceback.format_exception(error))}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"process {rank()}: {type(error).__name__}: {error}")
    return error
