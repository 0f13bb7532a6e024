"""Numbers, times and words as pages show them. Markup is made here of nothing but what is escaped."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping

from markupsafe import Markup

from broker.messages import Version
from fleet.console.display import duration, n_bytes

MOST_TIME = 253_402_300_000.0
"""The year 9999: no date can be written of what is later."""
STATES = {
    "online": ("●", "online"),
    "offline": ("○", "offline"),
    "silent": ("◌", "silent"),
    "quarantined": ("■", "in quarantine"),
    "unknown": ("?", "unknown"),
    "waiting": ("◌", "waiting"),
    "running": ("▶", "running"),
    "paused": ("‖", "paused"),
    "resting": ("■", "resting"),
    "finished": ("✓", "finished"),
    "stopped": ("■", "stopped"),
}
"""A shape and a word each, so that no colour has to be seen."""
FATES = {
    "counted": "✓",
    "refused": "✕",
    "not counted": "–",
    "dropped": "○",
    "awaited": "…",
}


def ago(seconds: float) -> str:
    """Return how long something is past, in words of one size: "12 s ago", "3 min ago", "2 days ago"."""
    if seconds < 0:
        return f"in {_rough(-seconds)}"
    return "just now" if seconds < 2 else f"{_rough(seconds)} ago"


def _rough(seconds: float) -> str:
    for most, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < most:
            return f"{int(seconds / size)} {unit}"
    days = int(seconds / 86_400)
    return f"{days} day{'' if days == 1 else 's'}"


def moment(at: float | None, now: float) -> Markup:
    """Return a <time> with the absolute time as its title; a dash for None."""
    if at is None or not 0 <= at < MOST_TIME:
        return NONE
    date = dt.datetime.fromtimestamp(at, dt.UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        date.strftime("%Y-%m-%dT%H:%M:%SZ"), date.strftime("%Y-%m-%d %H:%M:%S UTC"), ago(now - at)
    )


def left(until: float, now: float) -> Markup:
    """Return how long it is until then, which the script counts down: "in 40 s"; "any moment" once it has passed."""
    if not 0 <= until < MOST_TIME:
        return NONE
    date = dt.datetime.fromtimestamp(until, dt.UTC)
    rest = f"in {duration(until - now)}" if until > now else "any moment"
    return Markup('<time data-left datetime="{}" title="{}">{}</time>').format(
        date.strftime("%Y-%m-%dT%H:%M:%SZ"), date.strftime("%Y-%m-%d %H:%M:%S UTC"), rest
    )


NONE = Markup('<span class="none">–</span>')


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits that count; whole numbers as they are."""
    if value is None or not math.isfinite(value):
        return "–" if value is None else str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


def size(value: float | None) -> str:
    """Return a number of bytes as people read it."""
    return "–" if value is None else n_bytes(value)


def percent(part: float) -> str:
    """Return a share in percent, without digits behind the point."""
    return f"{round(100 * part)} %"


def seconds(value: float | None) -> str:
    """Return a length of time as people read it, with a digit behind the point below ten seconds."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.1f} s" if 0 <= value < 9.95 else duration(value)


def version(of: Version | None) -> str:
    """Return a version as the terminal, logs and events write it: its generation and its number, "1.40"."""
    return "–" if of is None else str(of)


def shape(state: str) -> str:
    """Return the sign of a state."""
    return STATES.get(state, ("·", state))[0]


def word(state: str) -> str:
    """Return the word for a state."""
    return STATES.get(state, ("·", state))[1]


def fate_of(told: str) -> tuple[str, str, str]:
    """Return the kind of a fate, its sign, and the reason behind it: ("not counted", "–", "it was offline")."""
    kind, _, reason = told.partition(": ")
    kind = kind.removesuffix(" late") if kind in ("counted", "counted late") else kind
    return kind, FATES.get(kind, "·"), reason


FILTERS: Mapping[str, Callable[..., object]] = {
    "moment": moment,
    "left": left,
    "figure": figure,
    "size": size,
    "percent": percent,
    "seconds": seconds,
    "version": version,
    "shape": shape,
    "word": word,
    "fate": fate_of,
}
"""By these names in templates."""
