"""The errors of this leaf.

    BrokerError
    ├── WireError     a message from the other side breaks WIRE.md: refuse it, count it, go on
    └── StartError    an embedded broker could not be started

Misuse by our own code is a TypeError or ValueError of Python, never one of these.
"""

from __future__ import annotations


class BrokerError(Exception):
    """Anything that goes wrong in words on the wire."""


class WireError(BrokerError):
    """A message that breaks WIRE.md. The text says which rule; nothing of the message was used."""


class StartError(BrokerError):
    """A broker that could not be started; the text carries the end of its log."""
