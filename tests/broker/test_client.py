"""What only a real network shows. Most tests play the broker by hand, byte by byte: nothing is left to chance."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import select
import signal
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from broker import reasons
from broker.client import MqttTransport, _Link
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.mailbox import ClientLimits
from broker.splice import Splice
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, TransportEvent, wire_bytes

PATIENCE_S = 120.0  # never waited for in a test that passes
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
        self,
        port: int,
        *filters: str,
        limits: ClientLimits | None = None,
        will: Packet | None = None,
        **settings: object,
    ) -> MqttTransport:
        broker = BrokerSettings(port=port, **{"protocol": "5"} | settings)  # type: ignore[arg-type]  # any setting
        client = MqttTransport(
            broker, "me", will, limits=limits or ClientLimits(), first_retry_s=0.01, last_retry_s=0.05
        )
        self.clients.append(client)
        client.subscribe(*filters)
        client.open()
        return client


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("broker.client._END_S", PATIENCE_S)  # a busy machine may take longer to end a thread
    before = set(threading.enumerate())
    make = Make()
    yield make
    for client in make.clients:
        client.close(0.0)
    assert set(threading.enumerate()) <= before, "a thread is left over"


class Clock:
    """The clock that connections are watched by. Put forward, it makes one give up that would wait for long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.late_s, self.n_looks = 0.0, 0
        monkeypatch.setattr("broker.client.time", SimpleNamespace(monotonic=self._look))

    def _look(self) -> float:
        self.n_looks += threading.current_thread() is not threading.main_thread()
        return time.monotonic() + self.late_s

    def put_forward(self, seconds: float, client: MqttTransport) -> None:
        """Let a client that has sent its CONNECT, and is not online, see so many seconds pass."""
        looks = self.n_looks + 2  # one of them may be that from which on the answer is waited for
        client.unsubscribe("anything")  # has the network thread look at the clock
        wait_until(lambda: self.n_looks >= looks)
        self.late_s += seconds
        client.unsubscribe("anything")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def take(client: MqttTransport) -> TransportEvent:
    event = client.take(PATIENCE_S)
    assert event is not None, "nothing came"
    return event


def offline_reason(client: MqttTransport) -> str:
    event = take(client)
    assert isinstance(event, Offline), event
    return event.reason


def wait_for_online(client: MqttTransport) -> None:
    while not isinstance(take(client), Online):
        pass


NAMES = itertools.count()


def says_nothing(client: MqttTransport, peer: Peer) -> bool:
    """Return whether the client has nothing to say but what it is asked to, twice: its thread has then gone round."""
    for _ in range(2):
        client.subscribe(f"asked/{next(NAMES)}")
        if peer.read().kind != 8:
            return False
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


def test_connect_asks_for_a_clean_start_and_announces_our_receive_maximum(stage: Stage, make: Make) -> None:
    make(stage.port, limits=ClientLimits(receive_maximum=7, packet_bytes=1000), keepalive_s=30)
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
    peer.deliver(b"topic/0", b"early")
    wait_until(lambda: client.counters.received_packets == 1)
    assert client.take(0.0) is None
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
    wait_until(lambda: client.counters.received_packets == 1)
    assert says_nothing(client, peer)
    assert take(client) == Packet("a", b"1")
    assert peer.expect(4)[:2] == b"\0\7"


