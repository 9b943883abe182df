"""The order of the steps behind `predict` for files: check, predict what is missing, join.

Chunks are predicted in this process, in several, or on a Ray cluster by Ray Data: each way maps the same function over
them and passes the results, in any order, to one journal. The output is joined from it in the rows' order.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, cast

from submillion.data import cache, chunks
from submillion.data.chunks import Chunk, Columns, Part, Reader
from submillion.data.packaged import PREFIX
from submillion.errors import ConfigError, RunError, SubmillionError
from submillion.prediction import journal, writing
from submillion.prediction.ensemble import Ensemble, Members, members, rules
from submillion.prediction.journal import Journal, packed
from submillion.prediction.writing import Form, Layout
from submillion.runs import Output, Which
from submillion.training import distillation, workers
from submillion.training.workers import Where

Result = tuple[str, bytes]  # a chunk's key and its predictions

_AHEAD = 2  # chunks a worker has at most: the current one and the next


@dataclass(frozen=True)
class How:
    """Where to predict: `n_workers` processes or Ray actors, None for one, or for all cores of the cluster at `address`
    (None: a local one)."""

    where: Where = "inline"
    n_workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.where == "inline" and (self.n_workers or 1) > 1:
            raise ConfigError(f"inline is one process, not {self.n_workers}: use --executor processes or ray")
        if self.where != "ray" and self.address is not None:
            raise ConfigError(f"--address {self.address} is a Ray cluster's: give --executor ray too")


@dataclass(frozen=True)
class Progress:
    """The progress of a phase: rows done, of `n_rows` if known; `notes` worth printing, once."""

    phase: Literal["checking", "predicting", "joining"]
    n_done: int
    n_rows: int | None
    notes: tuple[str, ...] = ()
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True)
class Written:
    """A finished output: its rows, how many of them earlier sessions had predicted, how many got each label (by name;
    unanswered rows got none), whether rows are numbered, for lack of an id column, how many hold no token that the
    encoder knows, and how many input rows `data.drop` leaves out of the output."""

    output: Path
    n_rows: int
    n_kept: int
    counts: dict[str, int]
    is_numbered: bool
    n_blank: int
    n_dropped: int


Watch = Callable[[Progress], object]


def predict_file(
    run: Which | Sequence[Which],
    source: Path | str,
    output: Path | str,
    form: Form | None = None,
    how: How | None = None,
    device: str | None = None,
    watch: Watch = lambda _: None,
) -> Written:
    """Write the labels that a run, or several together, give the rows of a file or of a folder of files.

    The output's name decides its format; a folder's output is a folder with files of the same names, with .csv appended
    for kinds that are not written. Memory holds some chunks. Finished chunks are kept in `OUTPUT.partial/` until all
    are done: after a kill the same call continues, and gives the bytes of a call that was never killed. With processes
    the calling script needs `if __name__ == "__main__":`. DataError lists everything that is wrong with the rows,
    before any is predicted. ConfigError for an output that would replace a file that no earlier call wrote, unless
    `form` has `force`, and for one in a run folder.
    """
    source, output, form, how = str(source), Path(output), form or Form(), how or How()
    target = Output(output, "predict", form.force)
    writing.check_output(target, source)
    voters = members(run, device)
    layout = Layout(voters.classes, form, thresholds=voters.thresholds, rules=rules(voters.runs, form.answering))
    form.columns(voters.classes)
    columns = Columns(form.id, form.keep)

    def check(n_done: int) -> None:
        watch(Progress("checking", n_done, None))

    parts = chunks.survey(source, voters.readings, chunks.CHUNK_ROWS, check, columns)
    is_folder = os.path.isdir(os.path.expanduser(source))
    if is_folder:
        writing.check_parts(target, [writing.part_name(part.name) for part in parts])
    targets = [replace(target, path=output / writing.part_name(part.name)) if is_folder else target for part in parts]
    for each in targets:
        writing.joining(each.path, layout)
    with journal.opened(output, _facts(source, voters)) as kept:
        voters, n_kept, notes = _taken_up(kept, voters, parts, source, how)
        n_rows = sum(part.n_rows for part in parts)
        notes = (*(note for part in parts for note in part.notes), *notes)
        watch(Progress("predicting", n_kept, n_rows, notes))
        _predict(kept, voters, parts, how, lambda n_done: watch(Progress("predicting", n_done, n_rows)))
        counts, n_blank = _join(kept, voters, parts, targets, layout, watch)
        kept.remove()
    is_numbered = any(chunk.id_column is None for part in parts for chunk in part.chunks)
    by_label = {label: counts[label] for label in voters.labels}
    n_dropped = sum(part.n_dropped for part in parts)
    return Written(output, n_rows, n_kept, by_label, is_numbered, n_blank, n_dropped)


def _facts(source: str, voters: Members) -> dict[str, object]:
    """Return what a journal and the command that takes it up must agree in."""
    place = source if source.startswith(PREFIX) else str(Path(os.path.expanduser(source)).resolve())
    names = [f"{run.name} ({distillation.identity(run)[:12]})" for run in voters.runs]
    return {"input": place, "runs": names, "rows of a chunk": chunks.CHUNK_ROWS}


def _taken_up(
    kept: Journal, voters: Members, parts: Sequence[Part], source: str, how: How
) -> tuple[Members, int, tuple[str, ...]]:
    """Return the members that the journal was begun with, its number of rows, and notes about it."""
    all_chunks = [chunk for part in parts for chunk in part.chunks]
    rows_key = cache.key_of(*(f"{part.name} {chunk.key}" for part in parts for chunk in part.chunks))
    n_kept = sum(chunk.n_rows for chunk in all_chunks if chunk.key in kept.files)
    notes = []
    if kept.facts.get("rows", rows_key) != rows_key:
        n_new = sum(chunk.key not in kept.files for chunk in all_chunks)
        notes.append(
            f"{source} has changed since this was started: finished rows that are "
            f"unchanged are kept, {n_new:,} of {len(all_chunks):,} chunks are predicted"
        )
    if kept.files:
        n_rows = sum(chunk.n_rows for chunk in all_chunks)
        notes.append(f"resuming: {n_kept:,} of {n_rows:,} rows are done")
    n_given = n_threads = workers.share(how.where, how.n_workers or 1).each
    if "device" in kept.facts:  # others may round differently
        voters = replace(voters, device=kept.facts["device"], precisions=tuple(kept.facts["precisions"]))
        n_threads = kept.facts.get("threads", n_given)
    voters = replace(voters, n_threads=n_threads)
    kept.note(device=voters.device, precisions=list(voters.precisions), threads=n_threads, rows=rows_key)
    return (
        voters,
        n_kept,
        (*kept.notes, *notes, *workers.thread_notes(n_threads, n_given, how.where, how.n_workers or 1)),
    )


def _predict(kept: Journal, voters: Members, parts: Sequence[Part], how: How, watch: Callable[[int], object]) -> None:
    """Predict the chunks missing from the journal, each key once: equal chunks have equal predictions."""
    missing: dict[str, Chunk] = {}
    n_rows: Counter[str] = Counter()
    for chunk in (chunk for part in parts for chunk in part.chunks):
        n_rows[chunk.key] += chunk.n_rows
        if chunk.key not in kept.files:
            missing[chunk.key] = chunk
    n_done = sum(n for key, n in n_rows.items() if key in kept.files)
    if not missing:
        return

    def watch_chunk(n_at_hand: int) -> None:
        watch(n_done + n_at_hand)

    for key, content in _execute(how, voters, list(missing.values()), chunks.CHUNK_ROWS, watch_chunk):
        kept.write(key, content)
        n_done += n_rows[key]
        watch(n_done)


def _join(
    kept: Journal, voters: Members, parts: Sequence[Part], targets: Sequence[Output], layout: Layout, watch: Watch
) -> tuple[Counter[str], int]:
    """Write each part's file from the journal; return the counts of each label and of blank rows."""
    counts, counted, keep = Counter[str](), list[int](), layout.form.keep
    n_rows, n_done = sum(part.n_rows for part in parts), 0
    for number, (part, target) in enumerate(zip(parts, targets, strict=True)):
        target.path.parent.mkdir(parents=True, exist_ok=True)
        reader = Reader(voters.readings, chunks.CHUNK_ROWS, keep) if keep else None
        rows, part_layout = (
            _rows(kept, part, reader, counted),
            replace(layout, kept=part.kept, codec=writing.codec_of(Path(part.source))),
        )
        counts += writing.write(target, kept.folder / f"joined-{number}", part_layout, rows)
        n_done += part.n_rows
        watch(Progress("joining", n_done, n_rows))
    return counts, sum(counted)


