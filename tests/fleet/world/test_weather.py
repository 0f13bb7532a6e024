from __future__ import annotations

import random
from pathlib import Path

import pytest

from fleet.world import weather
from fleet.world.misfortunes import Misfortunes
from fleet.world.weather import MOMENTS, PROFILES, draw_sky
from fleet.world.world import World, run

KINDS = sorted({kind for profile in PROFILES.values() for kind in profile.kinds} | weather.BARRING.keys())


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- a world is a pure function of its seed


def test_the_same_seed_gives_the_same_weather() -> None:
    assert draw_sky(dice(7)) == draw_sky(dice(7))
    assert draw_sky(dice(7), "clones").profile == "clones"


def test_misfortunes_strike_while_the_weather_is_bad_and_half_of_them_at_a_moment() -> None:
    skies = [draw_sky(dice(seed), "storms") for seed in range(50)]
    all_of_them = [one for sky in skies for one in sky.misfortunes]
    assert all(0 < at < sky.bad_s for sky in skies for at, _, _ in sky.misfortunes)
    waiting = [moment for _, moment, _ in all_of_them if moment]
    assert set(waiting) <= set(MOMENTS)
    assert 0.4 < len(waiting) / len(all_of_them) < 0.6


def test_every_profile_is_drawn_at_times() -> None:
    drawn = {name for name, profile in PROFILES.items() if profile.weight}
    assert {draw_sky(dice(seed)).profile for seed in range(400)} == drawn
    assert set(PROFILES) - drawn == {"keys"}


def test_every_misfortune_that_can_be_drawn_is_known(tmp_path: Path) -> None:
    assert set(KINDS) == set(Misfortunes(World(1, "calm", tmp_path, None))._kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fleet_lives_through_a_misfortune(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs to its end, whatever the laws say of it, and the misfortune has happened."""
    profile = weather.Profile(1, (6.0, 6.0), {kind: 1}, loss=(0.0,), double=(0.0,), minutes=(0.7, 0.7), small=True)
    monkeypatch.setitem(PROFILES, "one", profile)
    lines: list[str] = []
    run(3, "one", lines.append)
    assert any(f"misfortune: {kind}:" in line for line in lines)


def test_quarantines_come_on_top_of_what_befalls_a_fleet_anyway() -> None:
    for profile in PROFILES:
        sky = draw_sky(dice(7), profile)
        more = weather.draw_barring(dice(8), sky)
        assert more.misfortunes[: len(sky.misfortunes)] == sky.misfortunes
        extra = more.misfortunes[len(sky.misfortunes) :]
        assert {kind for _, _, kind in extra} <= {*weather.BARRING, weather.DIE_HERE}
        assert {moment for _, moment, kind in extra if kind == weather.DIE_HERE} <= set(weather.BARRED)
        assert all(0 < at < sky.bad_s for at, _, _ in extra)


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_moments_are_points_that_are_passed(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: set[str] = set()
    passes = World.passes

    def note(self: World, process: object, point: str) -> None:
        passed.add(point)
        passes(self, process, point)  # type: ignore[arg-type]  # it is one

    monkeypatch.setattr(World, "passes", note)
    for seed in range(30):
        run(seed, "drills")
        if moment in passed:
            return
    pytest.fail(f"nobody passes {moment}")
