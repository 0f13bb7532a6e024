"""Many devices in one process: what they say of themselves, over a few connections to a broker that lets anybody speak.

    python -m benchmarks.looking.crowd PORT PROTOCOL N JOB      told by words on its standard input (told.py):

    come     every device says who it is and how it is
    speak    from now on a part of them says each second how it is
    quiet    no more

They train nothing: a round that has drawn them waits for them to its deadline.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.looking.told import answer, heard
from broker.connection import BrokerSettings
from broker.messages import Message, Presence, Version, Vitals
from broker.wire import Wire
from fleet.console.observer import Observer, over_mqtt
from fleet.local.stage import FLEET

CONNECTIONS = 4
SHARE = 400
"""A four-hundredth of them speaks each second: some six times as often as devices that keep to a quarter of an hour."""
CALM_S = 0.01
NICE = 10
"""What they take is to be taken from nobody who is measured."""


def names(n: int) -> list[str]:
    """Return what they are called."""
    return [f"pump-{number:05d}" for number in range(n)]


def presence(name: str, job: str, rng: random.Random) -> Presence:
    """Return who a device is."""
    return Presence(
        *(name, 3),
        online=True,
        labels={"site": f"s{rng.randrange(50)}", "kind": "pump"},
        ready={job: rng.randrange(100, 5000)},
        software="fedge 0.1.0",
        incarnation=f"{rng.getrandbits(64):016x}",
        nonce=f"{rng.getrandbits(32):08x}",
    )


def vitals(name: str, job: str, rng: random.Random) -> Vitals:
    """Return how a device is."""
    return Vitals(
        *(name, 3, "training", job, round(rng.random(), 2), ""),
        disk_free=rng.randrange(2**33),
        heat=45.0 + rng.randrange(40),
        load=round(rng.random(), 2),
        bytes_today=rng.randrange(10**6),
        clock=round(time.time(), 1),
        uptime_s=1e5,
        serves={job: Version(1, rng.randrange(1, 4))},
    )


class Crowd:
    """The devices of one process. voices: what they speak over, in turn."""

    def __init__(self, voices: list[Observer], n: int, job: str) -> None:
        self._voices, self._job = itertools.cycle(voices), job
        self._names = names(n)
        self._rng = random.Random(0)  # noqa: S311 -- no secret
        self._next = itertools.cycle(self._names)

    def come(self) -> None:
        """Publish who they are, and how they are."""
        for name in self._names:
            self._say(presence(name, self._job, self._rng))
            self._say(vitals(name, self._job, self._rng))

    def speak(self) -> None:
        """Publish for those whose turn it is this second."""
        for name in itertools.islice(self._next, max(1, len(self._names) // SHARE)):
            self._say(vitals(name, self._job, self._rng))

    def _say(self, message: Message) -> None:
        voice = next(self._voices)
        while not voice.say(message):
            voice.take(CALM_S)


def connected(stack: ExitStack, broker: BrokerSettings) -> Iterator[Observer]:
    """Return the connections, each as soon as it is there. Raises ConnectionError."""
    for _ in range(CONNECTIONS):
        voice = stack.enter_context(over_mqtt("crowd", broker, Wire(FLEET)))
        if why := voice.connect(30.0):
            raise ConnectionError(why)
        yield voice


def main(port: str, protocol: str, n: str, job: str) -> None:
    """Be these devices until there are no more words."""
    os.nice(NICE)
    broker = BrokerSettings(port=int(port), protocol=protocol)  # type: ignore[arg-type]  # as it was written
    with ExitStack() as stack:
        crowd, speaks = Crowd(list(connected(stack, broker)), int(n), job), False
        while (word := heard(1.0 if speaks else 3600.0)) is not None:
            if word == "come":
                crowd.come()
            if word:
                speaks = word == "speak"
                answer(heard=word)
            if speaks:
                crowd.speak()


if __name__ == "__main__":
    main(*sys.argv[1:])
