"""Data sets of the Hugging Face Hub at one commit, as tables, through the `datasets` package (the extra `hub`).

What a name and a revision mean is left to `submillion.hub`. If the Hub does not answer, `datasets` takes the rows that
it prepared last, of any commit and configuration, and only logs it: here it is asked for one commit and one
configuration, and its answer is checked.
"""

from __future__ import annotations

import gc
import glob
import importlib.util
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from submillion import hub
from submillion.config import DataConfig
from submillion.data.labels import columns as label_columns
from submillion.data.labels import named
from submillion.data.tables import Table
from submillion.errors import DataError, HubError, SubmillionError, install_line
from submillion.text import closest, first_line

_CARD, _CARD_INSTEAD = "README.md", ".huggingface.yaml"
_SHOWN_CONFIGS = 20


def hub_tables(
    data: DataConfig, wanted: Collection[str], splits: Collection[str], warnings: list[str]
) -> dict[str, Table]:
    """Return the tables of these splits, those that a Hub data set has, with the `wanted` columns.

    The settings' source is a repository's id, its revision a commit. Numbered labels with names (ClassLabel), also in
    lists, become the names. Rows whose label is withheld (missing, or -1) are left out, with a warning; a split of
    nothing else is dropped.
    Rows that were prepared before are read without a request; else the Hub's client draws its own bars. DataError or
    HubError says why a set cannot be read.
    """
    name = str(data.source)
    _refuse_missing(name)
    with hub.quiet(), _quiet():
        datasets = _opened(data, _prepared(data) or _downloaded(data))
    if "train" not in datasets:
        raise DataError(f"{name} on the Hub has no train split; it has {', '.join(map(str, datasets))}")
    tables = {
        split: table_of_dataset(f"{name} ({split})", datasets[split], wanted) for split in splits if split in datasets
    }
    return labelled_tables(tables, data, warnings)


def _opened(data: DataConfig, builder: Any) -> Any:
    """Return the splits that `datasets` prepared; DataError if their files are gone or damaged."""
    try:
        return builder.as_dataset()
    except Exception as error:  # of files, of Arrow, of `datasets`: these share no class
        raise _damaged(str(data.source), builder.cache_dir, error) from None


def _damaged(name: str, folder: Path | str, error: Exception) -> DataError:
    return DataError(
        f"data.source is {name}: its prepared rows cannot be read ({first_line(error)[:300]}): remove {folder}, and "
        "they are prepared again"
    )


def download_set(data: DataConfig, watch: Callable[[hub.Download], object]) -> None:
    """Download a Hub data set if it is not on this disk, reporting to `watch`; errors as in `hub_tables`."""
    _refuse_missing(str(data.source))
    with hub.quiet(), _quiet(), hub.without_bars():
        if _prepared(data) is None:
            _downloaded(data, watch)


def table_of_dataset(origin: str, dataset: Any, wanted: Collection[str]) -> Table:
    """Return the table of a `datasets.Dataset` with the `wanted` columns; numbered labels become their names."""
    names = [name for name in dataset.column_names if name in wanted]
    columns = dataset.select_columns(names).with_format(None).to_dict() if names else {}
    class_names = None
    for name in names:
        feature = dataset.features[name]
        if (names_of := getattr(feature, "names", None)) is not None:
            class_names = tuple(names_of)
            columns[name] = [None if i is None or i < 0 else class_names[i] for i in columns[name]]
        elif (names_of := getattr(getattr(feature, "feature", None), "names", None)) is not None:  # of a list's items
            class_names = tuple(names_of)
            columns[name] = [
                None if cell is None else [None if i is None else class_names[i] for i in cell if i is None or i >= 0]
                for cell in columns[name]
            ]
    numbers = range(1, len(dataset) + 1)
    return Table(origin, tuple(dataset.column_names), columns, numbers, class_names=class_names, is_published=True)


def labelled_tables(tables: Mapping[str, Table], data: DataConfig, warnings: list[str]) -> dict[str, Table]:
    """Return the tables of splits, published ones without the rows whose label is withheld (missing, or -1).

    A warning says so; a split of nothing else is left out.
    """
    labelled = {split: _labelled(table, split, data, warnings) for split, table in tables.items()}
    return {
        split: table
        for split, table in labelled.items()
        if table.numbers or split == "train" or not tables[split].numbers
    }


