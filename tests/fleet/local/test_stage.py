"""The files of a fleet on one machine say how each role reaches the broker, and who it is there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np

from broker.connection import BrokerSettings
from fleet.local import stage
from fleet.roles import load_agent, load_aggregator
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec

SPEC = JobSpec("toy", ModelSpec(inputs=2, outputs=2))
ROWS = Dataset(np.zeros((4, 2), np.float32), np.arange(4) % 2)


def said(plan: stage.Stage) -> dict[str, dict[str, object]]:
    return {role.name: tomllib.loads(role.config.read_text())["broker"] for role in plan.roles}


def test_every_role_has_its_own_way_to_the_broker(tmp_path: Path) -> None:
    def reach(name: str) -> BrokerSettings:
        port = 8884 if name == "aggregator" else 8883
        return BrokerSettings(port=port, ca_file="ca.crt", certificate_file=f"{name}.crt", key_file=f"{name}.key")

    found = said(stage.build(tmp_path, SPEC, [ROWS, ROWS], None, reach))
    assert list(found) == ["aggregator", "device-00", "device-01"]
    for name, broker in found.items():
        files = {"ca_file": "ca.crt", "certificate_file": f"{name}.crt", "key_file": f"{name}.key"}
        where = {"host": "127.0.0.1", "port": reach(name).port, "protocol": "auto"}
        assert broker == where | files


def test_of_one_way_for_all_no_more_is_said_than_there_is_to_say(tmp_path: Path) -> None:
    found = said(stage.build(tmp_path, SPEC, [ROWS], None, BrokerSettings(port=1234, username="ada")))
    assert list(found.values()) == 2 * [{"host": "127.0.0.1", "port": 1234, "protocol": "auto", "username": "ada"}]


def test_a_fleet_that_is_shown_has_a_page_and_devices_that_tell_how_they_are(tmp_path: Path) -> None:
    shown = stage.build(tmp_path, SPEC, [ROWS], None, BrokerSettings(port=1234), page="127.0.0.1:8080")
    assert load_aggregator(shown.aggregator.config).web.bind == "127.0.0.1:8080"
    assert load_agent(shown.devices[0].config).vitals.every_s == 1.0
