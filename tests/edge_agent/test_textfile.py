"""A device's vitals as a file for node_exporter: what promtool says of it, and that only who asks for it has one."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from broker.messages import Version, Vitals
from edge_agent.config import VitalsSettings
from edge_agent.teller import FIRST_S
from edge_agent.textfile import DOINGS, Textfile, written
from edge_agent.vitals import LOOK_S
from runtime.settings import SettingsError, convert
from tests.edge_agent.test_service import Bench

SERVES = {"digits-0123abcd": Version(1, 7)}
VITALS = Vitals(
    *("pi-1", 3, "training", "digits-0123abcd", 0.25),
    disk_free=10**9,
    heat=41.5,
    load=0.5,
    uptime_s=60.0,
    serves=SERVES,
)


def read(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_it_says_what_the_device_says() -> None:
    samples = read(written(VITALS, "fedge 1.0"))
    assert samples["fedge_agent_info", ("pi-1", "fedge 1.0")] == 1
    assert {doing: samples["fedge_agent_doing", (doing,)] for doing in DOINGS} == dict.fromkeys(DOINGS, 0) | {
        "training": 1
    }
    assert samples["fedge_agent_disk_free_bytes", ()] == 10**9
    assert samples["fedge_agent_temperature_celsius", ()] == 41.5
    assert samples["fedge_agent_progress_ratio", ()] == 0.25
    assert samples["fedge_agent_serves_version", ("digits-0123abcd",)] == 7
    assert not any("temperature" in name for name, _ in read(written(Vitals("pi-1", 1), "")))


def test_promtool_finds_nothing_to_say_of_it() -> None:
    hostile = written(VITALS, 'a "quoted" \\ word\nfedge_agent_load 99')
    assert read(hostile)["fedge_agent_info", ("pi-1", 'a "quoted" \\ word\nfedge_agent_load 99')] == 1
    for text in (hostile, written(Vitals("pi-1", 1), "")):
        verdict = subprocess.run(
            ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False
        )
        assert (verdict.returncode, verdict.stderr) == (0, b"")


def test_an_agent_writes_it_at_every_look_and_says_no_more_than_else(tmp_path: Path) -> None:
    file = tmp_path / "node-exporter" / "fedge.prom"
    file.parent.mkdir()
    bench = Bench(tmp_path / "state")
    assert not file.exists()
    bench.vitals = VitalsSettings(textfile=str(file))
    bench.kill()
    bench.start()
    bench.settle(FIRST_S)
    first = read(file.read_text())
    assert first["fedge_agent_uptime_seconds", ()] == FIRST_S
    bench.settle(LOOK_S)
    assert read(file.read_text())["fedge_agent_uptime_seconds", ()] == FIRST_S + LOOK_S
    assert len(bench.of(Vitals)) == 1
    assert [path.name for path in file.parent.iterdir()] == ["fedge.prom"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = Textfile(tmp_path / "gone" / "fedge.prom", "")
    with caplog.at_level(logging.WARNING):
        file.write(VITALS)
        file.write(VITALS)
    assert len(caplog.messages) == 1
    assert "No such file" in caplog.text
    (tmp_path / "gone").mkdir()
    file.write(structs.replace(VITALS, load=0.75))
    assert read((tmp_path / "gone" / "fedge.prom").read_text())["fedge_agent_load", ()] == 0.75


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"textfile": "fedge.prom"}, "textfile"),
        ({"textfile": "/run/fedge.txt"}, "textfile"),
        ({"textfile": "/run/fedge.prom", "every_s": 0}, "nothing to write"),
    ],
)
def test_a_file_that_nobody_would_read_is_refused(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        convert(table, VitalsSettings, "[vitals]")
