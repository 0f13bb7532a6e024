"""The agent's renewal: when it asks, and that whatever fails is said and tried again. Children are real processes."""

from __future__ import annotations

import datetime as dt
import logging
import time
from pathlib import Path

import pytest

from broker import issuing
from broker.memory import MemoryBroker, MemoryTransport
from broker.transport import Packet
from edge_agent.renewal import ANSWER_S, LOOK_S, PAUSE_S, Renewal
from identity import adoption, asking
from identity.asking import Answer, Granted
from identity.authority import Authority
from identity.bundle import unpack
from identity.certificates import look_at_request
from identity.validity import validity_of
from tests.identity.conftest import NOW, TEMPLATE, bundle_of

ASKS, ANSWERS = issuing.asks("barn", "renew", "pi-1"), issuing.answers("barn", "renew", "pi-1")


class Device:
    """A renewal, its authority, and a broker in memory. `now` is what both clocks say."""

    def __init__(self, tmp_path: Path) -> None:
        self.authority = Authority.found(tmp_path / "ca", "barn", ["localhost"], NOW, template=TEMPLATE)
        assert self.authority.publish(NOW).failed == ()
        adoption.adopt(unpack(bundle_of(self.authority, "pi-1", tmp_path / "b.tar"), NOW), tmp_path / "etc")
        self.folder = tmp_path / "etc" / "identity"
        broker = MemoryBroker()
        self.transport, self.server = broker.transport("pi-1"), broker.transport("authority")
        self.server.subscribe(ASKS)
        for transport in (self.transport, self.server):
            transport.open()
        self.now, self.wall = 1000.0, validity_of(self.certificate).until - dt.timedelta(days=100)
        self.renewal = Renewal(
            *(self.folder, "barn", "pi-1", self.transport), clock=lambda: self.now, wall=lambda: self.wall
        )

    @property
    def certificate(self) -> bytes:
        return (self.folder / "device.crt").read_bytes()

    def tick(self, *, online: bool = True) -> None:
        """Tick, and until the child has ended if one was started; nothing else goes on meanwhile."""
        self.renewal.tick(self.now, online=online)
        until = time.monotonic() + 120
        while self.renewal.is_at_work:
            assert time.monotonic() < until
            time.sleep(0.005)
            self.renewal.tick(self.now, online=online)

    def heard(self, transport: MemoryTransport) -> list[Packet]:
        found = []
        while (event := transport.take()) is not None:
            found += [event] if isinstance(event, Packet) else []
        return found


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_it_asks_for_nothing_while_there_is_time_or_no_broker(device: Device) -> None:
    device.wall -= dt.timedelta(days=100)
    device.tick()
    device.wall += dt.timedelta(days=100)
    device.now += LOOK_S - 1
    device.tick()
    device.now += 1
    device.tick(online=False)
    assert not device.heard(device.server)
    device.tick()
    assert [packet.topic for packet in device.heard(device.server)] == [ASKS]


def test_an_answer_becomes_the_next_certificate(device: Device) -> None:
    device.tick()
    (asked,) = device.heard(device.server)
    request = asking.asked(ASKS, asked.payload, key=device.authority.record.devices["pi-1"].key)
    public, later = look_at_request(request.csr.encode())[1], NOW + dt.timedelta(hours=1)
    certificate = device.authority.renew("pi-1", public, later)
    files = {name: text.decode() for name, text in device.authority.trust_files.items()}
    files |= {"mandate.json": device.authority.mandate.decode(), "device.crt": certificate.decode(), "agent.toml": ""}
    answer = Answer(request.digest, "granted", granted=Granted("barn", "pi-1", 1, files))
    device.server.publish(Packet(ANSWERS, asking.answer(ANSWERS, answer, device.authority.signer())))
    (packet,) = device.heard(device.transport)
    device.renewal.hear(packet)
    device.tick()
    assert device.certificate == certificate
    device.now += PAUSE_S
    device.wall -= dt.timedelta(days=50)
    device.tick()
    assert not device.heard(device.server), "the new one has time"


def test_without_an_answer_it_warns_and_asks_again_the_same(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.tick()
    (first,) = device.heard(device.server)
    device.now += ANSWER_S
    with caplog.at_level(logging.WARNING):
        device.tick()
    assert "is not renewed yet: the authority has not answered: does `fedge ca serve` run there?" in caplog.text
    device.now += PAUSE_S - 1
    device.tick()
    assert not device.heard(device.server)
    device.now += 1
    device.tick()
    assert device.heard(device.server) == [first]


def test_an_answer_of_somebody_else_is_named_and_changes_nothing(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    before = device.certificate
    device.renewal.hear(Packet(ANSWERS, b"unasked"))
    device.tick()
    with caplog.at_level(logging.WARNING):
        device.renewal.hear(Packet(ANSWERS, b"x" * 100))
        device.tick()
    assert "an answer that this fleet's authority has not given" in caplog.text
    assert device.certificate == before


def test_a_folder_that_cannot_be_written_is_named(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    (device.folder / "message.key").unlink()
    with caplog.at_level(logging.WARNING):
        device.tick()
    assert "is not renewed yet" in caplog.text
    assert "message.key" in caplog.text
    assert not device.heard(device.server)


def test_closed_it_leaves_no_process(device: Device) -> None:
    device.renewal.tick(device.now, online=True)
    assert device.renewal.is_at_work
    device.renewal.close()
    assert not device.renewal.is_at_work
