from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.keyed_fleet import KeyedFleet


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[KeyedFleet]:
    whole = KeyedFleet(tmp_path / "fleet")
    yield whole
    whole.close()


def test_a_fleet_with_keys_trains(fleet: KeyedFleet) -> None:
    fleet.submit()
    run = fleet.finish()
    print({n: fleet.refused(n) for n in ("aggregator", *fleet.agents)}, fleet.now)
    assert run.coordinator.ended == "finished"
