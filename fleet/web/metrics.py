"""/metrics: a fleet in Prometheus' text format. The one home of prometheus_client.

    View, quorums, Premises ──▶ exposition ──▶ samples, their number bounded whatever the fleet is

Names are as Prometheus has them (https://prometheus.io/docs/practices/naming/): base units, `_total` on what only goes
up. Counters are those of the aggregator's process, and begin anew with it. The label `job` is a job of the fleet, so
whoever scrapes sets `honor_labels`. Devices have labels only while there are at most [web] metrics_devices of them.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from aggregator.counters import SECONDS, JobTotals, Judged, Outcome, Totals
from aggregator.database import StoreError
from fleet.sight.readings import Readings
from fleet.sight.view import DeviceState, DeviceView, JobState, JobView, View
from fleet.web.premises import Inspector, Premises
from fleet.web.site import Site

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
AGAIN_S = 1.0
"""What was made is shown again for so long."""
MOST_JOBS = 200
"""Jobs that have samples: of more, those that have not ended come first."""
MOST_MEASURES = 40
"""Of a job; those of a class come last."""
Labels = Mapping[str, str]
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily
Kind = TypeVar("Kind", bound=Family)


class _Samples(Collector):
    """Families of samples, in the order in which they were begun."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def collect(self) -> Iterable[Metric]:
        return self._families.values()

    def gauge(self, name: str, what: str, value: float | None, labels: Labels | None = None) -> None:
        """Add a sample of what goes up and down; none where it is not known."""
        if value is not None and math.isfinite(value):
            family = self._family(GaugeMetricFamily, name, what, labels)
            family.add_metric([*(labels or {}).values()], value)

    def counter(self, name: str, what: str, value: float, labels: Labels | None = None) -> None:
        """Add a sample of what only goes up. name: without its _total."""
        self._family(CounterMetricFamily, name, what, labels).add_metric([*(labels or {}).values()], value)

    def seconds(self, name: str, what: str, counts: Sequence[int], sum_s: float, labels: Labels) -> None:
        """Add a histogram. counts: in each bucket of SECONDS, and behind the last."""
        total, buckets = 0, []
        for bound, n in zip((*map(str, SECONDS), "+Inf"), counts, strict=True):
            total += n
            buckets.append((bound, float(total)))
        self._family(HistogramMetricFamily, name, what, labels).add_metric([*labels.values()], buckets, sum_s)

    def info(self, name: str, what: str, labels: Labels) -> None:
        """Add what is known by its labels. name: without its _info."""
        self._family(InfoMetricFamily, name, what, {}).add_metric([], dict(labels))

    def _family(self, kind: type[Kind], name: str, what: str, labels: Labels | None) -> Kind:
        family = self._families.get(name)
        if not isinstance(family, kind):
            family = kind(name, what, labels=[*(labels or {})])
            self._families[name] = family
        return family


def exposition(
    view: View, quorums: Mapping[str, int], premises: Premises, *, software: str, most_devices: int = 0
) -> bytes:
    """Return all samples in the text format. quorums: of jobs, as far as they are known.

    software: the version of fedge. most_devices: up to so many devices have samples of their own.
    """
    samples = _Samples()
    _of_aggregator(samples, view, premises, software)
    _of_devices(samples, view)
    if len(view.devices) <= most_devices:
        for device in view.devices.values():
            _of_device(samples, device)
    for job in first_jobs(view):
        _of_job(samples, job, quorums.get(job.job))
    if premises.totals is not None:
        _of_totals(samples, premises.totals)
    return generate_latest(samples)


