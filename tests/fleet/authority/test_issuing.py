"""The authority at a broker in memory: what devices and tokens that lie are told, and what is kept of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from broker import issuing as topics
from broker.memory import MemoryBroker
from broker.transport import Packet
from fleet.authority.serve import MOST_HEARD, Server
from identity import asking, certificates
from identity.asking import MOST_ASKED, Answer, Request, Secret
from identity.authority import Authority
from identity.keys import SigningKey, key_of, text_of
from identity.mandate import read_mandate
from identity.tokens import read_line
from tests.fleet.authority.conftest import Site

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
KEY, MESSAGE_KEY = certificates.new_key(), SigningKey.generate()


class Desk:
    """A server, and somebody who says anything to it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.site, self.capsys, self.now = Site(folder), capsys, NOW
        broker = MemoryBroker()
        self.transport, self.client = broker.transport("authority"), broker.transport("somebody")
        self.client.subscribe("#")
        self.client.open()
        self.server = Server(self.site.ca, self.transport, wall=lambda: self.now, clock=lambda: 0.0)
        self.server.start()
        self.run()
        self.heard()

    def token(self, *more: object) -> tuple[str, Secret]:
        self.capsys.readouterr()
        self.site.fedge("ca", "token", self.site.ca, *more, code=1)  # no broker is told
        line = read_line(self.capsys.readouterr().out)
        return line.token, Secret(line.secret)

    def run(self) -> None:
        for _ in range(5):
            self.server.step(0.0)

    def heard(self) -> list[Packet]:
        found = []
        while (event := self.client.take()) is not None:
            found += [event] if isinstance(event, Packet) else []
        return found

    def says(self, topic: str, payload: bytes, *, retain: bool = False) -> list[Packet]:
        """Publish, and return all that follows it."""
        self.client.publish(Packet(topic, payload, retain=retain))
        self.run()
        return self.heard()[1:]

    def asks(self, name: str, secret: Secret, request: Request) -> Answer:
        topic = topics.asks("barn", "enroll", name)
        (answer,) = self.says(topic, asking.ask(topic, request, MESSAGE_KEY, secret.proof_key))
        assert answer.topic == topics.answers("barn", "enroll", name)
        return asking.answered(answer.topic, answer.payload, secret.proof_key, signed=False)

    def renews(self, device: str, payload: bytes) -> Answer:
        (answer,) = self.says(topics.asks("barn", "renew", device), payload)
        with Authority(self.site.ca) as authority:
            signer = key_of(read_mandate(authority.mandate, "barn", authority.record.root).key)
        return asking.answered(answer.topic, answer.payload, signer, signed=True)

    def enroll(self, device: str = "pi-1") -> None:
        with Authority(self.site.ca) as authority:
            authority.enroll(device, certificates.public_of(KEY), text_of(MESSAGE_KEY.public), NOW)

    def devices(self) -> list[str]:
        with Authority(self.site.ca) as authority:
            return sorted(authority.record.devices)


def request(device: str = "pi-1", *, name: str | None = None, key: bytes = KEY) -> Request:
    csr = certificates.request(key, device if name is None else name).decode()
    return Request(device, csr, text_of(MESSAGE_KEY.public))


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    made = Desk(tmp_path, capsys)
    yield made
    made.server.stop()


def test_a_request_waits_and_asked_again_it_is_one(desk: Desk) -> None:
    name, secret = desk.token()
    wanted = request()
    for _ in range(3):
        assert desk.asks(name, secret, wanted).state == "waiting"
    with Authority(desk.site.ca) as authority:
        assert [token.state for token in authority.tokens.tokens.values()] == ["waiting"]
    other = desk.asks(name, secret, request(key=certificates.new_key()))
    assert (other.state, "was used already" in other.text) == ("refused", True)
    assert desk.devices() == []


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (request(name="pi-2"), "the request is for 'pi-2' inside, and for pi-1 outside"),
        (Request("pi-1", "none", text_of(MESSAGE_KEY.public)), "is no request for a certificate"),
        (request("aggregator"), "is the name of a part of the server"),
        (request("admin"), "is the name of an admin"),
        (request("pi-7"), "pi-7 is enrolled already"),
    ],
)
def test_what_cannot_be_certified_is_refused_and_the_token_stays(desk: Desk, wanted: Request, why: str) -> None:
    with Authority(desk.site.ca) as authority:
        public = certificates.public_of(certificates.new_key())
        authority.enroll("pi-7", public, text_of(SigningKey.generate().public), NOW)
    name, secret = desk.token()
    answer = desk.asks(name, secret, wanted)
    assert answer.state == "refused"
    assert why in answer.text
    assert desk.asks(name, secret, request("pi-9")).state == "waiting"


