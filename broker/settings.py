"""TOML turned into a frozen struct once, at the door.

Every mistake is one line that names file, table and key, and guesses what was meant:

    agent.toml: [broker] has no key "hots"; did you mean "host"?
    agent.toml: [broker] port: Expected `int`, got `str`
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SettingsError(ValueError):
    """A configuration that cannot be used; the message is one line for a person."""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as `kind`. Raises SettingsError for anything wrong with it."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from error
    return convert(tree, kind, str(path))


def convert(tree: object, kind: type[T], source: str) -> T:
    """Turn plain values (of a TOML or JSON file called `source`) into `kind`. Raises SettingsError."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {_explain(str(error), tree, kind)}") from error


_PATH = re.compile(r"^(?P<what>.*?) - at `(?:key in )?\$(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>[^`]*)`$")
_ENUM = re.compile(r"^Invalid enum value '(?P<value>[^']*)'$")
_MISSING = re.compile(r"^Object missing required field `(?P<key>[^`]*)`$")


def _explain(message: str, tree: object, kind: type[Any]) -> str:
    """Reword one msgspec message: the table in brackets, then the key, then what is wrong with it."""
    match = _PATH.match(message)
    what, path = (match["what"], match["path"]) if match else (message, "")
    keys = _keys(path, tree)
    if unknown := _UNKNOWN.match(what):
        return f'{_table(keys)} has no key "{unknown["key"]}"{_guess(unknown["key"], _fields(kind, keys))}'
    if missing := _MISSING.match(what):
        return f'{_table(keys)} needs the key "{missing["key"]}"'
    if not keys:
        return what
    if invalid := _ENUM.match(what):
        choices = _choices(kind, keys)
        what = f'"{invalid["value"]}" is none of {", ".join(choices)}{_guess(invalid["value"], choices, "")}'
    return f"{_table(keys[:-1])} {keys[-1]}: {what}" if keys[1:] else f"{keys[0]}: {what}"


def _keys(path: str, tree: object) -> list[str]:
    """Turn a msgspec path into keys; its `[...]` (any key of a table) becomes the key when only one can be meant."""
    keys: list[str] = []
    for part in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        key = part[0] or part[1]
        if key == "..." and isinstance(tree, dict) and len(tree) == 1:
            key = next(iter(tree))
        keys.append(key)
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, list) and key.isdigit():
            tree = tree[int(key)]
    return keys


def _table(keys: list[str]) -> str:
    return f"[{'.'.join(keys)}]" if keys else "the top level"


def _fields(kind: Any, keys: list[str]) -> list[str]:
    """List the keys that the struct at this path knows."""
    structs = (t for t in _types(kind, keys) if isinstance(t, msgspec.inspect.StructType))
    return [field.encode_name for struct in structs for field in struct.fields]


def _choices(kind: Any, keys: list[str]) -> list[str]:
    """List the literal values that the key at this path may have."""
    literals = (t for t in _types(kind, keys) if isinstance(t, msgspec.inspect.LiteralType))
    return [str(value) for literal in literals for value in literal.values]


def _types(kind: Any, keys: list[str]) -> tuple[msgspec.inspect.Type, ...]:
    """Give the type at this path; a union gives each of its types."""
    info = msgspec.inspect.type_info(kind)
    for key in keys:
        info = _step(info, key)
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _step(info: msgspec.inspect.Type, key: str) -> msgspec.inspect.Type:
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
    """Give "; did you mean …?" for the nearest known word; without one the list of all, or `otherwise`."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    if otherwise is not None:
        return otherwise
    return f"; it knows {', '.join(known)}" if known else ""
