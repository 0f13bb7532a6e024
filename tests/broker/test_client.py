"""What only a real network shows. Most tests play the broker by hand, byte by byte: nothing is left to chance."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.mailbox import Limits
from broker.transport import Denied, Event, Offline, Online, Packet, Usurped

PATIENCE_S = 10.0  # never waited for in a test that passes
SETTLE_S = 0.1  # how long we listen for what must not come

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_3 = b"\x20\x02\x00\x00"


class Frame(NamedTuple):
    kind: int
    body: bytes


class Peer:
    """The broker's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def read(self) -> Frame:
        first = self._exactly(1)[0]
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return Frame(first >> 4, self._exactly(length))

    def expect(self, kind: int) -> bytes:
        frame = self.read()
        assert frame.kind == kind, frame
        return frame.body

    def welcome(self, properties: bytes = b"") -> bytes:
        connect = self.expect(1)
        self.send(0x20, b"\0\0" + bytes([len(properties)]) + properties if connect[6] == 5 else b"\0\0")
        return connect

    def send(self, first: int, body: bytes = b"") -> None:
        self.sock.sendall(bytes([first]) + _varint(len(body)) + body)

    def deliver(self, topic: bytes, payload: bytes, mid: int = 0) -> None:
        packet_id = mid.to_bytes(2) if mid else b""
        self.send(0x32 if mid else 0x30, len(topic).to_bytes(2) + topic + packet_id + b"\0" + payload)

    def is_quiet(self) -> bool:
        return not select.select([self.sock], [], [], SETTLE_S)[0]

    def hang_up(self) -> None:
        self.sock.close()

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = self.sock.recv(n - len(data))
            assert piece, "the client hung up"
            data += piece
        return data


