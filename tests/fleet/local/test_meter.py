from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.transport import Offline, Online, Packet
from fleet.local.meter import Meter

PATIENCE_S = 120.0


@pytest.fixture
def meter(mosquitto: EmbeddedBroker) -> Iterator[Meter]:
    meter = Meter(mosquitto.host, mosquitto.port)
    meter.start()
    yield meter
    meter.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "meter"]


class Echo:
    """Accepts one connection at a time and sends back what comes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            while data := sock.recv(65_536):
                sock.sendall(data)

    def close(self) -> None:
        self.thread.join()
        self.listener.close()


def connect(port: int, client_id: str, *filters: str, protocol: str = "5", will: Packet | None = None) -> MqttTransport:
    client = MqttTransport(BrokerSettings(port=port, protocol=protocol), client_id, will)  # type: ignore[arg-type]
    client.subscribe(*filters)
    client.open()
    assert isinstance(client.take(PATIENCE_S), Online)
    return client


def send_all(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_payloads_are_counted_by_client_direction_and_word(meter: Meter, protocol: str) -> None:
    body, control = bytes(800_000), b"counted"
    device = connect(meter.port, "device", "fedge/1/f/verdict/device", protocol=protocol)
    server = connect(meter.port, "server", "fedge/1/f/chunk/#", protocol=protocol)
    device.publish(Packet("fedge/1/f/chunk/job/device", body))
    assert server.take(PATIENCE_S) == Packet("fedge/1/f/chunk/job/device", body)
    server.publish(Packet("fedge/1/f/verdict/device", control))
    assert device.take(PATIENCE_S) == Packet("fedge/1/f/verdict/device", control)
    device.close()
    server.close()
    counted = meter.by_client()
    assert set(counted) == {"device", "server"}
    assert (counted["device"].up.payload_bytes, counted["device"].down.payload_bytes) == (800_000, 7)
    assert counted["device"].up.words == counted["server"].down.words == {"chunk": 800_000}
    assert counted["device"].down.words == counted["server"].up.words == {"verdict": 7}
    assert counted["device"].up.packets == {
        "CONNECT": 1,
        "SUBSCRIBE": 1,
        "PUBLISH": 1,
        "PUBACK": 1,
        "DISCONNECT": 1,
    }
    total = meter.totals()
    assert total.up.payload_bytes == total.down.payload_bytes == 800_007
    assert 800_007 < total.up.wire_bytes < 800_007 + 500
    assert total.up.garbage_bytes == total.down.garbage_bytes == 0


def test_a_client_that_comes_back_is_counted_on(meter: Meter) -> None:
    for _ in range(3):
        client = connect(meter.port, "device")
        client.publish(Packet("a", b"12345"))
        client.close()
    assert meter.by_client()["device"].up.words == {"other": 15}


def test_what_was_counted_is_a_copy(meter: Meter) -> None:
    client = connect(meter.port, "device")
    before = meter.totals()
    client.publish(Packet("a", b"12345"))
    client.close()
    assert before.up.payload_bytes == 0
    assert meter.totals().up.payload_bytes == 5


def test_stopping_cuts_the_cable_so_that_the_will_is_published(meter: Meter, mosquitto: EmbeddedBroker) -> None:
    watcher = connect(mosquitto.port, "watcher", "will")
    client = connect(meter.port, "device", will=Packet("will", b"gone"))
    meter.stop()
    assert isinstance(client.take(PATIENCE_S), Offline)
    assert watcher.take(PATIENCE_S) == Packet("will", b"gone")
    port = meter.port
    assert meter.start(port) == port
    while not isinstance(client.take(PATIENCE_S), Online):
        pass
    client.close()
    watcher.close()


def test_garbage_passes_unchanged_and_is_counted() -> None:
    echo = Echo()
    meter = Meter(*echo.listener.getsockname())
    data = b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 1000
    with socket.create_connection(("127.0.0.1", meter.start()), PATIENCE_S) as sock:
        sender = threading.Thread(target=send_all, args=(sock, data))
        sender.start()
        back = b"".join(iter(lambda: sock.recv(65_536), b""))
        sender.join()
    echo.close()
    meter.stop()
    assert back == data
    total = meter.by_client()[""]
    assert total.up.wire_bytes == total.down.wire_bytes == len(data)
    assert total.up.garbage_bytes > 256_000


def test_a_connection_that_says_no_connect_is_counted_while_it_is_open_and_once() -> None:
    echo = Echo()
    meter = Meter(*echo.listener.getsockname())
    hello = b"\x16\x03\x01\x00\x05hello"  # a record of TLS, which nobody but its two ends can read
    with socket.create_connection(("127.0.0.1", meter.start()), PATIENCE_S) as sock:
        sock.sendall(hello)
        assert sock.recv(len(hello), socket.MSG_WAITALL) == hello
        assert meter.totals().up.wire_bytes == meter.totals().down.wire_bytes == len(hello)
    echo.close()
    meter.stop()
    total = meter.by_client()[""]
    assert total.up.wire_bytes == total.down.wire_bytes == total.up.garbage_bytes == len(hello)


def test_a_reader_that_stalls_stalls_the_sender_and_not_the_meter() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = Meter(*listener.getsockname())
        with socket.create_connection(("127.0.0.1", meter.start()), PATIENCE_S) as sender:
            stalled, _ = listener.accept()
            sender.setblocking(False)
            sent, until = 0, time.monotonic() + PATIENCE_S
            quiet = 0
            while quiet < 20 and time.monotonic() < until:
                try:
                    sent += sender.send(bytes(1_000_000))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    time.sleep(0.01)
            assert quiet == 20, "the meter swallows without end"
            assert meter.totals().up.wire_bytes <= sent
            stalled.close()
        meter.stop()


def test_a_broker_that_is_away_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    meter = Meter(*address)
    sock = socket.create_connection(("127.0.0.1", meter.start()), PATIENCE_S)
    with sock, contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    meter.stop()


def test_a_port_that_is_taken_is_an_error(mosquitto: EmbeddedBroker) -> None:
    with pytest.raises(OSError, match="in use"):
        Meter(mosquitto.host, mosquitto.port).start(mosquitto.port)
