"""Which run folders there are, and whether one may be used: create, find, load, verify, list, remove."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from submillion.errors import RunError, command
from submillion.runs.files import read_json, reported, sha256
from submillion.runs.folder import FORMAT, UNSEALED, Run
from submillion.text import a_kind, did_you_mean, shown

Which = Run | os.PathLike[str] | str  # a run: itself, its folder, or a name or a hash
_TABLES = ("plan.json", "environment.json", "data.json", "scores.json")
_SEALED = ("config.yaml", "plan.json", "environment.json", "labels.json", "data.json")  # of every run, always
_LISTED_RUNS = 20
# What a run folder holds besides its config.yaml, once a training has locked it.
_MARKS = (".lock", "DONE", "plan.json", "environment.json", "metrics.jsonl")
_HASH = re.compile(r"-[0-9a-f]{8}$")


def folder(out: str | Path, name: str, hash8: str) -> Path:
    """Return where a run is or would be: `<out>/<name>-<hash8>`."""
    return Path(os.path.expanduser(out)) / f"{name}-{hash8}"


def create(out: str | Path, name: str, hash8: str) -> Run:
    """Return the run in its folder, which is created if missing."""
    path = folder(out, name, hash8)
    with reported(path, "made"):
        path.mkdir(parents=True, exist_ok=True)
    return Run(path)


def find(out: str | Path, hash8: str) -> Run | None:
    """Return the run with this hash, whatever its name; of several, a finished one, else the first by name."""
    found = [run for run in list_runs(out) if run.name.endswith(f"-{hash8}")]
    return next((run for run in found if run.is_done), found[0] if found else None)


def list_runs(out: str | Path) -> list[Run]:
    """Return the run folders in `out`, by name, renamed ones too; empty if there is no such folder, RunError if it is a
    file."""
    parent = Path(os.path.expanduser(out))
    if os.path.isfile(parent):
        raise RunError(f"{parent} is a file: give the folder of the runs (--out)")
    if not parent.is_dir():
        return []
    with reported(parent, "read"):
        return [Run(path) for path in sorted(parent.iterdir()) if is_run(path)]


def load(which: Which, out: str | Path = "runs") -> Run:
    """Return a finished run, by its folder, or by a name or a hash in `out`, as the command line takes them.

    RunError if it is missing, unfinished, damaged or of a newer version. Files are not hashed here: `verify` does that.
    """
    if not isinstance(out, str | os.PathLike):
        raise RunError(f"out is {shown(out)}: give the folder of the runs")
    match which:
        case Run():
            run = Run(_existing(which.path))
        case str():
            run = Run(locate(which, out))
        case os.PathLike():
            run = Run(_existing(Path(which).expanduser()))
        case _:
            raise RunError(
                f"{a_kind(which)} is not a run: give its folder, its name, its hash, or what `train` returns"
            )
    run.refuse_unfinished()
    _done(run)
    run.labels()
    for name in _TABLES:
        values = run.read_json(name)
        if not isinstance(values, dict) or (name == "plan.json" and type(values.get("total")) is not int):
            raise RunError(f"{run.path / name} is damaged: restore it, or remove the run and train again")
    return run


def load_several(which: Which | Sequence[Which]) -> list[Run]:
    """Return the finished run or runs given, each as `load` takes it; RunError for an empty list."""
    several: Sequence[Which] = which if isinstance(which, list | tuple) else [which]  # pyright: ignore[reportAssignmentType]
    if not several:
        raise RunError("no run is given: name one, or several in a list")
    return [load(each) for each in several]


def repeated(several: Sequence[Run]) -> list[str]:
    """Return the problems with runs that are named more than once, by whatever name."""
    places = [run.path.resolve() for run in several]
    paths = {place: run.path for place, run in zip(places, several, strict=True) if places.count(place) > 1}
    return [f"{path} is given twice: give it once" for path in paths.values()]


def refuse_twice(several: Sequence[Run]) -> None:
    """Raise a RunError that names each run that is given twice."""
    if problems := repeated(several):
        raise RunError(*problems)


def verify(run: Run) -> None:
    """Check the run's files against the hashes in `DONE`; RunError names each that is missing, changed or strange.

    A file in `adapter/` that training did not write is strange: transformers would read some of them.
    """
    run.refuse_unfinished()
    sealed = _done(run)["files"]
    done = run.path / "DONE"
    problems = [
        f"{done} does not seal {name}: remove the run and train again" for name in _SEALED if name not in sealed
    ]
    for name, expected in sealed.items():
        path = run.path / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            problems.append(f"{done} names {name}, which leads out of the run: remove the run and train again")
        elif not path.is_file():
            what = "is not a file" if path.exists() else "is missing"
            problems.append(f"{path} {what}: restore it, or remove the run and train again")
        elif sha256(path) != expected:
            problems.append(f"{path} is not what training wrote (its SHA-256 differs): restore it, or train again")
    problems += [f"{path} was not written by training: remove it" for path in _strangers(run, sealed)]
    if problems:
        raise RunError(*problems)


def _strangers(run: Run, sealed: Collection[str]) -> list[Path]:
    """The files in `adapter/` that are not sealed; hidden ones are left by tools, and read by none."""
    paths = (path for path in sorted(run.path.glob("adapter/**/*")) if not path.is_dir() or path.is_symlink())
    unknown = (path for path in paths if path.relative_to(run.path).as_posix() not in sealed)
    return [path for path in unknown if path.name not in UNSEALED and not path.name.startswith(".")]


def locate(text: str, out: str | Path = "runs") -> Path:
    """Return the folder that a user means by a path, or by a folder's name, a name or a hash within `out`."""
    if _has_config(Path(os.path.expanduser(text))):
        return Path(os.path.expanduser(text))
    runs = list_runs(out)
    paths = [run.path for run in runs if run.name == text]
    paths = paths or [run.path for run in runs if text in (_short(run.name), _hash(run.name))]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise RunError(f"{text!r} is the name of {len(paths)} runs: say which of {', '.join(p.name for p in paths)}")
    if not runs or os.path.exists(os.path.expanduser(text)):
        return _existing(Path(os.path.expanduser(text)))
    short = [_short(run.name) for run in runs]
    # A name that several runs have names none of them.
    names = dict.fromkeys(name for run in runs for name in (_short(run.name), run.name) if short.count(name) < 2)
    hint = (
        did_you_mean(text, names)
        if len(runs) < _LISTED_RUNS
        else f"`{command('runs', 'list', '--out', out)}` prints them"
    )
    raise RunError(f"no run {text!r} in {out}: {hint}")


