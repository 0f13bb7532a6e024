"""Somebody who looks on a fleet for as long as it lives: listens at the broker, reads the store, and sees both.

    broker ──Observer──▶ ┐
                         ├─ one thread ─▶ Sight ─▶ view         the latest, for whoever looks
    store ──Source─────▶ ┘                     └─▶ subscribers  at most twice a second, with what has happened

1. It decides nothing and writes nothing but a question: which devices are there, where only retained words say so.
   Neither the broker's end nor the aggregator's is its own: it connects again for ever, and reads again once a second;
   meanwhile the view says what is missing.
2. `view` is replaced and never changed: whoever looks needs no lock. Subscribers are called from its thread, and one
   that throws is logged and called again.
3. A fault of its own ends a connection and no more: it begins again AGAIN_S later.
4. Offers carry whole updates. Where they come to more than OFFER_BYTES_S they are not listened to any more: then the
   store says what counts, as for an observer who may not hear them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aggregator.database import StoreError
from broker.messages import Message, Offer, Reply
from broker.transport import Offline, Online, SessionTakenOver
from fleet.console.observer import Observer, Said, over_mqtt
from fleet.sight.asking import Asking
from fleet.sight.sight import Sight
from fleet.sight.view import Happened, View
from runtime.faults import Fault, contain

if TYPE_CHECKING:
    from broker.connection import BrokerSettings
    from broker.wire import Wire
    from fleet.sight.readings import Readings
    from fleet.sight.source import Source

log = logging.getLogger(__name__)

WORDS = ("aggregator", "job", "status", "round", "device", "vitals", "verdict", "offer")
VIEW_S = 0.5
"""From one view that subscribers are told of to the next, at least."""
CATCH_UP_S = 0.05
"""From one view to the next where more has changed than one shows."""
POLL_S = 1.0
SHARE = 0.1
"""Of the time, at most, goes into reading the store."""
BATCH = 512
"""Messages that are taken before the clock is looked at again."""
OFFER_BYTES_S = 2_000_000
AGAIN_S = 5.0
"""After another client took its name, or a fault."""

RETRY_S = (0.5, 15.0)
"""The first and the last pause between two tries to connect."""

Subscriber = Callable[[View, Sequence[Happened]], None]


class Lookout:
    """A thread that looks on. observe: gives a new listener. source: reads the store, where there is one to read."""

    def __init__(
        self,
        fleet: str,
        observe: Callable[[], Observer],
        source: Source | None = None,
        *,
        software: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._observe = observe
        self._source = source
        self._wall = wall
        self._sight = Sight(fleet, software=software)
        self.view: View = self._sight.view(wall())
        """The latest."""
        self.has_read = False
        """Whether the source has given anything yet."""
        self.offline = ""
        """Why there is no connection to the broker."""
        self.deaf_to: tuple[str, ...] = ()
        """Words that it has ceased to listen to."""
        self._subscribers: list[Subscriber] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
        self._asking = Asking()
        self._happened: list[Happened] = []
        self._poll_at = self._view_at = self._catch_up_at = 0.0
        self._told: View | None = None
        """The view that subscribers were told of last."""
        self._offered, self._offered_at = 0, 0.0
        """Bytes of offers since then."""

    @property
    def readings(self) -> Readings | None:
        """What reads the store; None where there is none to read."""
        return None if self._source is None else self._source.readings

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have this called with each new view and what has happened since the last; return what ends that."""
        self._subscribers = [*self._subscribers, subscriber]

        def leave() -> None:
            self._subscribers = [one for one in self._subscribers if one is not subscriber]

        return leave

    def start(self) -> None:
        """Begin to look on."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it; the last view stays."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._source is not None:
            self._source.close()

    def __enter__(self) -> Lookout:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The thread.

    def _run(self) -> None:
        while not self._stopping.is_set():
            if isinstance(failed := contain(self._once), Fault):
                log.error("looking on has failed, and begins again: %s", failed.why)
                self._sight.connect(connected=False, now=self._wall())
            self._stopping.wait(AGAIN_S)

    def _once(self) -> None:
        """Look on over one client."""
        with self._observe() as observer:
            observer.listen(*(word for word in WORDS if word not in self.deaf_to))
            observer.listen_for_replies()
            self._look_on(observer)

    def _look_on(self, observer: Observer) -> None:
        """Listen until it is stopped, or another client has taken the name."""
        while not self._stopping.is_set():
            for n in range(BATCH):
                heard = observer.take(0.0 if n else self._patience_s())
                match heard:
                    case None:
                        break
                    case Online():
                        self._sight.connect(connected=True, now=self._wall())
                        self._asking.begin(time.monotonic())
                    case Offline(reason):
                        self.offline = reason
                        self._sight.connect(connected=False, now=self._wall())
                    case SessionTakenOver():
                        self._sight.connect(connected=False, now=self._wall())
                        return
                    case Said(message, retained):
                        self._hear(observer, message, retained=retained)
            self._pass_time()
            if self._sight.has_silent and self._sight.is_led:
                asked = self._asking.next(observer.client, time.monotonic())
                if asked is not None:
                    observer.ask(asked)

    def _patience_s(self) -> float:
        due = self._view_at if self._source is None else min(self._view_at, self._poll_at)
        if self._sight.is_behind:
            due = min(due, self._catch_up_at)
        return min(VIEW_S, max(0.0, due - time.monotonic()))

    def _hear(self, observer: Observer, message: Message, *, retained: bool) -> None:
        self._sight.hear(message, self._wall(), retained=retained)
        if isinstance(message, Offer):
            self._weigh(observer, len(message.body))
        elif isinstance(message, Reply):
            there, further = self._asking.take(message, time.monotonic())
            self._sight.confirm(there, self._wall())
            if further is not None:
                observer.ask(further)

    def _weigh(self, observer: Observer, n_bytes: int) -> None:
        now = time.monotonic()
        if now > self._offered_at + 1.0:
            self._offered, self._offered_at = 0, now
        self._offered += n_bytes
        if self._offered > OFFER_BYTES_S:
            self._offered = 0
            observer.leave("offer")
            self.deaf_to = ("offer",)
            log.info("offers are not listened to any more: they carry more than %d bytes a second", OFFER_BYTES_S)

    def _pass_time(self) -> None:
        now = time.monotonic()
        if now >= self._poll_at:
            self._poll()
            took = time.monotonic() - now
            self._poll_at = now + max(POLL_S, took / SHARE)
        if now >= self._view_at:
            self._view_at = now + VIEW_S
            self._show()
        elif self._sight.is_behind and now >= self._catch_up_at:
            self.view = self._sight.view(self._wall())
            self._catch_up_at = time.monotonic() + CATCH_UP_S

    def _poll(self) -> None:
        if self._source is None:
            return
        try:
            found = self._source.poll()
        except StoreError as error:
            self._sight.complain(str(error))
            return
        self._sight.complain("")
        if found is not None:
            self._sight.read(found.facts, self._wall())
            self._sight.confirm(found.there, self._wall())
            self.has_read = True
            self._happened.extend(found.happened)

    def _show(self) -> None:
        view = self._sight.view(self._wall())
        self.view = view
        if view is self._told and not self._happened:
            return
        self._told, happened, self._happened = view, self._happened, []
        for subscriber in self._subscribers:
            if isinstance(failed := contain(lambda call=subscriber: call(view, happened)), Fault):  # type: ignore[misc]
                log.error("somebody who looks on has failed: %s", failed.why)


def lookout_on(broker: BrokerSettings, wire: Wire, source: Source | None = None, *, software: str = "") -> Lookout:
    """Return a lookout on the fleet of a wire, not yet started. Its client ids are its own."""
    return Lookout(wire.fleet, lambda: over_mqtt("lookout", broker, wire, retry_s=RETRY_S), source, software=software)
