"""What the agent tells systemd: that it is ready, that it lives, what it is doing, that it stops.

The protocol of sd_notify(3): one datagram of NAME=value lines to the AF_UNIX socket named by $NOTIFY_SOCKET. Where
nobody listens (no systemd, a terminal, a test) every call does nothing. Nothing here raises: a supervisor that cannot
be told is no reason to stop training.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 1.0
"""systemd reads at once; a socket that stays full for this long has nobody behind it."""
MAX_STATUS_CHARACTERS = 200
"""One line in `systemctl status`; more is cut off there anyway."""


def ready(status: str = "") -> bool:
    """Say that the service is up; with Type=notify, systemd calls it started only now."""
    return _tell("READY=1", *_status_lines(status))


def alive() -> bool:
    """Feed the watchdog; to be called every `watchdog_interval_s()` from the loop that does the work."""
    return _tell("WATCHDOG=1")


def status(text: str) -> bool:
    """Say in one line what the service is doing, for `systemctl status`."""
    return _tell(*_status_lines(text or "-"))


def stopping() -> bool:
    """Say that the service was asked to stop and is ending."""
    return _tell("STOPPING=1")


def watchdog_interval_s(environment: Mapping[str, str] | None = None) -> float | None:
    """Return the seconds between two calls of `alive`, or None when nobody watches this process.

    Half of WatchdogSec, as sd_watchdog_enabled(3) advises. None too when $WATCHDOG_PID names another process: then
    the variables were inherited and the watched one is our parent.
    """
    environment = os.environ if environment is None else environment
    watched = _natural(environment.get("WATCHDOG_PID", str(os.getpid())))
    timeout_us = _natural(environment.get("WATCHDOG_USEC", ""))
    if watched != os.getpid() or not timeout_us:
        return None
    return timeout_us / 2e6


def _tell(*lines: str) -> bool:
    """Send one datagram; False when there is nobody to tell or it could not be sent."""
    address = _address(os.environ.get("NOTIFY_SOCKET", ""))
    if address is None:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(SEND_TIMEOUT_S)
            channel.sendto("\n".join(lines).encode(), address)
    except OSError as error:
        _log.warning("event=notify_failed lines=%s reason=%r", ",".join(lines), str(error))
        return False
    return True


def _address(name: str) -> str | None:
    """Turn $NOTIFY_SOCKET into an address: a path, or an abstract name written with a leading "@" (unix(7))."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _status_lines(text: str) -> tuple[str, ...]:
    """Return the text as one STATUS line: a line break in it would begin another assignment."""
    text = " ".join(text.split())[:MAX_STATUS_CHARACTERS]
    return (f"STATUS={text}",) if text else ()


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
