"""Who was revoked is put out at once: the broker reads its lists anew, the connection is cut, what it left is cleared.

mosquitto looks at the list of the revoked when a connection is made, and leaves one that stands alone. Whoever connects
with the client id of another takes its session over, and the listener for the aggregator and for people lets client
ids be chosen. The last will of the device is published by that; so its retained topics, of presence and of vitals, are
cleared afterwards.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver
from broker.wire import Wire
from identity.record import BrokerSide
from runtime.disk import write_private

PATIENCE_S = 4.0
HOLD_S = 1.0
"""How long the client id is held: a device comes back within a second, where it is let."""


class Step(Struct, frozen=True):
    """What was done, or why not and what to do."""

    what: str
    done: bool
    text: str


def reload(broker: BrokerSide) -> Step:
    """Tell the broker to read its files anew."""
    what = "broker reads its lists"
    if broker.pid_file is not None:
        return _hang_up(what, Path(broker.pid_file))
    if broker.reload:
        try:
            told = subprocess.run(broker.reload, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Step(what, done=False, text=f"{broker.reload[0]}: {error}; see [broker] reload in authority.toml")
        if told.returncode == 0:
            return Step(what, done=True, text=" ".join(broker.reload))
        why = (told.stderr or told.stdout).strip().partition("\n")[0] or f"it ended with {told.returncode}"
        return Step(what, done=False, text=f"{' '.join(broker.reload)}: {why}; see [broker] reload in authority.toml")
    why = "nobody has said how: set [broker] pid_file or reload in authority.toml, or send mosquitto SIGHUP by hand"
    return Step(what, done=False, text=why)


def _hang_up(what: str, pid_file: Path) -> Step:
    try:
        pid = int(pid_file.read_text().strip())
        name = Path(f"/proc/{pid}/comm")
        if name.exists() and name.read_text().strip() != "mosquitto":
            raise ProcessLookupError(f"process {pid} is no mosquitto")  # SIGHUP ends whatever it does not know
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return Step(what, done=False, text=f"{pid_file}: {why}; is mosquitto running, with this pid_file?")
    return Step(what, done=True, text=f"process {pid} was sent SIGHUP")


def remove_password(file: Path, name: str) -> bool:
    """Take a name out of mosquitto's password file; return whether it was there. Raises OSError."""
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{name}:".encode())]
    if len(kept) == len(lines):
        return False
    found = file.stat()
    write_private(file, b"".join(kept), found.st_mode & 0o777)
    os.chown(file, found.st_uid, found.st_gid)
    return True


def cut(
    settings: BrokerSettings, fleet: str, device: str, *, clock: Callable[[], float] = time.monotonic
) -> tuple[Step, Step]:
    """Take over the client id of a device, and clear its retained topics. settings: of `fedge ca`'s own certificate."""
    topics = [Wire(fleet).filter_for(word, device=device) for word in ("device", "vitals")]
    transport = MqttTransport(settings, device, first_retry_s=0.2, last_retry_s=0.5)
    transport.subscribe(*topics)
    transport.open()
    try:
        return _cut(transport, topics, f"{settings.host}:{settings.port}", clock)
    finally:
        transport.close()


def _cut(transport: MqttTransport, topics: list[str], where: str, clock: Callable[[], float]) -> tuple[Step, Step]:
    """Watch the connection until the topics are clear and nobody has come back for HOLD_S, or the patience is over."""
    taken, cleared, why = "connection is cut", "retained topic is cleared", f"{where} does not answer"
    until, quiet_from, came_back = clock() + PATIENCE_S, clock() + PATIENCE_S, False
    left, online = set(topics), False
    while clock() < until and not (not left and clock() >= quiet_from + HOLD_S):
        match transport.take(min(0.1, until - clock())):
            case Online():
                online, left, quiet_from = True, set(topics), clock()
                for topic in topics:
                    transport.publish(Packet(topic, b"", retain=True))
            case Offline(reason):
                came_back = came_back or online
                online, why = False, reason
            case SessionTakenOver():
                came_back, why = True, "it has come back"
                break
            case Denied(topic) if topic == topics[-1]:  # an access list of before there were vitals: there are none
                left.discard(topic)
            case Denied(topic, reason):
                why = f"{reason}: let user authority read and write {topic} in the access list"
            case Packet(topic, payload):
                left.discard(topic)
                if payload:
                    left.add(topic)
                    transport.publish(Packet(topic, b"", retain=True))
    if came_back:
        why = f"it came back ({why}): does the broker read devices.crl (crlfile), and was it told to read it anew?"
        return Step(taken, done=False, text=why), Step(cleared, done=False, text="it may be there again")
    if not online:
        hint = "is it running, and does its access list know the user authority? Run this again then"
        failed = Step(taken, done=False, text=f"{why}; {hint}")
        return failed, Step(cleared, done=False, text="the broker was not reached")
    done = Step(taken, done=True, text=f"by taking over its client id at {where}")
    if left:
        them = " and ".join(topic for topic in topics if topic in left)
        why = f"no answer to it: let user authority read and write {them} in the access list, and run this again"
        return done, Step(cleared, done=False, text=why)
    return done, Step(cleared, done=True, text=", ".join(topics))
