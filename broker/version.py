"""Which version of MQTT to speak with a broker: 5 where it is understood, 3.1.1 where it is not. Loads no MQTT library.

1. Silence says nothing about the version: a busy broker is silent too, and so is a network that loses packets. But a
   broker that parses our CONNECT by the older rules may wait for bytes that never come (amqtt does). So after two
   silences running it is asked by a bare CONNECT, which both rules parse alike; only its answer counts.
2. Refused in words (CONNACK "unsupported protocol version"): the broker is older.
3. Answered by what is not MQTT 5, or closed unanswered twice running: the broker may be older, or it may be no broker
   yet (a container's port whose program still starts, another service, a port that wants TLS). So 3.1.1 is tried at
   once, and only a broker that answers that with a CONNACK, whatever it says, is older.
4. What was found holds for the life of this object, so that 5 is not tried in vain at every reconnect. Only a broker
   that refuses 3.1.1 as well (another one may have come to its place) is asked for 5 again.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

_RUNNING = 2


class Connect(Enum):
    """How to connect."""

    NEWER = "MQTT 5"
    BARE = "MQTT 5 without will, credentials and properties, to ask for nothing but the version"
    OLDER = "MQTT 3.1.1"


class ConnectAnswer(Enum):
    """How a CONNECT was answered."""

    ACCEPTED = "by a CONNACK: a welcome, or a refusal for another reason than the version"
    VERSION_REFUSED = "by an MQTT packet that says that this version is not supported"
    GARBAGE = "by bytes that are not this version of MQTT"
    CLOSED = "not at all: the connection was closed"
    SILENCE = "not at all, and the connection stayed open"
    NONE = "there was no connection"


_UNSUPPORTED_VERSION = 132


def answer_of(code: int) -> ConnectAnswer:
    """Return what a CONNACK or DISCONNECT that comes before a welcome answers. code: MQTT 5 reason code."""
    return ConnectAnswer.VERSION_REFUSED if code == _UNSUPPORTED_VERSION else ConnectAnswer.ACCEPTED


_WHEN_RUNNING = {ConnectAnswer.CLOSED: Connect.OLDER, ConnectAnswer.SILENCE: Connect.BARE}


class VersionChoice:
    """What the next CONNECT speaks, from the answers to those before.

    setting: "auto", or the one version to be used whatever the broker answers.
    """

    def __init__(self, setting: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = setting == "auto"
        self._older = setting == "3.1.1"
        self._running = (ConnectAnswer.ACCEPTED, 0)  # the last answer to `NEWER`, and how many times it came running
        self.next = self._usual
        """How to connect next."""

    def note(self, answer: ConnectAnswer) -> bool:
        """Learn from the answer to the last CONNECT; True: connect again at once, to ask another way."""
        at_once = self._learn(answer) if self._auto else None
        self.next = at_once or self._usual
        return at_once is not None

    @property
    def _usual(self) -> Connect:
        return Connect.OLDER if self._older else Connect.NEWER

    def _learn(self, answer: ConnectAnswer) -> Connect | None:
        """Return how to ask at once, if there is something to find out."""
        if self.next is Connect.OLDER:
            if answer in (ConnectAnswer.ACCEPTED, ConnectAnswer.VERSION_REFUSED, ConnectAnswer.GARBAGE):
                self._older = answer is ConnectAnswer.ACCEPTED
                self._running = (answer, 0)
            return None
        if answer in (ConnectAnswer.VERSION_REFUSED, ConnectAnswer.GARBAGE):
            self._older = answer is ConnectAnswer.VERSION_REFUSED
            return Connect.OLDER
        if self.next is Connect.BARE:
            self._running = (answer, 0)
            return Connect.NEWER if answer is ConnectAnswer.ACCEPTED else None
        last, n = self._running
        self._running = (answer, n + 1 if answer is last else 1)
        return _WHEN_RUNNING.get(answer) if self._running[1] >= _RUNNING else None