class Stage:
    """A port on which a test plays the broker."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.port: int = self.listener.getsockname()[1]
        self.peers: list[Peer] = []

    def accept(self) -> Peer:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_S)
        self.peers.append(Peer(sock))
        return self.peers[-1]

    def is_empty(self) -> bool:
        return not select.select([self.listener], [], [], SETTLE_S)[0]

    def close(self) -> None:
        self.listener.close()
        for peer in self.peers:
            peer.hang_up()


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


class Make:
    """Makes clients and closes them."""

    def __init__(self) -> None:
        self.clients: list[MqttTransport] = []

    def __call__(
        self, port: int, *filters: str, limits: Limits | None = None, will: Packet | None = None, **settings: object
    ) -> MqttTransport:
        broker = BrokerSettings(port=port, **{"protocol": "5"} | settings)  # type: ignore[arg-type]  # any setting
        client = MqttTransport(broker, "me", will, limits=limits or Limits(), first_retry_s=0.01, last_retry_s=0.05)
        self.clients.append(client)
        client.subscribe(*filters)
        client.open()
        return client


@pytest.fixture
def make() -> Iterator[Make]:
    before = set(threading.enumerate())
    make = Make()
    yield make
    for client in make.clients:
        client.close(0.0)
    assert set(threading.enumerate()) == before, "a thread is left over"


def take(client: MqttTransport) -> Event:
    event = client.take(PATIENCE_S)
    assert event is not None, "nothing came"
    return event


def offline_reason(client: MqttTransport) -> str:
    event = take(client)
    assert isinstance(event, Offline), event
    return event.reason


def is_quiet(client: MqttTransport) -> bool:
    return client.take(SETTLE_S) is None


def test_connect_asks_for_a_clean_start_and_announces_our_receive_maximum(stage: Stage, make: Make) -> None:
    make(stage.port, limits=Limits(receive_maximum=7, packet_bytes=1000), keepalive_s=30)
    connect = stage.accept().welcome()
    assert connect[:7] == b"\0\4MQTT\5"
    assert connect[7] == 0b10  # clean start, no will
    assert connect[8:10] == (30).to_bytes(2)
    assert b"\x21\x00\x07" in connect
    assert b"\x27" + (1000).to_bytes(4) in connect


def test_the_will_goes_out_with_connect(stage: Stage, make: Make) -> None:
    make(stage.port, will=Packet("will", b"gone", retain=True, expiry_s=5))
    connect = stage.accept().welcome()
    assert connect[7] == 0b101110  # clean start, will, QoS 1, retained
    assert connect.endswith(b"\0\4will\0\4gone")
    assert b"\2" + (5).to_bytes(4) in connect


def test_subscriptions_go_in_eights_and_online_waits_for_all(stage: Stage, make: Make) -> None:
    client = make(stage.port, *(f"topic/{index}" for index in range(20)))
    peer = stage.accept()
    peer.welcome()
    asked = [peer.expect(8) for _ in range(3)]
    assert [body.count(b"topic/") for body in asked] == [8, 8, 4]
    for body in asked[:2]:
        peer.send(0x90, body[:2] + b"\0" + b"\1" * 8)
    assert is_quiet(client)
    peer.send(0x90, asked[2][:2] + b"\0" + b"\1" * 4)
    assert isinstance(take(client), Online)


def test_a_refused_subscription_is_denied_and_the_rest_goes_on(stage: Stage, make: Make) -> None:
    client = make(stage.port, "a", "b")
    peer = stage.accept()
    peer.welcome()
    peer.send(0x90, peer.expect(8)[:2] + b"\0\x01\x87")
    assert take(client) == Denied("b", "the broker refused to subscribe: Not authorized")
    assert isinstance(take(client), Online)


def test_a_packet_is_acknowledged_when_it_is_taken(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", b"1", mid=7)
    assert peer.is_quiet()
    assert take(client) == Packet("a", b"1")
    assert peer.expect(4)[:2] == b"\0\7"


def test_a_receipt_of_an_old_connection_is_not_sent_on_the_next(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    old = stage.accept()
    old.welcome()
    take(client)
    old.deliver(b"a", b"1", mid=7)
    deadline = time.monotonic() + PATIENCE_S
    while not client.counters.received_packets and time.monotonic() < deadline:
        time.sleep(0.001)
    old.hang_up()
    new = stage.accept()
    new.welcome()
    assert take(client) == Packet("a", b"1")
    assert new.is_quiet()


def test_nothing_stale_is_sent_again_after_a_reconnect(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    old = stage.accept()
    old.welcome()
    take(client)
    assert client.publish(Packet("a", b"1"))
    old.expect(3)
    old.hang_up()
    new = stage.accept()
    assert new.welcome()[7] == 0b10
    assert isinstance(take(client), Offline)
    assert isinstance(take(client), Online)
    assert new.is_quiet()
    assert client.room == Limits().outbound_packets


def test_the_brokers_receive_maximum_is_obeyed(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome(b"\x21\x00\x02")
    take(client)
    for index in range(5):
        assert client.publish(Packet(f"n/{index}", b""))
    seen = []
    for _ in range(2):
        body = peer.expect(3)
        seen.append(body[5:7])
    assert peer.is_quiet()
    for mid in seen:
        peer.send(0x40, mid)
    assert [peer.expect(3)[4:5] for _ in range(2)] == [b"2", b"3"]
    assert peer.is_quiet()


def test_mosquitto_with_a_receive_maximum_of_one_takes_everything(tmp_path: Path, make: Make) -> None:
    with start_broker(tmp_path, config_lines=["max_inflight_messages 1"]) as broker:
        client = make(broker.port, "n")
        assert isinstance(take(client), Online)
        for index in range(100):
            assert client.publish(Packet("n", bytes([index])))
        assert [take(client) for _ in range(100)] == [Packet("n", bytes([index])) for index in range(100)]


def test_an_oversize_packet_is_denied_unsent_and_the_connection_stays(tmp_path: Path, make: Make) -> None:
    with start_broker(tmp_path, config_lines=["max_packet_size 1000"]) as broker:
        client = make(broker.port, "big", "small")
        assert take(client) == Online(1000)
        assert client.publish(Packet("big", bytes(2000))) is True
        denied = take(client)
        assert isinstance(denied, Denied)
        assert (denied.topic, "1000" in denied.reason) == ("big", True)
        fits = Packet("big", bytes(1000 - 2 - 1 - 5 - 2 - 1))
        for _ in range(2):  # the second time an alias would not fit along, nor would the topic be missed
            assert client.publish(fits)
            assert take(client) == fits
        assert client.publish(Packet("big", bytes(len(fits.payload) + 1)))
        assert isinstance(take(client), Denied)
        assert is_quiet(client)


def test_a_publish_that_the_broker_refuses_is_denied(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    client.publish(Packet("secret", b"1"))
    mid = peer.expect(3)[8:10]
    peer.send(0x40, mid + b"\x87\0")
    assert take(client) == Denied("secret", "the broker refused to publish: Not authorized")


def test_a_client_whose_name_was_taken_stops_for_good(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.send(0xE0, b"\x8e\0")
    assert take(client) == Usurped()
    assert stage.is_empty()
    assert client.publish(Packet("a", b"")) is False


def test_another_goodbye_of_the_broker_is_told_and_outlived(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.send(0xE0, b"\x8b\0")
    peer.hang_up()
    assert offline_reason(client) == "the broker is shutting down"
    stage.accept().welcome()
    assert isinstance(take(client), Online)


@pytest.mark.parametrize(
    ("code", "words"), [(0x86, "user name and password"), (0x87, "not authorised"), (0x97, "Quota exceeded")]
)
def test_a_refusal_is_put_into_words(stage: Stage, make: Make, code: int, words: str) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.expect(1)
    peer.send(0x20, bytes([0, code, 0]))
    peer.hang_up()
    assert words in offline_reason(client)


def test_a_bad_password_on_mqtt_3_is_put_into_words(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="3.1.1")
    peer = stage.accept()
    peer.expect(1)
    peer.send(0x20, b"\0\4")
    assert "user name and password" in offline_reason(client)


def test_auto_falls_back_when_the_version_is_refused(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    assert newer.expect(1)[6] == 5
    newer.send(0x20, b"\0\x84\0")
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


def test_auto_falls_back_when_an_old_broker_refuses_in_its_own_words(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    newer.expect(1)
    newer.send(0x20, b"\0\1")
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


def test_auto_falls_back_when_the_broker_hangs_up(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    newer.expect(1)
    newer.hang_up()
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


def test_auto_tries_mqtt_5_again_after_a_connection_was_lost(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    stage.accept().hang_up()
    older = stage.accept()
    assert older.welcome()[6] == 4
    older.hang_up()
    assert stage.accept().welcome()[6] == 5


def test_a_refused_password_is_no_reason_to_fall_back(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    for _ in range(2):
        peer = stage.accept()
        assert peer.expect(1)[6] == 5
        peer.send(0x20, b"\0\x86\0")


def test_a_server_that_says_nothing_is_given_up_and_called_again(stage: Stage, make: Make) -> None:
    client = make(stage.port, connect_timeout_s=0.1)
    stage.accept()
    assert "did not answer in 0.1 s" in offline_reason(client)
    stage.accept().welcome()
    assert isinstance(take(client), Online)


def test_close_does_not_wait_for_a_server_that_says_nothing(stage: Stage, make: Make) -> None:
    client = make(stage.port, connect_timeout_s=1000)
    stage.accept().expect(1)
    client.close(0.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "mqtt-me"]


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64])
def test_another_service_is_recognised_as_not_mqtt(stage: Stage, make: Make, greeting: bytes) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.expect(1)
    with contextlib.suppress(OSError):  # the client may hang up at the first byte
        peer.sock.sendall(greeting)
        peer.sock.shutdown(socket.SHUT_WR)
    assert offline_reason(client)
    stage.accept().welcome()
    assert isinstance(take(client), Online)


def test_no_garbage_kills_the_client(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    chance = random.Random(1)  # noqa: S311 -- garbage, not secrets
    for round_ in range(60):
        peer = stage.accept()
        peer.welcome()
        kind = chance.choice([2, 3, 4, 9, 11, 13, 14, 15, 0])
        body = chance.randbytes(chance.randrange(12))
        with contextlib.suppress(OSError):  # the client may hang up at the first byte
            peer.send(kind << 4 | chance.choice([0, 2, 4, 6]), body)
            if round_ % 2:
                peer.sock.sendall(chance.randbytes(64))
            peer.sock.shutdown(socket.SHUT_WR)
    last = stage.accept()
    last.welcome()
    last.deliver(b"a", b"alive")
    while take(client) != Packet("a", b"alive"):
        pass


def test_a_flood_beyond_the_inbox_is_dropped_and_counted(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=Limits(inbox_packets=3))
    peer = stage.accept()
    peer.welcome()
    take(client)
    for index in range(5):
        peer.deliver(b"a", bytes([index]))
    peer.deliver(b"a", b"6", mid=9)
    assert peer.expect(4)[:2] == b"\0\x09"  # the dropped one is acknowledged, or the broker would keep it open
    assert [take(client) for _ in range(3)] == [Packet("a", bytes([index])) for index in range(3)]
    assert client.counters.dropped_packets == 3
    peer.deliver(b"a", b"room again")
    assert take(client) == Packet("a", b"room again")


def test_the_inbox_is_bounded_in_bytes_but_takes_one_of_any_size(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=Limits(inbox_bytes=10))
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", bytes(50))
    peer.deliver(b"a", b"1")
    peer.deliver(b"b", b"", mid=1)
    assert peer.expect(4)
    assert take(client) == Packet("a", bytes(50))
    assert client.counters.dropped_packets == 2


def test_the_outbound_queue_is_bounded_in_packets_and_bytes(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=Limits(outbound_packets=3, outbound_bytes=100))
    peer = stage.accept()
    peer.welcome()
    take(client)
    assert client.room == 3
    assert client.publish(Packet("a", bytes(200)))
    assert client.room == 0
    assert not client.publish(Packet("a", b"1"))
    peer.send(0x40, peer.expect(3)[3:5])
    while not client.room:
        time.sleep(0.001)
    assert [client.publish(Packet("a", b"1")) for _ in range(4)] == [True, True, True, False]


def test_a_file_that_is_missing_is_named(stage: Stage, make: Make, tmp_path: Path) -> None:
    missing = str(tmp_path / "password")
    client = make(stage.port, username="me", password_file=missing)
    assert offline_reason(client) == f"{missing} cannot be read: No such file or directory"


def test_user_name_and_the_first_line_of_the_password_file_are_sent(stage: Stage, make: Make, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\nnot this\n")
    make(stage.port, username="me", password_file=str(tmp_path / "password"))
    assert stage.accept().welcome().endswith(b"\0\2me\0\6s3cret")


def test_tls_files_that_are_none_are_named(stage: Stage, make: Make, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    client = make(stage.port, ca_file=str(tmp_path / "ca.pem"))
    assert str(tmp_path / "ca.pem") in offline_reason(client)


def test_a_port_where_nobody_listens_is_said_once(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = make(port)
    assert offline_reason(client) == f"nobody listens on 127.0.0.1:{port}"
    assert is_quiet(client)


def test_a_broker_killed_and_started_again_is_found_again(mosquitto: EmbeddedBroker, make: Make) -> None:
    client = make(mosquitto.port, "a")
    take(client)
    mosquitto.kill()
    assert isinstance(take(client), Offline)
    assert "nobody listens" in offline_reason(client)
    mosquitto.start()
    assert isinstance(take(client), Online)
    client.publish(Packet("a", b"back"))
    assert take(client) == Packet("a", b"back")


def test_a_quiet_connection_is_kept_alive_by_pings(stage: Stage, make: Make) -> None:
    client = make(stage.port, keepalive_s=1)
    peer = stage.accept()
    peer.welcome()
    take(client)
    for _ in range(2):
        peer.expect(12)
        peer.send(0xD0)
    assert is_quiet(client)


def test_a_keepalive_of_the_brokers_own_is_kept(stage: Stage, make: Make) -> None:
    client = make(stage.port, keepalive_s=1000)
    peer = stage.accept()
    peer.welcome(b"\x13\0\1")
    take(client)
    peer.expect(12)


def test_a_server_that_drips_without_ever_answering_is_given_up(stage: Stage, make: Make) -> None:
    client = make(stage.port, connect_timeout_s=0.3)
    peer = stage.accept()
    peer.expect(1)
    event = None
    with contextlib.suppress(OSError):
        peer.sock.sendall(b"\x20\xff\xff\x7f")  # a CONNACK of two megabytes
        while event is None:
            peer.sock.sendall(b"\0")
            event = client.take(0.05)
    assert "did not answer" in (event.reason if isinstance(event, Offline) else offline_reason(client))


def test_a_dead_connection_is_noticed(stage: Stage, make: Make) -> None:
    client = make(stage.port, keepalive_s=1)
    stage.accept().welcome()
    take(client)
    assert "nothing was heard" in offline_reason(client)


def test_wake_ends_a_wait_from_another_thread(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    timer = threading.Timer(0.05, client.wake)
    timer.start()
    assert client.take(None) is None
    timer.join()


def test_wake_ends_a_wait_from_a_signal_handler(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    old = signal.signal(signal.SIGUSR1, lambda *_: client.wake())
    try:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert client.take(None) is None
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_close_flushes_what_was_taken_and_says_goodbye(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    assert client.publish(Packet("a", b"1"))
    closing = threading.Thread(target=client.close, args=(PATIENCE_S,))
    closing.start()
    mid = peer.expect(3)[3:5]
    assert peer.is_quiet()
    peer.send(0x40, mid)
    assert peer.read().kind == 14
    peer.hang_up()
    closing.join()


def test_close_gives_up_on_what_is_never_acknowledged(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    assert client.publish(Packet("a", b"1"))
    peer.expect(3)
    client.close(0.05)
    assert peer.read().kind == 14


def test_a_client_that_was_never_opened_closes() -> None:
    client = MqttTransport(BrokerSettings(), "me")
    client.subscribe("a")
    client.close()
    client.open()
    assert client.take(0.0) is None


def test_a_will_with_wildcards_is_the_owners_mistake() -> None:
    with pytest.raises(ValueError, match="topic name"):
        MqttTransport(BrokerSettings(), "me", Packet("a/#", b""))
