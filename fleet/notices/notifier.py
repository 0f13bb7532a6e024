"""The thread that looks for incidents and has people told: see incidents.py for what, webhook.py for how.

    lookout.view, the store's events ──▶ Incidents ──▶ notices ──written down──▶ webhook, topic `notice`

It takes events from the store, those after the last that it has looked at, so that those of the time in which it did
not run are told too. Where it has never looked, it begins behind what is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from aggregator.database import StoreError
from aggregator.looking_on import NotifySettings
from broker.messages import Notice
from fleet.notices.incidents import Incidents
from fleet.notices.surroundings import Lookaround
from fleet.notices.told import FILE, MOST_UNSENT, Told, ToldError, read, write
from fleet.notices.webhook import Post, Webhook
from fleet.sight.lookout import Lookout
from fleet.sight.view import Happened, View
from runtime.faults import Fault, contain
from runtime.formats import FormatError
from runtime.settings import SettingsError

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""From one look to the next, at most; nobody waits longer for a notice of what has happened."""
WRITE_S = 60.0
"""What nobody is told of, as for how long a device has been away, is written down so often."""
PAGE = 200
"""Events that are read at once."""


class Notifier:
    """See `fleet.sight.process.Thing`. files: certificates and lists of the revoked whose end is told.

    Raises SettingsError for an address that is none, and for a file of what was told that cannot be used.
    """

    def __init__(
        self,
        lookout: Lookout,
        settings: NotifySettings,
        folder: Path,
        files: Sequence[str] = (),
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._told = _remembered(folder)
        try:
            post = Post(settings.webhook) if settings.webhook else None
        except ValueError as error:
            raise SettingsError(f"[notify] webhook: {error}") from error
        told = self._told
        self._lookout, self._folder, self._wall = lookout, folder, wall
        self._webhook = None if post is None else Webhook(lookout.view.fleet, post, told.unsent, told.dropped)
        self._say = lookout.say if settings.topic else None
        self._around = Lookaround(folder, files)
        self._incidents = Incidents(settings, told)
        self._look_s = min(LOOK_S, max(0.2, settings.lost_after_s / 4))
        self._news, self._stopping, self._woken = True, False, threading.Event()
        self._n_changes, self._write_at, self._written = 0, 0.0, msgspec.json.encode(told)
        self._is_failing = False
        self._leave: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """See `Thing`."""
        self._leave = self._lookout.subscribe(self._hear)
        if self._webhook is not None:
            self._webhook.start()
        self._thread.start()

    def stop(self) -> None:
        """See `Thing`."""
        self._leave()
        self._stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        if self._webhook is not None:
            self._webhook.stop()

    def _hear(self, _view: View, happened: Sequence[Happened]) -> None:
        if happened:
            self._news = True
            self._woken.set()

    # The thread.

    def _run(self) -> None:
        while not self._stopping:
            if isinstance(failed := contain(self._look), Fault):
                log.error("notices=failed why=%s", failed.why)
            self._woken.wait(self._look_s)
            self._woken.clear()
        self._remember(is_last=True)

    def _look(self) -> None:
        if not self._lookout.has_read:
            return
        around = self._around.look(time.monotonic())
        while True:
            happened = self._next()
            notices = self._incidents.look(self._lookout.view, happened, around, self._wall())
            self._hand_over(notices)
            if len(happened) < PAGE:
                return

    def _next(self) -> Sequence[Happened]:
        """Return the events that were not looked at yet, a page at most, the earliest first."""
        readings = self._lookout.readings
        if readings is None or not self._news:
            return ()
        self._news = False
        try:
            if self._told.last is None:
                latest = readings.events(most=1)
                self._told.last = latest[0].n if latest else 0
                return ()
            found = readings.events(since=self._told.last, most=PAGE)
            if not found and (latest := readings.events(most=1)) and latest[0].n < self._told.last:
                self._told.last, self._news = 0, True  # another store lies there
        except StoreError:  # the view says so already
            self._news = True
            return ()
        self._news |= len(found) == PAGE
        return found

    def _hand_over(self, notices: Sequence[Notice]) -> None:
        self._remember(notices)
        for notice in notices:
            log.info("notice kind=%s job=%s device=%s text=%s", notice.kind, notice.job, notice.device, notice.text)
            if self._webhook is not None:
                self._webhook.post(notice)
            if self._say is not None:
                self._say(notice)

    def _remember(self, notices: Sequence[Notice] = (), *, is_last: bool = False) -> None:
        """Write down what was told, and what will be now, where that has changed and it is time to."""
        now, n_changes, unsent = time.monotonic(), 0, list[Notice]()
        if self._webhook is not None:
            n_changes, self._told.dropped = self._webhook.n_changes, self._webhook.dropped
            unsent = [*self._webhook.unsent(), *notices][-MOST_UNSENT:]
        if not (notices or is_last or n_changes != self._n_changes or now >= self._write_at):
            return
        self._n_changes, self._write_at, self._told.unsent = n_changes, now + WRITE_S, unsent
        written = msgspec.json.encode(self._told)
        if written == self._written:
            return
        try:
            write(self._folder, self._told)
        except OSError as error:
            if not self._is_failing:
                log.error("what was told cannot be written down: %s; a start may tell it again", error.strerror)
            self._is_failing = True
            return
        self._written, self._is_failing = written, False


def _remembered(folder: Path) -> Told:
    """Return what was told before; nothing where that is damaged. Raises SettingsError."""
    try:
        return read(folder)
    except ToldError as error:
        log.error("%s; what was told before may be told again", error)
        return Told()
    except OSError as error:
        raise SettingsError(f"{folder / FILE}: {error.strerror}") from error
    except FormatError as error:
        raise SettingsError(str(error)) from error
