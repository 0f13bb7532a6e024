"""TOML turned into a frozen struct once, at the door.

Every mistake is one line that names file, table and key, and guesses what was meant:

    agent.toml: [broker] has no key "hots"; did you mean "host"?
    agent.toml: [broker] port: Expected `int`, got `str`

One line, whatever the file holds: what it shows of a file is made fit for a terminal.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from runtime.words import clean

T = TypeVar("T")


class SettingsError(ValueError):
    """A configuration that cannot be used; the message is one line for a person."""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as `kind`. Raises SettingsError for anything wrong with it."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is not TOML: too many brackets within each other") from error
    except ValueError as error:  # of tomllib, of UTF-8, or of a number of thousands of digits
        raise SettingsError(f"{path}: is not TOML: {clean(str(error))}") from error
    return convert(tree, kind, str(path))


def inline(keys: str, option: str) -> dict[str, Any]:
    """Return the keys of a table that a command line gives in one line, as TOML has them. Raises SettingsError."""
    try:
        found: dict[str, Any] = tomllib.loads(f"keys = {{ {keys} }}")["keys"]
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{option} {clean(keys)}: write keys as TOML has them, with commas between them, such as {option} "
            f'\'encoding = "cp1252", time = "when"\''
        ) from error
    return found


def convert(tree: object, kind: type[T], source: str) -> T:
    """Turn plain values (of a TOML or JSON file called `source`) into `kind`. Raises SettingsError."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {clean(_explain(str(error), tree, kind))}") from error
    except RecursionError as error:
        raise SettingsError(f"{source}: too many tables and lists within each other") from error


_PATH = re.compile(r"^(?P<what>.*?) - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>[^`]*)`$", re.DOTALL)
_ENUM = re.compile(r"^Invalid enum value '(?P<value>[^']*)'$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<key>[^`]*)`$")
_PATTERN = re.compile(r"^Expected `str` matching regex ", re.DOTALL)
_LENGTH = re.compile(r"^Expected `(object|array)` of length (?P<how><=|>=) (?P<limit>\d+)$")
_BOUNDS = {"<=": "at most", ">=": "at least"}
MOST_TRIED = 1000
"""Keys of a table that are tried for the one that a message is about."""


def _explain(message: str, tree: object, kind: type[Any]) -> str:
    """Reword one msgspec message: the table in brackets, then the key, then what is wrong with it."""
    match = _PATH.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "")
    keys = _keys(path, tree, kind, message)
    if unknown := _UNKNOWN.match(what):
        return f'{_table(keys)} has no key "{unknown["key"]}"{_guess(unknown["key"], _fields(kind, keys))}'
    if missing := _MISSING.match(what):
        return f'{_table(keys)} needs the key "{missing["key"]}"'
    if match and match["key"]:
        wrong = _culprit(keys, tree, kind, message)
        return f'{_table(keys)} has the key "{wrong}": {_described(kind, keys) or what}'
    if not keys:
        return what
    value = _at(tree, keys)
    if (words := _described(kind, keys)) and _PATTERN.match(what):
        what = f'"{str(value)[:100]}" is none: {words}'
    if invalid := _ENUM.match(what):
        choices = _choices(kind, keys)
        what = f'"{invalid["value"]}" is none of {", ".join(choices)}{_guess(invalid["value"], choices, "")}'
    if (length := _LENGTH.match(what)) and isinstance(value, dict | list):
        what = f"{len(value)} entries where {_BOUNDS[length['how']]} {length['limit']} may be"
    if isinstance(value, dict):
        return f"{_table(keys)} {what}"
    *tables, key = _joined(keys)
    return f"{_table(tables)} {key}: {what}" if tables else f"{key}: {what}"


def _keys(path: str, tree: object, kind: type[Any], message: str) -> list[str]:
    """Turn a msgspec path into keys, an index as "[0]"; `[...]`, any key of a table, becomes the one that is meant."""
    keys: list[str] = []
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        meant = _culprit(keys, tree, kind, message) if index == "..." else None
        keys.append(name or meant or f"[{index}]")
    return keys


