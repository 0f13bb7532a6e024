"""Who could contribute to leave the base, kept as sets while devices come, go and are judged. Pure.

A device is *able* if it is there, ready, and has neither a verdict on the base nor failed on it; *spent* if it was
refused on the base or failed on it, and so comes to nothing before the next one.
"""

from __future__ import annotations

from aggregator.ledger import Ledger
from aggregator.members import Members

DIVERGED = "training diverged"
"""Begins what a device says of a training whose numbers have grown beyond all bounds (models/training/train.py)."""
FAR = "its norm is far from"
"""Begins the refusal of an update for its norm (gates.py)."""


class Attendance:
    """How the devices stand to the current base. Each set changes by one device at a time (`refresh`)."""

    def __init__(self, members: Members, ledger: Ledger) -> None:
        self._members = members
        self._ledger = ledger
        self.able: set[str] = set()
        """Devices that are there, ready, and neither judged nor failed on the base."""
        self.fresh: set[str] = set()
        """Those of them that do not count yet; who was late with an update to an earlier base counts, and is able."""
        self.spent: set[str] = set()
        """Devices that were refused on the base, or failed on it: able again from the next one on."""
        self.idle: set[str] = set()
        """Those of them that are there and ready, and do not count."""
        self.far: set[str] = set()
        """Those of the spent whose updates were far from the model, or whose training diverged."""

    @property
    def all_are_far(self) -> bool:
        """Whether everybody who has trained on the base has gone far from the model: not one device is to blame."""
        return bool(self.far) and len(self.far) == len(self.spent) and not self._ledger.counted

    def has_failed(self, device: str) -> bool:
        """Return whether a device has said that its training on the current base failed."""
        member, ledger = self._members.get(device), self._ledger
        return member is not None and member.failed is not None and ledger.present(member.failed) == ledger.base

    def is_settled(self, device: str) -> bool:
        """Return whether a device has a verdict on the base, or has failed on it."""
        return self._ledger.verdict_on(device) is not None or self.has_failed(device)

    def refresh(self, device: str) -> bool:
        """Work out anew how a device stands, and return whether it is settled.

        To be called after every change of what is known of a device, before anything is asked of all of them.
        """
        member, verdict = self._members.get(device), self._ledger.verdict_on(device)
        settled = verdict is not None or self.has_failed(device)
        if self._members.barred(device):  # nobody goes by it: as if it were not there
            self.spent.discard(device)
        elif settled and not (verdict is not None and verdict.counted):
            self.spent.add(device)
        if member is not None and member.present and member.ready and not settled:
            self.able.add(device)
            self.spent.discard(device)
        else:
            self.able.discard(device)
        counts = device in self._ledger.counted
        _hold(self.fresh, device, wanted=device in self.able and not counts)
        _hold(self.far, device, wanted=device in self.spent and self._is_far(device))
        idle = device in self.spent and member is not None and member.there and member.ready
        _hold(self.idle, device, wanted=idle and not counts)
        return settled

    def begin_base(self) -> None:
        """Look at everybody once: the base is a new one, and nobody counts for it yet."""
        there = {name for name, member in self._members if member.present and member.ready}
        self.spent = {name for name in there if self.has_failed(name)}  # under a name that this base had before
        self.able = there - self.spent
        self.far = {name for name in self.spent if self._is_far(name)}
        self.idle, self.fresh = set(self.spent), set(self.able)

    def _is_far(self, device: str) -> bool:
        """Return whether a device that came to nothing on the base did so by going far from the model."""
        member, verdict = self._members.get(device), self._ledger.verdict_on(device)
        if member is None:
            return False
        if verdict is not None:
            return verdict.refused.startswith(FAR)
        return self.has_failed(device) and member.failure.startswith(DIVERGED)

    @property
    def present(self) -> set[str]:
        """Devices that have contributed to leave the base, could, or are there and have come to nothing on it.

        The latter are present all the same: else a base could not be left where each of them is needed.
        """
        return self._ledger.counted | self.fresh | self.idle

    @property
    def n_contributing(self) -> int:
        """How many devices count for the current base, or could."""
        return len(self._ledger.counted) + len(self.fresh)

    @property
    def n_present(self) -> int:
        """How many devices are present."""
        return self.n_contributing + len(self.idle)

    def check(self) -> None:
        """Raise AssertionError where this contradicts itself; looks at everybody, so for tests."""
        counted = self._ledger.counted
        assert not self.able & self.spent, "able, and spent"  # noqa: S101 -- a check
        assert self.fresh == self.able - counted, "who could still count is not kept"  # noqa: S101 -- a check
        assert self.idle <= self.spent - counted, "idle, and not spent"  # noqa: S101 -- a check
        assert self.far <= self.spent, "far, and not spent"  # noqa: S101 -- a check


def _hold(names: set[str], name: str, *, wanted: bool) -> None:
    """Put a name into a set, or take it out."""
    if wanted:
        names.add(name)
    else:
        names.discard(name)