def remove(run: Run) -> None:
    """Delete a run folder; RunError if it is not a run folder, a link, or being written."""
    _existing(run.path)
    if run.path.is_symlink():
        raise RunError(f"{run.path} is a link: remove the folder it points to, {run.path.resolve()}")
    with run.lock(), reported(run.path, "removed"):
        _delete(run.path)


def discard(run: Run, with_out: bool) -> None:
    """Delete the folder of a run that recorded nothing; with_out: also the folder of runs, if that leaves it empty.

    Only a caller that made these folders and holds the run's lock may do this. What cannot be deleted is left.
    """
    with suppress(OSError):
        if run.state == "empty":
            _delete(run.path)
            if with_out:
                run.path.parent.rmdir()


def _delete(folder: Path) -> None:
    """Delete DONE first and config.yaml last: a removal that is cut short leaves an unfinished run."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name != "DONE", path.name == "config.yaml")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    folder.rmdir()


def _short(name: str) -> str:
    """A run folder's name without its hash; a renamed one has none."""
    return _HASH.sub("", name)


def _hash(name: str) -> str | None:
    match = _HASH.search(name)
    return None if match is None else match[0].removeprefix("-")


def is_run(path: Path) -> bool:
    """Say whether a folder is a run's, by what is in it: it may have any name but a hidden one."""
    if path.name.startswith(".") or not os.path.isfile(
        path / "config.yaml"
    ):  # not Path.is_file, which refuses long names
        return False
    # Other projects have a config.yaml too.
    return _HASH.search(path.name) is not None or any(os.path.lexists(path / name) for name in _MARKS)


def _has_config(path: Path) -> bool:
    return os.path.isfile(path / "config.yaml")  # unlike Path.is_file, it is False for a name that is too long


def run_around(path: Path) -> Path | None:
    """Return the run folder that a path is, or is in; None if there is none."""
    place = Path(os.path.realpath(os.path.expanduser(path)))
    return next((folder for folder in (place, *place.parents) if is_run(folder)), None)


def _existing(path: Path) -> Path:
    if _has_config(path):
        return path
    if not os.path.exists(path):
        raise RunError(f"{path}: no such run folder; `submillion runs list` lists those in runs/")
    inside = [run.name for run in list_runs(path)]
    hint = f"it holds runs: {', '.join(inside[:5])}" if inside else "it has no config.yaml"
    raise RunError(f"{path} is not a run folder: {hint}")


def _done(run: Run) -> dict:
    done = read_json(run.path / "DONE")
    whole = isinstance(done, dict) and type(done.get("format")) is int and isinstance(done.get("files"), dict)
    if not whole or done["format"] < 1:
        raise RunError(f"{run.path / 'DONE'} is damaged: remove the run and train again")
    if done["format"] > FORMAT:
        raise RunError(
            f"{run.path / 'DONE'} was written by submillion {done.get('submillion')}, in format {done['format']}; "
            f"this version reads {FORMAT}: update submillion"
        )
    return done
