"""A real browser without a screen, and a fleet of real processes to look at: one of each for all these tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from benchmarks.shown_fleet import ShownFleet, shown_fleet, until
from broker.messages import Presence
from broker.wire import Wire
from fleet.console.observer import over_mqtt
from fleet.local.stage import FLEET

HOSTILE = """<script>window.hacked=1</script>"><img src=x onerror="window.hacked=2">'{{ 7*7 }}"""
MALLORY = "mallory"
"""The device that says it."""
WAITS_MS = 120_000
"""How long something may take to be seen: much longer than it takes, for a busy machine."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, which fails where it is missing: nothing else shows what these tests do."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "there is no Chromium here: deploy/need.sh chromium (Debian) gets it"
    with sync_playwright() as player:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = player.chromium.launch(executable_path=program, args=arguments, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShownFleet]:
    """Three devices, one of them slow, and one that attacks whoever shows its words."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with shown_fleet(folder, (0.5, 0.5, 2.5), n_rows=300, labels=("hall", "yard")) as made:
        made.start()
        job = made.submit()
        say_hostile(made, job)
        until(lambda: made.version >= 2, "two versions")
        yield made


def say_hostile(fleet: ShownFleet, job: str) -> None:
    """Have a device be there whose every word is an attack on whoever shows it."""
    words = Presence(
        MALLORY,
        boot=1,
        online=True,
        labels={"site": "nowhere"},
        unready={job: HOSTILE},
        trouble={job: HOSTILE},
        software=HOSTILE,
        nonce="n",
    )
    with over_mqtt(MALLORY, fleet.broker, Wire(FLEET)) as hand:
        assert hand.connect(WAITS_MS / 1000) == ""
        hand.say(words)


class Sight:
    """A window of the browser, and all that it complained about, or asked of others."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self._host = urlsplit(origin).netloc
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and address.netloc != self._host:
            self.strangers.append(request.url)


class Windows:
    """Opens windows on a fleet's page; each is a profile of its own."""

    def __init__(self, browser: Browser, fleet: ShownFleet) -> None:
        self._browser, self._fleet = browser, fleet

    @contextmanager
    def open(self, path: str, *, quiet: bool = True, **how: Any) -> Iterator[Sight]:
        """Open one at an address. quiet: nothing may be complained about, or asked of another host, until it closes."""
        context = self._browser.new_context(base_url=self._fleet.page, **how)
        context.set_default_timeout(WAITS_MS)
        sight = Sight(context.new_page(), self._fleet.page)
        sight.page.goto(path, wait_until="load")
        yield sight
        assert not sight.strangers
        assert not (quiet and sight.complaints), sight.complaints
        context.close()


@pytest.fixture
def windows(browser: Browser, fleet: ShownFleet) -> Windows:
    return Windows(browser, fleet)
