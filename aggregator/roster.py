"""Which devices there are: presence, read with the suspicion that a network deserves.

A presence names a state directory (incarnation), counts its starts (boot) and draws a nonce at each (the nonce names a
life of the device). What a new life says is judged by the others that are known under this id:

    the same incarnation, a higher boot      the device was started again
    the same incarnation, the same boot      two devices from one card: a clone
    the same incarnation, a lower boot       its card was restored from an older copy
    another incarnation                      its card was written anew
    a life that has made way to another      two devices under one id, in turn: a clone

An `offline` of a life that has made way says nothing. What the broker has retained is a hint, until it is heard live.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct, structs

from broker.messages import Failure, Presence

LATELY_S = 60.0
"""Who has spoken within this is there."""
DAY_S = 86_400.0
"""Whose boot count goes back twice within this is no restored card, but two devices."""
ASK_AGAIN_S = 10.0
LIVES = 8
"""Former lives of a device that are remembered."""


class Known(Struct):
    """What is known of one device."""

    presence: Presence
    live: bool
    """It has spoken itself; else it is what the broker has retained."""
    lives: tuple[str, ...] = ()
    """Lives that have made way to the present one."""
    cards: tuple[str, ...] = ()
    """Incarnations that have made way to the present one."""
    gone_at: float | None = None
    """When it went offline, on the service's clock; None while it is there."""
    alarm: str = ""
    """What an operator should look at."""
    heard_at: float = -math.inf
    """When it was heard to say anything, of any job, on this connection."""
    restored_at: float = -math.inf
    """When its boot count went back last."""
    asked_at: float = -math.inf
    """When it was asked for its presence last, on this connection."""


class Sight(Struct, frozen=True):
    """What a presence was. told: a line for the operator, where there is something to say; alarm: it is a warning."""

    kind: Literal["news", "stale", "full"]
    told: str = ""
    alarm: bool = False


class Part(Struct, frozen=True):
    """A device's part in one job."""

    online: bool
    ready: bool
    why: str
    live: bool
    failure: Failure | None
    said: bool = True
    """Whether it has said anything of this job."""
    rows: int = 0
    """About how many examples it has for this job; 0 where it does not say."""
    barred: str = ""
    """Why nothing of it is counted; "" where it may take part."""


