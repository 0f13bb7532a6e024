"""What a job takes of a device and of an aggregator: a pure function of what the job says and of how large its net is.

With n parameters, all in bytes a parameter, of which a float32 is 4:

    device       held      8  version 0 and the one that is here; 4 more where several are averaged; 6 for the hash of a
                              sketch; 8 a row of what the server's optimizer keeps; what serves models (`CHILD_OF_EACH`)
                 training  8  the weights, the changes; 4 more a row that the optimizer keeps
                 passing      while an update is coded or a version comes in (`PASSING`); and beside it, where the job
                              says `quantise`, while a version is put in int8 (`QUANTISER_BYTES`)
    aggregator   held     20  version 0, the current one, the hash; 8 a row of the server's optimizer
                 at work  10  the sum; what a strategy keeps of each update
                 passing      while a version is made of the sum and stored (`MAKING`)

and beside it what the rows of a batch make in every layer, and what devices say of their rows where their fleet has to
agree (models/statistic.py; at most MOST_VOICES of them are kept). Where a part of the net is frozen, n is what is
trained; a frozen parameter is held once (4), and one that is adapted is put together in every step (FROZEN, ADAPTED).

`held` is taken as long as the job is known, `training` (or what it takes at work) until it has ended; what passes is
taken by one job at a time. The numbers of PASSING and MAKING are
measured: the peaks of real processes (VmHWM), in the rounds that take most: those of a snapshot
(tests/fleet/test_needs.py). What a sketch takes depends on its buckets, which nobody knows before; there are never more
than parameters.

Not in it are the rows of a data source: a device has them whatever the job is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from models import statistic
from models.agreement import MOST_VOICES
from models.job import JobSpec
from models.nets.batches import ROWS_AT_ONCE
from models.nets.size import Size
from models.serving.sample import ROWS_AT_ONCE as QUANTISED_AT_ONCE
from models.serving.sample import most_rows
from models.strategies.table import STRATEGIES
from models.training.optimizers import OPTIMIZERS
from models.training.probe import ROWS as PROBED_ROWS

MB = 10**6
AGENT_BYTES = 58 * MB
"""Of an agent without a job."""
AGGREGATOR_BYTES = 60 * MB
"""Of an aggregator without one."""
TORCH_BYTES = 260 * MB
"""Of Torch, once for all jobs that it computes."""
CHILD_BYTES, CHILD_OF_EACH = 80 * MB, 36
"""Of the child process that holds the ONNX model for applications, and writes it; a parameter."""
QUANTISER_BYTES, QUANTISER_OF_EACH, QUANTISER_OF_ROWS = 94 * MB, 24, 2.5
"""Of the process that puts a version in int8, while it does; a parameter; a byte of its rows, with those that the agent
has (models/serving/sample.py)."""
QUANTISED_ON_DISK = 8
"""A parameter meanwhile, beside those rows."""

DEVICE_BYTES, SHARED_BYTES = 20_000, 64 * MB
"""Of a simulated device, and of the versions that all of them share, at most."""

PASSING = {"sketch": 38, "float32": 26, "int8": 42}
"""By codec, on a device: the most of coding an update, of a version that comes in, and of a checkpoint. Where there are
snapshots the most is that of one, which says the server's optimizer as well: as much again for each row of it."""
MAKING, MAKING_A_ROW = {"sketch": 72, "float32": 60, "int8": 82}, 78
"""By codec, on an aggregator: version, sum, body, snapshot, what is stored, and how good it is; and for each row of the
server's optimizer (models/strategies)."""
FROZEN, FROZEN_TO_SERVE = 4, 4
"""A frozen parameter: it is there once; and while the whole net is put together to be evaluated or put into service."""
ADAPTED = 12
"""A parameter that is adapted, where it is trained: the sum with its adapter, its gradient, and the next one."""
BODY_BITS = {"sketch": 1, "float32": 32, "int8": 8}
"""A coordinate of an update or a version; a sketch has as many buckets as coordinates at most."""


class Needs(NamedTuple):
    """What a job takes."""

    parameters: int
    held_bytes: int
    training_bytes: int
    passing_bytes: int
    disk_bytes: int
    torch: bool = False

    @property
    def alone_bytes(self) -> int:
        """Memory of a process that has this job only, without what it has anyway."""
        return together([self])


def of_simulation(job: JobSpec, size: Size, *, devices: int, torch: bool, rows: int) -> int:
    """Return the memory that a whole fleet in one process takes for a job, beside the rows of its data.

    Versions are shared (fleet/simulation/shared.py); each device has an update of its own, and the server keeps them
    once more where its disk is in memory too. rows: of the test split.
    """
    server, device = of_aggregator(job, size, rows=rows), of_device(job, size, serves=False)
    updates = devices * (2 * _body_bytes(job, size.parameters) + DEVICE_BYTES) + _said_bytes(job, devices)
    return together([server, device]) + SHARED_BYTES + server.disk_bytes + updates + (TORCH_BYTES if torch else 0)


