"""What an operator puts right who reads the log; what befalls a fleet is in test_weather.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from fleet.world import insides, nets
from fleet.world.world import World
from models.job import JobSpec


def test_a_job_that_the_weather_has_put_to_rest_is_resumed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, resumed = World(3, "calm", tmp_path, None), list[str]()
    monkeypatch.setattr(world.operator, "resume", resumed.append)
    world.misfortunes.mend()
    assert resumed == []
    died = SimpleNamespace(why="3 processes running have died while version 1.2 was made: killed for memory")
    other = SimpleNamespace(why="it cannot be run here: no such net")
    resting = {"a-1": died, "b-1": other, "c-1": died}
    monkeypatch.setattr(world.servers[0], "service", SimpleNamespace(resting=resting))
    specs = {"a-1": (JobSpec("a", nets.model()), ""), "c-1": (JobSpec("c", nets.model("train:kill")), "")}
    monkeypatch.setattr(insides, "jobs_in_store", lambda _server: specs)
    monkeypatch.setattr(insides, "stands_by_for_good", lambda _server: False)
    world.misfortunes.mend()
    world.misfortunes.mend()
    assert resumed == ["a-1"]
