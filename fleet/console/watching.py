"""`fedge watch`: a whole fleet as it lives, on one screen; or as it is now, once.

What is seen comes over MQTT alone: topics, and what the aggregator answers (fleet/sight/asked.py).
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from fleet.console import operator
from fleet.console.ink import Ink, ink_for
from fleet.console.picture import picture
from fleet.console.screen import QUIT, Screen
from fleet.console.sparks import BLOCKS, can_show
from fleet.identity import wire_of_operator
from fleet.local.processes import interruptible
from fleet.sight.asked import AskedSource
from fleet.sight.lookout import Lookout, lookout_on
from fleet.sight.view import Happened, View

LOOK_S = 0.25
FOLLOW_S = 1.0
SETTLED_S = 1.0
"""A fleet has been seen when its view has not changed in kind for so long, and the aggregator has answered."""
PATIENCE_S = 15.0
COLUMNS, ROWS = 80, 10_000
"""Of a picture that goes to a file or a pipe: all devices stand there."""
MOST_EVENTS = 100


def lookout_of(config: operator.OperatorConfig) -> Lookout:
    """Return a lookout on the fleet of an operator's configuration, not yet started. Raises SettingsError."""
    wire = wire_of_operator(config.fleet, config.identity)
    return lookout_on(config.broker, wire, AskedSource(config))


def glance(config: operator.OperatorConfig) -> View:
    """Return how a fleet is now. Raises OperatorError where its broker cannot be reached, SettingsError."""
    with lookout_of(config) as lookout:
        return _settled(lookout, config)


def _settled(lookout: Lookout, config: operator.OperatorConfig) -> View:
    until, still, known = time.monotonic() + PATIENCE_S, time.monotonic(), -1
    while time.monotonic() < until:
        view = lookout.view
        now = (len(view.devices), len(view.jobs), view.connected, view.aggregator.online)
        if hash(now) != known:
            known, still = hash(now), time.monotonic()
        answered = lookout.has_read or view.trouble != "" or not view.aggregator.online
        if view.connected and answered and time.monotonic() >= still + SETTLED_S:
            break
        time.sleep(0.05)
    view = lookout.view
    if not view.connected:
        where = f"{config.broker.host}:{config.broker.port}"
        raise operator.OperatorError(f"the broker at {where} cannot be reached: {lookout.offline or 'no answer'}")
    return view


def once(config: operator.OperatorConfig, *, as_json: bool) -> str:
    """Return a fleet as it is now: as JSON, or as a picture."""
    view = glance(config)
    if as_json:
        return msgspec.json.format(msgspec.json.encode(view)).decode()
    return "\n".join(picture(view, (), COLUMNS, ROWS, time.time(), ink(is_terminal=False)))


def follow_as_json(config: operator.OperatorConfig) -> Iterator[str]:
    """Give a fleet as a line of JSON, and again where it has changed, every FOLLOW_S at most, for ever.

    Raises OperatorError where its broker cannot be reached at first, SettingsError.
    """
    with lookout_of(config) as lookout:
        view = _settled(lookout, config)
        while True:
            yield msgspec.json.encode(view).decode()
            told = view.n
            while (view := lookout.view).n == told:
                time.sleep(LOOK_S)
            time.sleep(FOLLOW_S - LOOK_S)
            view = lookout.view


def ink(*, is_terminal: bool) -> Ink:
    """Return how standard output is written on."""
    return ink_for(is_terminal=is_terminal, blocks=can_show(BLOCKS + "░…→·"))


def live(config: operator.OperatorConfig) -> None:
    """Show a fleet until q or Ctrl-C. Raises SettingsError."""
    happened: deque[Happened] = deque(maxlen=MOST_EVENTS)

    def told(_view: View, new: Sequence[Happened]) -> None:
        happened.extend(new)

    lookout, style = lookout_of(config), ink(is_terminal=True)
    lookout.subscribe(told)
    with interruptible(), lookout, Screen() as screen:
        try:
            while screen.key(LOOK_S) not in QUIT:
                columns, rows = screen.size
                screen.draw(picture(lookout.view, list(happened), columns, rows, time.time(), style))
        except KeyboardInterrupt:
            return


def is_terminal() -> bool:
    """Return whether somebody looks at standard output, and can see it drawn over."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
