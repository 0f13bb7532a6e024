"""Somebody who listens to what a fleet's aggregator says, whatever becomes of its broker meanwhile."""

from __future__ import annotations

from broker.messages import Beacon, Head, Round
from fleet.console.observer import Observer, Said

RETRY_S = (0.1, 1.0)
"""The first and the last pause between two tries to connect: the broker is killed often, and soon back."""


class Lookout:
    """What was heard last, for the length of a block."""

    def __init__(self, observer: Observer) -> None:
        self.heads: dict[str, Head] = {}
        self.rounds: dict[str, Round] = {}
        """The last round of each job that was announced."""
        self.led = False
        """An aggregator is at work."""
        self._observer = observer

    def __enter__(self) -> Lookout:
        """Start connecting."""
        self._observer.listen("aggregator", "head", "round")
        self._observer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._observer.__exit__()

    def listen(self) -> None:
        """Take in what has been said since the last time."""
        while (heard := self._observer.take()) is not None:
            match heard:
                case Said(Beacon() as beacon):
                    self.led = beacon.online
                case Said(Round() as round_):
                    self.rounds[round_.job] = round_
                case Said(Head() as head):
                    self.heads[head.job] = head

    def head(self, name: str) -> Head | None:
        """Return the last head of the job of this name."""
        return next((head for job, head in self.heads.items() if job.startswith(f"{name}-")), None)

    def round(self, name: str) -> Round | None:
        """Return the last round of the job of this name."""
        return next((round_ for job, round_ in self.rounds.items() if job.startswith(f"{name}-")), None)
