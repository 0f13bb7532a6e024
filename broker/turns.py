"""What a broker may say, and when (MQTT 5, sections 3.2 and 3.3.1.2). Pure.

An answer to CONNECT comes first, and once; nothing comes at QoS 2, since nobody here asks for that. paho would take
anything at any time: a SUBACK before the welcome makes a connection on which nothing was asked, packets before it wait
to be acknowledged for ever, a second welcome has all filters asked again, and what comes at QoS 2 is kept until its
sender says more of it.
"""

from __future__ import annotations

from broker.framing import Answer, Delivery, TooLong

_CONNACK, _PUBLISH, _DISCONNECT, _QOS_2 = 0x20, 0x30, 0xE0, 0x04


def may_come(packet: Delivery | Answer | TooLong | bytes, *, welcome: bool) -> bool:
    """Return whether this may come now. welcome: the broker has let us in."""
    if not isinstance(packet, bytes):
        return welcome
    kind = packet[0] & 0xF0
    if not welcome:
        return kind in (_CONNACK, _DISCONNECT)
    return kind != _CONNACK and not (kind == _PUBLISH and packet[0] & _QOS_2)