def _joined(keys: list[str]) -> list[str]:
    """Put indices behind the name of what they are in."""
    names: list[str] = []
    for key in keys:
        if key.startswith("[") and names:
            names[-1] += key
        else:
            names.append(key)
    return names


def _culprit(keys: list[str], tree: object, kind: type[Any], message: str) -> str | None:
    """Find the key of the table at `keys` that the message is about: the one that alone is complained of alike."""
    table = _at(tree, keys)
    for name in islice(table if isinstance(table, dict) else (), MOST_TRIED):
        try:
            msgspec.convert(_with_alone(tree, keys, name), kind)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return str(name)
    return None


def _at(tree: object, keys: list[str]) -> object:
    for key in keys:
        match tree:
            case dict():
                tree = tree.get(key)
            case list() if key[1:-1].isdigit():
                tree = tree[int(key[1:-1])]
            case _:
                return None
    return tree


def _with_alone(tree: Any, keys: list[str], name: str) -> dict[str, Any]:
    """Return the tree with nothing but this name in the table at `keys`."""
    if not keys:
        return {name: tree[name]}
    return {**tree, keys[0]: _with_alone(tree[keys[0]], keys[1:], name)}


def _table(keys: list[str]) -> str:
    return f"[{'.'.join(_joined(keys))}]" if keys else "the top level"


def _fields(kind: Any, keys: list[str]) -> list[str]:
    """List the keys that the struct at this path knows."""
    structs = (t for t in _types(kind, keys) if isinstance(t, msgspec.inspect.StructType))
    return [field.encode_name for struct in structs for field in struct.fields]


def _choices(kind: Any, keys: list[str]) -> list[str]:
    """List the literal values that the key at this path may have."""
    literals = (t for t in _types(kind, keys) if isinstance(t, msgspec.inspect.LiteralType))
    return [str(value) for literal in literals for value in literal.values]


def _described(kind: Any, keys: list[str]) -> str:
    """Return what the type at this path, or that of its keys, says of itself."""
    infos = (i.key_type if isinstance(i, msgspec.inspect.DictType) else i for i in _all_types(kind, keys))
    schemas = (i.extra_json_schema or {} for i in infos if isinstance(i, msgspec.inspect.Metadata))
    return next((schema["description"] for schema in schemas if "description" in schema), "")


def _types(kind: Any, keys: list[str]) -> tuple[msgspec.inspect.Type, ...]:
    """Return the type at this path; a union gives each of its types."""
    return tuple(map(_plain, _all_types(kind, keys)))


def _all_types(kind: Any, keys: list[str]) -> tuple[msgspec.inspect.Type, ...]:
    info = _info(kind)
    for key in keys:
        info = _step(info, key)
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


@functools.cache
def _info(kind: Any) -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(kind)


def _plain(info: msgspec.inspect.Type) -> msgspec.inspect.Type:
    return info.type if isinstance(info, msgspec.inspect.Metadata) else info


def _step(info: msgspec.inspect.Type, key: str) -> msgspec.inspect.Type:
    info = _plain(info)
    if isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        return info.item_type
    if isinstance(info, msgspec.inspect.UnionType):
        structs = [t for t in info.types if isinstance(t, msgspec.inspect.StructType | msgspec.inspect.DictType)]
        info = structs[0] if structs else msgspec.inspect.AnyType()
    if isinstance(info, msgspec.inspect.DictType):
        return info.value_type
    if isinstance(info, msgspec.inspect.StructType):
        for field in info.fields:
            if field.encode_name == key:
                return field.type
    return msgspec.inspect.AnyType()


def _guess(key: str, known: list[str], otherwise: str | None = None) -> str:
    """Return "; did you mean …?" for the nearest known word; without one the list of all, or `otherwise`."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    if otherwise is not None:
        return otherwise
    return f"; it knows {', '.join(known)}" if known else ""
