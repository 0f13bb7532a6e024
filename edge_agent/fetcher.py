"""How a job comes to a version on this device: what is fetched of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from broker.errors import WireError
from broker.messages import Body
from edge_agent.effects import FetchFailed, Installed
from edge_agent.effects import FetchVersion as FetchEffect
from edge_agent.fetch import Fetch, FetchError
from edge_agent.workspace import Out, Subscribe, Unsubscribe, Workspace

log = logging.getLogger("edge_agent.work")  # a job at work speaks under one name

STALL_S = 60.0
"""Chunks that have not come for this long are asked for again: 100 kB at 20 kbit/s take 40 s."""

FEW_PIECES = 2
"""Of a body: so many are asked for one by one, whatever a broker brings on a wildcard."""


class Fetcher(Workspace):
    """A job that fetches versions and installs them."""

    __slots__ = ()

    def keep(self, chunk: Body, now: float) -> list[Out] | None:
        """Keep a chunk of the version that is being fetched. None where more follows from it: see `take`."""
        fetch = self._fetch
        if fetch is None or fetch.n_missing < 2:
            return None
        try:
            return self._keep(fetch, chunk, now)
        except WireError:
            return None

    def take(self, chunk: Body, now: float) -> list[Out]:
        """Take a chunk of the version that is being fetched, install what is whole, and do without what is wrong."""
        fetch = self._fetch
        if fetch is None or fetch.done:
            return []
        try:
            come = self._keep(fetch, chunk, now)
        except WireError:
            failed = FetchFailed(fetch.version)
            return [*self._end_fetch(), *self.handle(failed, now)]
        return [*come, *self._install(fetch, now)] if fetch.done else come

    def _keep(self, fetch: Fetch, chunk: Body, now: float) -> list[Out]:
        """Keep a chunk. Raises WireError for a wrong one."""
        came = fetch.add(chunk)
        self._stalls_at, self._stalled = now + STALL_S, False
        if not came or not fetch.forgets:
            return []
        return [Unsubscribe((fetch.filter(self._wire, chunk.name, chunk.index),))]

    def _lose_connection(self) -> list[Out]:
        """At the next connect, let only that come which has not come over this one. Its broker may be another."""
        self._stalled = False
        return self.do_without_filters()

    def do_without_filters(self) -> list[Out]:
        """Listen to the topics of the chunks that are missing, and to nothing else: no filter is to be relied on."""
        self.takes_bodies = False
        fetch = self._fetch
        if fetch is None or fetch.done or fetch.forgets:
            return []
        before = fetch.filters(self._wire)
        fetch.forget()
        after = fetch.filters(self._wire)
        gone, new = set(before).difference(after), set(after).difference(before)
        return [
            Unsubscribe(tuple(filter(gone.__contains__, before))),
            Subscribe(tuple(filter(new.__contains__, after))),
        ]

    def _begin_fetch(self, effect: FetchEffect, now: float) -> Iterator[Out]:
        yield from self._end_fetch()
        try:
            since = None if self._trail is None else self._trail.since
            self._fetch = Fetch(
                *(effect.version, effect.source, self.net.spec, self._version),
                held_since=since,
                since=effect.since,
                most_bytes=self._chain.most_way_bytes,
                whole_bytes=self._chain.whole_bytes,
                by_body=self.takes_bodies,
            )
        except FetchError as error:
            log.warning("fetch refused job=%s: %s", self.job, error)
            yield from self.handle(FetchFailed(effect.version), now)
            return
        if self._fetch.done:
            yield from self._install(self._fetch, now)
        else:
            self._stalls_at, self._stalled = now + STALL_S, False
            yield Subscribe(self.subscribed)
            if self._fetch.most_pieces > FEW_PIECES and not self.takes_bodies:
                # A job that is retained there shows that the next body takes one filter.
                yield Subscribe((self._wire.filter_for("job"),), again=True)

    def _stall(self, now: float) -> list[Out]:
        """Subscribe again to the chunks that have not come: the broker may have dropped them.

        Where that does not help, go by a new head: the bodies may have other names by now, or be cut otherwise.
        """
        if self._fetch is None:
            return []
        if not self.participant.online:  # nothing can come; what has come stays, and a new connection has its own time
            self._stalls_at = now + STALL_S
            return []
        if self._stalled:
            failed = FetchFailed(self._fetch.version)
            return [*self._end_fetch(), *self.handle(failed, now)]
        self._stalled = True
        self._stalls_at = now + STALL_S
        log.warning("fetch stalled job=%s version=%s chunks=%d", self.job, self._fetch.version, self._fetch.n_missing)
        before = tuple(self._fetch.filters(self._wire))
        self._fetch.forget()
        return [Unsubscribe(before), Subscribe(tuple(self._fetch.filters(self._wire)))]

    def _end_fetch(self) -> list[Out]:
        filters, self._fetch, self._stalls_at = self.subscribed, None, None
        return [Unsubscribe(filters)] if filters else []

    def _install(self, fetch: Fetch, now: float) -> list[Out]:
        version = fetch.version
        messages = self._end_fetch()
        first = self.spec.averaged_from(version.number) if self._deploys else version.number
        try:
            self._trail = fetch.install(self._chain, self._trail, first)
        except FetchError as error:
            log.warning("version refused job=%s version=%s: %s", self.job, version, error)
            self._version = self._trail = None  # the next way is from version 0, which needs nothing of what is here
            return [*messages, *self.handle(FetchFailed(version), now)]
        self._version = version
        log.info("version installed job=%s version=%s sha256=%s", self.job, version, fetch.sha256[:16])
        return [*messages, *self.handle(Installed(version, self._trail.since), now)]
