from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from broker.aliases import AT_ONCE, REMEMBERED, Aliases
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.transport import Online, Packet


def test_the_first_topics_get_their_aliases_at_once() -> None:
    aliases = Aliases(AT_ONCE + 1)
    for number in range(1, AT_ONCE + 1):
        topic = f"first/{number}"
        assert [aliases.name(topic) for _ in range(2)] == [(topic, number), ("", number)]


def test_a_later_topic_gets_its_alias_at_the_second_publish_and_travels_as_it_from_the_third() -> None:
    aliases, number = Aliases(AT_ONCE + 1), AT_ONCE + 1
    for index in range(AT_ONCE):
        aliases.name(f"first/{index}")
    assert [aliases.name("a") for _ in range(3)] == [("a", None), ("a", number), ("", number)]


def test_a_broker_without_aliases_gets_every_topic_in_full() -> None:
    aliases = Aliases(0)
    assert [aliases.name("a") for _ in range(3)] == [("a", None)] * 3


def test_topics_that_come_once_use_up_no_alias() -> None:
    aliases, number = Aliases(AT_ONCE + 1), AT_ONCE + 1
    for index in range(3 * REMEMBERED):
        aliases.name(f"chunk/{index}")
    assert [aliases.name("offer") for _ in range(2)] == [("offer", None), ("offer", number)]


@given(st.lists(st.sampled_from("abcdef"), max_size=60), st.integers(0, 4))
def test_a_broker_that_follows_the_aliases_always_knows_the_topic(topics: list[str], most: int) -> None:
    aliases, known = Aliases(most), {}
    for topic in topics:
        written, alias = aliases.name(topic)
        if alias is not None:
            assert 1 <= alias <= most
            known[alias] = written or known[alias]
        assert (known[alias] if alias is not None else written) == topic


def test_mosquitto_gives_out_aliased_packets_under_their_topic(mosquitto: EmbeddedBroker) -> None:
    settings = BrokerSettings(host=mosquitto.host, port=mosquitto.port)
    sender, receiver = MqttTransport(settings, "sender"), MqttTransport(settings, "receiver")
    receiver.subscribe("a/b", "c")
    try:
        for transport in (sender, receiver):
            transport.open()
            assert isinstance(transport.take(120), Online)
        sent = [Packet(topic, str(n).encode()) for n, topic in enumerate(["a/b", "a/b", "c", "a/b", "a/b", "c", "c"])]
        for packet in sent:
            assert sender.publish(packet)
        until, got = time.monotonic() + 10, []
        while len(got) < len(sent) and time.monotonic() < until:
            if isinstance(event := receiver.take(0.5), Packet):
                got.append(event)
        assert got == sent
    finally:
        sender.close()
        receiver.close()
