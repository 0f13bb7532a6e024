from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.framing import LONGEST
from broker.packet_limit import LEAST_BYTES, RUNNING, SUSPECT_BYTES, PacketLimit
from broker.transport import Denied, Packet, wire_bytes


def sized(n_bytes: int, topic: str = "a") -> Packet:
    """Return a packet of this size on the wire."""
    packet = Packet(topic, bytes(n_bytes - 12 - len(topic)))
    packet = Packet(topic, packet.payload + bytes(n_bytes - wire_bytes(packet)))
    assert wire_bytes(packet) == n_bytes
    return packet


def reconnect(limit: PacketLimit, *endings: list[Packet], code: int | None = None) -> list[Denied]:
    """Let one connection after another end on these packets; give the answers to the last, as the next one begins."""
    denied: list[Denied] = []
    for on_their_way in endings:
        limit.connected(None)
        denied = limit.hung_up(on_their_way, code)
    limit.connected(None)
    return denied


@pytest.mark.parametrize(
    ("told", "stated", "holds"),
    [
        (None, None, None),
        (5000, None, 5000),
        (None, 6000, 6000),
        (5000, 6000, 5000),
        (7000, 6000, 6000),
        (None, 0, None),
    ],
)
def test_the_smaller_of_what_broker_and_operator_say_holds(told: int, stated: int, holds: int | None) -> None:
    limit = PacketLimit(told)
    limit.connected(stated)
    assert limit.most_bytes == holds
    if holds is not None:
        assert limit.denial(sized(holds)) is None
        assert limit.allows(sized(holds))
        assert not limit.allows(sized(holds), 1)
        denied = limit.denial(sized(holds + 1))
        assert denied is not None
        assert f"{holds + 1} bytes are more than the {holds} " in denied.reason


def test_a_denial_says_whose_limit_it_is() -> None:
    limit = PacketLimit(5000)
    limit.connected(None)
    told = limit.denial(sized(6000))
    limit.connected(4000)
    stated = limit.denial(sized(6000))
    assert told is not None
    assert stated is not None
    assert told.reason.endswith("of max_packet_bytes in [broker]")
    assert stated.reason.endswith("that the broker takes")


def test_the_brokers_limit_is_that_of_the_present_connection() -> None:
    limit = PacketLimit()
    limit.connected(4000)
    limit.connected(None)
    assert limit.most_bytes is None


def test_a_packet_that_three_connections_running_end_on_is_given_up_and_the_limit_falls_below_it() -> None:
    limit, small, large = PacketLimit(), sized(300, "small"), sized(100_000, "large")
    assert reconnect(limit, [small, large]) == []
    assert reconnect(limit, [small, large]) == []
    assert limit.most_bytes is None
    (denied,) = reconnect(limit, [small, large])
    assert denied.topic == "large"
    assert "100000 bytes" in denied.reason
    assert "set max_packet_bytes in [broker]" in denied.reason
    assert limit.most_bytes == 50_000
    again = limit.denial(large)
    assert again is not None
    assert "set max_packet_bytes in [broker]" in again.reason


def test_the_limit_falls_step_by_step_down_to_what_a_broker_takes() -> None:
    limit, tries = PacketLimit(), []
    for _ in range(4):
        packet = sized(min(limit.most_bytes or 100_000, 100_000))
        tries.append(wire_bytes(packet))
        assert reconnect(limit, *[[packet]] * RUNNING)
    assert tries == [100_000, 50_000, 25_000, 12_500]


def test_what_was_acknowledged_is_not_given_up_again() -> None:
    limit = PacketLimit()
    limit.connected(None)
    limit.acknowledged(sized(90_000))
    reconnect(limit, *[[sized(100_000)]] * RUNNING)
    assert limit.most_bytes == 90_000


def test_a_broker_that_takes_less_than_it_once_did_is_learnt_too() -> None:
    limit = PacketLimit()
    limit.connected(None)
    limit.acknowledged(sized(100_000))
    assert reconnect(limit, *[[sized(100_000)]] * RUNNING)
    assert limit.most_bytes == 50_000


@given(st.lists(st.lists(st.integers(0, SUSPECT_BYTES - 20), max_size=5), min_size=3, max_size=20))
def test_small_packets_are_never_suspected(endings: list[list[int]]) -> None:
    limit = PacketLimit()
    assert reconnect(limit, *[[Packet("a", bytes(size)) for size in sizes] for sizes in endings]) == []
    assert limit.most_bytes is None


