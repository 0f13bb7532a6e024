"""The memory of agents that train: each a process that is connected to a real mosquitto."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import structs

from benchmarks.memory import peak_mb
from benchmarks.training import demos
from benchmarks.training.rows import Row
from broker.connection import BrokerSettings
from broker.embedded import start_broker
from broker.errors import StartError
from fleet.console import operator
from fleet.local import stage
from fleet.local.processes import Children, tail
from fleet.local.toml import written
from fleet.problems.problem import Problem
from models.data.dataset import Dataset
from models.job import JobSpec, StopSpec, TrainSpec
from models.nets.table import build
from models.params import n_parameters

GOAL_MB = 60.0
N_ROWS, N_TESTED, N_ROUNDS = 500, 100, 3
PATIENCE_S = 300.0


class Peak(NamedTuple):
    """What one agent has taken at most, in MB of 10^6 bytes (VmHWM), in three rounds of a job."""

    name: str
    shape: str
    parameters: int
    agent_mb: float

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return self.agent_mb <= GOAL_MB


def peak(row: Row) -> Peak:
    """Train a net on a fleet of one device, compressed by "strong". Raises StartError."""
    generator = np.random.default_rng(0)
    X = generator.random((N_ROWS, row.model.inputs), np.float32)
    data = Dataset(X, generator.integers(0, row.model.outputs, N_ROWS))
    test = Dataset(data.X[:N_TESTED], data.y[:N_TESTED])
    job = JobSpec("peak", row.model, train=TrainSpec(learning_rate=0.01))
    return Peak(row.name, row.shape, n_parameters(build(row.model).spec), _measured(Problem(job, [data], test)))


def peak_of_demo(name: str) -> Peak:
    """Train one of `demos.NAMES` on a fleet of one device, compressed by "strong" whatever its job says.

    The device reads its own file and serves the model, as in the demo. Raises StartError, or what
    `demos.of_one_device` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        problem = demos.of_one_device(name, Path(folder))
        model = problem.spec.model
        sizes = "-".join(str(n) for n in (model.inputs, *model.hidden, model.outputs))
        shape = f"{model.kind} {sizes}, {len(problem.shares[0].y)} examples"
        found = _measured(problem, inference=True)
    return Peak(f"{name}, as it is", shape, n_parameters(build(model).spec), found)


def _measured(problem: Problem, *, inference: bool = False) -> float:
    """Return the peak of the agent of a fleet of one device. Raises StartError, ChildDiedError."""
    rounds = structs.replace(problem.spec.rounds, max_rounds=N_ROUNDS, stop=StopSpec())
    job = structs.replace(problem.spec, rounds=rounds, compression="strong")
    test = problem.test if problem.test_file is None else problem.test_file
    with tempfile.TemporaryDirectory() as name, start_broker(Path(name) / "broker", prefer="mosquitto") as broker:
        folder = Path(name)
        where = BrokerSettings(port=broker.port, protocol=broker.protocol)
        built = stage.build(folder / "fleet", job, problem.files or problem.shares, test, where, inference=inference)
        (folder / "job.toml").write_text(written(msgspec.to_builtins(job), {}), encoding="utf-8")
        log = built.aggregator.log
        with Children() as children:
            agent = stage.start(children, built)[-1]
            _wait(children, log, "online")
            operator.submit(operator.load_config(built.aggregator.config), folder / "job.toml")
            _wait(children, log, "job ended")
            if inference:
                _wait(children, built.devices[0].log, "model=installed")
            return peak_mb(agent.process.pid)


def _wait(children: Children, log: Path, words: str) -> None:
    """Wait until a log has these words. Raises StartError, ChildDiedError."""
    until = time.monotonic() + PATIENCE_S
    while not (log.exists() and words in log.read_text(encoding="utf-8")):
        children.check()
        if time.monotonic() > until:
            raise StartError(f"{log} does not say {words!r} after {PATIENCE_S:g} s: {tail(log)}")
        time.sleep(0.1)
