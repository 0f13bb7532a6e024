"""Topics of the authority: who asks, and nobody else."""

from __future__ import annotations

import pytest

from broker.issuing import answers, asker, asks

TOKEN = "token.abcdefgh234567ab"


def test_who_asks_is_known_by_the_topic() -> None:
    assert asker(asks("barn", "enroll", TOKEN), "barn") == ("enroll", TOKEN)
    assert asker(asks("barn", "renew", "pi-1"), "barn") == ("renew", "pi-1")
    assert asks("barn", "renew") == "fedge-ca/1/barn/renew/+"
    assert answers("barn", "enroll", TOKEN) == f"fedge-ca/1/barn/issued/{TOKEN}"


@pytest.mark.parametrize(
    "topic",
    [
        asks("stable", "enroll", TOKEN),
        asks("barn", "enroll", "pi-1"),
        asks("barn", "renew", TOKEN),
        asks("barn", "renew", "pi-1/more"),
        asks("barn", "renew", ""),
        asks("barn", "renew", "a" * 65),
        asks("barn", "enroll", TOKEN + "\n"),
        answers("barn", "renew", "pi-1"),
        "fedge/1/barn/device/pi-1",
        "",
    ],
)
def test_nobody_asks_on_another_topic(topic: str) -> None:
    assert asker(topic, "barn") is None
