"""YAML text → plain values: a key given twice is refused, and names stay as they were written.

YAML does not read no, 1.0 and null as text, and a blank after a colon or before a # ends a name. If a setting takes a
name (of a column, a label, a run), that is never meant. `loading` checks the values.
"""

from __future__ import annotations

import copy
import functools
import types
import typing
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from submillion.config.settings import Config
from submillion.text import shown

_NULL = "tag:yaml.org,2002:null"
_GUESSED = {_NULL, *(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "value"))}
_TEXT, _LIST = "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq"


def parsed(text: str, key: str = "") -> Any:
    """Return the plain value of a YAML text, of the setting `key` or of a whole file; YAMLError says what is wrong."""
    return copy.deepcopy(_parsed(text, key))  # the caller may change it


@functools.lru_cache(maxsize=1024)  # a study asks for each run's config again and again, and YAML is slow to read
def _parsed(text: str, key: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_names(node, key, text, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def parsed_override(key: str, text: str) -> Any:
    """Return the value that `--set key=text` gives a setting; a name without quotes is taken literally.

    >>> parsed_override("data.text", "Review: text"), parsed_override("data.label", "no")
    ('Review: text', 'no')
    >>> parsed_override("data.text", "[on, '#body']"), parsed_override("train.steps", "60")
    (['on', '#body'], 60)
    """
    name, kinds = text.strip(), _kinds(key)
    if not name or not _takes_names(kinds):
        return parsed(text, key)
    is_list = name[0] == "[" and tuple[str, ...] in kinds and (name[-1] == "]" or "," in name)
    if is_list:
        return parsed(text, key)
    is_null = type(None) in kinds and name in ("null", "Null", "NULL", "~")
    if is_null or name[0] in "\"'":
        try:
            return parsed(text, key)
        except yaml.YAMLError:  # "so so" reviews
            return name
    return name


def section_of(path: Sequence[str]) -> tuple[type[BaseModel], list[str]]:
    """Return the section that holds the key at `path`, and the key's names without pydantic's union tags."""
    section: type[BaseModel] = Config
    names: list[str] = []
    for part in path:
        names.append(part)
        field = section.model_fields.get(part)
        if field is None or not is_section(field.annotation):
            break
        section = typing.cast("type[BaseModel]", field.annotation)
    return section, names


def is_section(annotation: Any) -> typing.TypeGuard[type[BaseModel]]:
    """Say whether a setting of this type is a group of settings."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def union_parts(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a union allows, limits included; none if it is not a union."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return ()


def _kinds(key: str) -> set[Any]:
    """Return the types that a setting takes, without limits; none for an unknown key or a section."""
    path = key.split(".")
    section, names = section_of(path)
    field = section.model_fields.get(names[-1])
    if field is None or len(names) < len(path) or is_section(field.annotation):
        return set()
    parts = union_parts(field.annotation) or (field.annotation,)
    return {typing.get_args(part)[0] if typing.get_origin(part) is typing.Annotated else part for part in parts}


def _takes_names(kinds: set[Any]) -> bool:
    return str in kinds and kinds <= {str, tuple[str, ...], type(None)}


def _keep_names(node: yaml.Node, key: str, text: str, seen: set[int]) -> None:
    """Mark names in a node, the value of the setting `key`, as text; also in a study's factors."""
    if id(node) in seen:  # an alias of a part already visited
        return
    seen.add(id(node))
    kinds = _kinds(key)
    if _takes_names(kinds):
        _keep_name(node, type(None) in kinds, text)
        if node.tag == _LIST and tuple[str, ...] in kinds:
            node.value = [_as_written(part, text) for part in node.value]
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _keep_names(part, "", text, seen)
    if isinstance(node, yaml.MappingNode):
        varied = next((value.value for name, value in node.value if name.value == "key"), None)
        has_names = any(typing.get_origin(kind) is dict for kind in kinds)
        for name, value in node.value:
            if has_names:
                _keep_name(name, False, text)
            if name.value == "values" and isinstance(varied, str):
                _keep_choices(value, varied, text, seen)
            is_full = not key or "." in str(name.value)  # a study's settings have full keys
            _keep_names(value, str(name.value) if is_full else f"{key}.{name.value}", text, seen)


def _keep_choices(node: yaml.Node, key: str, text: str, seen: set[int]) -> None:
    """Do so for a factor's values, each a value of the setting `key`."""
    for choice in node.value if isinstance(node, yaml.SequenceNode) else ():
        _keep_names(choice, key, text, seen)


def _keep_name(node: yaml.Node, takes_null: bool, text: str) -> None:
    """Mark a scalar as text, as it was written, unless it is tagged as something else, or absent."""
    is_tagged = text.startswith("!", node.start_mark.index)
    is_absent = node.tag == _NULL and (takes_null or not node.value)
    if isinstance(node, yaml.ScalarNode) and node.tag in _GUESSED and not is_tagged and not is_absent:
        node.tag = _TEXT


def _as_written(node: yaml.Node, text: str) -> yaml.Node:
    """Return a part of a list of names as text, even `[Review: text]`, which is a table to YAML."""
    if isinstance(node, yaml.MappingNode) and not text.startswith(("{", "!"), node.start_mark.index):
        return yaml.ScalarNode(_TEXT, text[node.start_mark.index : node.end_mark.index].strip(), node.start_mark)
    _keep_name(node, False, text)
    return node


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice; YAML's own takes the last one.

    It names the line of a value that is not what it looks like (2024-99-99) or is tagged as (!!bool maybe).
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the node's value; ConstructorError names the line if it has none."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            problem = f"{shown(node.value)} cannot be read as {node.tag.rpartition(':')[2]}{reason}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; ConstructorError names the line of a repeated key."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a name", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep)