def _labelled(table: Table, split: str, data: DataConfig, warnings: list[str]) -> Table:
    """Return the table without the rows whose label is withheld: unlike in a file, nobody can fill it in."""
    columns = [table.columns[name] for name in label_columns(data) if name in table.columns and table.is_published]
    n_rows = len(columns[0]) if columns else 0
    hidden = {row for cells in columns for row in _hidden(cells, beside_others=len(columns) > 1)}
    kept = [row for row in range(n_rows) if row not in hidden]
    if not hidden:
        return table
    what = f"{len(hidden):,} of {n_rows:,} rows" if kept else f"all {n_rows:,} rows"
    outcome = "they are left out" if kept else _instead(split, data)
    warnings.append(f"{table.origin}: the labels ({named(data)}) of {what} are withheld: {outcome}")
    left = {name: [values[row] for row in kept] for name, values in table.columns.items()}
    index = None if table.index is None else [table.index[row] for row in kept]
    return replace(table, columns=left, numbers=[table.numbers[row] for row in kept], index=index)


def _hidden(cells: Sequence[Any], beside_others: bool) -> list[int]:
    """Return the rows whose label is withheld: missing, or -1 if all are; next to other values -1 is a class, except in
    columns of 0 and 1."""
    hidden = {None, -1} if beside_others or all(cell in (None, -1) for cell in cells) else {None}
    return [row for row, cell in enumerate(cells) if not isinstance(cell, list | dict) and cell in hidden]


def _instead(split: str, data: DataConfig) -> str:
    """Return what replaces a split without labels."""
    if split == "train":
        return "none is left to train on"
    if (size := getattr(data, split)) is None:
        return f"the split is not used; data.{split}=0.1 takes one from the training rows"
    return f"the split is not used; data.{split}={size} takes its place"


def _refuse_missing(name: str) -> None:
    if importlib.util.find_spec("datasets") is None:
        raise DataError(
            f"{name} is no local file or folder, and reading it from the Hub needs the package datasets: "
            f"{install_line('hub')}"
        )


def _prepared(data: DataConfig) -> Any:
    """Return what `datasets` prepared of exactly this commit and configuration; None if nothing, or unknown."""
    from datasets.packaged_modules.cache.cache import Cache

    name, commit = str(data.source), str(data.revision)
    versions, configs = _prepared_configs(name, commit), _configs(name, commit)
    wanted = data.config or (None if configs is None else configs.default)
    if wanted not in versions:
        return None
    short = name.rpartition("/")[2]
    return Cache(repo_id=name, dataset_name=short, config_name=wanted, version=versions[wanted], hash=commit)


def _prepared_configs(name: str, commit: str) -> dict[str, str]:
    """The configurations that `datasets` has prepared at a commit, each with the version in its folder's path."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, short = name.rpartition("/")
    root = Path(config.HF_DATASETS_CACHE).expanduser() / f"{owner}___{camelcase_to_snakecase(short)}"
    versions: dict[str, str] = {}
    for file in sorted(root.glob(f"*/*/{glob.escape(commit)}/dataset_info.json")):
        folder, version = file.parts[-4:-2]
        # Rows that somebody prepared from files of their choice are in a folder of another name.
        try:
            config_name = json.loads(file.read_text(encoding="utf-8")).get("config_name")
        except (OSError, ValueError, AttributeError) as error:  # `datasets` would not prepare them over it
            raise _damaged(name, file.parent, error) from None
        if config_name == folder:
            versions[folder] = version
    return versions


@dataclass(frozen=True)
class _Configs:
    """The configurations that a set's card names, and the default; None if one must be given."""

    names: tuple[str, ...]
    default: str | None


