"""The agent has its certificate renewed before it ends: from two thirds of its time on, by itself.

    resting ──late──▶ drafting ──request is made──▶ asking ──answer──▶ adopting ──▶ resting
       ▲                  │                           │                   │
       └───────────── what fails is said, and tried again PAUSE_S later ──┘

Its law:
1. Keys, certificates and signatures are a child process's (identity/renewal.py); here are bytes, and the time.
2. One child at a time, one request in PAUSE_S; the agent works on whatever becomes of it.
3. The connection that stands stays as it is. The next one reads the new files.
"""

from __future__ import annotations

import datetime as dt
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from broker import issuing
from broker.transport import Packet, Transport
from identity.validity import ValidityError, validity_of
from runtime.children import environment
from runtime.words import clean

log = logging.getLogger(__name__)

PAUSE_S = 3600.0
ANSWER_S = 60.0
LOOK_S = 60.0
MOST_ANSWERED = 524_288
"""As identity/asking.py has it, which an agent does not load for that."""


class Renewal:
    """Of one device. folder: its identity (identity/adoption.py). clock: monotonic seconds; wall: the time of day."""

    def __init__(
        self,
        folder: Path,
        fleet: str,
        device: str,
        transport: Transport,
        *,
        clock: Callable[[], float],
        wall: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        pause_s: float = PAUSE_S,
    ) -> None:
        self._folder, self._transport, self._clock, self._wall = folder, transport, clock, wall
        self._asks = issuing.asks(fleet, "renew", device)
        self.topic = issuing.answers(fleet, "renew", device)
        self._pause_s = pause_s
        self._next_at, self._until = 0.0, 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._asking = False
        transport.subscribe(self.topic)

    def tick(self, now: float, *, online: bool) -> None:
        """Go on, if there is something to do. Never waits."""
        if self._child is not None:
            self._reap(now)
        elif self._asking and now >= self._until:
            self._fail(now, "the authority has not answered: does `fedge ca serve` run there?")
        elif not self._asking and online and now >= self._next_at:
            self._next_at = now + LOOK_S
            if self._is_late():
                self._next_at = now + self._pause_s
                self._start("ask", self._asks, b"")

    def hear(self, packet: Packet) -> None:
        """Take an answer. What is not one the child finds out."""
        if self._asking and not self.is_at_work and not packet.retain and len(packet.payload) <= MOST_ANSWERED:
            self._asking = False
            self._start("adopt", self.topic, packet.payload)

    @property
    def is_at_work(self) -> bool:
        """Whether a child runs."""
        return self._child is not None

    def close(self) -> None:
        """End what runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._forget()

    def _is_late(self) -> bool:
        try:
            return validity_of((self._folder / "device.crt").read_bytes()).is_late(self._wall())
        except (OSError, ValidityError) as error:
            log.warning("renewal: %s: %s", self._folder / "device.crt", error)
            return False

    def _start(self, what: str, topic: str, payload: bytes) -> None:
        command = [sys.executable, "-m", "identity.renewal", what, str(self._folder), topic]
        self._what, self._output = what, tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the child
        with tempfile.TemporaryFile() as given:  # files and not pipes: nobody has to feed them
            given.write(payload)
            given.seek(0)
            self._child = subprocess.Popen(
                command, stdin=given, stdout=self._output, stderr=self._output, env=environment()
            )

    def _reap(self, now: float) -> None:
        if self._child is None or self._output is None or self._child.poll() is None:
            return
        self._output.seek(0)
        good, said = self._child.returncode == 0, self._output.read(MOST_ANSWERED)
        self._forget()
        if not good:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            self._fail(now, clean(last) or "its process was ended")
        elif self._what == "adopt":
            log.info("renewed our certificate: %s; the next connection uses it", said.decode(errors="replace"))
        elif self._transport.publish(Packet(self._asks, said)):
            self._asking, self._until = True, now + ANSWER_S
        else:
            self._next_at = now + LOOK_S

    def _forget(self) -> None:
        if self._output is not None:
            self._output.close()
        self._child = self._output = None

    def _fail(self, now: float, why: str) -> None:
        self._asking = False
        self._next_at = now + self._pause_s
        log.warning("our certificate (%s) is not renewed yet: %s", self._folder / "device.crt", why)
