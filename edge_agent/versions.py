"""Which version of a job is here, and how the one that is wanted gets here (laws 11 and 12 of participant.py). Pure."""

from __future__ import annotations

from broker.messages import Head, Round, Version
from edge_agent.announced import Announced
from edge_agent.effects import Drop, Effect, FetchVersion, RequestHead

REFETCH_S = 10.0
FIRST_LOOK_S = 5.0
LAST_LOOK_S = 120.0


class Versions:
    """The version that is here, and the fetch of another one."""

    __slots__ = (
        "_alone",
        "_announced",
        "_before",
        "_distrusted",
        "_knows_wholes",
        "_look_at",
        "_look_s",
        "_refetch_at",
        "_since",
        "_source_now",
        "_wanted_since",
        "fetching",
        "here",
    )

    def __init__(self, announced: Announced, now: float, *, knows_wholes: bool = False) -> None:
        """Begin with nothing. knows_wholes: whether it is known how long the body of a whole version is."""
        self._announced = announced
        self._knows_wholes = knows_wholes
        self._distrusted: Version | None = None
        """A version that was not to be had as its round says it, and is fetched by its head."""
        self.here: Version | None = None
        self._since = 0
        """Number of the first version from which on every one, up to the one that is here, can be had here."""
        self._alone: Version | None = None
        """A version that is deployed by itself, as those before it could not be had."""
        self.fetching: Version | None = None
        self._wanted_since = 0
        """Number of the first version that is wanted with it."""
        self._before: Version | None = None
        """What was fetched before: word of it may come late."""
        self._source_now: Head | Round | None = None
        """What the last fetch went by."""
        self._refetch_at: float | None = None
        self._look_at: float | None = now
        self._look_s = FIRST_LOOK_S

    # What can be asked.

    @property
    def deadlines(self) -> tuple[float | None, float | None]:
        """When it is time for another try, of a fetch and of a look at the head."""
        return self._refetch_at, self._look_at

    def was_fetched(self, version: Version) -> bool:
        """Return whether there can be word of a fetch of this version."""
        return version in (self.fetching, self._before)

    def is_alone(self, version: Version) -> bool:
        """Return whether those before a version could not be had."""
        return version == self._alone

    def is_here(self, wanted: Version, first: int) -> bool:
        """Return whether a version is here, with all those before it from the one of number `first` on."""
        return self.here == wanted and self._since <= first

    def source(self, wanted: Version, first: int) -> Head | Round | None:
        """Return what says how to get the wanted version: its round, if what it carries is enough here, or its head.

        A round that proves a version and carries no way to it says that it lies whole at the broker.
        """
        here, round_, head = self.here, self._announced.round, self._announced.head
        if round_ is not None and round_.base == wanted and round_.along:
            starts_here = round_.way and here is not None and wanted == here.following()
            is_whole = self._knows_wholes and not round_.way and first == wanted.number and wanted != self._distrusted
            if (starts_here and self._since <= first) or is_whole or not wanted.number:
                return round_
        return head if head is not None and head.version == wanted else None

    # What happens.

    def install(self, version: Version, since: int | None) -> None:
        """Note that a version is here. since: as in `Installed`."""
        self.here, self._since = version, version.number if since is None else since
        if version == self.fetching and self._wanted_since < self._since:
            self._alone = version
        self._before, self.fetching = version, None

    def fail(self, version: Version, now: float) -> None:
        """Note that the body of a version was not what was announced.

        The head is read again before the next try, if this one went by it: its bodies may be cut otherwise by now.
        """
        if version != self.fetching:
            return
        if self._wanted_since < version.number:
            self._alone = version
        self._before, self.fetching, self.here, self._refetch_at = version, None, None, now + REFETCH_S
        self._distrusted = version
        if isinstance(self._source_now, Head):
            self._announced.head, self._look_at, self._look_s = None, now + REFETCH_S, FIRST_LOOK_S

    def look(self, now: float, *, behind: bool, online: bool) -> list[Effect]:
        """Ask for the head, where nothing says how to get what is wanted; again, ever less often."""
        if not behind:
            self._look_at, self._look_s = None, FIRST_LOOK_S
            return []
        if not online or (self._look_at is not None and now < self._look_at):
            return []
        self._look_at = now + self._look_s
        self._look_s = min(2 * self._look_s, LAST_LOOK_S)
        return [RequestHead()]

    def fetch(self, wanted: Version, first: int, source: Head | Round, now: float) -> list[Effect]:
        """Fetch a version, with those before it from the one of number `first` on, in place of any other."""
        if self.fetching == wanted or (self._refetch_at is not None and now < self._refetch_at):
            return []
        self._before = self.fetching or self._before
        self.fetching, self._refetch_at, self._source_now, self._wanted_since = wanted, None, source, first
        return [FetchVersion(wanted, source, None if first == wanted.number else first)]

    def drop(self, wanted: Version | None) -> list[Effect]:
        """Stop fetching what is not wanted any more, and trying again."""
        self._refetch_at = None
        if self.fetching is None or self.fetching == wanted:
            return []
        self._before, self.fetching = self.fetching, None
        return [Drop()]