def _rows(kept: Journal, part: Part, reader: Reader | None, counted: list[int]) -> Iterator[writing.Rows]:
    """Yield a part's rows from the journal, with kept cells from the input; append blank rows to `counted`."""
    for chunk in part.chunks:
        ids, probs, n_blank = kept.read(chunk)
        counted.append(n_blank)
        yield ids, probs, reader.kept(chunk) if reader else ()


class _Labeller:
    """A loaded ensemble and the file it reads from: labels a chunk."""

    def __init__(self, members: Members, n_rows: int) -> None:
        self.ensemble = Ensemble(members)
        self.reader = Reader(members.readings, n_rows)

    def __call__(self, chunk: Chunk, watch: Callable[[int], object] | None = None) -> bytes:
        """Return the chunk's predictions, packed for the journal; `watch` is called with the rows done."""
        readings = self.reader.read(chunk)
        return packed([example.id for example in readings[0]], *self.ensemble.probs(readings, watch))


def _execute(
    how: How, members: Members, chunks: Sequence[Chunk], n_rows: int, watch: Callable[[int], object]
) -> Iterator[Result]:
    """Return every chunk's predictions; inline, `watch` is called with the rows done of the current chunk."""
    match how.where:
        case "inline":
            labeller = _Labeller(members, n_rows)
            return ((chunk.key, labeller(chunk, watch)) for chunk in chunks)
        case "processes":
            return _processes(how.n_workers or 1, members, chunks, n_rows)
        case "ray":
            return _ray(how, members, chunks, n_rows)