class Roster:
    """All devices of a fleet."""

    def __init__(self, most: int = 100_000) -> None:
        self.most = most
        self.devices: dict[str, Known] = {}
        self.quarantined: dict[str, str] = {}
        """Devices of which nothing is counted, known or not, and why: as an operator says."""

    def see(self, presence: Presence, *, live: bool = True, now: float = 0.0) -> Sight:
        """Take a presence and say what it was."""
        known = self.devices.get(presence.device)
        if known is None:
            if len(self.devices) >= self.most:
                return Sight("full")
            gone_at = None if presence.online else now
            heard_at = now if live and presence.online else -math.inf
            self.devices[presence.device] = Known(presence, live, gone_at=gone_at, heard_at=heard_at)
            return Sight("news")
        if not live and presence.life == known.presence.life and known.asked_at > known.heard_at:
            return Sight("stale")  # it was asked after that, and has not answered
        sight = self._judge(known, presence, live, now)
        if live and sight.kind == "news" and presence.online:
            known.heard_at = now
        if sight.kind == "news":
            self._take(known, presence, live, now)
            if sight.alarm:
                known.alarm = sight.told
        return sight

    def hear(self, device: str, now: float, job: str = "") -> bool:
        """Note that a device has spoken, of this job; return whether to ask for its presence, which has not come.

        Where the one that is here does not mention the job, a later one was lost: nobody would draw it or wait for it.
        """
        known = self.devices.get(device)
        if known is None:
            if len(self.devices) >= self.most:
                return False
            known = self.devices[device] = Known(Presence(device, 0, online=False), live=False, gone_at=now)
        known.heard_at = now
        said = known.presence
        return not said.online or (job != "" and job not in said.ready and job not in said.unready)

    def is_alive(self, device: str, now: float, *, since: float) -> bool:
        """Return whether a device has been heard so lately, and after `since`, that it need not be asked."""
        known = self.devices.get(device)
        return known is not None and known.presence.online and known.heard_at > max(since, now - LATELY_S)

    def doubt(self) -> None:
        """Hold all that is known for a hint: the connection to the broker was lost."""
        for known in self.devices.values():
            known.live, known.heard_at, known.asked_at = False, -math.inf, -math.inf

    def part_in(self, job: str, device: str) -> Part:
        """Return a device's part in a job."""
        known = self.devices.get(device)
        barred = self.quarantined.get(device, "")
        if known is None:
            return Part(online=False, ready=False, why="", live=False, failure=None, said=False, barred=barred)
        said = known.presence
        ready = job in said.ready and job not in said.unready
        mentioned = job in said.ready or job in said.unready
        why = said.unready.get(job, "")
        rows, failure = said.ready.get(job, 0), said.failed.get(job)
        return Part(said.online, ready, why, known.live, failure, mentioned, rows, barred)

    def ask(self, device: str, now: float) -> Presence | None:
        """Return what to say of a device to find out whether it is there: that it is not. It denies that, if it is.

        None where it was asked just now.
        """
        known = self.devices.get(device)
        if known is None or now - known.asked_at < ASK_AGAIN_S:
            return None
        known.asked_at = now
        return structs.replace(_bare(known.presence), online=False)

    def _judge(self, known: Known, presence: Presence, live: bool, now: float) -> Sight:
        before = known.presence
        if presence.life == before.life:
            return Sight("news")
        if presence.life in known.lives:
            if not (presence.online and live):
                return Sight("stale")
            return Sight("news", _two(before, presence, "speak in turn"), alarm=True)
        if presence.incarnation != before.incarnation:
            if not presence.online:
                return Sight("stale")
            if presence.incarnation in known.cards and live:
                return Sight("news", _two(before, presence, "speak in turn"), alarm=True)
            is_told = live and before.incarnation  # of who was only heard to offer nothing is known
            return Sight("news", _anew(before, presence) if is_told else "")
        if presence.boot > before.boot:
            return Sight("news")
        if not presence.online:
            return Sight("stale")
        if presence.boot == before.boot:  # where the broker remembers it, it is the last word that was said
            return Sight("news", _two(before, presence, "come from one card") if live else "", alarm=live)
        if not live:
            return Sight("stale")
        again, known.restored_at = now - known.restored_at < DAY_S, now
        if again:
            return Sight("news", _two(before, presence, "start in turn"), alarm=True)
        return Sight(
            "news", f"its state directory was restored from an older copy (boot {presence.boot} after {before.boot})"
        )

    @staticmethod
    def _take(known: Known, presence: Presence, live: bool, now: float) -> None:
        if presence.life != known.presence.life:
            known.lives = (*known.lives, known.presence.life)[-LIVES:]
            known.live = False
        if presence.incarnation != known.presence.incarnation:
            known.cards = (*known.cards, known.presence.incarnation)[-LIVES:]
        if presence.online:
            known.gone_at = None
        elif known.gone_at is None:
            known.gone_at = now
        if presence.online:
            known.presence = presence
        else:  # a last will says nothing of what the device can do
            known.presence = structs.replace(
                known.presence,
                online=False,
                boot=presence.boot,
                incarnation=presence.incarnation,
                nonce=presence.nonce,
            )
        known.live = live or (known.live and presence.online)


def _bare(presence: Presence) -> Presence:
    """Return who it is, without what it can do."""
    return Presence(
        presence.device, presence.boot, online=False, incarnation=presence.incarnation, nonce=presence.nonce
    )


def _two(one: Presence, other: Presence, how: str) -> str:
    return f"two devices share this id and {how}: {_life(one)} and {_life(other)}"


def _anew(before: Presence, presence: Presence) -> str:
    return f"its state directory is a new one: {_life(before)}, now {_life(presence)}"


def _life(presence: Presence) -> str:
    return f"incarnation {presence.incarnation or '?'} boot {presence.boot} nonce {presence.nonce or '?'}"
