"""A fleet of any size whose page is looked at: broker, aggregator with a page, two devices that train, and a crowd.

The two, as the browser's tests have them, make the first versions of a job quickly. Then the crowd comes: a round draws
everybody and ends at its deadline, with a fate for each device, and the next one, which draws them all again, is open
while the page is looked at. After two rounds without an update of theirs an aggregator passes them over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.looking.told import Told
from benchmarks.memory import peak_mb, spent_s
from benchmarks.shown_fleet import JOB, ShownFleet, shown_fleet, until

REAL = (0.3, 0.3)
"""How long each of the devices that train takes to read its rows."""
VERSIONS = 20
"""That there are before the crowd comes."""


class Large:
    """Such a fleet at work. pid: of the process that serves its page."""

    def __init__(self, shown: ShownFleet, crowd: Told | None, n: int, job: str) -> None:
        self.shown, self.n, self.job = shown, n, job
        self.page = shown.page
        self.pid = looks_on(shown.stage.aggregator.log)
        self._crowd = crowd

    def speak(self) -> None:
        """Begin to publish for a part of the crowd each second."""
        if self._crowd is not None:
            self._crowd.tell("speak")

    def quiet(self) -> None:
        """Stop publishing for the crowd."""
        if self._crowd is not None:
            self._crowd.tell("quiet")

    @property
    def used_s(self) -> float:
        """CPU seconds of the page's process so far."""
        return spent_s(self.pid)

    @property
    def peak_mb(self) -> float:
        """The most memory that the page's process has held, in MB of 10^6 bytes (VmHWM)."""
        return peak_mb(self.pid)

    @property
    def n_online(self) -> int:
        """Devices that the page shows as online."""
        fleet = self.shown.ask("api/fleet")
        return int(fleet["devices"].get("online", 0)) if fleet else 0

    @property
    def n_drawn(self) -> int:
        """Devices that the open round has drawn, as the page shows it."""
        job = self.shown.ask(f"api/jobs/{self.job}")
        return len(job["job"]["round"]["drawn"]) if job and job["job"]["round"] else 0


def looks_on(log: Path) -> int:
    """Return the pid of the process that looks on, as the aggregator has said it last."""
    return int(re.findall(r"looks-on=started pid=(\d+)", log.read_text(encoding="utf-8"))[-1])


@contextmanager
def large(folder: Path, n: int, deadline_s: float) -> Iterator[Large]:
    """Run a fleet of n devices, at least two. deadline_s: of its rounds, once the crowd has come.

    Raises OSError, StartError, NotSeenError where it does not come together.
    """
    with shown_fleet(folder, REAL, n_rows=300, labels=("hall", "yard")) as shown:
        shown.start()
        job = shown.submit(JOB.replace("deadline_s = 60", f"deadline_s = {deadline_s:g}"))
        until(lambda: shown.version >= VERSIONS, f"{VERSIONS} versions")
        if n <= len(REAL):
            yield Large(shown, None, n, job)
            return
        arguments = (shown.broker.port, shown.broker.protocol, n - len(REAL), job)
        with Told("benchmarks.looking.crowd", arguments, folder / "crowd.log") as crowd:
            crowd.tell("come")
            fleet = Large(shown, crowd, n, job)
            until(lambda: fleet.n_online >= n, f"{n} devices at the page")
            until(lambda: fleet.n_drawn >= n, "a round that has drawn them all")
            first = shown.version
            until(lambda: shown.version > first, "the end of a round that has drawn them all")
            yield fleet