@pytest.mark.parametrize("acknowledged", [100_000, 100_001])
def test_an_acknowledgement_of_as_many_bytes_clears_a_suspect(acknowledged: int) -> None:
    limit = PacketLimit()
    for _ in range(10):
        assert reconnect(limit, [sized(100_000)], [sized(100_000)]) == []
        limit.acknowledged(sized(acknowledged))
    assert limit.most_bytes is None


def test_an_acknowledgement_of_fewer_bytes_clears_nothing() -> None:
    limit = PacketLimit()
    reconnect(limit, [sized(100_000)], [sized(100_000)])
    limit.acknowledged(sized(99_999))
    assert limit.hung_up([sized(100_000)], None)


def test_a_connection_that_ends_on_nothing_large_breaks_the_run() -> None:
    limit, large = PacketLimit(), [sized(100_000)]
    assert reconnect(limit, large, large, [], large, large, [sized(300)], large) == []


def test_different_packets_of_different_jobs_make_one_run_and_the_largest_is_too_large() -> None:
    limit = PacketLimit()
    (denied,) = reconnect(limit, [sized(100_000, "one")], [sized(70_000, "other")], [sized(100_000, "one")])
    assert denied.topic == "one"
    assert limit.most_bytes == 50_000


def test_one_large_packet_does_not_testify_against_smaller_ones() -> None:
    limit, one, other = PacketLimit(), [sized(100_000)], [sized(9_000)]
    assert reconnect(limit, one, other, other) == []
    assert limit.most_bytes == 50_000
    assert reconnect(limit, other)  # the third that ends on this


@pytest.mark.parametrize("code", [136, 137, 139, 141, 142, 152, 160])
def test_a_broker_that_says_why_it_ends_does_not_blame_a_packet(code: int) -> None:
    limit = PacketLimit()
    assert reconnect(limit, *[[sized(100_000)]] * 5, code=code) == []


@pytest.mark.parametrize("code", [128, 129, 130, 131, 151])
def test_a_broker_that_says_something_vague_may_mean_the_size(code: int) -> None:
    limit = PacketLimit()
    assert reconnect(limit, *[[sized(100_000)]] * RUNNING, code=code)


@pytest.mark.parametrize("size", [100_000, 3000, 1000])
def test_a_broker_that_says_too_large_is_believed_at_once(size: int) -> None:
    limit = PacketLimit()
    (denied,) = reconnect(limit, [sized(20, "small"), sized(size, "large")], code=149)
    assert denied.topic == "large"
    assert f"{size} bytes" in denied.reason
    assert "set max_packet_bytes in [broker]" in denied.reason
    assert limit.most_bytes == min(size - 1, max(size // 2, LEAST_BYTES))


def test_too_large_is_not_said_of_what_is_smaller_than_one_just_acknowledged() -> None:
    limit = PacketLimit()
    limit.connected(None)
    limit.acknowledged(sized(500))
    assert limit.hung_up([sized(400)], 149) == []
    assert limit.hung_up([], 149) == []


@given(st.integers(SUSPECT_BYTES, 200_000), st.lists(st.integers(0, 300_000), min_size=1, max_size=40))
def test_a_silent_broker_ends_few_connections_on_what_it_never_takes(takes: int, wishes: list[int]) -> None:
    limit, hung_up = PacketLimit(), []
    for size in [*wishes, *[max(wishes)] * 20]:
        limit.connected(None)
        packet = Packet("a", bytes(size))
        if (too_large := wire_bytes(packet) > takes) and limit.denial(packet) is None:
            limit.hung_up([packet], None)
        elif not too_large:
            limit.acknowledged(packet)
        hung_up.append(too_large and limit.denial(packet) is None)
    assert not hung_up[-1]
    limit.connected(None)
    assert limit.most_bytes is None or limit.most_bytes >= takes // 2


class Long(bytes):
    """A payload that says to be so long."""

    said = 0

    def __len__(self) -> int:
        return self.said


@pytest.mark.parametrize(("n_bytes", "is_denied"), [(LONGEST - 8, False), (LONGEST - 7, True), (2**30, True)])
def test_without_a_limit_what_mqtt_has_no_length_for_is_denied(n_bytes: int, is_denied: bool) -> None:
    """Or it would end the connection as it is written, and the next one."""
    payload = Long()
    payload.said = n_bytes
    denied = PacketLimit().denial(Packet("abc", payload))
    assert (denied is not None) == is_denied
    assert denied is None or "that MQTT has words for" in denied.reason
