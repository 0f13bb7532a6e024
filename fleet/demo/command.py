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
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs

from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.messages import Status
from broker.wire import Wire
from fleet import memory
from fleet.console.display import Display, duration, n_bytes
from fleet.console.metrics import Cell, VersionLine, versions
from fleet.console.observer import over_mqtt
from fleet.console.operator import Console, OperatorConfig, OperatorError
from fleet.console.versions import Weights, export, read_weights
from fleet.console.watch import Sights, Watch, WatchError
from fleet.demo.given import Data, for_devices, page_address, problem_of
from fleet.demo.outcome import Summary, Version, score_of, sum_up, table_of
from fleet.demo.served import card_of, serves
from fleet.demo.staying import stay
from fleet.factories import find_beside
from fleet.factories import told_of as told_of_net
from fleet.local import stage
from fleet.local.meter import Meter
from fleet.local.processes import Children, interruptible
from fleet.local.stage import DEVICES, FLEET, Stage
from fleet.problems.central import together, trained_centrally
from fleet.problems.examples import find_job
from fleet.problems.problem import Problem, told_of
from fleet.problems.tables import Share
from fleet.results import draw, headline, write_metrics
from models.agreement import of_model
from models.data.source import DataSource
from models.job import JobSpec
from models.measures import exact
from models.nets import table as nets
from models.nets.size import of_net
from models.serving.export import ExportError
from runtime.settings import SettingsError

DEFAULT_JOB = Path("digits")
DEPLOYING_S = 60.0
"""How long the devices may take to put the last version into service."""
N_SAMPLE_ROWS = 5


class DemoError(RuntimeError):
    """A demo that cannot be brought to its end; the message says why."""


def demo(
    out: Path,
    devices: int,
    job: Path | None,
    *,
    as_json: bool,
    data: Data | None = None,
    base: Path | None = None,
    page: bool = False,
) -> int:
    """Run the demo and write everything below `out`. data: what to train on in place of the job's example data.

    base: a file of what is frozen of the net.
    page: whether the fleet is shown in a browser meanwhile.

    Raises SettingsError for a job or a folder that cannot be used, StartError without a broker, ChildDiedError when a
    process ends early, WatchError or DemoError when the fleet does not come to its end.
    """
    began = time.monotonic()
    file = find_job(job or DEFAULT_JOB)
    problem = problem_of(file, devices, data)
    find_beside(file, problem.spec)
    notes = [*told_of(problem), *told_of_net(problem.spec)]
    spec = for_devices(problem.spec, len(problem.shares))
    given = None if base is None else read_weights(base, spec, as_base=True)
    if given is not None:
        spec = structs.replace(spec, train=structs.replace(spec.train, base=given.base))
    stage.clear(out / "fleet")
    display = Display(None if as_json else sys.stdout)
    for note in notes:
        display.line(note)
    with interruptible(), redirect_stdout(sys.stderr if as_json else sys.stdout):  # a factory may print
        run = _Demo(out, spec, problem, display, page_address() if page else "", given)
        text = run.run(began, stays=not as_json and sys.stdout.isatty())
    if as_json:
        sys.stdout.write(text)
    return 0


