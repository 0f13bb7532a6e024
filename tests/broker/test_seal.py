"""What each process signs and checks, by packets; the real services are attacked in tests/fleet/test_attacks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from broker.device_seal import DeviceSeal
from broker.envelope import split
from broker.errors import WireError
from broker.messages import (
    Beacon,
    Candidate,
    Change,
    Curve,
    Delete,
    Explain,
    Export,
    Head,
    Job,
    Jobs,
    Message,
    Offer,
    Pause,
    Presence,
    Quarantine,
    Release,
    Reply,
    Resume,
    RollBack,
    Round,
    Show,
    Status,
    Stop,
    Submit,
    ToWhatIsThere,
    Upload,
    Verdict,
    Version,
    Want,
)
from broker.operator_seal import OperatorSeal
from broker.seal import SAY_S, ForgedError, Order, Refusals
from broker.server_seal import FORMER, ServerSeal
from broker.transport import Packet
from broker.wire import Wire
from identity.keys import ExchangeKey, SigningKey, text_of
from identity.trust import Trust
from tests.broker.golden import GOLDEN, SPELT

LEADER, ADA, DEVICE, ROOT, STEWARD = (SigningKey(bytes((n,)) * 32) for n in range(5))
TRUST = Trust("f", text_of(ROOT.public), (text_of(LEADER.public),), {"ada": text_of(ADA.public)})
V = Version(1, 3)
PLAIN = Wire("f")


class Devices:
    """d1 alone is enrolled."""

    rows: ClassVar = {"d1": 100}

    def key_of(self, device: str) -> bytes | None:
        return DEVICE.public if device == "d1" else None

    def look(self) -> list[str]:
        return []


def server() -> Wire:
    return Wire("f", ServerSeal("f", LEADER, TRUST, Devices(), exchange=ExchangeKey(bytes((8,)) * 32)))


def device(trust: Trust | None = TRUST) -> Wire:
    return Wire("f", DeviceSeal("f", "d1", trust, DEVICE, exchange=ExchangeKey(bytes((9,)) * 32)))


def pair() -> tuple[Wire, Wire]:
    """An aggregator and a device that have met."""
    one, other = server(), device()
    other.unpack(one.pack(Beacon(7, "n0", online=True)))
    one.unpack(other.pack(Presence("d1", 4, online=True, nonce="n1")))
    return one, other


def test_a_signed_round_is_these_very_bytes() -> None:
    packet = server().pack(Round("digits-1f", 7, V, 59.5, attempt=2))
    assert packet.payload.hex() == ROUND_HEX
    assert PLAIN.unpack(packet) == Round("digits-1f", 7, V, 59.5, attempt=2)


def test_a_sealed_offer_is_these_very_bytes() -> None:
    packet = pair()[1].pack(Offer("digits-1f", "d1", V, 120, "00" * 16, 3, loss=0.25))
    assert packet.payload.hex() == OFFER_HEX


ROUND_HEX = (
    "fe0124140f48a464a81436fdb953cedb8e761f3fc948bdc9325f1aad7a588e09e5c48fd3e012d6b14b85d522569302d965fe6eec44"
    "ce2bca02bc7eecec4617961203"
    "0e9507920103d5014a779300200002"
)
OFFER_HEX = (
    "fd014ef1e6a810c33dd00edea352c9802450"
    "3095920103d920303030303030303030303030303030303030303030303030303030303030303003ce000186a0d5011f55"
)


@pytest.mark.parametrize(
    "message",
    [
        Beacon(7, "n0", online=True),
        Candidate("n0", 7),
        Job("j-1", 7),
        Head("j-1", 7, V, "00" * 32),
        Status("j-1", V, "running"),
        Round("j-1", 7, V, 9.0),
        Reply("cli", "r", ok=True),
        Presence("d1", 4, online=False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_the_aggregator_says_to_all_is_signed_and_costs_66_bytes(message: Message) -> None:
    wire = server()
    signed = wire.pack(message).payload
    closed, payload = split(signed)
    assert closed is not None
    assert closed.is_signature
    assert len(signed) - len(payload) == 66
    hears: Wire = device()
    if isinstance(message, Candidate):
        hears = wire
    if isinstance(message, Status | Reply):
        hears = Wire("f", OperatorSeal("f", TRUST))
    assert hears.unpack(wire.pack(message)) is not None
    with pytest.raises(ForgedError, match="not signed"):
        hears.unpack(PLAIN.pack(message))


@pytest.mark.parametrize("message", [Want("d1", "j-1", "00" * 16, "01"), Verdict("d1", "j-1", V, "0" * 8)])
def test_what_it_says_to_one_device_costs_18_bytes_and_no_other_hears_it(message: Message) -> None:
    one, other = pair()
    packet = one.pack(message)
    assert len(packet.payload) - len(PLAIN.pack(message).payload) == 18
    assert other.unpack(packet) == message
    with pytest.raises(ForgedError, match="said before"):
        other.unpack(packet)
    with pytest.raises(ForgedError, match="signed by nobody"):
        device_of_another_life().unpack(packet)


def device_of_another_life() -> Wire:
    wire = Wire("f", DeviceSeal("f", "d1", TRUST, DEVICE))
    wire.unpack(server().pack(Beacon(7, "n0", online=True)))
    return wire


def test_an_offer_costs_18_bytes_and_is_taken_once() -> None:
    one, other = pair()
    offer = Offer("j-1", "d1", V, 120, "00" * 16, 3)
    packet = other.pack(offer)
    assert len(packet.payload) - len(PLAIN.pack(offer).payload) == 18
    assert one.unpack(packet) == offer
    with pytest.raises(ForgedError, match="said before"):
        one.unpack(packet)


def test_an_offer_before_its_device_was_met_is_a_strangers() -> None:
    one, other = server(), pair()[1]
    with pytest.raises(ForgedError, match="introduce itself") as caught:
        one.unpack(other.pack(Offer("j-1", "d1", V, 120, "00" * 16, 3)))
    assert caught.value.kind == "stranger"


def test_a_body_that_comes_in_pieces_is_named_by_32_digits() -> None:
    one, other = pair()
    with pytest.raises(WireError, match="16 digits where 32"):
        one.unpack(other.pack(Offer("j-1", "d1", V, 120, "00" * 8, 3)))


def test_who_has_no_keys_hears_what_is_behind_an_envelope() -> None:
    one, other = pair()
    for packet in (one.pack(Verdict("d1", "j-1", V, "0" * 8)), other.pack(Offer("j-1", "d1", V, 120, "00" * 16, 3))):
        assert PLAIN.unpack(packet) is not None
    assert device(None).unpack(PLAIN.pack(Beacon(7, "n0", online=True))) == Beacon(7, "n0", online=True)


def test_a_presence_names_the_life_that_it_is_said_to() -> None:
    one, other = server(), device()
    early = one.unpack(other.pack(Presence("d1", 4, online=True)))
    assert isinstance(early, Presence)
    assert not one.is_fresh(early)
    other.unpack(one.pack(Beacon(7, "n0", online=True)))
    told = one.unpack(other.pack(Presence("d1", 4, online=True)))
    assert isinstance(told, Presence)
    assert one.is_fresh(told)
    assert not server_of_another_life().is_fresh(told)


def server_of_another_life() -> Wire:
    return Wire("f", ServerSeal("f", LEADER, TRUST, Devices()))


def test_an_earlier_presence_of_the_same_life_is_not_followed() -> None:
    one, other = pair()
    early, late = (other.pack(Presence("d1", 4, online=True, ready={"j-1": n})) for n in (1, 2))
    one.unpack(late)
    one.unpack(late)  # as the broker has retained it
    with pytest.raises(ForgedError, match="said before"):
        one.unpack(early)


def test_a_life_of_a_device_that_has_made_way_does_not_come_back_by_what_it_has_said() -> None:
    one, other = pair()
    before = other.pack(Presence("d1", 4, online=True))
    one.unpack(before)
    later = Wire("f", DeviceSeal("f", "d1", TRUST, DEVICE))
    later.unpack(one.pack(Beacon(7, "n0", online=True)))
    one.unpack(later.pack(Presence("d1", 5, online=True)))
    with pytest.raises(ForgedError, match="said before"):
        one.unpack(before)


def test_a_recording_of_a_life_that_is_long_forgotten_locks_nobody_out() -> None:
    one, lives = server(), [Wire("f", DeviceSeal("f", "d1", TRUST, DEVICE)) for _ in range(FORMER + 2)]
    said = []
    for boot, life in enumerate(lives):
        life.unpack(one.pack(Beacon(7, "n0", online=True)))
        said.append(life.pack(Presence("d1", boot, online=True)))
        one.unpack(said[-1])
    offer, last = Offer("j-1", "d1", V, 120, "00" * 16, 3), lives[-1]
    heard, verdict = last.pack(offer), one.pack(Verdict("d1", "j-1", V, "0" * 8))
    assert (one.unpack(heard), isinstance(last.unpack(verdict), Verdict)) == (offer, True)

    one.unpack(said[0])  # the broker plays the first again
    with pytest.raises(ForgedError, match="introduce itself"):
        one.unpack(last.pack(offer))
    with pytest.raises(ForgedError, match="said before"):
        one.unpack(said[-1])
    one.unpack(last.pack(Presence("d1", FORMER + 1, online=True)))
    assert one.unpack(last.pack(offer)) == offer
    with pytest.raises(ForgedError, match="said before"):
        one.unpack(heard)
    assert isinstance(last.unpack(one.pack(Verdict("d1", "j-1", V, "0" * 8))), Verdict)


def test_a_device_that_is_not_enrolled_is_not_heard() -> None:
    stranger = Wire("f", DeviceSeal("f", "d2", TRUST, DEVICE))
    with pytest.raises(ForgedError):
        server().unpack(stranger.pack(Presence("d2", 4, online=True)))


def test_a_command_is_said_to_one_life_of_the_aggregator() -> None:
    one, ada = server(), Wire("f", OperatorSeal("f", TRUST, ADA))
    ada.unpack(one.pack(Beacon(7, "n0", online=True)))
    stop = ada.pack(Stop("cli", "r", "toy"))
    assert isinstance(one.unpack(stop), Stop)
    with pytest.raises(ForgedError, match="said before"):
        server_of_another_life().unpack(stop)
    with pytest.raises(ForgedError, match="not signed"):
        one.unpack(PLAIN.pack(Stop("cli", "r", "toy")))
    with pytest.raises(ForgedError, match="signed by nobody"):
        one.unpack(Wire("f", OperatorSeal("f", TRUST, DEVICE)).pack(Jobs("cli", "r")))


def test_who_only_asks_need_not_sign_and_who_signs_has_to_be_an_operator() -> None:
    one = server()
    for query in (Jobs("cli", "r"), Show("cli", "r", "toy"), Explain("cli", "r", "toy", 1), Curve("cli", "r", "toy")):
        assert one.unpack(PLAIN.pack_query(query)) == query
        with pytest.raises(ForgedError, match="signed by nobody"):
            one.unpack(Wire("f", OperatorSeal("f", TRUST, DEVICE)).pack_query(query))


def test_who_only_looks_asks_without_a_key_and_commands_nothing() -> None:
    one, olga = server(), Wire("f", OperatorSeal("f", TRUST))
    for query in (
        Jobs("cli", "r"),
        Show("cli", "r", "toy"),
        Explain("cli", "r", "toy", 3),
        Curve("cli", "r", "toy"),
        Export("cli", "r", "toy"),
    ):
        assert one.unpack(olga.pack_query(query)) == query
    for command in (
        Submit("cli", "r", {}),
        Stop("cli", "r", "toy"),
        Resume("cli", "r", "toy"),
        Pause("cli", "r", "toy"),
        RollBack("cli", "r", "toy", "best"),
        Delete("cli", "r", "toy"),
        Upload("cli", "r", "ab" * 8, 3, 0, "AAAA"),
    ):
        with pytest.raises(ForgedError, match="not signed"):
            one.unpack(olga.pack(command))


def test_a_steward_commands_what_is_there_and_hands_in_and_deletes_nothing() -> None:
    trust = structs.replace(TRUST, stewards={"page": text_of(STEWARD.public)})
    one = Wire("f", ServerSeal("f", LEADER, trust, Devices(), exchange=ExchangeKey(bytes((8,)) * 32)))
    page, before = Wire("f", OperatorSeal("f", trust, STEWARD)), server()
    for wire in (one, before):
        page.unpack(wire.pack(Beacon(7, "n0", online=True)))
    for command in (
        Pause("cli", "r", "toy"),
        Resume("cli", "r", "toy"),
        Stop("cli", "r", "toy"),
        RollBack("cli", "r", "toy", "best"),
        Quarantine("cli", "r", "d1"),
        Release("cli", "r", "d1"),
        Jobs("cli", "r"),
    ):
        packet = page.pack(command)
        assert one.unpack(packet) == structs.replace(command, to=page.seal.leader)
        with pytest.raises(ForgedError, match="signed by nobody"):  # where nobody has pinned it
            before.unpack(packet)
    spec = {"name": "toy"}
    for refused in (
        Submit("cli", "r", spec),
        page.seal.signed(Submit("cli", "r", spec), "toy", "0" * 8),
        Delete("cli", "r", "toy"),
        Upload("cli", "r", "ab" * 8, 3, 0, "AAAA"),
    ):
        with pytest.raises(ForgedError, match="signed by nobody"):
            one.unpack(page.pack(refused))
    device = DeviceSeal("f", "d1", trust, DEVICE)
    job = Job("toy-00000000", 7, spec, operator="page", signature=page.seal.sign_spec("toy-00000000", spec))
    assert not device.is_signed_spec(job)


def test_every_command_that_changes_something_is_a_stewards_or_is_not() -> None:
    assert {*get_args(Change)} == {*get_args(ToWhatIsThere), Submit, Delete, Upload}


def test_words_are_followed_in_the_order_of_term_and_count() -> None:
    order = Order()
    order.follow(Round("j-1", 7, V, 9.0), 5)
    order.follow(Round("j-1", 7, V, 9.0), 5)
    order.follow(Round("j-2", 7, V, 9.0), 1)
    order.follow(Head("j-1", 7, V, "00" * 32), 2)
    order.follow(Beacon(3, "n", online=True), 9)
    for message, count in (
        (Round("j-1", 7, V, 9.0), 4),
        (Round("j-1", 6, V, 9.0), 9),
        (Head("j-3", 6, V, "0" * 32), 9),
    ):
        with pytest.raises(ForgedError, match="said before"):
            order.follow(message, count)
    order.follow(Round("j-1", 8, V, 9.0), 1)
    assert order.term == 8


def test_a_beacon_of_another_life_under_the_same_term_is_heard_and_not_gone_by() -> None:
    order = Order()
    assert order.follow(Beacon(7, "a", online=True), 5)
    assert not order.follow(Beacon(7, "b", online=True), 1)
    assert not order.follow(Beacon(6, "b", online=True), 9)
    assert not order.follow(Beacon(9, "a", online=False), 1)
    assert order.term == 7
    assert order.follow(Beacon(8, "b", online=True), 1)
    with pytest.raises(ForgedError, match="said before"):
        order.follow(Beacon(8, "b", online=True), 0)


def test_a_device_tells_a_life_that_it_does_not_go_by() -> None:
    one, other = pair()
    restored = server_of_another_life()
    beacon = other.unpack(restored.pack(Beacon(7, "n1", online=True)))
    assert isinstance(beacon, Beacon)
    assert not other.seal.goes_by(beacon)
    higher = other.unpack(restored.pack(Beacon(8, "n1", online=True)))
    assert isinstance(higher, Beacon)
    assert other.seal.goes_by(higher)
    assert not other.seal.is_introduced
    assert one.seal.signs


def test_what_is_refused_is_told_once_a_minute_with_how_much_it_was() -> None:
    refusals, error = Refusals(), ForgedError("unsigned", Beacon(7, "n0", online=True))
    assert "refused 1 word that is not signed" in refusals.count(error, "t", 0.0)
    assert [refusals.count(error, "t", now) for now in (1.0, SAY_S - 0.1)] == ["", ""]
    assert "refused 3 words that are not signed" in refusals.count(error, "t", SAY_S)
    assert refusals.counts == {"unsigned": 4}


SIGNED: list[Any] = [*GOLDEN, *SPELT]
edits = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5), st.binary(max_size=8)), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SIGNED), edits, st.booleans())
def test_a_signed_packet_that_is_damaged_is_refused_or_says_the_same(
    golden: tuple[Message, Packet], wounds: list[tuple[int, int, bytes]], to_device: bool
) -> None:
    one, other = pair()
    says, hears = (one, other) if to_device else (other, one)
    message = golden[0]
    if isinstance(message, Offer | Presence | Want | Verdict):
        message = structs.replace(message, device="d1")
    packet = says.pack(message)
    try:
        whole = hears.unpack(packet)
    except WireError:
        whole = None  # not from this side, to that
    payload = packet.payload
    for at, n, put in wounds:
        payload = payload[:at] + put + payload[at + n :]
    one, other = pair()
    try:
        found = (other if to_device else one).unpack(Packet(packet.topic, payload))
    except WireError:
        return
    assert found == whole or whole is None or not _is_proved(whole, to_device)


def _is_proved(message: Message, to_device: bool) -> bool:
    if to_device:
        return isinstance(message, Beacon | Job | Head | Round | Want | Verdict | Presence | Candidate | Status | Reply)
    return isinstance(message, Beacon | Candidate | Head | Presence | Offer)


def test_the_page_shows_these_very_bytes() -> None:
    page = (Path(__file__).resolve().parents[2] / "broker" / "WIRE.md").read_text()
    shown = page.partition("The round of the chapter before, signed")[2].partition("```\n")[2].partition("```")[0]
    digits = "".join(line.partition("    a ")[0].partition("    the ")[0] for line in shown.splitlines())
    assert digits.replace(" ", "") == ROUND_HEX