def _of_aggregator(samples: _Samples, view: View, premises: Premises, software: str) -> None:
    samples.info("fedge_build", "What runs here.", {"version": software, "python": platform.python_version()})
    up = view.connected and view.aggregator.online
    samples.gauge("fedge_aggregator_up", "Whether an aggregator leads the fleet, as the broker says.", up)
    samples.gauge("fedge_broker_connected", "Whether who looks on is connected to the broker.", view.connected)
    samples.gauge("fedge_store_readable", "Whether the aggregator's store can be read.", not view.trouble)
    samples.gauge("fedge_aggregator_term", "The term that the aggregator leads under.", view.aggregator.term)
    samples.gauge("fedge_store_bytes", "What the store takes on disk.", premises.store_bytes)
    samples.gauge("fedge_disk_free_bytes", "Free where the store lies.", premises.disk_free)
    samples.gauge("fedge_disk_size_bytes", "Size of the file system that the store lies on.", premises.disk_size)
    for name, end in sorted(premises.ends.items()):
        what = "When a certificate, or the broker's list of the revoked, ends."
        samples.gauge("fedge_certificate_expiry_timestamp_seconds", what, end, {"name": name})


def _of_devices(samples: _Samples, view: View) -> None:
    states: dict[str, int] = dict.fromkeys(get_args(DeviceState), 0)
    alarms = 0
    for device in view.devices.values():
        states[device.state] += 1
        alarms += bool(device.alarm)
    for state, n in states.items():
        samples.gauge("fedge_devices", "Devices by how they are.", n, {"state": state})
    samples.gauge("fedge_devices_alarming", "Devices that an operator should look at.", alarms)


def _of_device(samples: _Samples, device: DeviceView) -> None:
    of, vitals = {"device": device.device}, device.vitals
    samples.gauge("fedge_device_online", "Whether a device is there.", device.state == "online", of)
    samples.gauge("fedge_device_heard_timestamp_seconds", "When it last said anything.", device.heard_at, of)
    samples.gauge("fedge_device_clock_offset_seconds", "Its clock less the server's.", device.clock_offset_s, of)
    for job, version in device.serves.items():
        what = "The version that its applications are answered by."
        samples.gauge("fedge_device_serves_version", what, version.number, {**of, "job": job})
    if vitals is not None:
        samples.gauge("fedge_device_disk_free_bytes", "Free where its state lies.", vitals.disk_free, of)
        samples.gauge("fedge_device_temperature_celsius", "Of its processor.", vitals.heat, of)
        samples.gauge("fedge_device_load", "Processes that run or wait to, over its processors.", vitals.load, of)
        samples.gauge("fedge_device_mqtt_today_bytes", "Over MQTT since midnight, UTC.", vitals.bytes_today, of)
        samples.gauge("fedge_device_uptime_seconds", "How long its agent has run.", vitals.uptime_s, of)


def first_jobs(view: View) -> list[JobView]:
    """Return the jobs that have samples, by name."""
    jobs = [*view.jobs.values()]
    if len(jobs) > MOST_JOBS:
        jobs = sorted(jobs, key=lambda job: (job.state in ("finished", "stopped"), -(job.at or 0.0)))[:MOST_JOBS]
    return sorted(jobs, key=lambda job: job.job)


def _of_job(samples: _Samples, job: JobView, quorum: int | None) -> None:
    of = {"job": job.job}
    for state in get_args(JobState):
        samples.gauge("fedge_job_state", "1 for the state of a job.", state == job.state, {**of, "state": state})
    samples.gauge("fedge_job_version", "The number of the current version.", job.version.number, of)
    samples.gauge("fedge_job_best_version", "The number of the best version.", job.best, of)
    samples.gauge("fedge_job_quorum", "Updates that a version needs at least.", quorum, of)
    samples.gauge("fedge_devices_ready", "Devices that are there and can take part in a job.", job.ready, of)
    what = "When the current version was made."
    samples.gauge("fedge_last_version_timestamp_seconds", what, job.at, of)
    for measure in sorted(job.metrics, key=lambda name: (":" in name, name))[:MOST_MEASURES]:
        what = "How good the current version is, by each measure that it has."
        samples.gauge("fedge_job_measure", what, job.metrics[measure], {**of, "measure": measure})
    if (open_ := job.round) is not None:
        fates = {
            "drawn": len(open_.drawn),
            "offered": len(open_.offered),
            "counted": len(open_.counted),
            "refused": len(open_.refused),
        }
        for fate, n in fates.items():
            samples.gauge("fedge_round_devices", "Devices in the open round.", n, {**of, "fate": fate})
        samples.gauge("fedge_round_end_timestamp_seconds", "When the open round ends.", open_.ends_at, of)


