"""Folders of data files: which file is of which split, and which is of none.

A split goes by its name, or by another common one (dev, val); it may be in several files (shards), or in a folder of
that name. What is left over is named, so no file is skipped silently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from submillion.data.kinds import REFUSED_SUFFIXES, SUFFIXES, ZIP, packing_of, read_as, suffix_of
from submillion.errors import DataError

# Names of splits, the surest first: if there are files of two, the first is taken.
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
# train-00000-of-00003, train-00000-of-00003-5f2a9c0d1e7b6a48 (the Hub's), train_1, train.part2
_SHARD = re.compile(
    r"(?P<name>[a-z]+)(?:[-_.]?(?:part|shard)?[-_.]?(?P<number>\d+)(?:[-_]of[-_]\d+)?(?:-[0-9a-f]{16})?)?"
)
_OF = re.compile(r"\d[-_]of[-_](\d+)")
_PART = re.compile(r"part-(?P<number>\d+)\b.*")  # Spark's
_SHOWN = 8


@dataclass(frozen=True)
class Folder:
    """A folder's files: those of each split, in their order, and those of none."""

    path: Path
    splits: Mapping[str, tuple[Path, ...]]
    left_over: tuple[Path, ...]

    def notes(self, used: Collection[str]) -> list[str]:
        """Return sentences about files whose name is not their split's, and about files that are not read: those of
        none of the `used` splits."""
        notes = []
        for split, files in self.splits.items():
            name = _split_name(files[0]) or _split_name(files[0].parent)
            if split in used and name not in (split, None):
                notes.append(f"{_listed(self.path, files)}: used as the {split} split")
            elif split in used and len(files) > 1:
                notes.append(f"{_listed(self.path, files)}: the {split} split is in {len(files)} files")
        others = [file for split, files in self.splits.items() if split not in used for file in files]
        if unread := [*others, *self.left_over]:
            notes.append(
                f"{_listed(self.path, unread)}: not read; a folder's splits are train, validation (also dev, val, "
                "valid, eval) and test; data.validation and data.test name other files"
            )
        return notes


def opened(path: Path) -> Folder:
    """Return a folder's files by their splits; DataError if a split is in several formats, or a shard is missing."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    by_name: dict[str, list[Path]] = {}
    for entry in entries:
        if (name := _split_name(entry)) is not None:
            by_name.setdefault(name, []).extend(_data_files(entry.rglob("*") if entry.is_dir() else [entry]))
    by_name = {name: files for name, files in by_name.items() if files}
    if not by_name and (path / "data").is_dir():  # repositories of the Hub
        return opened(path / "data")
    if not by_name and (parts := _data_files(entry for entry in entries if _PART.fullmatch(entry.name))):
        by_name["train"] = parts
    splits = {
        split: _in_order(path, split, by_name[name])
        for split, names in _NAMES.items()
        if (name := next((name for name in names if name in by_name), None)) is not None
    }
    used = {file for files in splits.values() for file in files}
    others = [
        entry for entry in entries if entry.is_dir() and _split_name(entry) is None and _data_files(entry.iterdir())
    ]
    rest = [
        file for file in _data_files([*entries, *(f for files in by_name.values() for f in files)]) if file not in used
    ]
    return Folder(path, splits, (*dict.fromkeys(rest), *others))


def train_files(folder: Folder) -> tuple[Path, ...]:
    """Return the files of the train split; DataError if there are none."""
    if "train" in folder.splits:
        return folder.splits["train"]
    names = sorted(file.name for file in folder.path.iterdir())
    inside = f"it holds {', '.join(names[:_SHOWN])}{' and more' * (len(names) > _SHOWN)}" if names else "it is empty"
    raise DataError(
        f"{folder.path} holds no train file ({' or '.join(f'train{suffix}' for suffix in SUFFIXES)}): {inside}"
        f"{_train_hint(folder)}"
    )


def _train_hint(folder: Folder) -> str:
    """Return what to give instead of a folder without a train file: a folder in it that has one, or a file."""
    inside = [entry for entry in sorted(folder.path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    if whole := next((entry for entry in inside if _has_train(entry)), None):
        return f"; give {whole}"
    files = [file for file in folder.left_over if file.is_file()]
    files += [file for entry in inside for file in _data_files(entry.iterdir())]
    readable = [file for file in files if suffix_of(file) in SUFFIXES]
    if not readable:
        return ""
    file = next((file for file in readable if "train" in _stem(file)), readable[0])
    others = "; data.validation and data.test name those of the other splits" if len(readable) > 1 else ""
    return f"; give the file of the training rows, such as {file}{others}"


def _has_train(folder: Path) -> bool:
    try:
        return "train" in opened(folder).splits
    except DataError:  # reported if it is given
        return False


def _split_name(entry: Path) -> str | None:
    """Return the split's name in a file's or folder's name, as written there; None for others."""
    shard = _SHARD.fullmatch(_stem(entry))
    return shard["name"] if shard is not None and shard["name"] in SPLIT_OF else None


