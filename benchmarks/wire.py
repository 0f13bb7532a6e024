"""A job over the wire: mosquitto, an aggregator and every device as processes, behind the counting proxy.

What `fleet.simulation.simulate` computes in one process happens here for real, so that every byte of MQTT is counted:
headers, acknowledgements, subscriptions, pings, resends. The same job and data make the same model in both.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from fleet.console.observer import over_mqtt
from fleet.console.watch import Sights, Watch
from fleet.identity import wire_of_operator
from fleet.local import stage
from fleet.local.keys import make as make_keys
from fleet.local.meter import Meter
from fleet.local.processes import Children
from fleet.local.stage import DEVICES, FLEET
from fleet.problems.problem import device_names, for_all
from identity.settings import IdentitySettings
from models.data.dataset import Dataset
from models.job import JobSpec

SETTLING_S = 1.0
"""What is still under way when a job has ended gets this long."""


class Row(Struct, frozen=True):
    """A version, and what all devices had sent and received when it appeared: bytes of MQTT, all of them."""

    round: int
    accuracy: float | None
    loss: float | None
    wire_up: int
    wire_down: int


class Wired(Struct, frozen=True):
    """A job from its first to its last round. Bytes are summed over all devices."""

    rounds: list[Row]
    sha256: str
    """Of the last version, as far as its head says it."""
    reason: str
    wire_up: int
    """Every byte that MQTT sent."""
    wire_down: int
    payload_up: int
    """Of wire_up, payloads of PUBLISH."""
    payload_down: int
    words_up: dict[str, int]
    """Payload bytes by the word of the topic."""
    words_down: dict[str, int]
    packets_up: dict[str, int]
    packets_down: dict[str, int]
    seconds: float

    @property
    def accuracy(self) -> float | None:
        """Of the last version."""
        return self.rounds[-1].accuracy

    @property
    def best_accuracy(self) -> float | None:
        """Of any version."""
        return max((row.accuracy for row in self.rounds if row.accuracy is not None), default=None)


def run(
    spec: JobSpec,
    shares: Sequence[Dataset],
    test: Dataset,
    say: Callable[[str], None] = lambda _: None,
    *,
    keys: bool = False,
    vitals: bool = True,
) -> Wired:
    """Run a job to its end. say: told what goes on. keys: whether everybody signs, and believes signed words alone.

    vitals: whether devices say how they are: by the clock, and so one run more often than another.

    Raises SettingsError for a job that this many devices cannot do, StartError without a broker,
    ChildDiedError when a process ends early, WatchError when the fleet is silent.
    """
    spec = for_all(spec, len(shares))
    with tempfile.TemporaryDirectory(prefix="fedge-wire-") as name, start_broker(Path(name) / "broker") as broker:
        meter = Meter(broker.host, broker.port)
        behind = BrokerSettings(port=meter.start(), protocol=broker.protocol)
        made = make_keys(Path(name).resolve() / "keys", FLEET, device_names(len(shares))) if keys else None
        plan = stage.build(Path(name), spec, shares, test, behind, inference=False, keys=made, vitals=vitals)
        direct = BrokerSettings(port=broker.port, protocol=broker.protocol)
        wire = wire_of_operator(FLEET, made.of_operator if made else IdentitySettings())
        with Children() as children, Watch(over_mqtt("watch", direct, wire)) as watch:
            stage.start(children, plan)
            found = _follow(spec, watch, children, meter, say)
        meter.stop()
    return found


def _follow(spec: JobSpec, watch: Watch, children: Children, meter: Meter, say: Callable[[str], None]) -> Wired:
    sights, rows, began, asked = Sights(), list[Row](), time.monotonic(), False
    ends_at = None
    for heard in watch.hear():
        children.check()
        if heard is not None and sights.see(heard):
            rows.append(_row(max(sights.statuses), sights, meter))
            say(f"version {rows[-1].round} of at most {spec.rounds.max_rounds}: accuracy {rows[-1].accuracy}")
        if sights.led and not asked:
            watch.submit(spec)
            asked = True
        if sights.ended is not None and ends_at is None:
            ends_at = time.monotonic() + SETTLING_S
        if ends_at is not None and time.monotonic() > ends_at:
            break
    assert sights.ended is not None
    total = meter.totals(DEVICES)
    return Wired(
        rounds=rows[1:],
        sha256=sights.heads[max(sights.heads)].sha256,
        reason=sights.ended.reason,
        wire_up=total.up.wire_bytes,
        wire_down=total.down.wire_bytes,
        payload_up=total.up.payload_bytes,
        payload_down=total.down.payload_bytes,
        words_up=_plain(total.up.words),
        words_down=_plain(total.down.words),
        packets_up=_plain(total.up.packets),
        packets_down=_plain(total.down.packets),
        seconds=round(time.monotonic() - began, 1),
    )


def _row(number: int, sights: Sights, meter: Meter) -> Row:
    metrics, total = sights.statuses[number].metrics, meter.totals(DEVICES)
    return Row(number, metrics.get("accuracy"), metrics.get("loss"), total.up.wire_bytes, total.down.wire_bytes)


def _plain(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
