"""The fleet that chaos runs: its jobs, its data, and a folder of configuration for every process.

    FOLDER/aggregator/   aggregator.toml  test.npz  state/  log  trace
    FOLDER/device-0/     agent.toml       data.npz  state/  log  trace
    ...

"steady" is compared. Its membership is fixed: it waits for every device, has int8 updates of two chunks, deploys the
mean of the last versions, and trains for long enough to be killed in the middle. One device more than asked for
over-claims: it claims more examples than the job allows, and is refused every time.

"steered" is compared too. It is small, and sketched: its buckets follow from what devices report.

"loose" runs beside them, so that what a fixed membership never does happens too: its rounds end before the last
devices are done, which then halt. Which of them count is chance, so of this job only the books are checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from broker.connection import BrokerSettings
from edge_agent.slots import slot_path
from fleet.console.operator import OperatorConfig
from fleet.local.keys import LocalKeys
from fleet.local.keys import make as make_keys
from fleet.local.stage import Role, Stage, roles_of, write
from fleet.local.toml import written
from fleet.problems.examples import load_split
from identity.settings import IdentitySettings
from models.data.dataset import Dataset
from models.job import AggregateSpec, CompressionSpec, JobSpec, ModelSpec, RoundsSpec, TrainSpec

FLEET = "chaos"
DATA = "digits"
N_EXAMPLES = 200
"""On a device; the one that over-claims has twice as many."""
DEADLINE_S = 12.0


class ChaosStage(NamedTuple):
    """All processes but the broker, and their jobs. The first device serves the models; the last one over-claims."""

    folder: Path
    processes: Stage
    steady: JobSpec
    steered: JobSpec
    loose: JobSpec
    keys: LocalKeys | None = None
    """Of everybody, where they sign what they say."""

    def operator(self, broker: BrokerSettings) -> OperatorConfig:
        """Return how to give this fleet commands."""
        identity = IdentitySettings() if self.keys is None else self.keys.of_operator
        return OperatorConfig(FLEET, broker, identity)

    @property
    def compared(self) -> tuple[JobSpec, ...]:
        """The jobs whose models must be the same whatever dies."""
        return self.steady, self.steered

    @property
    def aggregator(self) -> Role:
        """The server."""
        return self.processes.aggregator

    @property
    def devices(self) -> list[Role]:
        """The devices."""
        return self.processes.devices

    @property
    def slot(self) -> Path:
        """Where the first device serves the model of the steady job."""
        return slot_path(self.devices[0].state, self.steady.name)

    def job_file(self, spec: JobSpec) -> Path:
        """Where this job is written down."""
        return self.folder / f"{spec.name}.toml"


def steady(n_devices: int, n_rounds: int) -> JobSpec:
    """Return a job whose model must be the same whatever dies."""
    return JobSpec(
        name="steady",
        model=ModelSpec(inputs=64, hidden=(800, 64), outputs=10),
        seed=7,
        data=DATA,
        compression=CompressionSpec(codec="int8"),
        deploy="every 3",
        deploy_average=4,
        train=TrainSpec(epochs=12, batch_size=4, learning_rate=0.02),
        rounds=_fixed(n_devices, n_rounds),
        aggregate=_REFUSES_OVERCLAIMS,
    )


def steered(n_devices: int, n_rounds: int) -> JobSpec:
    """Return another one, whose coding is steered."""
    return JobSpec(
        name="steered",
        model=_SMALL,
        seed=9,
        data=DATA,
        compression="strong",
        deploy="never",
        train=TrainSpec(epochs=5, batch_size=4, learning_rate=0.02),
        rounds=_fixed(n_devices, n_rounds),
        aggregate=_REFUSES_OVERCLAIMS,
    )


def loose(n_devices: int) -> JobSpec:
    """Return the job that goes on without the slow, until it is stopped."""
    return JobSpec(
        name="loose",
        model=_SMALL,
        seed=8,
        data=DATA,
        compression="strong",
        deploy="never",
        train=TrainSpec(epochs=20, batch_size=4, learning_rate=0.02),
        rounds=RoundsSpec(
            target=n_devices - 2, over_selection=2.0, quorum=2, deadline_s=DEADLINE_S, max_rounds=100_000
        ),
    )


_SMALL = ModelSpec(inputs=64, hidden=(32,), outputs=10)
_REFUSES_OVERCLAIMS = AggregateSpec(max_examples=N_EXAMPLES, max_norm_ratio=1e6)


def _fixed(n_devices: int, n_rounds: int) -> RoundsSpec:
    """Have every round wait for the same devices."""
    return RoundsSpec(
        quorum=n_devices, min_devices=n_devices + 1, wait="all", deadline_s=DEADLINE_S, max_rounds=n_rounds
    )


def build(
    folder: Path,
    n_devices: int,
    n_rounds: int,
    broker: BrokerSettings,
    *,
    executor: str = "threads",
    keys: bool = False,
) -> ChaosStage:
    """Write everything. keys: whether everybody signs, and believes signed words alone.

    Raises SettingsError without scikit-learn, OSError when the folder cannot be written.
    """
    split, folder = load_split(DATA), folder.resolve()
    devices = roles_of(folder, [f"device-{number}" for number in range(n_devices + 1)])
    stage = ChaosStage(
        folder,
        Stage(Role("aggregator", "aggregator", folder / "aggregator"), devices),
        steady(n_devices, n_rounds),
        steered(n_devices, n_rounds),
        loose(n_devices),
        make_keys(folder / "keys", FLEET, [device.name for device in devices]) if keys else None,
    )
    own: dict[str, object] = {} if stage.keys is None else {"identity": stage.keys.of_aggregator}
    settings = {"executor": executor, "limits": _SERVER_LIMITS, **own}
    write(stage.aggregator, FLEET, broker, {DATA: split.test}, settings)
    for number, device in enumerate(devices):
        overclaims = device is devices[-1]
        rows = np.random.default_rng(number).integers(0, len(split.train.y), N_EXAMPLES * (2 if overclaims else 1))
        data = Dataset(split.train.X[rows], split.train.y[rows])
        more = {"models": {"inference": number == 0}, "limits": {"checkpoint_s": 0.0, "presence_s": 1.0}}
        own = {} if stage.keys is None else {"identity": stage.keys.of_device(device.name)}
        write(device, FLEET, broker, {DATA: data}, {**more, **own})
    for spec in (*stage.compared, stage.loose):
        stage.job_file(spec).write_text(written(msgspec.to_builtins(spec)), encoding="utf-8")
    return stage


_SERVER_LIMITS = {"chunk_bytes": 20_000, "heartbeat_s": 2.0, "spread_s": 0.2, "body_grace_s": 5.0}
"""Small chunks, so that a version has several; short waits, because nobody here is far away."""