@pytest.mark.parametrize("revoked", [False, True])
def test_a_message_key_that_is_anothers_is_refused_before_anything_is_approved(desk: Desk, revoked: bool) -> None:
    desk.enroll("pi-7")
    if revoked:
        desk.site.fedge("ca", "revoke", desk.site.ca, "pi-7", code=1)
    desk.site.fedge("ca", "window", desk.site.ca)
    name, secret = desk.token()
    answer = desk.asks(name, secret, request("pi-7" if revoked else "pi-1"))
    assert (answer.state, "everybody needs a new one" in answer.text) == ("refused", True)
    with Authority(desk.site.ca) as authority:
        assert [token.state for token in authority.tokens.tokens.values()] == ["open"]


def test_a_token_past_its_end_is_told_so_and_taken_away(desk: Desk) -> None:
    name, secret = desk.token()
    desk.now += dt.timedelta(hours=2)
    topic = topics.asks("barn", "enroll", name)
    packets = desk.says(topic, asking.ask(topic, request(), MESSAGE_KEY, secret.proof_key))
    told = [asking.answered(p.topic, p.payload, secret.proof_key, signed=False) for p in packets if p.topic != topic]
    assert ["has expired" in answer.text for answer in told] in ([True], [])
    with Authority(desk.site.ca) as authority:
        assert not authority.tokens.tokens
    assert name not in (desk.site.ca / "broker" / "tokens").read_text()


@pytest.mark.parametrize("noise", [b"x", b"x" * 100, b"x" * (MOST_ASKED + 1), b"\0" * 80 + b"{}"])
def test_noise_is_not_answered_and_what_is_retained_is_cleared(desk: Desk, noise: bytes) -> None:
    name, _ = desk.token()
    desk.enroll()
    for topic in (topics.asks("barn", "enroll", name), topics.asks("barn", "renew", "pi-1")):
        assert [(p.topic, p.payload, p.retain) for p in desk.says(topic, noise, retain=True)] == [(topic, b"", False)]


def test_who_floods_is_passed_over_and_nobody_else_is(desk: Desk) -> None:
    name, secret = desk.token()
    other, other_secret = desk.token()
    wanted = request()
    desk.asks(name, secret, wanted)
    topic = topics.asks("barn", "enroll", name)
    payload = asking.ask(topic, wanted, MESSAGE_KEY, secret.proof_key)
    answered = [bool(desk.says(topic, payload)) for _ in range(3 * MOST_HEARD)]
    assert sum(answered) < 2 * MOST_HEARD
    assert not answered[-1]
    assert desk.asks(other, other_secret, request("pi-2")).state == "waiting"


def test_a_window_enrolls_as_they_come_and_thanks_end_the_token(desk: Desk) -> None:
    name, secret = desk.token("--label", "site=north", "--rows", 9)
    desk.site.fedge("ca", "window", desk.site.ca)
    wanted = request()
    answer = desk.asks(name, secret, wanted)
    assert answer.granted is not None
    assert certificates.look(answer.granted.files["device.crt"].encode())[0] == "pi-1"
    assert desk.asks(name, secret, wanted) == answer, "asked again it is the same"
    with Authority(desk.site.ca) as authority:
        known = authority.record.devices["pi-1"]
        assert (known.labels, known.rows, known.epoch) == ({"site": "north"}, 9, 1)
    topic = topics.asks("barn", "enroll", name)
    thanks = Request(wanted.device, wanted.csr, wanted.key, done=True)
    assert [p.payload for p in desk.says(topic, asking.ask(topic, thanks, MESSAGE_KEY, secret.proof_key))] == [b""]
    with Authority(desk.site.ca) as authority:
        assert not authority.tokens.tokens


