"""What the page asks of the aggregator: the same commands that `fedge job` and `fedge device` send, over MQTT.

Each is sent by a connection of its own, on one of two threads, within a bounded time. What a form has asked for is done
once, however often it is sent: whoever sends it again hears the answer to the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from aggregator.askers import page_of
from broker.connection import BrokerSettings
from broker.messages import Command, Pause, Quarantine, Release, Resume, RollBack, Stop
from identity.settings import IdentitySettings

log = logging.getLogger(__name__)

AT_ONCE = 2
MOST_UNDER_WAY = 8
"""Orders that are sent or wait for that."""
MOST_KEPT = 1000
"""Answers that are given again."""


class Told(NamedTuple):
    """What came of an order. text: a sentence, of the aggregator's or of ours."""

    is_done: bool
    text: str


class Order(NamedTuple):
    """What somebody asks for. target: a job's id, or a device. word: a version, or why a device is put away."""

    kind: str
    target: str
    word: str = ""

    def command(self, client: str, request: str, user: str) -> Command:
        """Return the command. Raises KeyError for a kind that is none."""
        make: dict[str, Callable[[], Command]] = {
            "pause": lambda: Pause(client, request, self.target),
            "resume": lambda: Resume(client, request, self.target),
            "stop": lambda: Stop(client, request, self.target),
            "roll-back": lambda: RollBack(client, request, self.target, self.word),
            "quarantine": lambda: Quarantine(
                client, request, self.target, f"{self.word} ({user})" if self.word else f"by {user}"
            ),
            "release": lambda: Release(client, request, self.target),
        }
        return make[self.kind]()


Send = Callable[[Order, str, str], Told]
"""Send an order of a form for a user and return what came of it; takes half a minute at most."""


class Orders:
    """Sends orders, each once. Belongs to the loop of the server."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._limit = CapacityLimiter(AT_ONCE)
        self._answers: OrderedDict[tuple[str, str, Order], asyncio.Future[Told]] = OrderedDict()

    async def give(self, order: Order, form: str, user: str) -> Told:
        """Send an order; what this form has asked for before is not sent again, and answered as then."""
        key = (user, form, order)
        answer = self._answers.get(key)
        if answer is None:
            if sum(not one.done() for one in self._answers.values()) >= MOST_UNDER_WAY:
                return Told(False, "Many orders are under way: try again in a moment. Nothing was done.")
            # A task of its own: who asks and goes away does not leave an order half sent.
            answer = self._answers[key] = asyncio.ensure_future(self._give(order, form, user))
            while len(self._answers) > MOST_KEPT:
                self._answers.popitem(last=False)
        return await asyncio.shield(answer)

    async def _give(self, order: Order, form: str, user: str) -> Told:
        try:
            told = await run_sync(self._send, order, form, user, limiter=self._limit)
        except Exception:
            log.exception("order=failed user=%s order=%s target=%s", user, order.kind, order.target)
            return Told(False, "A fault of ours: the log says more. It may have been done all the same: look.")
        log.info("order=%s user=%s target=%s done=%s: %s", order.kind, user, order.target, told.is_done, told.text)
        return told


def sender(fleet: str, broker: BrokerSettings, identity: IdentitySettings) -> Send:
    """Return what sends orders to a fleet as an operator does. Nothing is connected before there is one to send."""

    def send(order: Order, form: str, user: str) -> Told:
        # Here alone: it knows the numbers of a model too, which a page that nobody acts on has no memory for.
        from fleet.console.operator import Console, OperatorConfig, OperatorError
        from runtime.settings import SettingsError

        config = OperatorConfig(fleet, broker, identity)
        request = hashlib.sha256(f"{user}\n{form}\n{order}".encode()).hexdigest()[:32]
        try:
            with Console(config, page_of(user)) as console:
                return Told(True, console.ask(order.command(console.client, request, user)).text)
        except (OperatorError, SettingsError) as error:
            return Told(False, str(error))

    return send