def test_a_receipt_of_an_old_connection_is_not_sent_on_the_next(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    old = stage.accept()
    old.welcome()
    take(client)
    old.deliver(b"a", b"1", mid=7)
    wait_until(lambda: client.counters.received_packets == 1)
    old.hang_up()
    new = stage.accept()
    new.welcome()
    assert take(client) == Packet("a", b"1")
    assert isinstance(take(client), Offline)
    assert isinstance(take(client), Online)
    assert says_nothing(client, new)


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
    assert says_nothing(client, new)
    assert client.room == ClientLimits().outbound_packets


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
    assert says_nothing(client, peer)
    for mid in seen:
        peer.send(0x40, mid)
    assert [peer.expect(3)[4:5] for _ in range(2)] == [b"2", b"3"]
    assert says_nothing(client, peer)


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
        assert client.publish(Packet("small", b"last"))
        assert take(client) == Packet("small", b"last")


LARGE = Packet("large", bytes(100_000))


def end_on(stage: Stage, client: MqttTransport, packet: Packet) -> list[TransportEvent]:
    """Play a broker that hangs up on this packet; give what its owner hears from Online to Offline."""
    peer = stage.accept()
    peer.welcome()
    wait_for_online(client)
    assert client.publish(packet)
    peer.expect(3)
    peer.hang_up()
    heard = [take(client)]
    while not isinstance(heard[-1], Offline):
        heard.append(take(client))
    return heard


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_packet_that_a_silent_broker_hangs_up_on_is_given_up_and_the_owner_cuts_finer(
    stage: Stage, make: Make, protocol: str
) -> None:
    client = make(stage.port, protocol=protocol)
    for _ in range(2):
        assert end_on(stage, client, LARGE) == [Offline("the connection was lost")]
    stage.accept().hang_up()  # no connection, so it proves nothing either way
    denied, _ = end_on(stage, client, LARGE)
    assert isinstance(denied, Denied)
    assert denied.topic == "large"
    assert f"{wire_bytes(LARGE)} bytes" in denied.reason
    assert "max_packet_bytes in [broker]" in denied.reason
    peer = stage.accept()
    peer.welcome()
    online = take(client)
    assert online == Online(wire_bytes(LARGE) // 2)
    assert client.publish(LARGE)
    assert isinstance(take(client), Denied)
    assert client.publish(Packet("large", LARGE.payload[:40_000]))
    assert len(peer.expect(3)) > 40_000


def test_a_packet_is_not_given_up_when_one_as_large_arrived(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    for _ in range(5):
        peer = stage.accept()
        peer.welcome()
        assert take(client) == Online(None)
        assert client.publish(Packet("other", LARGE.payload))
        peer.send(0x40, peer.expect(3)[7:9])
        assert client.publish(LARGE)
        peer.expect(3)
        peer.hang_up()
        assert offline_reason(client) == "the connection was lost"


def test_a_flaky_link_that_loses_small_packets_changes_nothing(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    for _ in range(6):
        assert end_on(stage, client, Packet("small", bytes(8000))) == [Offline("the connection was lost")]
    stage.accept().welcome()
    assert take(client) == Online(None)


def test_silence_blames_no_packet(stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    late_s = 0.0
    monkeypatch.setattr("broker.client.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s))
    client = make(stage.port)
    for _ in range(4):
        peer = stage.accept()
        peer.welcome()
        assert take(client) == Online(None)
        assert client.publish(LARGE)
        peer.expect(3)
        late_s += 90.0
        client.unsubscribe("anything")  # has the network thread look at the clock
        assert "nothing was heard" in offline_reason(client)


def test_a_broker_that_says_too_large_is_believed_at_once(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    assert take(client) == Online(None)
    assert client.publish(Packet("small", b""))
    assert client.publish(LARGE)
    peer.expect(3)
    peer.expect(3)
    peer.send(0xE0, b"\x95\0")
    denied = take(client)
    assert isinstance(denied, Denied)
    assert denied.topic == "large"
    assert "Packet too large" in offline_reason(client)
    stage.accept().welcome()
    assert take(client) == Online(wire_bytes(LARGE) // 2)


@pytest.mark.parametrize(("told", "holds"), [(None, 3000), (2500, 2500), (4000, 3000)])
def test_the_smaller_of_what_broker_and_operator_say_holds(
    stage: Stage, make: Make, told: int | None, holds: int
) -> None:
    client = make(stage.port, max_packet_bytes=told)
    stage.accept().welcome(b"\x27" + (3000).to_bytes(4))
    assert take(client) == Online(holds)


def test_what_the_operator_says_holds_on_mqtt_3_too(mosquitto: EmbeddedBroker, make: Make) -> None:
    client = make(mosquitto.port, "a", protocol="3.1.1", max_packet_bytes=2048)
    assert take(client) == Online(2048)
    assert client.publish(Packet("a", bytes(2048)))
    denied = take(client)
    assert isinstance(denied, Denied)
    assert "max_packet_bytes in [broker]" in denied.reason
    assert client.publish(Packet("a", bytes(2000)))
    assert take(client) == Packet("a", bytes(2000))


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_body_reaches_a_mosquitto_that_takes_64_kilobytes(tmp_path: Path, make: Make, protocol: str) -> None:
    """The owner sends all of its body at each connect, in pieces of what `Online` says, as both services do."""
    with start_broker(tmp_path, config_lines=["max_packet_size 65536"]) as broker:
        client = make(broker.port, "body", protocol=protocol)
        body, arrived, n_online = random.Random(1).randbytes(300_000), b"", 0  # noqa: S311 -- a body, no secret
        while len(arrived) < len(body):
            match take(client):
                case Online(max_packet_bytes):
                    size, arrived, n_online = min(100_000, max_packet_bytes or 100_000) - 100, b"", n_online + 1
                    for start in range(0, len(body), size):
                        client.publish(Packet("body", body[start : start + size]))  # the broker may hang up meanwhile
                case Packet("body", piece):
                    arrived += piece
                case Denied(_, reason):
                    assert "max_packet_bytes in [broker]" in reason
        assert arrived == body
        assert n_online == (1 if protocol == "5" else 4)


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
    assert take(client) == SessionTakenOver()
    wait_until(lambda: not any(thread.name == "mqtt-me" for thread in threading.enumerate()))
    assert not select.select([stage.listener], [], [], 0.0)[0]  # whoever could call again has gone
    assert client.publish(Packet("a", b"")) is False


def test_a_fault_of_our_own_is_told_and_outlived(
    mosquitto: EmbeddedBroker, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(mosquitto.port)
    wait_for_online(client)
    with monkeypatch.context() as patch:
        patch.setattr(client._mailbox, "next_changes", lambda: (_ for _ in ()).throw(RuntimeError("mutated")))
        client.subscribe("a")
        assert offline_reason(client) == "a fault of this program: RuntimeError: mutated"
    wait_for_online(client)
    assert client.publish(Packet("a", b"said"))
    assert take(client) == Packet("a", b"said")


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
    ("code", "words"),
    [(0x86, "user name and password"), (0x87, "is the password the right one"), (0x97, "Quota exceeded")],
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


def test_auto_falls_back_when_the_version_is_refused_by_a_disconnect(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    newer.expect(1)
    newer.send(0xE0, b"\x84\0")
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


def test_auto_falls_back_when_an_old_broker_refuses_in_its_own_words(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    newer.expect(1)
    newer.send(0x20, b"\0\1")
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


@pytest.mark.parametrize(
    "answer", [b"\x20\x02\x00\x00", b"\x20\x02\x00\x04", b"\x20\x01\x00", b"\x10\x00", b"\xff\xff"]
)
def test_auto_falls_back_when_the_answer_is_not_mqtt_5(stage: Stage, make: Make, answer: bytes) -> None:
    client = make(stage.port, protocol="auto")
    newer = stage.accept()
    newer.expect(1)
    newer.sock.sendall(answer + b"\xff" * 8)
    assert stage.accept().welcome()[6] == 4
    assert isinstance(take(client), Online)


def test_auto_falls_back_when_the_broker_closes_unanswered_twice_running(stage: Stage, make: Make) -> None:
    client = make(stage.port, protocol="auto")
    for _ in range(2):
        newer = stage.accept()
        assert newer.expect(1)[6] == 5
        newer.hang_up()
    assert stage.accept().welcome()[6] == 4
    assert "without an answer" in offline_reason(client)
    assert isinstance(take(client), Online)


def test_a_port_that_hangs_up_until_its_broker_is_there_ends_up_on_mqtt_5(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    for version in (5, 5, 4, 5, 4):
        peer = stage.accept()
        assert peer.expect(1)[6] == version
        peer.hang_up()
    assert stage.accept().welcome()[6] == 5


def test_a_busy_broker_is_asked_for_mqtt_5_until_it_answers(stage: Stage, clock: Clock, make: Make) -> None:
    client = make(stage.port, protocol="auto", connect_timeout_s=30)
    for _ in range(3):
        assert stage.accept().expect(1)[6] == 5
        clock.put_forward(30.0, client)
    assert "did not answer in 30 s" in offline_reason(client)
    assert stage.accept().welcome()[6] == 5
    assert isinstance(take(client), Online)


def test_a_broker_that_answers_after_six_seconds_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    late_s = 0.0
    monkeypatch.setattr("broker.client.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s))
    client = make(stage.port, protocol="auto")
    peer = stage.accept()
    assert peer.expect(1)[6] == 5
    late_s = 6.0
    client.unsubscribe("anything")  # has the network thread look at the clock
    assert peer.is_quiet()
    peer.send(0x20, b"\0\0\0")
    assert isinstance(take(client), Online)


def test_what_comes_to_who_asks_for_the_version_only_is_not_told_on_the_next_connection(
    stage: Stage, clock: Clock, make: Make
) -> None:
    client = make(stage.port, protocol="auto", connect_timeout_s=30)
    for _ in range(2):
        stage.accept().expect(1)
        clock.put_forward(30.0, client)
    bare = stage.accept()
    bare.expect(1)
    bare.sock.sendall(CONNACK_5 + b"\x30\x05\0\1a\0x")
    stage.accept().welcome()
    wait_for_online(client)
    client.wake()
    assert client.take(PATIENCE_S) is None
    assert client.counters.received_packets == 1


def test_a_silent_broker_is_asked_for_nothing_but_the_version_and_then_properly(
    stage: Stage, clock: Clock, make: Make
) -> None:
    client = make(stage.port, protocol="auto", connect_timeout_s=30, will=Packet("will", b"gone"))
    for _ in range(2):
        assert stage.accept().expect(1)[7] == 0b1110
        clock.put_forward(30.0, client)
    bare = stage.accept()
    assert bare.welcome() == b"\0\4MQTT\5\2\0\x3c\0\0\2me"
    assert bare.read().kind == 14
    proper = stage.accept()
    assert proper.welcome()[6:8] == b"\5\x0e"
    assert "did not answer" in offline_reason(client)
    assert isinstance(take(client), Online)


def refuse_version_5(stage: Stage) -> None:
    newer = stage.accept()
    assert newer.expect(1)[6] == 5
    newer.send(0x20, b"\0\1")


def test_an_older_broker_is_not_asked_for_mqtt_5_at_every_reconnect(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    refuse_version_5(stage)
    for _ in range(3):
        older = stage.accept()
        assert older.welcome()[6] == 4
        older.hang_up()
    stage.accept().hang_up()  # nor after a bad moment of it
    stage.accept().hang_up()
    assert stage.accept().welcome()[6] == 4


def test_the_next_start_asks_an_older_broker_again(stage: Stage, make: Make) -> None:
    first = make(stage.port, protocol="auto")
    refuse_version_5(stage)
    stage.accept().welcome()
    take(first)
    first.close()
    make(stage.port, protocol="auto")
    assert stage.accept().welcome()[6] == 5


def test_a_newer_broker_in_the_place_of_an_older_one_is_found(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    refuse_version_5(stage)
    older = stage.accept()
    older.welcome()
    older.hang_up()
    newer = stage.accept()
    assert newer.expect(1)[6] == 4
    newer.send(0x20, b"\0\1")
    assert stage.accept().welcome()[6] == 5


def test_amqtt_is_found_to_be_older(amqtt: EmbeddedBroker, make: Make) -> None:
    client = make(amqtt.port, "a", protocol="auto", connect_timeout_s=2.0)
    assert "did not answer" in offline_reason(client)
    wait_for_online(client)
    client.publish(Packet("a", b"1", expiry_s=5))
    assert take(client) == Packet("a", b"1")  # 3.1.1 knows no expiry


def test_a_refused_password_is_no_reason_to_fall_back(stage: Stage, make: Make) -> None:
    make(stage.port, protocol="auto")
    for _ in range(2):
        peer = stage.accept()
        assert peer.expect(1)[6] == 5
        peer.send(0x20, b"\0\x86\0")


def test_a_server_that_says_nothing_is_given_up_and_called_again(stage: Stage, clock: Clock, make: Make) -> None:
    client = make(stage.port, connect_timeout_s=30)
    stage.accept().expect(1)
    clock.put_forward(30.0, client)
    assert "did not answer in 30 s" in offline_reason(client)
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


@pytest.mark.parametrize("at", range(1, 9))
def test_a_welcome_that_is_cut_in_two_brings_what_comes_with_it(stage: Stage, make: Make, at: int) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.expect(1)
    said = CONNACK_5 + b"\x30\x05\0\1a\0x" + b"\xe0\1\x8b" + b"\x30\x05\0\1a\0y"
    peer.sock.sendall(said[:at])
    time.sleep(0.001)  # most often our end has read that; it must not matter
    peer.sock.sendall(said[at:])
    assert [take(client) for _ in range(3)] == [
        *(Online(None), Packet("a", b"x")),
        Offline("the broker is shutting down"),  # and nothing that comes behind it
    ]


UNASKED = {
    "a packet": b"\x30\x05\0\1a\0x",
    "an answer": b"\x40\2\0\1",
    "a SUBACK": b"\x90\4\0\1\0\1",
    "a PINGRESP": b"\xd0\0",
}


@pytest.mark.parametrize("packet", UNASKED.values(), ids=UNASKED)
def test_nothing_comes_before_the_answer_to_connect(stage: Stage, make: Make, packet: bytes) -> None:
    """A SUBACK would make us say Online before anything is asked; packets would wait to be acknowledged."""
    client = make(stage.port, "a")
    peer = stage.accept()
    peer.expect(1)
    peer.sock.sendall(packet)
    assert "is not MQTT" in offline_reason(client)
    assert stage.accept().expect(1)


@pytest.mark.parametrize("packet", [CONNACK_5, b"\x34\7\0\1a\0\1\0x"], ids=["a second welcome", "QoS 2"])
def test_what_nobody_asks_for_ends_a_connection(stage: Stage, make: Make, packet: bytes) -> None:
    """paho keeps what comes at QoS 2 until its sender says more of it; a welcome would have all filters asked again."""
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    assert isinstance(take(client), Online)
    peer.sock.sendall(packet)
    assert "is not MQTT" in offline_reason(client)
    assert stage.accept().expect(1)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_packet_that_is_too_long_is_passed_over_and_acknowledged(stage: Stage, make: Make, protocol: str) -> None:
    client = make(stage.port, protocol=protocol, limits=ClientLimits(packet_bytes=1000))
    peer = stage.accept()
    peer.welcome()
    take(client)
    properties = b"\0" if protocol == "5" else b""
    peer.send(0x32, b"\0\1a\0\7" + properties + bytes(2_000_000))
    peer.send(0x30, b"\0\1a" + properties + b"small")
    assert peer.expect(4)[:2] == b"\0\7"
    assert take(client) == Packet("a", b"small")
    assert client.counters.dropped_packets == 1


def test_a_broker_that_sends_on_and_reads_no_answer_is_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr("broker.client._MIDS", 50)
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    assert client.publish(Packet("large", bytes(16_000_000)))  # half of which stays here
    for mid in range(1, 60):
        peer.deliver(b"a", b"", mid)
    for _ in range(59):
        assert take(client) == Packet("a", b"")
    assert "takes no answer" in offline_reason(client)


def test_an_old_connection_is_let_go_of_while_its_packets_wait_for_the_owner(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    old = stage.accept()
    old.welcome()
    take(client)
    old.deliver(b"a", b"1", mid=7)
    wait_until(lambda: client.counters.received_packets == 1)
    link = weakref.ref(link_of(client))
    old.hang_up()
    stage.accept().welcome()
    wait_until(lambda: gc.collect() >= 0 and link() is None)
    assert take(client) == Packet("a", b"1")


def link_of(client: MqttTransport) -> _Link:
    """Return the connection that a client has."""
    links = (one for one in gc.get_objects() if isinstance(one, _Link) and one._mailbox is client._mailbox)
    (link,) = (link for link in links if link._ended is None)
    return link


def test_subscriptions_and_packets_never_share_an_identifier(stage: Stage, make: Make) -> None:
    """However many of both there have been, and however long one of ours is open."""
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    link = link_of(client)
    asked = {link._client._mid_generate() for _ in range(3 * 32_767)}  # the last of them, so that it begins anew
    said = {link._next_mid() for _ in range(70_000)}
    assert not asked & said
    assert min(asked | said) > 0
    assert max(asked | said) <= 65_535
    client.subscribe("a")
    assert int.from_bytes(peer.expect(8)[:2]) in asked
    client.publish(Packet("a", b""))
    assert int.from_bytes(peer.expect(3)[3:5]) in said


@pytest.mark.parametrize("answers", [1, 2])
def test_an_identifier_that_is_open_is_not_given_again(stage: Stage, make: Make, answers: int) -> None:
    """One that is never acknowledged; what is acknowledged twice, or was never said, is nothing."""
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    client.publish(Packet("a", b"never"))
    stays = peer.expect(3)[3:5]
    link = link_of(client)
    link._n_sent += 8_190  # as if so many had been sent since
    for _ in range(4):
        client.publish(Packet("a", b"again"))
        body = peer.expect(3)
        mid = body[2 + int.from_bytes(body[:2]) :][:2]
        assert mid != stays
        for _ in range(answers):
            peer.send(0x40, mid)
            peer.send(0x40, b"\0\1")
    wait_until(lambda: client.room == ClientLimits().outbound_packets - 1)
    assert says_nothing(client, peer)


def test_answers_that_are_missed_keep_no_short_packet_waiting(stage: Stage, make: Make) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    for number in range(8):
        client.publish(Packet("a", bytes((number,))))
    mids = [peer.expect(3)[3:5] for _ in range(8)]
    peer.deliver(b"b", b"short")
    assert take(client) == Packet("b", b"short")
    for mid in mids[:-1]:
        peer.send(0x40, mid)
    wait_until(lambda: client.room == ClientLimits().outbound_packets - 1)
    peer.send(0x40, mids[-1])
    wait_until(lambda: client.room == ClientLimits().outbound_packets)


def test_why_the_broker_hangs_up_is_heard_by_who_is_writing(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two clients of one name would not notice each other."""
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    goes_on = threading.Event()
    written = Splice.write

    def write(splice: Splice, data: bytes) -> None:
        goes_on.wait(PATIENCE_S)  # as if the broker had hung up just now
        written(splice, data)

    monkeypatch.setattr(Splice, "write", write)
    client.publish(Packet("a", b"1"))
    wait_until(lambda: client.counters.sent_packets == 1)
    peer.send(0xE0, b"\x8e\0")
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that writing fails
    peer.hang_up()
    goes_on.set()
    assert take(client) == SessionTakenOver()


def test_a_write_that_fails_ends_a_connection_that_is_held_up(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(stage.port, limits=ClientLimits(unread_bytes=10))
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", bytes(50))
    wait_until(lambda: client.counters.received_packets == 1)
    link = link_of(client)

    def fail(*_: object) -> int:
        raise ssl.SSLError(1, "bad write retry")  # nothing that the socket knows of

    with monkeypatch.context() as patch:
        patch.setattr(Splice, "_sent", fail)
        assert client.publish(Packet("a", b"1"))
        wait_until(lambda: link._ended is not None)
    assert take(client) == Packet("a", bytes(50))
    assert isinstance(take(client), Offline)


def test_one_packet_that_was_taken_is_acknowledged_though_nobody_calls(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(stage.port, keepalive_s=3600)
    peer = stage.accept()
    peer.welcome()
    take(client)
    monkeypatch.setattr(client._mailbox.waker, "wake", lambda: None)
    peer.deliver(b"a", b"1", mid=7)
    assert take(client) == Packet("a", b"1")
    assert peer.expect(4)[:2] == b"\0\7"
    monkeypatch.undo()


def test_a_broker_that_lets_one_packet_be_open_is_kept_waiting_once(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    wait, mids = link_of(client)._ack_wait, itertools.count(1)

    def acknowledged() -> bool:
        peer.deliver(b"a", b"", mid=(mid := next(mids)))
        take(client)
        return peer.expect(4)[:2] == mid.to_bytes(2)

    while wait._ended_at is None:
        assert acknowledged()
    monkeypatch.setattr("broker.ackwait.ACK_WAITS_S", PATIENCE_S)  # so long would the next one wait
    assert acknowledged()
    assert acknowledged()


def test_a_goodbye_waits_for_no_company_of_acknowledgements(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.ackwait.ACK_WAITS_S", PATIENCE_S)
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", b"1", mid=7)
    wait_until(lambda: client._mailbox.acks_wait)
    assert take(client) == Packet("a", b"1")
    assert peer.is_quiet()
    client.close()
    assert peer.expect(4)[:2] == b"\0\7"
    assert peer.read().kind == 14


@pytest.mark.parametrize("late", [False, True], ids=["while they wait", "long after"])
def test_acknowledgements_go_at_the_latest_by_eights(
    stage: Stage, make: Make, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    monkeypatch.setattr("broker.ackwait.ACK_WAITS_S", 0.0 if late else PATIENCE_S)
    client = make(stage.port)
    peer = stage.accept()
    peer.welcome()
    take(client)
    for mid in range(1, 9):
        peer.deliver(b"a", b"", mid=mid)
    wait_until(lambda: client.counters.received_packets == 8 and client._mailbox.acks_wait != late)
    for _ in range(8):
        take(client)
    assert [peer.expect(4)[:2] for _ in range(8)] == [mid.to_bytes(2) for mid in range(1, 9)]


def test_a_flood_of_small_packets_waits_in_the_connection_too(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=ClientLimits(inbox_packets=8))
    peer = stage.accept()
    peer.welcome()
    take(client)
    packets = [Packet("a", index.to_bytes(2)) for index in range(1000)]
    for packet in packets:
        peer.deliver(b"a", packet.payload)
    assert [take(client) for _ in packets] == packets
    assert client.counters.dropped_packets == 0


def test_what_is_dropped_is_acknowledged_and_counted(stage: Stage, make: Make) -> None:
    client = make(stage.port, "f", limits=ClientLimits(inbox_packets=3))
    peer = stage.accept()
    peer.welcome()
    asked = peer.expect(8)[:2]
    for index in range(5):  # before the owner is told of the connection nothing is held up: it takes nothing yet
        peer.deliver(b"a", bytes([index]), mid=index + 1)
        assert peer.expect(4)[:2] == (index + 1).to_bytes(2)  # or the broker would keep it open
    peer.send(0x90, asked + b"\0\1")
    take(client)
    assert [take(client) for _ in range(3)] == [Packet("a", bytes([index])) for index in range(3)]
    assert client.counters.dropped_packets == 2


def test_the_inbox_is_bounded_in_bytes_but_takes_one_of_any_size(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=ClientLimits(inbox_bytes=10))
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", bytes(50))
    peer.deliver(b"a", b"1")
    peer.deliver(b"b", b"", mid=1)
    assert peer.expect(4)
    assert take(client) == Packet("a", bytes(50))
    assert client.counters.dropped_packets == 2


def test_what_the_owner_does_not_take_stays_in_the_connection_and_nothing_is_lost(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=ClientLimits(unread_bytes=150_000), keepalive_s=1)
    peer = stage.accept()
    peer.welcome()
    take(client)
    packets = [Packet("a", bytes([index]) * 100_000) for index in range(200)]  # more than the kernel keeps

    def deliver() -> None:
        for packet in packets:
            peer.deliver(b"a", packet.payload)

    sender = threading.Thread(target=deliver)
    sender.start()
    wait_until(lambda: client.counters.received_packets == 2)
    for _ in range(2):
        peer.expect(12)  # longer than a broker may be silent: this silence is ours
    assert client.counters.received_packets == 2
    assert [take(client) for _ in packets] == packets
    sender.join()
    assert client.counters.dropped_packets == 0


def test_a_client_that_is_held_up_still_sends_and_says_goodbye(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=ClientLimits(unread_bytes=10))
    peer = stage.accept()
    peer.welcome()
    take(client)
    peer.deliver(b"a", bytes(50))
    wait_until(lambda: client.counters.received_packets == 1)
    assert client.publish(Packet("b", b"out"))
    mid = peer.expect(3)[3:5]
    peer.send(0x40, mid)
    client.close()
    peer.expect(14)


def test_the_outbound_queue_is_bounded_in_packets_and_bytes(stage: Stage, make: Make) -> None:
    client = make(stage.port, limits=ClientLimits(outbound_packets=3, outbound_bytes=100))
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


def test_a_port_where_nobody_listens_is_said_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    call = socket.create_connection

    def count(*where: Any, **how: Any) -> socket.socket:
        calls.append(1)
        return call(*where, **how)

    monkeypatch.setattr(socket, "create_connection", count)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = make(port)
    assert offline_reason(client) == f"nobody listens on 127.0.0.1:{port}"
    wait_until(lambda: len(calls) >= 4)  # then what is to be said of the third has been said
    assert client.take(0.0) is None


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
    peer.deliver(b"a", b"still there")
    assert take(client) == Packet("a", b"still there")


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
    wait_until(lambda: client.room == 0)  # it is closing
    assert says_nothing(client, peer)
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


def renewable(stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make) -> tuple[MqttTransport, Peer, list[int]]:
    """Return a client that is online with the will "old", its peer, and the failures that it went to rest with."""
    failures: list[int] = []
    monkeypatch.setattr("broker.reconnection.backoff_s", lambda n, *_: failures.append(n) or 0.0)
    client = make(stage.port, will=Packet("old", b"gone"))
    peer = stage.accept()
    peer.welcome()
    take(client)
    return client, peer, failures


def test_a_renewal_waits_for_acknowledgements_says_goodbye_and_takes_nothing_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    client, peer, _ = renewable(stage, monkeypatch, make)
    assert client.publish(Packet("a", b"1"))
    mid = peer.expect(3)[3:5]
    client.renew(Packet("new", b"gone"))
    assert (client.publish(Packet("a", b"2")), client.room) == (False, 0)
    assert peer.is_quiet()
    peer.send(0x40, mid)
    assert peer.read().kind == 14
    assert stage.is_empty()  # a CONNECT that the broker sees before our goodbye would set the old will off
    peer.hang_up()
    assert stage.accept().welcome().endswith(b"\0\3new\0\4gone")
    assert [take(client), take(client)] == [Offline(reasons.RENEWED), Online(None)]
    assert client.publish(Packet("a", b"2"))


def test_a_renewal_gives_up_after_two_seconds_on_what_is_never_acknowledged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    late_s = 0.0
    monkeypatch.setattr("broker.client.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s))
    client, peer, _ = renewable(stage, monkeypatch, make)
    assert client.publish(Packet("a", b"1"))
    peer.expect(3)
    client.renew(None)
    assert peer.is_quiet()
    late_s = 2.0
    client.unsubscribe("anything")  # has the network thread look at the clock
    assert peer.read().kind == 14


def test_renewals_are_no_failures(stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    client, peer, failures = renewable(stage, monkeypatch, make)
    for index in range(4):
        client.renew(Packet("new", bytes([index])))
        assert peer.read().kind == 14
        peer.hang_up()
        peer = stage.accept()
        peer.welcome()
        wait_for_online(client)
    assert failures == []
    peer.hang_up()
    stage.accept()
    assert failures == [1]


def test_a_renewal_between_connect_and_its_answer_waits_to_say_goodbye(stage: Stage, make: Make) -> None:
    client = make(stage.port, "a", will=Packet("old", b"gone"))
    peer = stage.accept()
    assert peer.expect(1).endswith(b"\0\3old\0\4gone")
    client.renew(Packet("new", b"gone"))
    assert peer.is_quiet()  # a broker that has our CONNECT would publish the old will if we only hung up
    peer.send(0x20, b"\0\0\0")
    assert peer.read().kind == 14
    peer.hang_up()
    again = stage.accept()
    assert again.welcome().endswith(b"\0\3new\0\4gone")
    again.send(0x90, again.expect(8)[:2] + b"\0\1")
    assert [take(client), take(client)] == [Offline(reasons.RENEWED), Online(None)]


def test_close_does_not_wait_for_a_broker_that_never_hangs_up_on_a_renewal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr("broker.goodbye._RENEWED_HANG_UP_S", 1000.0)
    client, peer, _ = renewable(stage, monkeypatch, make)
    client.renew(None)
    assert peer.read().kind == 14
    client.close(0.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "mqtt-me"]


def test_a_half_written_packet_is_finished_before_the_goodbye_of_a_renewal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    late_s = 0.0
    monkeypatch.setattr("broker.client.time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s))
    client, peer, _ = renewable(stage, monkeypatch, make)
    assert client.publish(Packet("large", bytes(8_000_000)))
    assert client.publish(Packet("next", b""))
    while not client.counters.sent_packets:
        time.sleep(0.001)
    client.renew(None)
    late_s = 2.0
    client.unsubscribe("anything")  # has the network thread look at the clock
    assert len(peer.expect(3)) > 8_000_000
    following = peer.read()
    if following.kind == 3:  # the network thread had packed it before it looked at the clock
        following = peer.read()
    assert following.kind == 14


def test_a_client_that_was_never_opened_closes() -> None:
    client = MqttTransport(BrokerSettings(), "me")
    client.subscribe("a")
    client.close()
    client.open()
    assert client.take(0.0) is None


def test_a_will_with_wildcards_is_the_owners_mistake() -> None:
    with pytest.raises(ValueError, match="topic name"):
        MqttTransport(BrokerSettings(), "me", Packet("a/#", b""))
