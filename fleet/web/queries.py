"""What a request may ask: typed, bounded structs. A parameter that no page knows is refused, and a value too long.

A query is also what a link on a page is made of: `query.link(page=2)` is the same question with another page.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Meta, Struct, structs

MOST_BYTES = 2000
"""Of a query as it stands in the request."""
MOST_FIELDS = 16

Word = Annotated[str, Meta(max_length=100)]
Label = Annotated[str, Meta(max_length=250)]
LARGEST = 2**53
"""No number of ours is larger; SQLite takes none from 2^63 on."""
Number = Annotated[int, Meta(ge=0, le=LARGEST)]
PageNumber = Annotated[int, Meta(ge=1, le=1_000_000)]
Sort = Literal["name", "state", "seen", "version", "heat", "disk", "bytes"]
Order = Literal["", "desc"]


class QueryError(ValueError):
    """A query that no page understands; the message says which parameter, and why."""


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    """What all queries can do."""

    def link(self, **changes: object) -> str:
        """Return the query of a link that asks the same but for these, from "?" on; "?" alone for all defaults."""
        changed = structs.replace(self, **changes)
        found = ((name, getattr(changed, name), usual) for name, usual in _defaults(type(self)))
        return f"?{urlencode([(name, value) for name, value, usual in found if value != usual])}"


@functools.cache
def _defaults(kind: type[Query]) -> Sequence[tuple[str, object]]:
    """Return the name of each parameter and its default: a page has hundreds of links, and msgspec looks long."""
    return [(field.name, field.default) for field in structs.fields(kind)]


class NoQuery(Query, frozen=True):
    """Of pages that take none."""


class FleetQuery(Query, frozen=True):
    """Which devices, in which order."""

    q: Word = ""
    state: Literal["", "online", "offline", "silent", "quarantined", "unknown", "alarm"] = ""
    label: Label = ""
    """key=value, or a key alone."""
    job: Word = ""
    sort: Sort = "name"
    order: Order = ""
    page: PageNumber = 1

    def sorted_by(self, sort: Sort) -> Self:
        """Return the same by this column; the other way round where it is by this column already."""
        turned: Order = "desc" if self.sort == sort and not self.order else ""
        return structs.replace(self, sort=sort, order=turned, page=1)


class JobQuery(Query, frozen=True):
    """How curves are drawn."""

    x: Literal["round", "time"] = "round"


class RoundQuery(Query, frozen=True):
    """Which attempt, and which of its devices."""

    attempt: Number | None = None
    fate: Word = ""
    q: Word = ""
    page: PageNumber = 1


class EventsQuery(Query, frozen=True):
    """Which events."""

    kind: Word = ""
    job: Word = ""
    device: Word = ""
    before: Number | None = None
    since: Number | None = None
    most: Annotated[int, Meta(ge=1, le=1000)] = 50


class ModelQuery(Query, frozen=True):
    """Which version of a model."""

    version: Annotated[str, Meta(pattern=r"\A(best|last|([0-9]{1,10}\.)?[0-9]{1,9})?\Z")] = ""


Asked = TypeVar("Asked", bound=Query)


def parsed(query: bytes, kind: type[Asked]) -> Asked:
    """Return a query as a struct; empty parameters count as not given. Raises QueryError."""
    try:
        pairs = parse_qsl(query.decode("ascii"), max_num_fields=MOST_FIELDS, errors="replace")
        return msgspec.convert(dict(pairs), kind, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise QueryError(f"the query is none of this page: {error}") from error
