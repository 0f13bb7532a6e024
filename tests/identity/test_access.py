from __future__ import annotations

import datetime as dt

import pytest

from identity.access import TemplateError, lists
from identity.record import Staff
from tests.identity.conftest import TEMPLATE

ENDS = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def test_everybody_who_has_a_role_has_its_block_and_devices_have_none() -> None:
    staff = {
        "anna": Staff("admin", "1", ENDS),
        "ben": Staff("observer", "2", ENDS),
        "carl": Staff("observer", "3", ENDS),
        "gone": Staff("observer", "4", ENDS, revoked=True),
    }
    devices, people = lists(TEMPLATE.decode(), staff)
    assert devices.splitlines()[1:] == ["pattern write fedge/1/+/device/%u"]
    assert people.splitlines()[1:] == [
        "user aggregator",
        "topic read fedge/1/+/#",
        "user ben",
        "topic read fedge/1/+/#",
        "user carl",
        "topic read fedge/1/+/#",
        "user anna",
        "topic readwrite fedge/1/+/#",
    ]


def test_a_block_for_somebody_with_a_password_gives_no_certificate_of_that_name_its_rights() -> None:
    template = """\
user aggregator
topic read a
user ben
topic write all
#@observer user {name}
#@observer topic read b
topic write all
user authority
topic read c
pattern read d
"""
    ben = {"ben": Staff("observer", "2", ENDS)}
    said = ["user aggregator", "topic read a", "user ben", "topic read b", "user authority", "topic read c"]
    assert lists(template, ben)[1].splitlines()[1:] == said
    assert lists(template, {})[1].splitlines()[1:] == said[:2] + said[4:]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "devices could do nothing"),
        ("pattern read a\n", "the aggregator could do nothing"),
        ("topic read a\nuser aggregator\npattern read a\n", "a line for everybody before the first user"),
    ],
)
def test_a_template_that_would_let_the_wrong_ones_in_or_nobody_is_refused(template: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        lists(template, {})
