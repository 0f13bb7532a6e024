"""One connection after another, for ever: what the network thread does. Knows neither MQTT libraries nor sockets.

1. Between two attempts it rests, with exponential backoff and full jitter; a connection that lasted ends a series of
   failures.
2. While the broker's version of MQTT is in doubt, the next question is asked at once.
3. A connection that was left for another will is no failure: the next one is made at once.
4. Who is taken over stops for good.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from broker.backoff import backoff_s
from broker.goodbye import Goodbye
from broker.mailbox import Mailbox
from broker.transport import SessionTakenOver
from broker.version import Connect, ConnectAnswer, VersionChoice

logger = logging.getLogger(__name__)

_STEADY_S = 30.0  # a connection that lasted this long ends a series of failures


class Ended(NamedTuple):
    """Why a connection is over, and how the broker had answered our CONNECT.

    taken_over: another client has our id. renewed: we left it for another will.
    """

    reason: str
    answer: ConnectAnswer
    taken_over: bool = False
    renewed: bool = False


class Reconnection:
    """The loop of one transport.

    connect: makes one connection, keeps it to its end and tells why it ended. retry_s: the backoff's first and last.
    """

    def __init__(
        self,
        connect: Callable[[Connect], Ended],
        mailbox: Mailbox,
        goodbye: Goodbye,
        *,
        protocol: Literal["auto", "5", "3.1.1"],
        retry_s: tuple[float, float],
        name: str,
    ) -> None:
        self._connect, self._mailbox, self._goodbye = connect, mailbox, goodbye
        self._version = VersionChoice(protocol)
        self._retry_s = retry_s
        self._name = name

    def run(self) -> None:
        """Connect until closed, or taken over."""
        failures = 0
        while not self._goodbye.closing:
            started_at = time.monotonic()
            ended = self._attempt()
            logger.info("mqtt=offline client=%s reason=%r", self._name, ended.reason)
            if ended.taken_over:
                self._mailbox.tell(SessionTakenOver())
                break
            if not self._goodbye.closing:
                self._mailbox.complain(ended.reason)
            if time.monotonic() - started_at > _STEADY_S:
                failures = 0
            if not ended.renewed:
                failures += 1
                self._rest(backoff_s(failures, *self._retry_s, random.random()))  # noqa: S311 -- jitter is no secret
        self._mailbox.waker.close()

    def _attempt(self) -> Ended:
        ended = self._carry()
        while self._version.note(ended.answer) and not self._goodbye.closing:
            logger.info("mqtt=again client=%s as=%r reason=%r", self._name, self._version.next.value, ended.reason)
            ended = self._carry()
        return ended

    def _carry(self) -> Ended:
        """Make one connection, keep it to its end, and forget what was meant for it or came from it unheard."""
        ended = self._connect(self._version.next)
        self._mailbox.go_offline()
        return ended

    def _rest(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while not self._goodbye.closing and (left_s := until - time.monotonic()) > 0:
            self._mailbox.waker.wait(left_s)
