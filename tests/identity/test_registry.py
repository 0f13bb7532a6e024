from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from identity.keys import SigningKey, text_of
from identity.registry import LOOK_S, Enrolled, Registry, RegistryError, WatchedRegistry
from tests.clocks import Clock

ONE, TWO = (SigningKey(bytes((n,)) * 32) for n in range(2))


def write(path: Path, **devices: Enrolled) -> None:
    new = path.with_name("new")
    new.write_bytes(msgspec.json.encode(Registry("f", devices)))
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "registry.json", d1=Enrolled(text_of(ONE.public)), d2=Enrolled(text_of(TWO.public), revoked=True))
    return tmp_path / "registry.json"


def test_the_keys_of_the_enrolled_are_known_and_those_of_the_revoked_are_not(path: Path) -> None:
    watched = WatchedRegistry(path, "f")
    assert (watched.key_of("d1"), watched.key_of("d2"), watched.key_of("d3")) == (ONE.public, None, None)


def test_who_is_revoked_or_enrolled_anew_is_told_of_within_a_second(path: Path) -> None:
    clock = Clock()
    watched = WatchedRegistry(path, "f", clock)
    write(path, d1=Enrolled(text_of(ONE.public), revoked=True))
    assert (watched.look(), watched.key_of("d1")) == ([], ONE.public)
    clock.now += LOOK_S
    assert (watched.look(), watched.key_of("d1")) == (["d1"], None)
    clock.now += LOOK_S
    assert watched.look() == []
    write(path, d1=Enrolled(text_of(TWO.public), epoch=2))
    clock.now += LOOK_S
    assert (watched.look(), watched.key_of("d1")) == ([], TWO.public)


@pytest.mark.parametrize("how", ["gone", "damaged", "of another fleet"])
def test_the_last_one_that_could_be_read_goes_on_holding(
    path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    watched = WatchedRegistry(path, "f", clock)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"{" if how == "damaged" else msgspec.json.encode(Registry("g", {})))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            clock.now += LOOK_S
            assert watched.look() == []
    assert watched.key_of("d1") == ONE.public
    assert len(caplog.records) == 1
    assert "are believed until it can be read" in caplog.text
    write(path)
    clock.now += LOOK_S
    assert (watched.look(), watched.key_of("d1")) == (["d1"], None)


def test_one_that_could_not_be_read_is_read_once_it_can_be_though_nobody_writes_it_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    watched = WatchedRegistry(path, "f", clock)
    write(path, d1=Enrolled(text_of(ONE.public), revoked=True))
    with monkeypatch.context() as patch:  # a mode of 0600 does not keep root out
        patch.setattr(Path, "open", _denied)
        clock.now += LOOK_S
        assert (watched.look(), watched.key_of("d1")) == ([], ONE.public)
    clock.now += LOOK_S
    assert (watched.look(), watched.key_of("d1")) == (["d1"], None)


def _denied(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_registry_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="cannot be read"):
        WatchedRegistry(tmp_path / "registry.json", "f")