def _of_totals(samples: _Samples, totals: Totals) -> None:
    what = "When the aggregator was started; counters are of the time since."
    samples.gauge("fedge_aggregator_start_time_seconds", what, totals.started)
    for direction, n_bytes, packets in (
        ("sent", totals.sent_bytes, totals.sent_packets),
        ("received", totals.received_bytes, totals.received_packets),
    ):
        passed = {"direction": direction}
        samples.counter("fedge_mqtt_bytes", "Bytes of MQTT between aggregator and broker.", n_bytes, passed)
        samples.counter("fedge_mqtt_packets", "Messages between aggregator and broker.", packets, passed)
    samples.counter("fedge_mqtt_dropped", "Messages that there was no room for.", totals.dropped_packets)
    samples.counter("fedge_clones", "Signs of two devices under one id.", totals.events.get("device.clone", 0))
    for kind, n in totals.events.items():
        samples.counter("fedge_events", "What has happened, by kind.", n, {"kind": kind})
    for why, n in totals.refused.items():
        samples.counter("fedge_words_refused", "Messages that were not heard, by why.", n, {"why": why})
    for job, counted in sorted(totals.jobs.items()):
        _of_rounds(samples, job, counted)


def _of_rounds(samples: _Samples, job: str, counted: JobTotals) -> None:
    for verdict in get_args(Judged):
        what = "Verdicts on updates; late: counted, though to a version before."
        samples.counter("fedge_updates", what, counted.updates.get(verdict, 0), {"job": job, "verdict": verdict})
    for outcome in get_args(Outcome):
        what = "Attempts to make a version that have ended."
        samples.counter("fedge_rounds", what, counted.rounds.get(outcome, 0), {"job": job, "outcome": outcome})
    what = "How long attempts to make a version took, those that this process has opened."
    samples.seconds("fedge_round_duration_seconds", what, counted.seconds, counted.sum_s, {"job": job})


class Quorums:
    """How many updates a version of each job needs at least: asked once, since a specification never changes."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, jobs: Iterable[JobView], readings: Readings | None) -> Mapping[str, int]:
        """Return those that are known. readings: None where there is no store to read."""
        known = {}
        for job in jobs:
            found = self._known.get(job.job)
            if found is None and readings is not None:
                found = _quorum(readings, job.job)
            if found is not None:
                known[job.job] = found
        self._known = known
        return known


def _quorum(readings: Readings, job: str) -> int | None:
    try:
        rounds = readings.spec(job).get("rounds")
    except StoreError:
        return None
    quorum = rounds.get("quorum", 1) if isinstance(rounds, Mapping) else None
    return quorum if isinstance(quorum, int) else None


class _Page:
    """Makes /metrics for whoever asks, once a second at most."""

    def __init__(self, site: Site, inspector: Inspector) -> None:
        self._site, self._inspector = site, inspector
        self._quorums = Quorums()
        self._lock = threading.Lock()
        self._made: tuple[float, bytes] | None = None

    def body(self) -> bytes:
        """Return the samples."""
        with self._lock:
            now, site = time.monotonic(), self._site
            if self._made is None or now >= self._made[0] + AGAIN_S:
                view = site.view
                body = exposition(
                    *(view, self._quorums.of(first_jobs(view), site.lookout.readings), self._inspector.look()),
                    software=site.software,
                    most_devices=site.settings.metrics_devices,
                )
                self._made = now, body
            return self._made[1]


def routes(site: Site, inspector: Inspector) -> list[BaseRoute]:
    """Return the route of /metrics."""
    page, limit = _Page(site, inspector), CapacityLimiter(1)

    async def endpoint(_request: Request) -> Response:
        return Response(
            await run_sync(page.body, limiter=limit), headers={"content-type": MEDIA_TYPE, "cache-control": "no-store"}
        )

    return [Route("/metrics", endpoint, methods=["GET"])]
