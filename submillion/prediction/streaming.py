"""The order of the steps behind `predict` for files: check, predict what is missing, join.

Every way of computing gives the same chunks to one journal, and the output is joined from it in the order of the rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from submillion.data import cache, chunks
from submillion.data.chunks import Chunk, Part
from submillion.data.packaged import PREFIX
from submillion.prediction import journal, writing
from submillion.prediction.ensemble import Members, members
from submillion.prediction.executors import How, execute
from submillion.prediction.journal import Journal
from submillion.prediction.writing import Form
from submillion.runs import Which
from submillion.training import distillation, workers


@dataclass(frozen=True)
class Progress:
    """How far a phase is: rows done, of `n_rows` where that is known; `notes` worth printing, once."""

    phase: Literal["checking", "predicting", "joining"]
    n_done: int
    n_rows: int | None
    notes: tuple[str, ...] = ()
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True)
class Written:
    """A finished output: its rows, how many of them earlier sittings had predicted, and the count of each label (its
    name)."""

    output: Path
    n_rows: int
    n_kept: int
    counts: dict[str, int]


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

    The output's name decides its format; a folder's output is a folder with files of the same names. Memory holds some
    chunks. What is finished is kept in `OUTPUT.partial/` until all is: after a kill the same call goes on, and gives
    the bytes of a call that was never killed. With processes the calling script needs `if __name__ == "__main__":`.
    DataError lists everything that is wrong with the rows, before any is predicted.
    """
    source, output, form, how = str(source), Path(output), form or Form(), how or How()
    writing.check_output(output, source)
    found = members(run, device)
    parts = chunks.survey(
        source, found.readings, chunks.CHUNK_ROWS, lambda n_done: watch(Progress("checking", n_done, None))
    )
    is_folder = os.path.isdir(os.path.expanduser(source))
    if is_folder:
        writing.check_parts(output, [part.name for part in parts])
    targets = [output / part.name if is_folder else output for part in parts]
    with journal.opened(output, _facts(source, found)) as kept:
        found, n_kept, notes = _taken_up(kept, found, parts, source, how)
        n_rows = sum(part.n_rows for part in parts)
        watch(Progress("predicting", n_kept, n_rows, notes))
        _predict(kept, found, parts, how, lambda n_done: watch(Progress("predicting", n_done, n_rows)))
        counts = _join(kept, found, parts, targets, form, watch)
        kept.remove()
    return Written(output, n_rows, n_kept, {label: counts[label] for label in found.labels})


def _facts(source: str, found: Members) -> dict[str, object]:
    """What a journal must agree in with the command that takes it up."""
    place = source if source.startswith(PREFIX) else str(Path(os.path.expanduser(source)).resolve())
    names = [f"{run.name} ({distillation.identity(run)[:12]})" for run in found.runs]
    return {"input": place, "runs": names, "rows of a chunk": chunks.CHUNK_ROWS}


def _taken_up(
    kept: Journal, found: Members, parts: Sequence[Part], source: str, how: How
) -> tuple[Members, int, tuple[str, ...]]:
    """The members as the journal was begun with, the rows it has, and what there is to say of it."""
    everything = [chunk for part in parts for chunk in part.chunks]
    rows_key = cache.key_of(*(f"{part.name} {chunk.key}" for part in parts for chunk in part.chunks))
    n_kept = sum(chunk.n_rows for chunk in everything if chunk.key in kept.found)
    notes = []
    if kept.facts.get("rows", rows_key) != rows_key:
        n_new = sum(chunk.key not in kept.found for chunk in everything)
        notes.append(
            f"{source} has changed since this was begun: what is finished of rows that are as they were is kept, "
            f"{n_new:,} of {len(everything):,} chunks are predicted"
        )
    if kept.found:
        n_rows = sum(chunk.n_rows for chunk in everything)
        notes.append(f"going on: {n_kept:,} of {n_rows:,} rows are done")
    n_given = n_threads = workers.share(how.where, how.n_workers or 1).each
    if "device" in kept.facts:  # others may round otherwise
        found = replace(found, device=kept.facts["device"], precisions=tuple(kept.facts["precisions"]))
        n_threads = kept.facts.get("threads", n_given)
    found = replace(found, n_threads=n_threads)
    kept.note(device=found.device, precisions=list(found.precisions), threads=n_threads, rows=rows_key)
    return found, n_kept, (*notes, *workers.thread_notes(n_threads, n_given, how.where, how.n_workers or 1))


def _predict(kept: Journal, found: Members, parts: Sequence[Part], how: How, watch: Callable[[int], object]) -> None:
    """Predict the chunks that the journal has not, each key once: equal chunks have equal predictions."""
    missing: dict[str, Chunk] = {}
    n_rows: Counter[str] = Counter()
    for chunk in (chunk for part in parts for chunk in part.chunks):
        n_rows[chunk.key] += chunk.n_rows
        if chunk.key not in kept.found:
            missing[chunk.key] = chunk
    n_done = sum(n for key, n in n_rows.items() if key in kept.found)
    if not missing:
        return

    def watch_chunk(n_at_hand: int) -> None:
        watch(n_done + n_at_hand)

    for key, content in execute(how, found, list(missing.values()), chunks.CHUNK_ROWS, watch_chunk):
        kept.write(key, content)
        n_done += n_rows[key]
        watch(n_done)


def _join(
    kept: Journal, found: Members, parts: Sequence[Part], targets: Sequence[Path], form: Form, watch: Watch
) -> Counter[str]:
    """Write each part's file from the journal; return the count of each label."""
    counts: Counter[str] = Counter()
    n_rows, n_done = sum(part.n_rows for part in parts), 0
    for number, (part, target) in enumerate(zip(parts, targets, strict=True)):
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = map(kept.read, part.chunks)
        temporary = kept.folder / f"joined-{number}"
        counts += writing.write(target, temporary, found.classes, form, rows, writing.codec_of(Path(part.source)))
        n_done += part.n_rows
        watch(Progress("joining", n_done, n_rows))
    return counts
