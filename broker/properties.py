"""The properties of MQTT 5 as paho keeps them, made cheap: its tables once, not for every packet.

paho's class gives each object the tables of all 27 properties, and looks through them to find nothing there: a fifth of
what a packet costs a process, though next to none of ours has a property. The tables are constants.
"""

from __future__ import annotations

from typing import Any

_TABLES = ("types", "names", "properties")


def share_tables(kind: type[Any]) -> bool:
    """Share the tables of paho's class `Properties` among its objects; return whether they do.

    A class of another shape than is known here, as of a later paho, is left as it is: it works, and costs more.
    """
    if _TABLES[0] in vars(kind):
        return True
    found = vars(kind(0))
    if found.keys() != {"packetType", *_TABLES}:
        return False
    for name in _TABLES:
        setattr(kind, name, found[name])

    def begin(self: Any, packetType: int) -> None:
        vars(self)["packetType"] = packetType

    def clear(self: Any) -> None:
        packet_type = self.packetType
        vars(self).clear()
        vars(self)["packetType"] = packet_type

    kind.__init__, kind.clear = begin, clear
    return True
