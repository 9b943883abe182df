"""From YAML and `--set` to a checked `Config`, and back to text.

Owns overrides, the report of all problems at once, the commented dump and the hash. `parsing` reads the text,
`settings` has the settings themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from submillion.config.parsing import is_section, parsed, parsed_override, section_of, union_parts
from submillion.config.settings import Config
from submillion.errors import ConfigError
from submillion.text import closest, did_you_mean, shown

NOT_HASHED = ("name", "out", "tracking", "device")
# Keys added later: at their defaults they leave the hash unchanged.
_ADDED = (
    *(("model", key) for key in ("revision", "long_texts", "max_windows", "window_pooling")),
    *(("data", key) for key in ("config", "encoding", "separator", "header", "drop", "group", "split", "fold")),
    ("data", "labels"),
    ("data", "more"),
    ("data", "label_separator"),
    ("train", "metric"),
    ("train", "decide"),
    ("train", "focal_gamma"),
    ("train", "threshold"),
)
_MAX_CONFIG_BYTES = 200_000  # all settings with their help texts have 6,000
_MOST_PAIRS = 10  # of a table that is written out in a message
_SHORT = {"model": "model.name", "data": "data.source"}  # the key that a text given for a section in Python sets
# Alternatives: an override of one replaces the others in a file or a recipe.
_INSTEAD_OF = {
    "train.steps": ("train.epochs",),
    "train.epochs": ("train.steps",),
    "train.batch_size": ("train.batch_tokens",),
    "data.source": ("data.revision", "data.config"),  # the replaced data set's
    "model.name": ("model.revision",),
}


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _recipes().iterdir() if f.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """Return a shipped recipe's YAML; ConfigError for an unknown name."""
    if name not in recipe_names():
        raise ConfigError(f"no recipe {name!r}: {did_you_mean(name, recipe_names())}")
    return (_recipes() / f"{name}.yaml").read_text(encoding="utf-8")


def load(
    base: Config | Mapping[str, Any] | Path | str | None = None,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    **settings: Any,
) -> Config:
    """Return the config of a YAML file, a recipe, a dict or a config (of none: the defaults), with changes.

    `settings` are keys of the config, sections as dicts of what differs; `model="NAME"` is its name and
    `data="rows.csv"` its source. `overrides` are applied last: `{"train.steps": 60}`, or as on the command line,
    `["train.steps=60"]`, values parsed as YAML. All problems are raised together as one ConfigError.

    Examples:
        >>> load(recipe="demo", train={"steps": 60}, budget=50_000).train.steps
        60
        >>> load({"train": {"steps": 60}}, model="bert-base-uncased").model.name
        'bert-base-uncased'
    """
    changes = _flat(settings) | parse_overrides(overrides)
    if base is not None and recipe is not None:
        base_name = f"a config file ({base})" if isinstance(base, str | Path) else "settings"
        raise ConfigError(f"both {base_name} and a recipe ({recipe}) are given: keep one")
    match base:
        case Config():
            return changed(base, changes)
        case Mapping():
            origin, values = "the settings", _replaced({}, _flat(base), "the settings")
        case str() | os.PathLike():
            origin, values = str(base), _mapping(_read(Path(base)), str(base))
        case None if recipe is not None:
            origin, values = f"recipe {recipe}", _mapping(recipe_text(recipe), f"recipe {recipe}")
        case None:
            origin, values = "the settings", {}
        case _:
            raise ConfigError(
                f"{shown(base)} is no config: give a YAML file's path, a dict or what load_config returns"
            )
    return validate(_replaced(values, changes, "--set"), origin)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by full keys, paths as text."""
    flat_settings: dict[str, Any] = {}
    for key, value in settings.items():
        field = Config.model_fields.get(key)
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if isinstance(value, Mapping) and field is not None and is_section(field.annotation):
            flat_settings |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            flat_settings[_SHORT.get(key, key) if isinstance(value, str | os.PathLike) else key] = value
    return {
        str(key): os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in flat_settings.items()
    }


def validate(values: Mapping[str, Any], origin: str = "the settings") -> Config:
    """Return the `Config` of nested plain values; ConfigError lists every problem with its key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems: dict[str, str] = {}
        for detail in error.errors():  # a value of a union type fails once per type: the first counts
            problems.setdefault(_key(detail), _problem(detail))
        raise ConfigError(*(f"{origin}: {problem}" for problem in problems.values())) from None


