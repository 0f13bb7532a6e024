"""`fedge demo`: a whole fleet on this machine, as processes, from nothing to a trained model.

    device-00 ─┐
    ...        ├─▶ counting proxy ──▶ broker ◀── we look on
    device-09 ─┤      (fleet/local/meter.py)
    aggregator ┘

Every process is the one that a real fleet runs, and speaks MQTT to a real broker. Each device has its own share of the
examples, of few classes, and gives none of them away.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct, structs

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Status
from broker.wire import Wire
from edge_agent.slot import Card
from fleet import memory
from fleet.console.display import Display, duration, n_bytes
from fleet.console.observer import over_mqtt
from fleet.console.watch import Sights, Watch
from fleet.demo import plots
from fleet.local import stage
from fleet.local.meter import Meter
from fleet.local.processes import Children, interruptible
from fleet.local.stage import DEVICES, FLEET, Stage
from fleet.problems.central import train_centrally
from fleet.problems.examples import Split, find_job, load_split
from fleet.problems.partition import deal
from fleet.problems.problem import dealt, for_all
from models.data import dataset
from models.data.dataset import Dataset
from models.job import JobSpec
from models.nets import table as nets
from models.nets.size import of_spec
from models.serving import inference
from runtime.settings import SettingsError, load

DEFAULT_JOB = Path("digits")
PARTITION = "dirichlet:0.5"
DEPLOYING_S = 60.0
"""How long the devices may take to put the last version into service."""
N_SAMPLE_ROWS = 5


class DemoError(RuntimeError):
    """A demo that cannot be brought to its end; the message says why."""


class Version(Struct, frozen=True):
    """A version, and what had passed when it appeared. Bytes: MQTT payload of all devices so far, everything."""

    round: int
    participants: int
    accuracy: float
    loss: float
    bytes_up: int
    bytes_down: int
    seconds: float
    """Since the devices were started."""
    measures: dict[str, float] = {}
    """What the job's rule to stop goes by, where that is neither accuracy nor loss."""


class Summary(Struct, frozen=True):
    """summary.json. Bytes a device are MQTT payload, counted by a proxy before the broker, control included."""

    job: str
    data: str
    accuracy: float
    central_accuracy: float
    """The same net, trained in one place on all devices' examples together."""
    onnx_accuracy: float
    """Of the ONNX file of a device, in onnxruntime."""
    rounds: int
    devices: int
    examples: int
    test_examples: int
    parameters: int
    compression: str
    reason: str
    """Why it ended."""
    seconds: float
    broker: str
    bytes_up_per_device: int
    bytes_down_per_device: int
    body_bytes_up_per_device: int
    """Of bytes_up_per_device, those of updates."""
    body_bytes_down_per_device: int
    """Of bytes_down_per_device, those of versions."""
    wire_bytes_up_per_device: int
    """Everything that MQTT sent, headers, acknowledgements, subscriptions and pings included; counted by the proxy."""
    wire_bytes_down_per_device: int
    float32_bytes_up_per_device: int
    """Had the same updates been float32: control as it was, 4 bytes a parameter for each update that was counted."""
    float32_bytes_down_per_device: int
    """Had the versions been float32: 4 bytes a parameter for each that a counted update was trained on, but the first,
    which comes from the seed, and for the last one, which every device serves."""
    onnx: str
    plots: list[str]
    sha256: str
    """Of the last version: what its head says."""
    history: list[Version]


def demo(out: Path, devices: int, job: Path | None, *, as_json: bool) -> int:
    """Run the demo and write everything below `out`.

    Raises SettingsError for a job or a folder that cannot be used, StartError without a broker, ChildDiedError when a
    process ends early, WatchError or DemoError when the fleet does not come to its end.
    """
    began = time.monotonic()
    spec = _for_devices(load(find_job(job or DEFAULT_JOB), JobSpec), devices)
    split = load_split(spec.data_name)
    split = Split(dataset.fit(split.train, spec.model), dataset.fit(split.test, spec.model))
    if not spec.model.classifies:
        raise SettingsError(f'job {spec.name}: the demo shows an accuracy, which needs loss = "cross_entropy"')
    stage.clear(out / "fleet")
    display = Display(None if as_json else sys.stdout)
    with interruptible():
        summary = _Demo(out, devices, spec, split, display).run(began)
    text = msgspec.json.format(msgspec.json.encode(summary)).decode() + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")
    if as_json:
        sys.stdout.write(text)
    else:
        _sum_up(display, out, summary)
    return 0


