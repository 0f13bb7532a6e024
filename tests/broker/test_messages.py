from __future__ import annotations

import msgspec
import pytest

from broker import messages
from broker.messages import Offer, Verdict, Version, body_name, echo, start_of
from broker.topics import ROUTES

V = Version(1, 3)
D = "00112233445566778899aabbccddeeff"
KINDS = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not msgspec.Struct], ids=lambda kind: kind.__name__)
def test_a_message_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


def test_messages_are_equal_by_value() -> None:
    assert Verdict("d", "j", V, D[:8]) == Verdict("d", "j", Version(1, 3), D[:8])
    assert Verdict("d", "j", V, D[:8]) != Verdict("d", "j", V, D[:8], refused="why")


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Verdict("d", "j", V, D[:8]).refused = "why"  # type: ignore[misc]  # that is the point


def test_a_generation_weighs_more_than_a_number() -> None:
    assert Version(1, 99) < Version(2, 0) < Version(2, 1)
    assert str(V) == "1.3"


def test_a_verdict_without_a_reason_counts() -> None:
    assert Verdict("d", "j", V, D[:8]).counted
    assert not Verdict("d", "j", V, D[:8], refused="stale").counted


def test_a_verdict_names_its_update_by_the_beginning_of_the_digest() -> None:
    assert D.startswith(echo(Offer("j", "d", V, 1, D, 9)))


def test_every_level_of_a_topic_is_a_field_of_its_message() -> None:
    for word, route in ROUTES.items():
        kinds = getattr(route.kind, "__args__", (route.kind,))
        for kind in kinds:
            fields = {field.name for field in msgspec.structs.fields(kind)}
            assert {*route.levels, *filter(None, [route.blob])} <= fields, word


@pytest.mark.parametrize("start", [0, 7, 2**32])
def test_a_body_is_named_by_the_versions_that_it_lies_between(start: int) -> None:
    assert body_name(V, start) == f"1-3-{start}"
    assert start_of(body_name(V, start)) == start


@pytest.mark.parametrize("name", ["", "1-3-", "1-3-x", "1-3-\u0663", "1-3-\u00b2", "1-3--", f"1-3-{'9' * 17}"])
def test_a_name_that_is_none_leads_from_version_0(name: str) -> None:
    assert start_of(name) == 0
