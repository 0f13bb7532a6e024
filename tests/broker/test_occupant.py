"""A client that only has its id, on a real mosquitto."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from broker import occupant as module
from broker.connection import BrokerSettings
from broker.occupant import Occupant, connect_packet

WAIT_S = 120.0
Mosquitto = Any


def test_it_ends_whoever_has_the_id_and_notices_who_takes_it_back(mosquitto: Mosquitto) -> None:
    first, second = (Occupant(BrokerSettings(port=mosquitto.port), "one") for _ in range(2))
    first.enter()
    second.enter()
    assert first.is_out(WAIT_S)
    first.enter()
    assert second.is_out(WAIT_S)
    assert not first.is_out(0.1)
    second.close()
    first.close()
    assert first.is_out(0.0)


def test_it_pings_and_an_answer_is_no_end(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_S", 0.0)
    one = Occupant(BrokerSettings(port=mosquitto.port), "one")
    one.enter()
    for _ in range(5):
        assert not one.is_out(WAIT_S), "the answer to the ping"
    one.close()


def test_the_credentials_are_said(tmp_path: Any) -> None:
    (tmp_path / "password").write_text("secret\n")
    settings = BrokerSettings(username="me", password_file=str(tmp_path / "password"))
    packet = connect_packet(settings, "x" * 200)
    assert packet[1] & 128, "a length of two bytes"
    assert packet.endswith(b"\x00\x02me\x00\x06secret")
    assert connect_packet(BrokerSettings(), "x") == b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"", "closed the connection"), (b"HTTP", "is not MQTT"), (b"\x20\x02\x00\x05", "not allowed|authori")],
)
def test_why_it_is_not_let_in_is_said(answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1000)
                link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OSError, match=words):
            Occupant(BrokerSettings(port=server.getsockname()[1]), "one").enter()
        thread.join()


def test_a_broker_that_is_away_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match=f"{port}"):
        Occupant(BrokerSettings(port=port), "one").enter()
