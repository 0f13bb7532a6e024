"""Views and readings made by hand, with hostile words in every place that a stranger can fill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from msgspec import structs
from starlette.types import ASGIApp

from aggregator.database import StoreError
from broker.messages import Version, Vitals
from fleet.sight.readings import AttemptPoint, FatePoint, Spread, VersionPoint
from fleet.sight.view import AggregatorView, DeviceView, Happened, JobView, Part, RoundView, View

NOW = 1_800_000_000.0
HOSTILE = """<script>alert("x")</script>'"&{{ 97*8387 }}"""
JOB = "digits-0123abcd"
MOST_NAMES = frozenset(f"device-{number:05}" for number in range(3))


def device(name: str, number: int = 0) -> DeviceView:
    """A device that is online, with everything said."""
    return DeviceView(
        *(name, "online", NOW - 3600),
        heard_at=NOW - 5,
        doing="training",
        job=JOB,
        progress=0.4,
        labels={"site": f"hall {number % 3}"},
        parts={JOB: Part(examples=100 + number)},
        software="fedge 0.1.0",
        serves={JOB: Version(1, 40 - number % 2)},
        vitals=Vitals(
            name, 1, disk_free=10**9 * (number + 1), heat=40.0 + number % 45, load=0.3, bytes_today=1000 * number
        ),
        vitals_at=NOW - 60,
    )


def hostile(name: str) -> DeviceView:
    """A device whose every word is an attack."""
    return structs.replace(
        device(name),
        why=HOSTILE,
        labels={HOSTILE: HOSTILE},
        parts={JOB: Part(why=HOSTILE, trouble=HOSTILE)},
        software=HOSTILE,
        alarm=HOSTILE,
        quarantine=HOSTILE,
    )


def view(n_devices: int = 3, *more: DeviceView, **changes: Any) -> View:
    """A fleet with one job, whose round is open."""
    names = [f"device-{number:05}" for number in range(n_devices)]
    devices = {name: device(name, number) for number, name in enumerate(names)} | {one.device: one for one in more}
    now = RoundView(
        *(Version(1, 40), 1, NOW - 10, NOW + 50),
        drawn=frozenset(names[:3]),
        offered=frozenset(names[:2]),
        counted=frozenset(names[:1]),
        target=2,
    )
    job = JobView(
        *(JOB, "digits", "running", Version(1, 40)),
        metrics={"accuracy": 0.95, "loss": 0.17, "participants": 3.0},
        best=39,
        at=NOW - 10,
        round=now,
        ready=n_devices,
    )
    made = View("f", NOW, 1, True, "", AggregatorView(True, 1, "aa"), dict(sorted(devices.items())), {JOB: job})
    return structs.replace(made, **changes)


class MadeReadings:
    """A store with forty versions. Where `broken` is said, nothing can be read."""

    def __init__(self) -> None:
        self.broken = ""
        self.calls = 0

    def _read(self) -> None:
        self.calls += 1
        if self.broken:
            raise StoreError(self.broken)

    def curve(self, job: str) -> list[VersionPoint]:
        self._read()
        if job != JOB:
            return []
        return [
            VersionPoint(
                *(n, NOW - 10 * (40 - n), {"accuracy": n / 50, "loss": 2 / (1 + n)}, 3, 1000 + n, 2000, 9.5),
                federated=Spread(0.9, 0.05, 0.7, "device-00002", "accuracy", 3),
            )
            for n in range(41)
        ]

    def round(self, job: str, number: int) -> list[AttemptPoint]:
        self._read()
        if job != JOB or number > 40:
            return []
        fates = {
            f"device-{n:05}": ("counted", "refused: its norm", f"not counted: {HOSTILE}")[n % 3] for n in range(120)
        }
        return [
            AttemptPoint(
                1, number - 1, "abandoned", HOSTILE, NOW - 90, NOW - 60, 2, {"device-00000": "dropped: absent"}
            ),
            AttemptPoint(2, number - 1, "version made", "", NOW - 60, NOW - 50, 2, fates),
        ]

    def history(self, device: str, most: int = 200) -> list[FatePoint]:
        self._read()
        if device not in MOST_NAMES:
            return []
        return [
            FatePoint(JOB, 40, 1, f"refused: {HOSTILE}", NOW - 10, 4.5, 0.3),
            FatePoint(JOB, 39, 1, "counted", NOW - 20, 3.5, 0.4),
        ][:most]

    def events(
        self,
        *,
        since: int | None = None,
        before: int | None = None,
        kind: str = "",
        job: str = "",
        device: str = "",
        most: int = 200,
    ) -> list[Happened]:
        self._read()
        rows = [Happened(n, NOW - n, "device.refused", HOSTILE, JOB, "device-00001") for n in range(300, 0, -1)]
        rows = [
            row for row in rows if job in ("", row.job) and device in ("", row.device) and row.kind.startswith(kind)
        ]
        return [row for row in rows if (before is None or row.n < before) and row.n > (since or 0)][:most]

    def spec(self, job: str) -> dict[str, Any]:
        self._read()
        return {"name": "digits", "note": HOSTILE, "model": {"inputs": 64}} if job == JOB else {}


class MadeLookout:
    """Looks on a view that a test puts there."""

    def __init__(self, seen: View | None = None) -> None:
        self.view = seen if seen is not None else view()
        self.readings = MadeReadings()
        self._subscribers: list[Callable[[View, Sequence[Happened]], None]] = []

    def subscribe(self, callback: Callable[[View, Sequence[Happened]], None], /) -> None:
        self._subscribers.append(callback)

    def show(self, seen: View) -> None:
        """Have another view."""
        self.view = seen
        for subscriber in self._subscribers:
            subscriber(seen, [])


class Asking:
    """Somebody who asks an application, without a network between them."""

    def __init__(self, app: ASGIApp, host: str = "localhost:8080", client: str = "127.0.0.1") -> None:
        self._app, self._host, self._client = app, host, client

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=(self._client, 1))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{self._host}") as client:
                return await client.request(method, path, headers=headers, content=body)

        return asyncio.run(asked())