class _Demo:
    """The demo between its start and its end."""

    def __init__(
        self, out: Path, spec: JobSpec, problem: Problem, display: Display, page: str, given: Weights | None = None
    ) -> None:
        """given: what is frozen of the net, where a file gives it."""
        self._out = out
        self._page = page
        self._n_devices = n_devices = len(problem.shares)
        self._spec = spec
        self._problem = problem
        self._given = given
        self._display = display
        self._measure = headline(spec)
        self._lines: list[VersionLine] = []
        """What the aggregator has measured of each version."""
        self.rows: Path | None = None
        """Some to ask the model about."""
        self._sights = Sights()
        self._history: list[Version] = []
        net = nets.of_job(spec, allow=nets.factories_of(spec.model), find=lambda _, own: own())
        memory.check_demo(spec, of_net(net), n_devices)
        self._n_parameters = sum(tensor.size for tensor in net.spec)

    def run(self, began: float, *, stays: bool) -> str:
        """Start everything, look on, see what came of it, and stop everything; return summary.json.

        stays: not before nobody looks at the page any more.
        """
        folder, say = self._out / "fleet", self._display.line
        problem, shares = self._problem, self._problem.shares
        with start_broker(folder / "broker") as broker, Children() as children:
            self._meter = Meter(broker.host, broker.port)
            behind = BrokerSettings(port=self._meter.start(), protocol=broker.protocol)
            test = problem.test if problem.test_file is None else problem.test_file
            plan = stage.build(folder, self._spec, problem.files or shares, test, behind, page=self._page)
            sizes = [len(share.y) for share in shares]
            say(f"{broker.kind}, an aggregator and {self._n_devices} devices: each a process of its own")
            if self._page:
                say(f"look at it: http://{self._page}/")
            say(
                f'job "{self._spec.name}": {self._n_parameters:,} parameters, {sum(sizes)} examples, '
                f"{min(sizes)} to {max(sizes)} on a device"
            )
            direct = BrokerSettings(port=broker.port, protocol=broker.protocol)
            console = OperatorConfig(FLEET, direct)
            try:
                with Watch(over_mqtt("watch", direct, Wire(FLEET))) as watch:
                    self._start(children, plan)
                    self._follow(watch, children, console)
                    model = self._collect_model(watch, children, plan)
            except (KeyboardInterrupt, WatchError, DemoError):
                self._leave_results(console)
                raise
            traffic, wire = self._traffic(), self._wire_traffic()
            fetched = self._body_bytes_down()
            self._lines = versions(console, self._spec.name)
            summary = self._summarise(began, broker.kind, model, traffic, wire, fetched)
            text = msgspec.json.format(msgspec.json.encode(summary)).decode() + "\n"
            (self._out / "summary.json").write_text(text, encoding="utf-8")
            sum_up(self._display, self._out, summary, self.rows)
            if stays and self._page:
                stay(self._page, self._display.line)
        self._meter.stop()
        return text

    def _leave_results(self, console: OperatorConfig) -> None:
        """Write what there is by now of a fleet that does not come to its end; it is still there to be asked."""
        if len(self._history) < 2:
            return
        self._display.status("keeping the results so far")
        onnx = self._out / "model.onnx"
        try:
            self._lines = versions(console, self._spec.name)
            export(console, self._spec.name, onnx)
        except (OperatorError, SettingsError, ExportError, OSError) as error:
            self._display.line(f"no model: {error}")
        table = write_metrics(self._out, self._table())
        pictures = self._draw(None)
        number = self._history[-1].round
        self._display.line(
            f"not at its end: what there is at version {number} is kept, "
            f"{'  '.join(str(path) for path in (onnx, table, *pictures) if path.exists())}"
        )

    def _start(self, children: Children, plan: Stage) -> None:
        self._started = time.monotonic()
        stage.start(children, plan)

    # Looking on.

    def _follow(self, watch: Watch, children: Children, console: OperatorConfig) -> None:
        """Submit the job and look on until it has ended."""
        self._display.line()
        self._display.line(
            f"{'round':>6} {'updates':>8} {self._column:>9} {'up a device':>12} {'down a device':>14} {'time':>7}"
        )
        asked = False
        for heard in watch.hear():
            children.check()
            if heard is not None and self._sights.see(heard):
                self._note(self._sights.statuses[max(self._sights.statuses)])
            if self._sights.led and not asked:
                watch.submit(self._spec, start=self._upload(console))
                asked = True
            if self._sights.ended is not None:
                return
            self._display.status(self._doing())

    def _upload(self, console: OperatorConfig) -> str:
        """Give the aggregator what is frozen of the net, if a file has it; return what the job starts from."""
        if self._given is None:
            return ""
        with Console(console) as fleet:
            return fleet.upload(self._given.said, "base")

    def _note(self, status: Status) -> None:
        """Keep a new version with what has passed by now."""
        up, down = self._traffic()
        number = status.version.number
        version = Version(
            number,
            int(status.metrics.get("participants", 0)),
            status.metrics.get("accuracy"),
            status.metrics.get("loss"),
            up,
            down,
            round(time.monotonic() - self._started, 2),
            {name: value for name, value in status.metrics.items() if name not in ("accuracy", "loss", "participants")},
        )
        self._history.append(version)
        if number:
            others = "".join(f"  {name} {value:.4f}" for name, value in version.measures.items())
            first = version.accuracy if self._spec.model.classifies else version.loss
            said = "-" if first is None else f"{first:.4f}"
            self._display.line(
                f"{number:>6} {version.participants:>8} {said:>9} {n_bytes(up / self._n_devices):>12} "
                f"{n_bytes(down / self._n_devices):>14} {version.seconds:>5.1f} s{others}"
            )

    @property
    def _column(self) -> str:
        return "accuracy" if self._spec.model.classifies else "loss"

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
            serving = [slot for slot in plan.slots(self._spec) if serves(slot, ended)]
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
        """Return payload bytes of all devices, up and down, so far, without what they tell for the page."""
        total = self._meter.totals(DEVICES)
        return total.up.payload_bytes - total.up.words["vitals"], total.down.payload_bytes

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
        test, shares, classifies = self._problem.test, self._problem.shares, self._spec.model.classifies
        card = card_of(slot)
        agreed = of_model(card.agreed, card.model, card.contract)
        given = self._given
        net, params = trained_centrally(
            *(self._spec, together(shares), last.round, agreed),
            find=None if given is None else given.find,
            start=None if given is None else given.start,
        )
        central, also = net.evaluate(params, test.X, test.y).accuracy, (self._measure,)
        predict, classes = partial(net.predict, params), self._spec.contract.class_names
        in_one_place = exact.on_rows(self._spec.model, predict, test.X, test.y, classes, also).found
        onnx = self._out / "model.onnx"
        shutil.copyfile(slot / "model.onnx", onnx)
        onnx_value = score_of(onnx, self._spec, test, self._measure)
        onnx_accuracy = score_of(onnx, self._spec, test, "accuracy") if classifies else None
        self._write_rows()
        table = self._table()
        up, down = traffic
        n, body_up = self._n_devices, self._sights.body_bytes_up
        n_updates = sum(version.participants for version in self._history)
        n_fetches = sum(version.participants for version in self._history if version.round > 1) + n
        size = 4 * self._n_parameters
        float32_up, float32_down = up - body_up + size * n_updates, down - body_bytes_down + size * n_fetches
        pictures = self._draw(in_one_place.get(self._measure))
        return Summary(
            job=self._spec.name,
            data=self._problem.test.source if self._problem.files else self._spec.data_name,
            accuracy=last.accuracy,
            central_accuracy=None if central is None else round(central, 4),
            onnx_accuracy=None if onnx_accuracy is None else round(onnx_accuracy, 4),
            rounds=last.round,
            devices=n,
            examples=sum(len(share.y) for share in shares),
            test_examples=len(test.y),
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
            measure=self._measure,
            value=_as_float(table[-1].get(self._measure)),
            central_value=in_one_place.get(self._measure),
            onnx_value=onnx_value,
            refused=self._problem.refused,
            metrics=str(write_metrics(self._out, table)),
            threshold=card.threshold,
        )

    def _table(self) -> list[dict[str, Cell]]:
        return table_of(self._lines, self._history, self._n_devices)

    def _draw(self, central: float | None) -> list[Path]:
        rounds = {version.round: version for version in self._history[1:]}
        sent, float32, values, in_float32 = [], [], [], self._as_float32()
        for row in self._table():
            number = int(str(row["version"]).rpartition(".")[2])
            if (version := rounds.get(number)) is not None:
                values.append(_as_float(row.get(self._measure)))
                sent.append((version.bytes_up + version.bytes_down) / self._n_devices)
                float32.append(in_float32[number])
        title = f"{self._spec.name} on {self._n_devices} devices"
        return draw(self._out, title, self._measure, values, sent, float32, central)

    def _as_float32(self) -> dict[int, float]:
        """Return what a device would have sent and received of bodies alone until each version, in float32."""
        size, so_far, found = 4 * self._n_parameters, 0, {}
        for version in self._history[1:]:
            so_far += size * version.participants * (2 if version.round > 1 else 1)
            found[version.round] = so_far / self._n_devices
        return found

    def _write_rows(self) -> None:
        """Write some rows that were held back, for `fedge agent predict`, where they have no file of their own."""
        file, contract = self._problem.test_file, self._spec.contract
        if isinstance(file, Share):
            n = N_SAMPLE_ROWS if contract.window is None else 2 * contract.n_rows
            self.rows = Path(file._replace(rows=file.rows[:n], apart=None).write(self._out, "rows")["path"])
        elif isinstance(file, DataSource):
            self.rows = Path(file.path)
        elif not self._problem.files:
            self.rows = self._out / "rows.csv"
            np.savetxt(self.rows, self._problem.test.X[:N_SAMPLE_ROWS], fmt="%g", delimiter=",")


def _as_float(value: Cell | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None
