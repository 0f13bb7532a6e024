"""How much of what devices say is kept, whoever says it."""

from __future__ import annotations

from broker.messages import Presence, Version, Vitals
from fleet.sight.sight import Sight
from fleet.sight.words import Words

LONG = "x" * 200


def presence(name: str) -> Presence:
    jobs = [f"{name}-{n}" for n in range(50)]
    return Presence(
        *(name, 1, True),
        labels=dict.fromkeys(jobs, "v"),
        unready=dict.fromkeys(jobs, LONG),
        trouble=dict.fromkeys(jobs, LONG),
        nonce="n",
    )


def vitals(name: str) -> Vitals:
    return Vitals(name, 1, why=LONG, disk_free=5, serves={f"{name}-{n}": Version(1, n) for n in range(50)})


def test_who_comes_when_all_room_is_taken_is_shown_without_words() -> None:
    sight = Sight("f")
    sight._words = Words(most=500_000)
    for n in range(100):
        sight.hear(presence(f"d{n:02}"), 1.0)
        sight.hear(vitals(f"d{n:02}"), 1.0)
    devices = sight.view(2.0).devices
    assert len(devices) == 100
    assert all(one.state == "online" for one in devices.values())
    kept = [one for one in devices.values() if one.parts]
    assert kept
    assert len(kept) < 10
    late = devices["d99"]
    assert late.vitals is not None
    assert (late.parts, late.labels, late.serves, late.vitals.why, late.vitals.disk_free) == ({}, {}, {}, "", 5)


def test_room_comes_back_with_who_says_less_or_is_forgotten() -> None:
    sight = Sight("f")
    sight._words = Words(most=200_000)
    sight.hear(presence("d1"), 1.0)
    sight.hear(presence("d2"), 1.0)
    assert not sight.view(2.0).devices["d2"].parts
    sight.hear(Presence("d1", 1, True, nonce="n"), 3.0)
    sight.hear(presence("d2"), 3.0)
    assert sight.view(4.0).devices["d2"].parts


def test_saying_the_same_again_takes_no_more_room() -> None:
    sight = Sight("f")
    sight._words = Words(most=200_000)
    for now in range(50):
        sight.hear(presence("d1"), float(now))
        sight.hear(vitals("d1"), float(now))
    assert len(sight.view(60.0).devices["d1"].parts) == 50
