"""The process that looks on, as the aggregator has it: started, started again when it has ended, and never waited for.

Whatever becomes of it, the aggregator goes on: a tick starts a process or asks whether one has ended, and no more.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.homeassistant.published import FILE
from runtime.children import environment

if TYPE_CHECKING:
    from aggregator.config import AggregatorConfig

log = logging.getLogger(__name__)

AGAIN_S = (1.0, 60.0)
"""From an end to the next start: at first, and at most. Each end doubles it; who has lived for STEADY_S begins anew."""
STEADY_S = 120.0
ENDS_WITHIN_S = 3.0
PROGRAM = (sys.executable, "-P", "-m", "fleet.cli", "web", "run")


class Companion:
    """Belongs to the thread that ticks: the process ends with that thread."""

    def __init__(self, command: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._command = [*command]
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._due = clock()
        self._pause_s = AGAIN_S[0]

    def tick(self) -> None:
        """Start it where that is due; see whether it has ended."""
        now = self._clock()
        if self._process is None:
            if now >= self._due:
                self._start(now)
            return
        code = self._process.poll()
        if code is None:
            return
        self._process = None
        if now - self._started_at >= STEADY_S:
            self._pause_s = AGAIN_S[0]
        log.error("looks-on=ended code=%d again_in_s=%g; the rounds go on", code, self._pause_s)
        self._postpone(now)

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self, now: float) -> None:
        try:
            self._process = subprocess.Popen(
                [*self._command, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=environment(),
                process_group=0,  # Ctrl-C is for us
            )
        except OSError as error:
            log.error("looks-on=cannot be started why=%s again_in_s=%g", error.strerror or error, self._pause_s)
            self._postpone(now)
            return
        self._started_at = now
        log.info("looks-on=started pid=%d", self._process.pid)

    def _postpone(self, now: float) -> None:
        self._due = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, AGAIN_S[1])


def companion_of(config: AggregatorConfig, path: Path, *, is_installed: bool) -> Companion | None:
    """Return the companion that [web], [notify] and [homeassistant] ask for; None where none of them does.

    path: of aggregator.toml. is_installed: whether the page can be served here.
    """
    web, notify = config.web, config.notify
    has_page = bool(web.bind) and is_installed
    has_published = (Path(config.state_dir) / FILE).exists()  # which is to be taken back, where it is switched off
    if not (has_page or notify.webhook or notify.topic or config.homeassistant.prefix or has_published):
        return None
    more = ["--web", web.bind] if has_page else []
    more += ["--web-in-container"] if has_page and web.in_container else []
    return Companion([*PROGRAM, "--config", str(path), *more])