def _processes(n_workers: int, members: Members, chunks: Sequence[Chunk], n_rows: int) -> Iterator[Result]:
    advice = "finished rows are kept; run the same command again, with fewer --processes"
    with workers.pool(n_workers) as pool:
        yield from workers.completed(pool, partial(_label, members, n_rows), chunks, _AHEAD * n_workers, advice)


def _label(members: Members, n_rows: int, chunk: Chunk) -> Result:
    return chunk.key, _labeller(members, n_rows)(chunk, _stop_if_interrupted)


@lru_cache(maxsize=1)
def _labeller(members: Members, n_rows: int) -> _Labeller:
    """Return a worker process's labeller, loaded for its first chunk: an error then comes back as the chunk's."""
    return _Labeller(members, n_rows)


def _stop_if_interrupted(_: int) -> None:
    if workers.interrupted.is_set():
        raise KeyboardInterrupt


def _ray(how: How, members: Members, chunks: Sequence[Chunk], n_rows: int) -> Iterator[Result]:
    """Yield predictions from a Ray data set of chunks' descriptions: actors read their chunks themselves.

    Ray Data restarts an actor that died, and its current work.
    """
    with workers.ray_cluster(how.n_workers, how.address) as ray:
        import ray.data as ray_data

        ray_data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        n_actors = min(how.n_workers or int(ray.cluster_resources().get("CPU", 1)), len(chunks))
        described = [asdict(replace(chunk, source=_absolute(chunk.source))) for chunk in chunks]
        dataset = ray_data.from_items(described, override_num_blocks=len(chunks)).map_batches(
            cast("Any", _Actor),
            fn_constructor_args=(members, n_rows),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray_data.ActorPoolStrategy(size=n_actors),
            num_cpus=1,
        )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in cast("Any", batch).to_pylist():
                    if row["problems"]:
                        raise RunError(*row["problems"])
                    yield row["key"], row["content"]
        except ray.exceptions.RayError as error:
            raise RunError(
                f"Ray gave up ({type(error).__name__}): finished rows are kept; the same command resumes"
            ) from error


class _Actor:
    """A process's `_Labeller` with one core, for Ray Data: from a chunk's description to its result, as tables."""

    def __init__(self, members: Members, n_rows: int) -> None:
        self.given = members, n_rows

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        (chunk,) = (Chunk(**row) for row in batch.to_pylist())
        content, problems = b"", ()
        try:
            content = _labeller(*self.given)(chunk)
        except SubmillionError as error:  # Ray would wrap it in its own message
            problems = error.problems
        types = {"key": pa.string(), "content": pa.binary(), "problems": pa.list_(pa.string())}
        rows = [{"key": chunk.key, "content": content, "problems": list(problems)}]
        return pa.Table.from_pylist(rows, schema=pa.schema(types))


def _absolute(source: str) -> str:
    """Return the absolute path of a source: actors work in their own folders."""
    return source if source.startswith(PREFIX) else os.path.abspath(os.path.expanduser(source))
