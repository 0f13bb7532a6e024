"""The annotated configuration files: they load, and no key of the structs is missing from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator.config import AggregatorConfig
from edge_agent.config import AgentConfig
from fleet.console.operator import OperatorConfig
from runtime.settings import load

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = [("aggregator.toml", AggregatorConfig), ("agent.toml", AgentConfig)]

files = pytest.mark.parametrize(("name", "kind"), FILES)


def uncommented(name: str, folder: Path) -> Path:
    """Write the file with every `#key = value` and `#[table]` switched on."""
    text = re.sub(r"^#(?=\[|\w+ = )", "", (DEPLOY / name).read_text(), flags=re.MULTILINE)
    path = folder / name
    path.write_text(text)
    return path


def struct_in(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Give the table of a key that may be left out."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((one for one in kind.types if isinstance(one, msgspec.inspect.StructType)), kind)
    return kind


def keys(kind: msgspec.inspect.Type, path: str = "") -> Iterator[str]:
    """Name every key that a struct knows; "*" is a table's name of the user's own choice."""
    kind = struct_in(kind)
    if isinstance(kind, msgspec.inspect.StructType):
        for field in kind.fields:
            yield from keys(field.type, f"{path}.{field.encode_name}")
    elif isinstance(kind, msgspec.inspect.DictType):
        yield from keys(kind.value_type, f"{path}.*")
    else:
        yield path


def written(tree: Mapping[str, Any], kind: msgspec.inspect.Type, path: str = "") -> Iterator[str]:
    """Name every key that a TOML tree has, in the words of `keys`."""
    kind = struct_in(kind)
    if isinstance(kind, msgspec.inspect.UnionType):  # a value of several shapes
        yield path
        return
    free = isinstance(kind, msgspec.inspect.DictType)
    for name, value in tree.items():
        here = f"{path}.{'*' if free else name}"
        if isinstance(kind, msgspec.inspect.StructType):
            inner = next(field.type for field in kind.fields if field.encode_name == name)
        elif isinstance(kind, msgspec.inspect.DictType):
            inner = kind.value_type
        if isinstance(value, dict):
            yield from written(value, inner, here)
        else:
            yield here


@files
def test_a_file_loads_as_it_is_shipped(name: str, kind: type[Any]) -> None:
    assert load(DEPLOY / name, kind).fleet == "home"


@files
def test_a_file_loads_with_everything_in_it_switched_on(name: str, kind: type[Any], tmp_path: Path) -> None:
    load(uncommented(name, tmp_path), kind)


@files
def test_a_file_shows_every_key_there_is(name: str, kind: type[Any], tmp_path: Path) -> None:
    info = msgspec.inspect.type_info(kind)
    tree = tomllib.loads(uncommented(name, tmp_path).read_text())
    assert set(written(tree, info)) == set(keys(info))


@files
@pytest.mark.parametrize("table", ["broker", "limits", "models"])
def test_the_values_in_comments_are_the_defaults(name: str, kind: type[Any], table: str, tmp_path: Path) -> None:
    shown = getattr(load(uncommented(name, tmp_path), kind), table)
    examples = {"host", "port", "username", "password_file", "ca_file", "certificate_file", "key_file"}
    examples |= {"max_packet_bytes", "allow", "bases", "keep", "memory_bytes", "disk_bytes"}
    for key in set(shown.__struct_fields__) - examples:
        assert getattr(shown, key) == getattr(type(shown)(), key), key


def test_the_server_of_compose_and_its_aggregator_meet() -> None:
    config = load(DEPLOY / "aggregator.toml", AggregatorConfig)
    compose = (DEPLOY / "compose.yaml").read_text()
    assert re.search(rf"^  {config.broker.host}:$", compose, re.MULTILINE)
    assert f"listener {config.broker.port}" in (DEPLOY / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    assert f"aggregator-state:{config.state_dir}" in compose
    assert f"./secrets/{config.broker.username}.password:{config.broker.password_file}:ro" in compose
    assert f"user {config.broker.username}" in (DEPLOY / "mosquitto" / "acl").read_text().splitlines()


def test_operators_come_in_by_the_port_that_only_the_server_can_reach() -> None:
    config = load(DEPLOY / "operator.toml", OperatorConfig)
    assert config.fleet == load(DEPLOY / "aggregator.toml", AggregatorConfig).fleet
    assert f'- "127.0.0.1:{config.broker.port}:{config.broker.port}"' in (DEPLOY / "compose.yaml").read_text()
    assert config.broker.password_file == f"secrets/{config.broker.username}.password"
    assert f"user {config.broker.username}" in (DEPLOY / "mosquitto" / "acl").read_text().splitlines()


def test_neither_file_holds_a_password() -> None:
    for name, _ in FILES:
        assert not re.search(r"^#?password\b *=", (DEPLOY / name).read_text(), re.MULTILINE)