def test_what_waits_is_enrolled_when_a_window_opens(desk: Desk) -> None:
    name, secret = desk.token()
    assert desk.asks(name, secret, request()).state == "waiting"
    desk.site.fedge("ca", "window", desk.site.ca)
    desk.run()
    assert desk.devices() == ["pi-1"]
    (answer,) = desk.heard()
    assert asking.answered(answer.topic, answer.payload, secret.proof_key, signed=False).state == "granted"


def test_a_device_renews_for_its_last_third_and_is_given_the_same_again(desk: Desk) -> None:
    desk.enroll()
    topic, wanted = topics.asks("barn", "renew", "pi-1"), request(key=certificates.new_key())
    payload = asking.ask(topic, wanted, MESSAGE_KEY)
    early = desk.renews("pi-1", payload)
    assert (early.state, "too early" in early.text) == ("refused", True)
    desk.now += dt.timedelta(days=250)
    first = desk.renews("pi-1", payload)
    assert first.granted is not None
    assert first.granted.epoch == 1
    assert desk.renews("pi-1", payload) == first
    second = asking.ask(topic, request(key=certificates.new_key()), MESSAGE_KEY)
    assert "too early" in desk.renews("pi-1", second).text, "one certificate in half of its time"


def test_a_request_of_two_renewals_ago_that_is_played_again_takes_nobodys_turn(desk: Desk) -> None:
    desk.enroll()
    topic, said = topics.asks("barn", "renew", "pi-1"), []
    for _ in range(2):
        desk.now += dt.timedelta(days=250)
        with Authority(desk.site.ca) as authority:
            has = certificates.look(authority.issued("pi-1"))[3]
        said.append(asking.ask(topic, structs.replace(request(key=certificates.new_key()), has=has), MESSAGE_KEY))
        assert desk.renews("pi-1", said[-1]).state == "granted"
    desk.now += dt.timedelta(days=190)
    assert {packet.payload for packet in desk.says(topic, said[0])} == {b""}, "cleared, and not answered"
    with Authority(desk.site.ca) as authority:
        has = certificates.look(authority.issued("pi-1"))[3]
    lost = asking.ask(topic, structs.replace(request(key=certificates.new_key()), has=has), MESSAGE_KEY)
    assert desk.renews("pi-1", lost).state == "granted", "what comes of it is lost on the way, and the next key with it"
    desk.now += dt.timedelta(days=190)
    again = asking.ask(topic, structs.replace(request(key=certificates.new_key()), has=has), MESSAGE_KEY)
    assert desk.renews("pi-1", again).state == "granted"


def test_who_is_revoked_renews_nothing(desk: Desk) -> None:
    desk.enroll()
    with Authority(desk.site.ca) as authority:
        authority.revoke("pi-1", NOW)
    desk.now += dt.timedelta(days=250)
    answer = desk.renews("pi-1", asking.ask(topics.asks("barn", "renew", "pi-1"), request(), MESSAGE_KEY))
    assert (answer.state, "is revoked" in answer.text) == ("refused", True)


def test_nobody_renews_with_another_key_or_in_another_name(desk: Desk) -> None:
    desk.enroll()
    desk.now += dt.timedelta(days=250)
    topic, stranger = topics.asks("barn", "renew", "pi-1"), SigningKey.generate()
    strange = Request("pi-1", request().csr, text_of(stranger.public))
    elsewhere = topics.asks("barn", "renew", "pi-2")
    for where, payload in (
        (topic, asking.ask(topic, strange, stranger)),
        (topic, asking.ask(topic, strange, MESSAGE_KEY)),
        (topic, asking.ask(topic, request("pi-2"), MESSAGE_KEY)),
        (topic, asking.ask(elsewhere, request(), MESSAGE_KEY)),
        (elsewhere, asking.ask(elsewhere, request("pi-2"), MESSAGE_KEY)),
    ):
        assert {p.payload for p in desk.says(where, payload)} == {b""}, "cleared, and not answered"
