"""Every number of every message has a ceiling far below its type, and what is above is refused where it is unpacked."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from broker import ceilings
from broker.errors import WireError
from broker.messages import Beacon, Head, Offer, Presence, Round, Version
from broker.topics import ROUTES
from broker.transport import Packet
from broker.wire import Wire

WIRE = Wire("f")
KINDS = sorted({kind for route in ROUTES.values() for kind in get_args(route.kind) or (route.kind,)}, key=str)
FAR_BELOW = 2**50
"""JSON has integers up to 2**53 that everybody reads alike, and the store up to 2**63."""


def numbers(kind: inspect.Type, at: str) -> list[tuple[str, inspect.IntType]]:
    """Return every integer that a message of a kind may hold, and where."""
    match kind:
        case inspect.IntType():
            return [(at, kind)]
        case inspect.StructType(fields=fields):
            return [found for field in fields for found in numbers(field.type, f"{at}.{field.name}")]
        case inspect.UnionType(types=types):
            return [found for one in types for found in numbers(one, at)]
        case inspect.TupleType(item_types=types):
            return [found for n, one in enumerate(types) for found in numbers(one, f"{at}[{n}]")]
        case inspect.VarTupleType(item_type=one) | inspect.ListType(item_type=one):
            return numbers(one, f"{at}[]")
        case inspect.DictType(value_type=one):
            return numbers(one, f"{at}{{}}")
    return []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_integer_has_a_ceiling_far_below_its_type(kind: type) -> None:
    for at, number in numbers(inspect.type_info(kind), kind.__name__):
        assert number.le is not None, at
        assert number.le < FAR_BELOW, at
        assert number.ge is not None, at


TOO_MUCH: dict[str, tuple[str, dict[str, Any]]] = {
    "a beacon's term": ("aggregator", {"term": ceilings.MOST_TERM + 1, "nonce": "x", "online": True}),
    "a beacon's term at the end of its type": ("aggregator", {"term": 2**53, "nonce": "x", "online": True}),
    "since when": ("aggregator", {"term": 1, "nonce": "x", "online": True, "since": ceilings.MOST_TERM + 1}),
    "a claim": ("aggregator", {"term": 1, "nonce": "x", "online": True, "claim": ceilings.MOST_CLAIM + 1}),
    "a roll": ("aggregator", {"term": 1, "nonce": "x", "online": True, "roll": ceilings.MOST_COUNT + 1}),
    "a spread": ("aggregator", {"term": 1, "nonce": "x", "online": True, "spread_s": 86_401.0}),
    "a candidate's claim": ("candidate", {"nonce": "x", "term": 1, "claim": ceilings.MOST_CLAIM + 1}),
    "a generation": ("head/j-1", {"term": 1, "version": [2**40, 1], "sha256": "0" * 32}),
    "a number": ("head/j-1", {"term": 1, "version": [1, 2**53], "sha256": "0" * 32}),
    "a way": ("head/j-1", {"term": 1, "version": [1, 1], "sha256": "0" * 32, "ways": [[0, 2**33, 1]]}),
    "the last version": ("job/j-1", {"term": 1, "spec": {}, "last": [2**40, 1]}),
    "a round's term": ("round/j-1", {"term": 2**41, "base": [1, 0], "left_s": 60}),
    "an attempt": ("round/j-1", {"term": 1, "base": [1, 0], "left_s": 60, "attempt": 2**33}),
    "a threshold": ("round/j-1", {"term": 1, "base": [1, 0], "left_s": 60, "threshold": 2**48}),
    "buckets": ("round/j-1", {"term": 1, "base": [1, 0], "left_s": 60, "terms": [2**33, 1, 0]}),
    "a boot": ("device/d", {"boot": 2**33, "online": True}),
    "examples": ("device/d", {"boot": 1, "online": True, "ready": {"j-1": 2**33}}),
    "what is done": ("device/d", {"boot": 1, "online": True, "done": {"j-1": [2**33, 0]}}),
    "what is ahead": ("device/d", {"boot": 1, "online": True, "ahead": {"j-1": [1, 2**33]}}),
    "an offer's base": ("offer/j-1/d/3", {"base": [2**33, 0], "digest": "0" * 16, "n_bytes": 1}),
    "an offer's examples": (f"offer/j-1/d/{2**33}", {"base": [1, 0], "digest": "0" * 16, "n_bytes": 1}),
    "a number to explain": ("command/c", {"command": "explain", "request": "r", "name": "j", "number": 2**33}),
}


@pytest.mark.parametrize(("topic", "tree"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_number_above_its_ceiling_is_refused_where_it_is_unpacked(topic: str, tree: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"Expected `(int|float)` <= "):
        WIRE.unpack(Packet(f"fedge/1/f/{topic}", msgspec.json.encode(tree)))


@pytest.mark.parametrize("index", [ceilings.MOST_CHUNKS, 10**9, 2**53])
def test_a_piece_beyond_the_last_that_a_body_may_have_is_refused(index: int) -> None:
    for topic in (f"body/j-1/1-1-0/{index}", f"chunk/j-1/d/{'0' * 16}/{index}"):
        with pytest.raises(WireError):
            WIRE.unpack(Packet(f"fedge/1/f/{topic}", b"x"))


def test_the_ceilings_themselves_are_said_and_understood() -> None:
    highest = Version(ceilings.MOST_GENERATION, ceilings.MOST_NUMBER)
    for message in (
        Beacon(ceilings.MOST_TERM, "x", online=True, claim=ceilings.MOST_CLAIM, roll=ceilings.MOST_COUNT),
        Head("j-1", ceilings.MOST_TERM, highest, "0" * 32),
        Round("j-1", ceilings.MOST_TERM, highest, 60.0, attempt=ceilings.MOST_COUNT),
        Presence("d", ceilings.MOST_COUNT, online=True, ready={"j-1": ceilings.MOST_ROWS}, done={"j-1": highest}),
        Offer("j-1", "d", highest, ceilings.MOST_ROWS, "0" * 16, ceilings.MOST_BODY_BYTES),
    ):
        assert WIRE.unpack(WIRE.pack(message)) == message


def test_nothing_follows_a_ceiling() -> None:
    assert ceilings.after(7, 9) == 8
    assert ceilings.after(9, 9) == 9
    assert ceilings.after(12, 9) == 9


def test_what_is_far_above_is_told_in_generations_and_in_numbers() -> None:
    here = Version(3, 5)
    assert not Version(3 + ceilings.FAR, 5 + ceilings.FAR).is_far_above(here)
    assert Version(4 + ceilings.FAR, 0).is_far_above(here)
    assert Version(0, 6 + ceilings.FAR).is_far_above(here)
    assert not Version(0, 0).is_far_above(here)