def changed(config: Config, settings: Mapping[str, Any], origin: str = "the settings") -> Config:
    """Return the config with settings of full keys (`train.steps`) replaced; ConfigError lists every problem.

    >>> changed(Config(), {"train.steps": 20}).train.steps
    20
    """
    return validate(_replaced(config.model_dump(mode="json"), settings, origin), origin)


def parse_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return overrides, a dict or `section.key=value` texts, as full keys and values; ConfigError lists the
    malformed texts."""
    if isinstance(overrides, Mapping):
        return _flat(overrides)
    is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str)
    if not is_list or not all(isinstance(override, str) for override in overrides):
        raise ConfigError(
            f"overrides are {shown(overrides)}: give a list of texts, such as ['train.steps=60'], or a dict, such as "
            "{'train.steps': 60}"
        )
    problems, values = [], dict[str, Any]()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            problems.append(f"--set {override}: give it as section.key=value, such as train.epochs=2")
            continue
        try:
            values[key.strip()] = parsed_override(key.strip(), text)
        except (yaml.YAMLError, RecursionError):
            problems.append(f"--set {override}: the value is not YAML; quote it")
    if problems:
        raise ConfigError(*problems)
    return values


def read_mapping(file: Path | str) -> dict[str, Any]:
    """Return a YAML file's table as plain values; ConfigError if it cannot be read or holds none."""
    return _mapping(_read(Path(file)), str(file))


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML, which `load` reads as an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def commented(config: Config | None = None) -> str:
    """Return every setting as YAML with its help text and its allowed values as comments."""
    return "\n".join(_commented_section(config or Config(), indent="")) + "\n"


