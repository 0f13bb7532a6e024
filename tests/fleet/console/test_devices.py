"""What an operator asks of the devices of a fleet of real processes, over a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aggregator.reader import Reader
from fleet.console import devices, operator
from fleet.console.operator import OperatorError

Until = Callable[[Callable[[], bool]], None]


@pytest.mark.slow
def test_devices_are_listed_shown_quarantined_and_released(two_devices: Any, until: Until) -> None:
    config = operator.load_config(two_devices.config)
    job, _ = operator.submit(config, two_devices.job(max_rounds=3))
    until(lambda: operator.jobs(config)[0].state == "finished")

    first, second = devices.devices(config)
    assert (first.state, second.state) == ("online", "online")
    assert first.software
    found = devices.show(config, second.device)
    assert found.device.device == second.device
    assert [(one.job, one.number) for one in found.rounds] == [(job, 3), (job, 2), (job, 1)]
    assert {one.fate for one in found.rounds} <= {"counted", "not counted: nothing had arrived when the round ended"}

    assert devices.quarantine(config, first.device, "its clock") == f"{first.device} is in quarantine: its clock"
    (line,) = [one for one in devices.devices(config) if one.device == first.device]
    assert (line.state, line.quarantine) == ("quarantined", "its clock")
    (event,) = devices.events(config, kind="device.quarantined")
    assert (event.device, event.text.endswith(": its clock")) == (first.device, True)

    reader = Reader(two_devices.stage.aggregator.state)
    assert reader.quarantined() == {first.device: "its clock"}
    assert len(reader.curve(job)) == 4
    assert [one.kind for one in reader.events(job=job)] == [one.kind for one in devices.events(config, job=job)]
    reader.close()

    assert devices.release(config, first.device).startswith(f"{first.device} is released")
    with pytest.raises(OperatorError, match="is not in quarantine"):
        devices.release(config, first.device)
    after = devices.events(config, since=event.n)
    assert [one.kind for one in after] == ["device.released"]
    with pytest.raises(OperatorError, match="nothing has been heard of a device nobody"):
        devices.show(config, "nobody")
