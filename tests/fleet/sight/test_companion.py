"""When the process that looks on is started, and started again: by a made-up clock over real processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from aggregator.looking_on import HomeAssistantSettings, NotifySettings, WebSettings
from fleet.sight import companion
from fleet.sight.companion import Companion, companion_of
from tests.clocks import Clock

Until = Callable[[Callable[[], bool]], None]


def ended(made: Companion) -> bool:
    return made._process is None or made._process.poll() is not None


def test_one_that_ends_is_started_again_later_and_later(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    made = Companion([sys.executable, "-c", "raise SystemExit(7)"], clock)
    pauses = []
    for _ in range(9):
        made.tick()
        assert made._process is not None
        until(lambda: ended(made))
        made.tick()
        assert made._process is None
        before = clock.now
        while made._process is None:
            clock.now += 0.5
            made.tick()
        pauses.append(clock.now - before)
        until(lambda: ended(made))
        made.tick()
        clock.now = made._due
    assert pauses[:3] == [1.0, 4.0, 16.0], "every second one is waited for here"
    assert max(pauses) == 60.0
    assert "looks-on=ended code=7 again_in_s=1; the rounds go on" in caplog.text


def test_one_that_has_lived_is_started_again_soon(until: Until) -> None:
    clock = Clock()
    made = Companion([sys.executable, "-c", "pass"], clock)
    made._pause_s = 60.0
    made.tick()
    until(lambda: ended(made))
    clock.now = companion.STEADY_S
    made.tick()
    assert made._due == clock.now + 1.0


def test_a_program_that_is_not_there_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    made = Companion(["/nowhere/program"], Clock())
    made.tick()
    made.tick()
    assert caplog.text.count("cannot be started") == 1
    made.stop()


def test_the_end_ends_it(until: Until) -> None:
    made = Companion([sys.executable, "-c", "import time; time.sleep(60)"])
    made.tick()
    process = made._process
    assert process is not None
    made.stop()
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("config", "asks"),
    [
        (AggregatorConfig("f"), None),
        (AggregatorConfig("f", web=WebSettings("127.0.0.1:8080")), "127.0.0.1:8080"),
        (AggregatorConfig("f", notify=NotifySettings(topic=True)), ""),
        (AggregatorConfig("f", homeassistant=HomeAssistantSettings("homeassistant")), ""),
    ],
)
def test_it_is_there_where_somebody_asks_for_it(config: AggregatorConfig, asks: str | None) -> None:
    made = companion_of(config, Path("a.toml"), is_installed=True)
    assert (made is None) == (asks is None)
    if made is not None:
        assert ("--web" in made._command) == bool(asks)


def test_without_the_extra_there_is_no_page_and_the_rest_is_there() -> None:
    config = AggregatorConfig("f", web=WebSettings("127.0.0.1:8080"))
    assert companion_of(config, Path("a.toml"), is_installed=False) is None
    config = AggregatorConfig("f", web=WebSettings("127.0.0.1:8080"), notify=NotifySettings(topic=True))
    made = companion_of(config, Path("a.toml"), is_installed=False)
    assert made is not None
    assert "--web" not in made._command