def digest(config: Config, data_fingerprint: str) -> str:
    """Return 8 hex digits that name a run: the hash of the config (without name, out, tracking, device) and the data.

    A data set's commit is left out: most commits leave the rows unchanged, and the fingerprint covers the rows.
    """
    values = config.model_dump(mode="json", exclude=set(NOT_HASHED))
    del values["data"]["revision"]
    defaults = Config().model_dump(mode="json")
    train = values["train"]
    # The deciding score; None if it is the metric itself, as before there was a choice.
    by_metric = config.train.deciding == (config.train.metric or "accuracy") and config.train.deciding != "log-loss"
    train["decide"] = None if by_metric else config.train.deciding
    if train["metric"] == "accuracy":  # what null means if rows have one label
        train["metric"] = None
    for section, key in _ADDED:
        if values[section].get(key) == defaults[section][key]:
            values[section].pop(key, None)
    text = json.dumps([values, data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _recipes() -> Any:
    return resources.files("submillion") / "recipes"


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:  # a pipe, such as <(...), or a device has no size
            content = stream.read(_MAX_CONFIG_BYTES + 1)
        if len(content) > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{file} has more than {_MAX_CONFIG_BYTES:,} bytes: too large for a config; is it data?")
        return content.decode()
    except FileNotFoundError:
        raise ConfigError(
            f"{file}: no such file; `submillion config > {shlex.quote(str(file))}` writes one with every setting"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(
            f"{shown(str(file))} is not a valid file name: it has a character that no file name may have"
        ) from None


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        values = parsed(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        advice = "; put a name with a colon in quotes" if "mapping values are not allowed" in problem else ""
        raise ConfigError(f"{origin} is not valid YAML: {problem}{advice}") from None
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deeply for a config") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} holds a {type(values).__name__}, not a table of settings; see `submillion config`")
    return values


def _replaced(values: dict[str, Any], settings: Mapping[str, Any], origin: str) -> dict[str, Any]:
    problems = []
    for key, value in settings.items():
        try:
            _assign(values, key.split("."), value)
        except TypeError:
            problems.append(f"{origin} {key}: {key.rpartition('.')[0]} is not a section")
    if problems:
        raise ConfigError(*problems)
    keys = {key for key, value in settings.items() if value is not None}
    for key in keys & _INSTEAD_OF.keys():
        for other in _INSTEAD_OF[key]:
            if other not in keys:
                _assign(values, other.split("."), None)
    return values


def _assign(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = values.get(key)
        values[key] = inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise TypeError(key)
        values = inner
    values[path[-1]] = value


def _key(detail: Any) -> str:
    return ".".join(section_of([str(part) for part in detail["loc"]])[1])


def _problem(detail: Any) -> str:
    """Return one pydantic error as a sentence: the key, its value, what is allowed."""
    path = [str(part) for part in detail["loc"]]
    section, names = section_of(path)
    key = ".".join(names)
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key if key.isprintable() else shown(key)}: {meant_key(path[-1], section.model_fields)}"
    if detail["type"] == "invalid_key":
        where = f" of {'.'.join(names[:-1])}" if names[:-1] else ""
        return (
            f"key {shown(detail['input'])}{where} is not a name: {did_you_mean(detail['input'], section.model_fields)}"
        )
    if detail["type"] == "model_type":
        short = f"; in Python {key}='NAME' sets {_SHORT[key]}" if key in _SHORT else ""
        keys = ", ".join(list(section.model_fields)[:3])
        return f"{key} is {shown(detail['input'])}: give a table of its keys, such as {keys}{short}"
    if detail["type"] == "value_error":
        return _of_key(names, section, str(detail["ctx"]["error"]))
    value = "" if detail["type"] == "missing" else f" is {shown(detail['input'])}"
    help_text = section.model_fields[names[-1]].description if names and names[-1] in section.model_fields else ""
    hint = f" ({help_text})" if help_text else ""
    if detail["type"] == "string_type" and detail["input"] is None:
        return f"{key} is empty or null: give a name, in quotes if it is 'null', or leave the key out{hint}"
    if detail["type"] == "string_type" and not isinstance(detail["input"], str):
        hint = f"; put it in quotes if it is a name{hint}"
    if detail["input"] is None:
        hint = f"; give a value, or leave the key out{hint}"
    if (pair := _without_space(detail["input"])) is not None:
        hint = f"; YAML needs a space after the colon: {pair}{hint}"
    return f"{key}{value}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{hint}"


def _of_key(names: Sequence[str], section: type[BaseModel], sentence: str) -> str:
    """Return a validator's sentence, which may begin with the name of its key, with that key's full name."""
    first = sentence.partition(" ")[0]
    if names and first == names[-1]:
        return ".".join((*names[:-1], sentence))
    if names and first in section.model_fields:  # of a whole section
        return ".".join((*names, sentence))
    return f"{'.'.join(names)}: {sentence}" if names else sentence


def _without_space(value: Any) -> str | None:
    """Return a table as it was meant, if YAML took `{query:3}` for a key without a value; else None."""
    if not isinstance(value, dict) or len(value) > _MOST_PAIRS:
        return None
    if not all(each is None and ":" in str(key).strip(":") for key, each in value.items()) or not value:
        return None
    return f"{{{', '.join(': '.join(map(str.strip, str(key).split(':', 1))) for key in value)}}}"


def meant_key(unknown: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the hint about an unknown key: the key of that name in another section, one near it, or those allowed.

    >>> meant_key("epochs", Config.model_fields), meant_key("budjet", Config.model_fields)
    ("did you mean 'train.epochs'?", "did you mean 'budget'?")
    """
    everywhere: dict[str, list[str]] = {}
    for section, field in Config.model_fields.items():
        if is_section(field.annotation):
            for key in field.annotation.model_fields:
                everywhere.setdefault(key, []).append(f"{section}.{key}")
    near = unknown if unknown in everywhere else None
    if near is None and closest(unknown, list(allowed)) is None and list(allowed) == list(Config.model_fields):
        near = closest(unknown, list(everywhere))
    return (
        did_you_mean(unknown, allowed) if near is None else f"did you mean {' or '.join(map(repr, everywhere[near]))}?"
    )


def _commented_section(section: BaseModel, indent: str) -> list[str]:
    lines = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            lines += ["", f"{indent}# {type(value).__doc__}".rstrip(), f"{indent}{key}:"]
            lines += _commented_section(value, indent + "  ")
            continue
        dumped = section.model_dump(mode="json", include={key})
        text = yaml.safe_dump(dumped, default_flow_style=False, allow_unicode=True, width=1000).strip()
        lines.append(f"{indent}# {field.description}{_choices(field.annotation)}")
        lines += [indent + line for line in text.splitlines()]
    return lines


def _choices(annotation: Any) -> str:
    """Return the allowed words of a Literal, as the comment's suffix; nothing for other types."""
    words = [
        str(word)
        for part in (annotation, *union_parts(annotation))
        if typing.get_origin(part) is typing.Literal
        for word in typing.get_args(part)
    ]
    return f" [{' | '.join(words)}]" if words else ""