def _configs(name: str, commit: str) -> _Configs | None:
    """Return what a set's card says about its configurations; None if it is not in the Hub's cache or unreadable."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, try_to_load_from_cache

    card, instead = (
        try_to_load_from_cache(name, file, revision=commit, repo_type="dataset") for file in (_CARD, _CARD_INSTEAD)
    )
    if card is None or isinstance(instead, str):
        return None
    if not isinstance(card, str):  # the cache knows that there is none
        return _Configs((), "default")
    try:
        facts: Any = DatasetCard.load(card).data
        configs = MetadataConfigs.from_dataset_card_data(facts)
        return _Configs(tuple(configs), configs.get_default_config_name() if configs else "default")
    except (ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None  # `datasets` says what is wrong with it


def _downloaded(data: DataConfig, watch: Callable[[hub.Download], object] | None = None) -> Any:
    """The builder of `datasets` for the set, its files downloaded and its rows prepared; `watch` as in `hub.fetch`."""
    name = str(data.source)
    repository = hub.resolve(name, "dataset", data.revision)
    if repository.files is None:
        raise HubError(_not_there(data))
    files = {file.name for file in repository.files}
    _refuse_script(name, files)
    # `datasets` says that a set is gated, but not what to do.
    if _CARD in files:
        hub.fetch(repository, [_CARD], lambda _: None)
    elif files:
        hub.ask_for(repository, repository.files[0].name)
    _refuse_config(data)
    builder = _by_datasets(data, lambda: _builder(data, repository))
    # Into the same cache, from which `datasets` takes them: its own downloads cannot be watched.
    hub.fetch(repository, _files_of(builder, repository), watch)
    _by_datasets(data, builder.download_and_prepare)
    return builder


def _by_datasets(data: DataConfig, call: Callable[[], Any]) -> Any:
    """Return what a call of `datasets` returns; what it raises becomes one sentence."""
    try:
        with hub.impatient():
            return call()
    except SubmillionError:
        raise
    except Exception as error:  # HTTP, connections, files, formats, configurations: these share no class
        problem = _explained(data, error)
    # The error holds half-read Parquet files, and one that is closed at the process' end aborts it with SIGABRT
    # (https://github.com/apache/arrow/issues/45214); so it is freed now, and is not the cause of what is raised.
    gc.collect()
    raise problem


def _builder(data: DataConfig, repository: hub.Repository) -> Any:
    from datasets import load_dataset_builder

    builder: Any = load_dataset_builder(repository.id, data.config, revision=repository.commit)
    if builder.hash != repository.commit:
        raise HubError(f"data.source is {data.source}: the Hub stopped answering: try again")
    return builder


def _files_of(builder: Any, repository: hub.Repository) -> list[str]:
    """Return the files of the repository that the builder's configuration uses."""
    prefix = f"hf://datasets/{repository.id}@{repository.commit}/"
    names = {url.removeprefix(prefix) for urls in (builder.config.data_files or {}).values() for url in urls}
    return [file.name for file in repository.files or () if file.name in names]


def _not_there(data: DataConfig) -> str:
    """Return the sentence for rows that are not on this disk if the Hub does not answer."""
    name, commit = str(data.source), str(data.revision)
    wanted = "" if data.config is None else f", configuration {data.config}"
    there = ", ".join(_prepared_configs(name, commit))
    return (
        f"data.source is {name}: the rows of commit {commit[:12]}{wanted} are not cached on this machine"
        f"{f' ({there} is: set data.config)' if there else ''}, and the Hub was not reached: check the network and "
        "HF_HUB_OFFLINE"
    )


def _refuse_script(name: str, files: Collection[str]) -> None:
    script = f"{name.rpartition('/')[2]}.py"
    if script in files:
        raise DataError(
            f"data.source is {name}: its rows are made by a program ({script}), and a data set's code is never "
            "run: use the Parquet copy that the Hub makes of many sets (--set data.revision=refs/convert/parquet), or "
            "another set"
        )


def _refuse_config(data: DataConfig) -> None:
    """Raise a DataError that lists the configurations if one must be named, or an unknown one was."""
    configs = _configs(str(data.source), str(data.revision))
    if configs is None or (configs.default is not None if data.config is None else data.config in configs.names):
        return
    more = f" and {len(configs.names) - _SHOWN_CONFIGS} more" if len(configs.names) > _SHOWN_CONFIGS else ""
    listed = f"{', '.join(configs.names[:_SHOWN_CONFIGS])}{more}"
    if data.config is None:
        raise DataError(
            f"data.source is {data.source}: it has {len(configs.names)} configurations ({listed}): choose one with "
            "--set data.config=NAME"
        )
    if configs.names:
        near = closest(data.config, configs.names)
        hint = "" if near is None else f"did you mean {near!r}? "
        raise DataError(f"data.config is {data.config}, which {data.source} does not have: {hint}it has {listed}")


def _explained(data: DataConfig, error: Exception) -> SubmillionError:
    """Return an error of `datasets` as one sentence: `hub.explanation`'s if the Hub, network or disk is the cause."""
    name = str(data.source)
    if (why := hub.explanation(error, name, "dataset", data.revision)) is not None:
        return HubError(f"data.source is {name}: {why}")
    reasons = ": ".join(dict.fromkeys(first_line(cause)[:300] for cause in (error, error.__cause__ or error)))
    return DataError(
        f"data.source is {name}: `datasets` cannot read it ({reasons}): try another revision or configuration, or give "
        "the rows as a .parquet, .csv or .jsonl file"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from drawing bars, logging what is checked here, and counting downloads at its own host."""
    import datasets
    from datasets import config, logging

    verbosity, counts = logging.get_verbosity(), config.HF_UPDATE_DOWNLOAD_COUNTS
    had_bars = datasets.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    config.HF_UPDATE_DOWNLOAD_COUNTS = False  # an S3 bucket, for which it waits 3 s if only the Hub is reached
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if had_bars:
            datasets.enable_progress_bars()
