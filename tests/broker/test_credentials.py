"""TLS against a real mosquitto, with certificates made for the moment."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.credentials import tls_context
from broker.embedded import EmbeddedBroker, start_broker
from broker.transport import Offline, Online, Packet, TransportEvent

PATIENCE_S = 120.0


def make_certificate(folder: Path, name: str, days: int = 2) -> None:
    """Make a self-signed certificate for 127.0.0.1; negative days: one that has expired."""
    key, request, extensions = f"{folder}/{name}.key", f"{folder}/request", f"{folder}/extensions"
    Path(extensions).write_text("subjectAltName=IP:127.0.0.1\n")
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*new, "-keyout", key, "-out", request, "-subj", f"/CN={name}"], check=True, capture_output=True)
    sign = ["openssl", "x509", "-req", "-in", request, "-signkey", key, "-extfile", extensions]
    subprocess.run([*sign, "-days", str(days), "-out", f"{folder}/{name}.pem"], check=True, capture_output=True)


def start_tls_broker(folder: Path, days: int = 2) -> EmbeddedBroker:
    """Start a mosquitto that knows its clients by their certificates."""
    make_certificate(folder, "broker", days)
    make_certificate(folder, "device")
    lines = [f"cafile {folder}/device.pem", f"certfile {folder}/broker.pem", f"keyfile {folder}/broker.key"]
    return start_broker(folder, config_lines=[*lines, "require_certificate true"])


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[BrokerSettings]:
    with start_tls_broker(tmp_path) as broker:
        yield BrokerSettings(
            port=broker.port,
            ca_file=f"{tmp_path}/broker.pem",
            certificate_file=f"{tmp_path}/device.pem",
            key_file=f"{tmp_path}/device.key",
        )


def first_event(settings: BrokerSettings) -> TransportEvent | None:
    client = MqttTransport(settings, "me")
    client.open()
    event = client.take(PATIENCE_S)
    client.close()
    return event


def test_a_large_body_crosses_mutual_tls(settings: BrokerSettings) -> None:
    before = set(threading.enumerate())  # of tests before this one, too
    client = MqttTransport(settings, "me")
    client.subscribe("a")
    client.open()
    assert isinstance(client.take(PATIENCE_S), Online)
    body = bytes(range(256)) * 3125
    for _ in range(3):
        assert client.publish(Packet("a", body))
    assert [client.take(PATIENCE_S) for _ in range(3)] == [Packet("a", body)] * 3
    client.close()
    assert set(threading.enumerate()) <= before, "a thread is left over"


def test_a_certificate_of_another_authority_is_not_trusted(settings: BrokerSettings, tmp_path: Path) -> None:
    event = first_event(BrokerSettings(port=settings.port, ca_file=f"{tmp_path}/device.pem"))
    assert isinstance(event, Offline)
    assert "is not to be trusted" in event.reason


def test_a_client_without_a_certificate_is_told_something(settings: BrokerSettings) -> None:
    event = first_event(BrokerSettings(port=settings.port, ca_file=settings.ca_file))
    assert isinstance(event, Offline)


def test_an_expired_certificate_puts_the_clock_in_doubt(tmp_path: Path) -> None:
    with start_tls_broker(tmp_path, days=-1) as broker:
        event = first_event(BrokerSettings(port=broker.port, ca_file=f"{tmp_path}/broker.pem"))
    assert isinstance(event, Offline)
    assert "has expired" in event.reason
    assert "The clock may be wrong" in event.reason


def test_tls_to_a_port_that_speaks_none_asks_about_the_port(tmp_path: Path) -> None:
    make_certificate(tmp_path, "broker")
    with start_broker(tmp_path, prefer="mosquitto") as broker:
        event = first_event(BrokerSettings(port=broker.port, ca_file=f"{tmp_path}/broker.pem"))
    assert isinstance(event, Offline)
    assert "TLS" in event.reason or "cannot be reached" in event.reason


def test_no_tls_to_a_port_that_wants_it_suggests_tls(settings: BrokerSettings) -> None:
    event = first_event(BrokerSettings(port=settings.port))
    assert isinstance(event, Offline)
    assert "TLS" in event.reason


def test_no_broker_begins_tls_anew(tmp_path: Path) -> None:
    """One of TLS 1.2 that did and was silent then had a client that wrote try again at once, for ever."""
    make_certificate(tmp_path, "broker")
    context = tls_context(BrokerSettings(ca_file=f"{tmp_path}/broker.pem"))
    assert context is not None
    assert context.options & ssl.OP_NO_RENEGOTIATION