def _stem(entry: Path) -> str:
    """Return a name in lower case, a file's without its suffix and its packing's."""
    return _stem_of(entry) if entry.is_file() else entry.name.lower()


def _stem_of(file: Path) -> str:
    return read_as(file).name.lower().removesuffix(packing_of(file)).removesuffix(suffix_of(file))


def _data_files(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are files of rows, of kinds that are read or refused."""
    kinds = (*SUFFIXES, *REFUSED_SUFFIXES)
    return sorted(
        path for path in paths if path.is_file() and not path.name.startswith((".", "_")) and suffix_of(path) in kinds
    )


def _in_order(folder: Path, split: str, files: Sequence[Path]) -> tuple[Path, ...]:
    """The files of a split in the order of their numbers."""
    readable = [file for file in files if suffix_of(file) in SUFFIXES]
    readable = [
        file for file in readable if suffix_of(file) not in ZIP
    ] or readable  # an archive next to what was in it
    if not readable:
        if len({file.parent for file in files}) > 1 and all(suffix_of(file) == ".txt" for file in files):
            raise DataError(
                f"{files[0]}: one text per file and one class per folder are not read: write a table with one row "
                "per text"
            )
        return tuple(files[:1])  # reading it raises the error that says why
    shards = [
        _SHARD.fullmatch(_stem(file)) or _PART.fullmatch(_stem(file)) for file in readable if file.parent == folder
    ]
    numbers = [shard["number"] if shard is not None else None for shard in shards]
    is_several = len({suffix_of(file) for file in readable}) > 1 or None in numbers or len(set(numbers)) < len(numbers)
    if len(readable) > 1 and numbers and is_several:
        names = ", ".join(file.relative_to(folder).as_posix() for file in readable)
        raise DataError(f"{folder} holds {names}: keep one, or name one by its path")
    return _whole(folder, split, readable)


def parts_of_one(origin: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the files in their order if they are the numbered parts of one table, as their names say; else none.

    DataError if a part is missing.
    """
    matches = [_SHARD.fullmatch(_stem_of(file)) or _PART.fullmatch(_stem_of(file)) for file in files]
    places = {(read_as(file).parent, suffix_of(file)) for file in files}
    names = {match and match.groupdict().get("name") for match in matches}
    numbers = {match["number"] for match in matches if match is not None and match["number"]}
    is_one = len(places) == len(names) == 1 and len(numbers) == len(files)
    return _whole(origin, "the table", files) if is_one else ()


def _whole(origin: Path, split: str, files: Sequence[Path]) -> tuple[Path, ...]:
    """Return files in the order of their numbers; DataError if their names say that there are more."""
    n_shards = {int(match[1]) for file in files if (match := _OF.search(_stem_of(file)))}
    if len(n_shards) == 1 and len(files) != min(n_shards):
        raise DataError(
            f"{origin} holds {len(files):,} of the {min(n_shards):,} files of {split} ({files[0].name}, ...): "
            "get the others, or rename these"
        )
    return tuple(sorted(files, key=_natural))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts part 10 after part 9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", str(path))]


def _listed(folder: Path, paths: Sequence[Path]) -> str:
    names = [path.relative_to(folder).as_posix() for path in paths]
    more = f" and {len(names) - _SHOWN:,} more" * (len(names) > _SHOWN)
    return f"{folder}: {', '.join(names[:_SHOWN])}{more}"
