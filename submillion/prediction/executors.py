"""Where chunks are predicted: in this process, in several, or on a Ray cluster by Ray Data.

Each way maps the same function over chunks and gives the results as they come, in any order; what becomes of them is
left to `streaming`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any, cast

from submillion.data.chunks import Chunk, Reader
from submillion.data.packaged import PREFIX
from submillion.errors import ConfigError, RunError, SubmillionError
from submillion.prediction.ensemble import Ensemble, Members
from submillion.prediction.journal import packed
from submillion.training import workers
from submillion.training.workers import Where

Watch = Callable[[int], object]
Result = tuple[str, bytes]  # a chunk's key and its predictions

_AHEAD = 2  # chunks a worker has at most: the one at hand and the next


@dataclass(frozen=True)
class How:
    """Where to predict: `n_workers` processes or Ray actors, None for one, or for all cores of the cluster at `address`
    (None: a local one)."""

    where: Where = "inline"
    n_workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.where == "inline" and (self.n_workers or 1) > 1:
            raise ConfigError(f"inline is one process, not {self.n_workers}: take --executor processes or ray")
        if self.where != "ray" and self.address is not None:
            raise ConfigError(f"--address {self.address} is a Ray cluster's: give --executor ray too")


class Labeller:
    """A loaded ensemble and the file it reads from: labels a chunk."""

    def __init__(self, members: Members, n_rows: int) -> None:
        self.ensemble = Ensemble(members)
        self.reader = Reader(members.readings, n_rows)

    def __call__(self, chunk: Chunk, watch: Watch | None = None) -> bytes:
        """Return the chunk's predictions, packed for the journal; `watch` is called with the rows done."""
        readings = self.reader.read(chunk)
        return packed([example.id for example in readings[0]], self.ensemble.probs(readings, watch))


def execute(how: How, members: Members, chunks: Sequence[Chunk], n_rows: int, watch: Watch) -> Iterator[Result]:
    """Yield the predictions of every chunk; inline, `watch` is called with the rows done of the chunk at hand."""
    match how.where:
        case "inline":
            labeller = Labeller(members, n_rows)
            return ((chunk.key, labeller(chunk, watch)) for chunk in chunks)
        case "processes":
            return _processes(how.n_workers or 1, members, chunks, n_rows)
        case "ray":
            return _ray(how, members, chunks, n_rows)


def _processes(n_workers: int, members: Members, chunks: Sequence[Chunk], n_rows: int) -> Iterator[Result]:
    advice = "finished rows are kept; start the same command again, with fewer --processes"
    with workers.pool(n_workers) as pool:
        yield from workers.completed(pool, partial(_label, members, n_rows), chunks, _AHEAD * n_workers, advice)


def _label(members: Members, n_rows: int, chunk: Chunk) -> Result:
    return chunk.key, _labeller(members, n_rows)(chunk, _stop_if_interrupted)


@lru_cache(maxsize=1)
def _labeller(members: Members, n_rows: int) -> Labeller:
    """A worker process's own, loaded for its first chunk: an error then comes back as the chunk's."""
    return Labeller(members, n_rows)


def _stop_if_interrupted(_: int) -> None:
    if workers.interrupted.is_set():
        raise KeyboardInterrupt


def _ray(how: How, members: Members, chunks: Sequence[Chunk], n_rows: int) -> Iterator[Result]:
    """A row of the Ray data set is a chunk's description: actors read their chunks themselves and send predictions.

    Ray Data starts an actor again that died, and what it had at hand.
    """
    with workers.ray_cluster(how.n_workers, how.address) as ray:
        import ray.data as ray_data

        ray_data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        n_actors = min(how.n_workers or int(ray.cluster_resources().get("CPU", 1)), len(chunks))
        described = [asdict(replace(chunk, source=_absolute(chunk.source))) for chunk in chunks]
        found = ray_data.from_items(described, override_num_blocks=len(chunks)).map_batches(
            cast("Any", _Actor),
            fn_constructor_args=(members, n_rows),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray_data.ActorPoolStrategy(size=n_actors),
            num_cpus=1,
        )
        try:
            for batch in found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in cast("Any", batch).to_pylist():
                    if row["problems"]:
                        raise RunError(*row["problems"])
                    yield row["key"], row["content"]
        except ray.exceptions.RayError as error:
            raise RunError(
                f"Ray gave up ({type(error).__name__}): finished rows are kept; the same command goes on"
            ) from error


class _Actor:
    """A process' `Labeller` with one core, for Ray Data: a table of a chunk's description in, of its result out."""

    def __init__(self, members: Members, n_rows: int) -> None:
        self.given = members, n_rows

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        (chunk,) = (Chunk(**row) for row in batch.to_pylist())
        content, problems = b"", ()
        try:
            content = _labeller(*self.given)(chunk)
        except SubmillionError as error:  # Ray would wrap it in sentences of its own
            problems = error.problems
        types = {"key": pa.string(), "content": pa.binary(), "problems": pa.list_(pa.string())}
        rows = [{"key": chunk.key, "content": content, "problems": list(problems)}]
        return pa.Table.from_pylist(rows, schema=pa.schema(types))


def _absolute(source: str) -> str:
    """Actors work in folders of their own."""
    return source if source.startswith(PREFIX) else os.path.abspath(os.path.expanduser(source))