def together(jobs: list[Needs], over: list[Needs] | None = None) -> int:
    """Return the memory that these jobs take at once, beside those that are over: one trains or codes at a time."""
    everyone = [*jobs, *(over or [])]
    held = sum(needs.held_bytes for needs in everyone) + sum(needs.training_bytes for needs in jobs)
    passing = max((needs.passing_bytes for needs in everyone), default=0)
    return held + passing + (TORCH_BYTES if any(needs.torch for needs in everyone) else 0)


def of_device(
    job: JobSpec,
    size: Size,
    *,
    torch: bool = False,
    serves: bool = True,
    child: bool = True,
    rows: int | None = None,
) -> Needs:
    """Return what a job takes of a device. torch: whether Torch computes it. serves: whether models are put into
    service here. child: whether by a process of their own. rows: how many the device trains on, where that is known.
    """
    n, state, kept = size.parameters, _rows_of_state(job), OPTIMIZERS[job.train.optimizer].rows(job.train)
    codec, served = job.coding.codec, serves and job.deploy != "never"
    held = 8 * n + (4 * n if job.averaged > 1 else 0) + (6 * n if codec == "sketch" else 0) + 8 * n * state
    whole = n + size.frozen
    held += FROZEN * size.frozen + (4 * whole if served else 0)
    held += CHILD_BYTES + CHILD_OF_EACH * whole if served and child else 0
    passing = PASSING[codec] * (1 + state) * n + FROZEN_TO_SERVE * size.adapted
    batch = min(job.train.batch_size, ROWS_AT_ONCE if rows is None else rows)
    probed = min(PROBED_ROWS, size.at_once, PROBED_ROWS if rows is None else rows)  # without a gradient
    passing += _of_layers(job, size, max(batch, probed / 2), torch=torch)
    disk = 2 * _body_bytes(job, n) + 8 * (1 + kept) * n + (32 * whole if served else 0) + MB + 4 * size.frozen
    if served and child and job.quantise != "none":
        sampled = 4 * job.model.inputs * sum(most_rows(job.model.inputs))
        passing += QUANTISER_BYTES + QUANTISER_OF_EACH * whole + math.ceil(QUANTISER_OF_ROWS * sampled)
        passing += 16 * QUANTISED_AT_ONCE * size.units
        disk += QUANTISED_ON_DISK * whole + sampled
    return Needs(whole, held, (8 + 4 * kept) * n + ADAPTED * size.adapted, passing, disk, torch)


def of_aggregator(job: JobSpec, size: Size, *, torch: bool = False, rows: int | None = None) -> Needs:
    """Return what a job takes of an aggregator. rows: of its test split, where that is known; 0 for none."""
    n, state, codec = size.parameters, _rows_of_state(job), job.coding.codec
    updates = job.rounds.target or max(job.rounds.quorum, job.rounds.min_devices or 0)
    held, working = (20 + 8 * state) * n + FROZEN * size.frozen, 10 * n
    if most := STRATEGIES[job.aggregate.strategy].most_held_bytes:
        working += min(4 * n * updates, max(most, 4 * n))
    working += _said_bytes(job, updates)
    passing = (MAKING[codec] + MAKING_A_ROW * state) * n + FROZEN_TO_SERVE * size.frozen
    tested = ROWS_AT_ONCE if rows is None else rows
    passing += _of_layers(job, size, min(tested, size.at_once) / 2, torch=torch) + 8 * tested * job.model.outputs
    kept = (4 + 8 * state) * n + (job.rounds.keep_bytes if job.rounds.keep_every else 0)
    disk = 8 * size.frozen + (16 + 16 * state) * n + (6 + 2 * updates) * _body_bytes(job, n) + kept + MB
    return Needs(n + size.frozen, held, working, passing, disk, torch)


def _rows_of_state(job: JobSpec) -> int:
    return STRATEGIES[job.aggregate.strategy].rows(job.aggregate)


def _said_bytes(job: JobSpec, devices: int) -> int:
    """Return what the statistics of so many devices take; 0 where nobody has to agree."""
    return min(devices, MOST_VOICES) * statistic.max_bytes(job)


def _of_layers(job: JobSpec, size: Size, rows: float, *, torch: bool) -> int:
    """Return what so many rows make in every layer: what it gives, its gradient, and what is made on the way.

    Where they are normalised they are there once more.
    """
    inputs = (2 if job.contract.normalise == "none" else 3) * job.model.inputs
    return math.ceil(rows) * 4 * ((6 if torch else 4) * size.units + inputs)


def _body_bytes(job: JobSpec, n: int) -> int:
    """Return about the most that the body of an update may have."""
    coding = job.coding
    bits = max(coding.bits, coding.bits_down) if coding.codec == "sketch" else BODY_BITS[coding.codec]
    return (n if coding.buckets is None else min(n, coding.buckets)) * bits // 8 + 1024