def _for_devices(spec: JobSpec, n_devices: int) -> JobSpec:
    """Have the first round wait for all devices, however many there are."""
    quorum = min(spec.rounds.quorum, n_devices)
    return for_all(structs.replace(spec, rounds=structs.replace(spec.rounds, quorum=quorum)), n_devices)


class _Demo:
    """The demo between its start and its end."""

    def __init__(self, out: Path, n_devices: int, spec: JobSpec, split: Split, display: Display) -> None:
        self._out = out
        self._n_devices = n_devices
        self._spec = spec
        self._split = split
        self._display = display
        self._sights = Sights()
        self._history: list[Version] = []
        net = nets.build(spec.model, allow=nets.factories_of(spec.model))
        memory.check_demo(spec, of_spec(net.spec), n_devices)
        self._n_parameters = sum(tensor.size for tensor in net.spec)

    def run(self, began: float) -> Summary:
        """Start everything, look on, stop everything, and see what came of it."""
        folder, say = self._out / "fleet", self._display.line
        rows = deal(PARTITION, self._split.train.y, self._n_devices, self._spec.seed)
        shares = dealt(self._split.train, rows)
        with start_broker(folder / "broker") as broker, Children() as children:
            self._meter = Meter(broker.host, broker.port)
            behind = BrokerSettings(port=self._meter.start(), protocol=broker.protocol)
            plan = stage.build(folder, self._spec, shares, self._split.test, behind)
            sizes = [len(share.y) for share in shares]
            say(f"{broker.kind}, an aggregator and {self._n_devices} devices: each a process of its own")
            say(
                f'job "{self._spec.name}": {self._n_parameters:,} parameters, {sum(sizes)} examples, '
                f"{min(sizes)} to {max(sizes)} on a device"
            )
            direct = BrokerSettings(port=broker.port, protocol=broker.protocol)
            with Watch(over_mqtt("watch", direct, Wire(FLEET))) as watch:
                self._start(children, plan)
                self._follow(watch, children)
                model = self._collect_model(watch, children, plan)
            traffic, wire = self._traffic(), self._wire_traffic()
            fetched = self._body_bytes_down()
        self._meter.stop()
        return self._summarise(began, broker.kind, model, traffic, wire, fetched)

    def _start(self, children: Children, plan: Stage) -> None:
        self._started = time.monotonic()
        stage.start(children, plan)

    # Looking on.

    def _follow(self, watch: Watch, children: Children) -> None:
        """Submit the job and look on until it has ended."""
        self._display.line()
        self._display.line(
            f"{'round':>6} {'updates':>8} {'accuracy':>9} {'up a device':>12} {'down a device':>14} {'time':>7}"
        )
        asked = False
        for heard in watch.hear():
            children.check()
            if heard is not None and self._sights.see(heard):
                self._note(self._sights.statuses[max(self._sights.statuses)])
            if self._sights.led and not asked:
                watch.submit(self._spec)
                asked = True
            if self._sights.ended is not None:
                return
            self._display.status(self._doing())

    def _note(self, status: Status) -> None:
        """Keep a new version with what has passed by now."""
        up, down = self._traffic()
        number = status.version.number
        version = Version(
            number,
            int(status.metrics.get("participants", 0)),
            status.metrics["accuracy"],
            status.metrics["loss"],
            up,
            down,
            round(time.monotonic() - self._started, 2),
            {name: value for name, value in status.metrics.items() if name not in ("accuracy", "loss", "participants")},
        )
        self._history.append(version)
        if number:
            others = "".join(f"  {name} {value:.4f}" for name, value in version.measures.items())
            self._display.line(
                f"{number:>6} {version.participants:>8} {version.accuracy:>9.4f} {n_bytes(up / self._n_devices):>12} "
                f"{n_bytes(down / self._n_devices):>14} {version.seconds:>5.1f} s{others}"
            )

    def _doing(self) -> str:
        """Say what goes on now, and how long it may take."""
        if not self._history or len(self._sights.ready) < self._n_devices:
            return f"starting: {len(self._sights.ready)} of {self._n_devices} devices are ready"
        number, most = self._history[-1].round, self._spec.rounds.max_rounds
        n_updates = len(self._sights.offered.get(number, ()))
        text = f"round {number + 1} of at most {most}: {n_updates} updates"
        if number:
            pace = (time.monotonic() - self._started - self._history[0].seconds) / number
            text += f", at most {duration(pace * (most - number))} left"
        return text

    def _collect_model(self, watch: Watch, children: Children, plan: Stage) -> Path:
        """Wait until every device serves the last version; give one's folder of it."""
        ended = self._sights.ended
        assert ended is not None  # noqa: S101 -- `_follow` has returned
        if self._spec.deploy == "never":
            raise DemoError('deploy = "never" leaves the devices without a model: the demo shows one')
        until = time.monotonic() + DEPLOYING_S
        for heard in watch.hear(0.1):
            children.check()
            if heard is not None:
                self._sights.see(heard)
            serving = [slot for slot in plan.slots(self._spec) if _serves(slot, ended)]
            if len(serving) == self._n_devices:
                break
            if time.monotonic() > until:
                raise DemoError(
                    f"{self._n_devices - len(serving)} devices do not serve version {ended.version.number} after "
                    f"{DEPLOYING_S:g} s; {plan.devices[0].log} may say why"
                )
            self._display.status(f"{len(serving)} of {self._n_devices} devices serve the last version")
        return plan.slots(self._spec)[0]

    # Counting.

    def _traffic(self) -> tuple[int, int]:
        """Return payload bytes of all devices, up and down, so far."""
        total = self._meter.totals(DEVICES)
        return total.up.payload_bytes, total.down.payload_bytes

    def _wire_traffic(self) -> tuple[int, int]:
        """Return all bytes of MQTT of all devices, up and down, so far."""
        total = self._meter.totals(DEVICES)
        return total.up.wire_bytes, total.down.wire_bytes

    def _body_bytes_down(self) -> int:
        """Return the bytes of versions that devices have read: bodies, and those that came with a round."""
        along = self._n_devices * sum(self._sights.way_bytes.values())
        return self._meter.totals(DEVICES).down.words["body"] + along

    # What came of it.

    def _summarise(
        self,
        began: float,
        broker: str,
        slot: Path,
        traffic: tuple[int, int],
        wire: tuple[int, int],
        body_bytes_down: int,
    ) -> Summary:
        last, ended = self._history[-1], self._sights.ended
        assert ended is not None  # noqa: S101 -- `_follow` has returned
        self._display.status("training the same net in one place, for comparison")
        central = train_centrally(self._spec, self._split.train, self._split.test, last.round).accuracy or 0.0
        onnx = self._out / "model.onnx"
        shutil.copyfile(slot / "model.onnx", onnx)
        onnx_accuracy = accuracy_of(onnx, self._split.test)
        self._write_rows()
        up, down = traffic
        n, body_up = self._n_devices, self._sights.body_bytes_up
        n_updates = sum(version.participants for version in self._history)
        n_fetches = sum(version.participants for version in self._history if version.round > 1) + n
        size = 4 * self._n_parameters
        float32_up, float32_down = up - body_up + size * n_updates, down - body_bytes_down + size * n_fetches
        pictures = self._draw(central)
        return Summary(
            job=self._spec.name,
            data=self._spec.data_name,
            accuracy=last.accuracy,
            central_accuracy=round(central, 4),
            onnx_accuracy=round(onnx_accuracy, 4),
            rounds=last.round,
            devices=n,
            examples=len(self._split.train.y),
            test_examples=len(self._split.test.y),
            parameters=self._n_parameters,
            compression=self._spec.coding.codec,
            reason=ended.reason,
            seconds=round(time.monotonic() - began, 1),
            broker=broker,
            bytes_up_per_device=round(up / n),
            bytes_down_per_device=round(down / n),
            body_bytes_up_per_device=round(body_up / n),
            body_bytes_down_per_device=round(body_bytes_down / n),
            wire_bytes_up_per_device=round(wire[0] / n),
            wire_bytes_down_per_device=round(wire[1] / n),
            float32_bytes_up_per_device=round(float32_up / n),
            float32_bytes_down_per_device=round(float32_down / n),
            onnx=str(onnx),
            plots=[str(path) for path in pictures],
            sha256=self._sights.heads[ended.version.number].sha256,
            history=self._history,
        )

    def _draw(self, central: float) -> list[Path]:
        by_round, by_bytes = self._out / "accuracy-by-round.png", self._out / "accuracy-by-bytes.png"
        versions = self._history[1:]
        accuracies = [version.accuracy for version in versions]
        title = f"{self._spec.name} on {self._n_devices} devices"
        plots.accuracy_by_round(accuracies, central, title, by_round)
        sent = [(version.bytes_up + version.bytes_down) / self._n_devices for version in versions]
        plots.accuracy_by_bytes(accuracies, sent, self._as_float32(), title, by_bytes)
        return [by_round, by_bytes]

    def _as_float32(self) -> list[float]:
        """Return what a device would have sent and received of bodies alone until each version, in float32."""
        size, so_far, found = 4 * self._n_parameters, 0, []
        for version in self._history[1:]:
            so_far += size * version.participants * (2 if version.round > 1 else 1)
            found.append(so_far / self._n_devices)
        return found

    def _write_rows(self) -> None:
        """Write some rows that were held back, for `fedge agent predict`."""
        np.savetxt(self._out / "rows.csv", self._split.test.X[:N_SAMPLE_ROWS], fmt="%g", delimiter=",")


