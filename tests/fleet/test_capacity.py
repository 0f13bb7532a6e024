"""A job that is too large for a device, with real processes: nobody dies, and operators read why it waits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.memory import peak_mb
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from fleet.console import operator
from fleet.local import stage
from fleet.local.processes import FEDGE, Children
from fleet.local.toml import written
from models.needs import MB
from tests.fleet.conftest import Until, blobs

SMALL = {"name": "small", "data": "blobs", "deploy": "never", "model": {"inputs": 4, "hidden": [8], "outputs": 3}}
LARGE = SMALL | {"name": "large", "model": {"inputs": 4, "hidden": [1500, 1500], "outputs": 3}}
ENDLESS = {"rounds": {"max_rounds": 100_000}}


def test_a_device_outlives_a_job_that_it_has_no_room_for_at_every_start_and_its_other_job_goes_on(
    tmp_path: Path, mosquitto: EmbeddedBroker, until: Until
) -> None:
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    server = stage.Role("aggregator", "aggregator", tmp_path / "aggregator")
    device = stage.Role("device", "agent", tmp_path / "device")
    stage.write(server, "demo", where, {}, {"limits": {"spread_s": 0.0, "memory_bytes": 1000 * MB}})
    limits = {"memory_bytes": 120 * MB, "presence_s": 0.1}
    stage.write(device, "demo", where, {"blobs": blobs(60)}, {"limits": limits, "models": {"inference": False}})
    for tree in (SMALL, LARGE):
        (tmp_path / f"{tree['name']}.toml").write_text(written(tree | ENDLESS, {}))

    def run(children: Children, role: stage.Role) -> int:
        return children.start(role.name, [*FEDGE, role.kind, "run", "--config", str(role.config)], role.log).process.pid

    def why() -> str:
        devices = operator.show(config, "large").devices
        return devices[0].why if devices else ""

    def version() -> int:
        return int(operator.show(config, "small").job.version.rpartition("-")[2].rpartition(".")[2])

    with Children() as servers:
        run(servers, server)
        until(lambda: "online" in server.log.read_text())
        config = operator.load_config(server.config)
        operator.submit(config, tmp_path / "large.toml")
        operator.submit(config, tmp_path / "small.toml")
        for start in range(3):
            with Children() as devices:
                pid, before = run(devices, device), version()
                until(lambda before=before: version() > before)  # type: ignore[misc]
                until(lambda: "does not fit here: its net of 2,263,503 parameters takes about" in why())
                assert "where there are 120 MB (memory_bytes in [limits])" in why()
                devices.check()
                assert peak_mb(pid) < 90, start
                devices._children[0].process.send_signal(signal.SIGKILL)
        too_large = LARGE | {"name": "larger", "model": {"inputs": 4, "hidden": [6000, 2990], "outputs": 3}}
        (tmp_path / "larger.toml").write_text(written(too_large, {}))
        with pytest.raises(operator.OperatorError, match="does not fit here: its net of 17,981,963"):
            operator.submit(config, tmp_path / "larger.toml")
        servers.check()
