"""/metrics on hand-made views: what promtool says of it, and what no fleet can make of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from aggregator.counters import JobTotals, Totals
from aggregator.looking_on import WebSettings
from fleet.web.app import app
from fleet.web.metrics import MOST_JOBS, MOST_MEASURES, Quorums, exposition, routes
from fleet.web.premises import Inspector, Premises
from tests.fleet.web.made import HOSTILE, JOB, NOW, Asking, MadeLookout, hostile, view

TOTALS = Totals(
    started=NOW - 100,
    sent_bytes=1234,
    refused={"garbage": 2, HOSTILE: 1},
    events={"device.clone": 3, "version.made": 40},
    jobs={JOB: JobTotals({"counted": 80, "refused": 5}, {"committed": 40}, [0, 0, 3, 30, 7, *[0] * 9], 150.5)},
)
PREMISES = Premises(TOTALS, 10**6, 10**9, 10**10, {"broker": NOW + 86_400})
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(body: bytes) -> Samples:
    families = text_string_to_metric_families(body.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def made(seen: object = None, most_devices: int = 0, premises: Premises = PREMISES) -> bytes:
    return exposition(seen or view(), {JOB: 2}, premises, software="0.1.0", most_devices=most_devices)  # type: ignore[arg-type]


def test_promtool_finds_nothing_to_say_of_it() -> None:
    for body in (made(), made(view(3, hostile("device-9")), 10), made(premises=Premises())):
        verdict = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
        assert (verdict.returncode, verdict.stderr.decode()) == (0, "")


def test_it_says_how_a_fleet_is() -> None:
    samples = read(made())
    job = ("job", JOB)
    assert samples["fedge_aggregator_up", ()] == 1
    assert samples["fedge_devices", (("state", "online"),)] == 3
    assert samples["fedge_devices", (("state", "offline"),)] == 0
    assert samples["fedge_job_state", (job, ("state", "running"))] == 1
    assert samples["fedge_job_state", (job, ("state", "paused"))] == 0
    assert samples["fedge_job_quorum", (job,)] == 2
    assert samples["fedge_job_measure", (job, ("measure", "accuracy"))] == 0.95
    assert samples["fedge_last_version_timestamp_seconds", (job,)] == NOW - 10
    assert samples["fedge_round_devices", (("fate", "offered"), job)] == 2
    assert samples["fedge_certificate_expiry_timestamp_seconds", (("name", "broker"),)] == NOW + 86_400
    assert samples["fedge_updates_total", (job, ("verdict", "late"))] == 0
    assert samples["fedge_updates_total", (job, ("verdict", "refused"))] == 5
    assert samples["fedge_rounds_total", (job, ("outcome", "committed"))] == 40
    assert samples["fedge_mqtt_bytes_total", (("direction", "sent"),)] == 1234
    assert samples["fedge_clones_total", ()] == 3
    assert samples["fedge_words_refused_total", (("why", HOSTILE),)] == 1
    buckets = {le: samples["fedge_round_duration_seconds_bucket", (job, ("le", le))] for le in ("2.0", "5.0", "+Inf")}
    assert buckets == {"2.0": 3, "5.0": 33, "+Inf": 40}
    assert samples["fedge_round_duration_seconds_sum", (job,)] == 150.5


@pytest.mark.parametrize("changes", [{"connected": False}, {"trouble": "the store is locked"}])
def test_what_cannot_be_seen_is_said(changes: dict[str, object]) -> None:
    samples = read(made(structs.replace(view(), **changes)))
    assert samples["fedge_aggregator_up", ()] == ("connected" not in changes)
    assert samples["fedge_store_readable", ()] == ("trouble" not in changes)


def test_devices_have_labels_only_while_they_are_few() -> None:
    few, many = read(made(view(3), 3)), read(made(view(4), 3))
    assert few["fedge_device_temperature_celsius", (("device", "device-00001"),)] == 41
    assert few["fedge_device_disk_free_bytes", (("device", "device-00001"),)] == 2 * 10**9
    assert not any("device" in dict(labels) for _, labels in many)
    assert len(many) == len(read(made(view(2000), 3)))


def test_jobs_and_measures_are_bounded_and_those_that_go_on_come_first() -> None:
    job = view().jobs[JOB]
    many = {
        f"j{n:04}": structs.replace(job, job=f"j{n:04}", state="finished" if n < 300 else "running") for n in range(310)
    }
    measures = {"accuracy": 0.5, "strange": float("nan")} | {f"recall:{n}": 0.1 for n in range(500)}
    many["j0305"] = structs.replace(many["j0305"], metrics=measures)
    samples = read(made(structs.replace(view(), jobs=many)))
    named = {dict(labels)["job"] for name, labels in samples if name == "fedge_job_version"}
    assert len(named) == MOST_JOBS
    assert {f"j{n:04}" for n in range(300, 310)} <= named
    told = [dict(of)["measure"] for name, of in samples if name == "fedge_job_measure" and ("job", "j0305") in of]
    assert len(told) == MOST_MEASURES - 1
    assert "accuracy" in told


def test_a_quorum_is_asked_for_once() -> None:
    lookout, quorums = MadeLookout(), Quorums()
    jobs = [*lookout.view.jobs.values()]
    lookout.readings.broken = "locked"
    assert quorums.of(jobs, lookout.readings) == {}
    lookout.readings.broken = ""
    assert quorums.of(jobs, lookout.readings) == {}, "it says no rounds"
    lookout.readings.spec = lambda _job: {"rounds": {"quorum": 7}}  # type: ignore[method-assign]
    assert quorums.of(jobs, lookout.readings) == {JOB: 7}
    lookout.readings.spec = lambda _job: pytest.fail("it is known")  # type: ignore[method-assign]
    assert quorums.of(jobs, lookout.readings) == {JOB: 7}
    assert quorums.of([], None) == {}


def test_it_is_served_and_made_once_a_second_at_most(tmp_path: Path) -> None:
    lookout = MadeLookout(view(2, hostile("device-9")))
    inspector = Inspector(tmp_path, {})
    client = Asking(app(lookout, WebSettings(metrics_devices=10), None, lambda site: routes(site, inspector)))
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert read(answer.content)["fedge_device_online", (("device", "device-9"),)] == 1
    assert client.ask("HEAD", "/metrics").status_code == 200
    assert client.ask("POST", "/metrics").status_code == 405
