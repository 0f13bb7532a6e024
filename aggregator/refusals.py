"""The words of a refusal: what a device is told of it, and behind that what only its operator is. Pure.

    its norm is far from its peers' (for the operator: 93.5 where 2.25 is let in)

By a number an attacker could measure a gate, and come back just below it. So the device's part has none; the whole is
what is stored, shown to operators and logged, and `told` cuts it at the door.
"""

from __future__ import annotations

BARRED = "in quarantine"
"""Begins the refusal of what a device in quarantine offers."""
FOR_OPERATOR = " (for the operator: "
"""Begins the part of a reason that no device is told; `)` ends it."""


def reason(why: str, for_operator: str = "") -> str:
    """Return a reason as it is stored: what the device is told, and what its operator is told beside."""
    return f"{why}{FOR_OPERATOR}{for_operator})" if for_operator else why


def told(refused: str) -> str:
    """Return what a device is told of a reason.

    >>> told(reason("it is far from its peers'", "9.1 where 2 is let in"))
    "it is far from its peers'"
    """
    return refused.partition(FOR_OPERATOR)[0]