def accuracy_of(onnx: Path, test: Dataset) -> float:
    """Return the share of rows that an ONNX file classifies rightly, in onnxruntime."""
    probabilities = inference.run(inference.open_model(str(onnx)), test.X)
    return float(np.mean(probabilities.argmax(axis=1) == test.y))


def _serves(slot: Path, status: Status) -> bool:
    """Return whether a slot holds this version, as ONNX."""
    try:
        card = msgspec.json.decode((slot / "model.json").read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError):
        return False
    release = card.release
    return (release.generation, release.number) == (status.version.generation, status.version.number) and (
        "model.onnx" in card.files
    )


def _sum_up(display: Display, out: Path, summary: Summary) -> None:
    """Show what came of it."""
    say: Callable[[str], None] = display.line
    say("")
    say(f"ended after {summary.rounds} rounds: {summary.reason}")
    say(f"accuracy   {summary.accuracy:.4f}; the same net trained in one place has {summary.central_accuracy:.4f}")
    for way, n, wire, float32 in (
        (
            "up",
            summary.bytes_up_per_device,
            summary.wire_bytes_up_per_device,
            summary.float32_bytes_up_per_device,
        ),
        (
            "down",
            summary.bytes_down_per_device,
            summary.wire_bytes_down_per_device,
            summary.float32_bytes_down_per_device,
        ),
    ):
        times = f"the same rounds in float32 would be {n_bytes(float32)}, {float32 / n:.1f} times as much"
        say(f"bytes {way:<4} {n_bytes(n)} of payload a device ({n_bytes(wire)} with MQTT's own); {times}")
    say(f"model      {summary.onnx}, taken from a device: {summary.onnx_accuracy:.4f} in onnxruntime")
    say(f"pictures   {'  '.join(summary.plots)}")
    say(f"figures    {out / 'summary.json'}")
    config = out / "fleet" / "device-00" / "agent.toml"
    say(f"ask it     fedge agent predict --config {config} --input {out / 'rows.csv'}")
