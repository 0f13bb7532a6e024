from __future__ import annotations

from typing import Any

import pytest
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import broker.client  # noqa: F401 -- it has the tables shared
from broker.properties import share_tables


def test_the_objects_of_paho_share_their_tables() -> None:
    one, other = Properties(PacketTypes.PUBLISH), Properties(PacketTypes.CONNECT)
    assert share_tables(Properties)
    assert vars(one) == {"packetType": PacketTypes.PUBLISH}
    assert vars(other) == {"packetType": PacketTypes.CONNECT}
    assert one.names is other.names
    assert one.properties[one.names["Topic Alias"]][1] == [PacketTypes.PUBLISH]


def test_properties_are_written_and_read_and_stay_each_their_own() -> None:
    said = Properties(PacketTypes.PUBLISH)
    said.MessageExpiryInterval, said.TopicAlias = 60, 7
    said.UserProperty = ("a", "b")
    heard = Properties(PacketTypes.PUBLISH)
    heard.ContentType = "before"
    _, n_bytes = heard.unpack(said.pack() + b"payload")
    assert n_bytes == len(said.pack())
    assert heard.json() == {"MessageExpiryInterval": 60, "TopicAlias": 7, "UserProperty": [("a", "b")]}
    heard.clear()
    assert heard.isEmpty()
    assert heard.packetType == PacketTypes.PUBLISH
    assert not said.isEmpty()
    assert Properties(PacketTypes.PUBLISH).pack() == b"\0"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (PacketTypes.CONNECT, "TopicAlias", 1),
        (PacketTypes.PUBLISH, "TopicAlias", 0),
        (PacketTypes.PUBLISH, "Colour", 1),
    ],
)
def test_what_paho_refuses_it_goes_on_refusing(kind: int, name: str, value: int) -> None:
    with pytest.raises(MQTTException):
        setattr(Properties(kind), name, value)


def test_a_class_of_another_shape_is_left_alone() -> None:
    class Later:
        def __init__(self, packetType: int) -> None:
            self.packetType, self.values = packetType, dict[str, Any]()

    before = dict(vars(Later))
    assert not share_tables(Later)
    assert dict(vars(Later)) == before
