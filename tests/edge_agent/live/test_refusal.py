from __future__ import annotations

import socket
from pathlib import Path

import pytest

from broker.connection import BrokerSettings
from edge_agent.live.refusal import same_as_found, same_as_written


def at(host: str, port: int = 1883, **more: str) -> BrokerSettings:
    return BrokerSettings(host=host, port=port, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "fleet"),
    [("a.example", "A.example."), ("localhost", "127.0.0.1"), ("::1", "localhost"), ("10.0.0.1", "10.0.0.1")],
)
def test_the_same_place_in_other_letters_is_the_fleets_broker(one: str, fleet: str) -> None:
    assert "is the broker of the fleet itself" in same_as_written(at(one), at(fleet))
    assert same_as_written(at(one, 1884), at(fleet)) == ""


def test_names_are_looked_up_and_every_address_of_loopback_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"site": ["10.0.0.7"], "fleet": ["10.0.0.8", "10.0.0.7"], "me": ["127.0.1.1"], "localhost": ["127.0.0.1"]}

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "site is 10.0.0.7, as fleet is" in same_as_found(at("site"), at("fleet"))
    assert "the broker of the fleet itself" in same_as_found(at("me"), at("localhost"))
    assert same_as_found(at("site", 1884), at("fleet")) == ""
    assert same_as_found(at("site"), at("nobody")) == ""
    assert same_as_found(at("nobody"), at("no one")) == ""


def test_credentials_of_the_fleets_broker_are_refused(tmp_path: Path) -> None:
    for name, text in (("one", "secret\n"), ("same", "secret\nand more"), ("other", "secret2\n")):
        (tmp_path / name).write_text(text)

    def who(name: str, host: str, user: str = "d") -> BrokerSettings:
        return at(host, username=user, password_file=str(tmp_path / name))

    fleet = who("one", "192.0.2.1")
    assert "password_file is that of the fleet's broker" in same_as_written(who("one", "192.0.2.2"), fleet)
    assert same_as_written(who("same", "192.0.2.2"), fleet) == ""
    assert "username and password are those of the fleet's broker" in same_as_found(who("same", "192.0.2.2"), fleet)
    assert same_as_found(who("other", "192.0.2.2"), fleet) == ""
    assert same_as_found(who("same", "192.0.2.2", "another"), fleet) == ""
    certified = at("192.0.2.1", certificate_file="c", key_file="k", ca_file="ca")
    assert "key_file is that of" in same_as_written(at("192.0.2.2", certificate_file="d", key_file="k"), certified)
