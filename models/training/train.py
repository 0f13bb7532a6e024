"""Local training as an iterator of steps: pausing, cancelling and checkpointing need no thread and no flag.

    state = begin(params, seed_for(job_seed, version_number, device_id))
    for step in steps(net, state, data, train, version_number=7):
        ...                    # look at the clock, the budget, the broker; stop whenever you like
        save(to_bytes(step.state))

A step is one of a row of models/training/optimizers.py, with the rate learning_rate * learning_rate_decay **
version_number, times what the schedule makes of it (models/training/schedule.py). Before it the gradient is clipped,
all tensors together, where the job says so. Each round starts with fresh state of the optimizer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from models.data.dataset import Dataset
from models.job import TrainSpec
from models.nets.batches import quietly
from models.nets.net import Net
from models.params import Beside, Params
from models.training import schedule
from models.training.checkpoint import CheckpointError, TrainingState, copy, from_bytes, to_bytes
from models.training.optimizers import OPTIMIZERS, Kept, Pace, clipped, init
from models.training.order import order_of, rows_of
from models.training.weights import Weights

__all__ = [
    "CheckpointError",
    "TrainingError",
    "TrainingState",
    "TrainingStep",
    "begin",
    "draw_for",
    "finish",
    "from_bytes",
    "learning_rate",
    "n_steps",
    "order_of",
    "seed_for",
    "steps",
    "to_bytes",
]


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says what to change in the job."""


class TrainingStep(NamedTuple):
    """One batch done: batch `batch` of `n_batches` in epoch `epoch` of `n_epochs`, all counted from 0."""

    epoch: int
    n_epochs: int
    batch: int
    n_batches: int
    loss: float
    """Mean loss over the epoch's examples so far, each as it was when its batch came."""
    state: TrainingState
    """Where the run stands after this step. The next step overwrites its arrays: write them down or copy."""


def seed_for(job_seed: int, version_number: int, device_id: str) -> bytes:
    """Return the 32 bytes that fix the order of examples of one device training from one base version."""
    return hashlib.sha256(f"{job_seed}/{version_number}/{device_id}".encode()).digest()


def draw_for(seed: bytes, epoch: int, batch: int) -> int:
    """Return the 63 bits from which follows what is drawn at random in one step of a run (`Net.loss_and_gradients`)."""
    return int.from_bytes(hashlib.sha256(b"%b/%d/%d" % (seed, epoch, batch)).digest()[:8], "little") >> 1


def learning_rate(train: TrainSpec, version_number: int) -> float:
    """Return the rate of the round that leaves this version, before the schedule."""
    return train.learning_rate * train.learning_rate_decay**version_number


def n_steps(train: TrainSpec, n_examples: int) -> int:
    """Count the steps of a whole run."""
    return train.epochs * -(-n_examples // train.batch_size)


def begin(params: Params, seed: bytes, buffers: Beside | None = None) -> TrainingState:
    """Return the state before the first step. buffers: what the net has beside its params (`buffers.for_training`)."""
    return TrainingState(params, {}, seed, buffers=buffers or {})


def steps(
    net: Net,
    state: TrainingState,
    data: Dataset,
    train: TrainSpec,
    *,
    version_number: int,
    weights: Weights | None = None,
    in_place: bool = False,
    advice: str = "lower learning_rate in [train], or scale the data to about [-1, 1]",
) -> Iterator[TrainingStep]:
    """Train from a state to the end of the last epoch, a step at a time.

    weights: how much each example counts (`weights_of`), which the losses given are means with; None: all alike. Those
    of the data alone, `data.weights`, are not looked at. advice: what to do where training diverges.

    The given state is left as it is, unless it is trained `in_place`: its arrays are then changed. A resumed run needs
    the same data in the same order. The last batch of an epoch may be smaller; with fewer rows than the net takes
    (BatchNorm: two) they go into the one before. Raises TrainingError when the data are none or not those of the state,
    and when the loss or, at the end of an epoch, a parameter is not finite.
    """
    n_batches = _batches(net, len(data.X), train)
    _check_position(state, train, n_batches)
    state = _prepare(state if in_place else copy(state), train)
    base, takes_rate = learning_rate(train, version_number), OPTIMIZERS[train.optimizer].takes_rate
    changes = {name: np.empty_like(p) for name, p in state.params.items()}
    while state.epoch < train.epochs:
        order = rows_of(state.seed, state.epoch, len(data.X))
        for batch in range(state.batch, n_batches):
            ends = len(data.X) if batch + 1 == n_batches else (batch + 1) * train.batch_size
            rows = order(batch * train.batch_size, ends)
            y = data.y[rows]
            counts = None if weights is None else weights.of(rows, y)
            pace = _pace(train, base, state.epoch * n_batches + batch, train.epochs * n_batches)
            # Between two yields NumPy's error state is the caller's: it is set around the step alone.
            with quietly():
                loss, changes = net.loss_and_gradients(
                    state.all_params,
                    data.X[rows],
                    y,
                    weights=counts,
                    scale=pace.rate if takes_rate and train.clip_norm is None else 1.0,
                    out=changes,
                    draw=draw_for(state.seed, state.epoch, batch),
                )
                _descend(train, state, changes, pace)
            state = state._replace(
                batch=batch + 1,
                loss_sum=state.loss_sum + loss * len(rows),
                n_seen=state.n_seen + len(rows),
            )
            step = TrainingStep(state.epoch, train.epochs, batch, n_batches, state.loss_sum / state.n_seen, state)
            if batch + 1 == n_batches:
                state = state._replace(epoch=state.epoch + 1, batch=0, loss_sum=0.0, n_seen=0)
                step = step._replace(state=state)
            _check_finite(step, loss, pace.rate, advice)
            yield step


def finish(run: Iterator[TrainingStep], state: TrainingState) -> TrainingState:
    """Take every step that is left and give the last state: `state` itself if no step was left."""
    for step in run:
        state = step.state
    return state


def _batches(net: Net, n_rows: int, train: TrainSpec) -> int:
    """Return the batches of an epoch. Raises TrainingError where none has as many rows as the net takes."""
    full, left = divmod(n_rows, train.batch_size)
    if n_rows > 0 and min(n_rows, train.batch_size) < net.least_rows:
        why = f"batch_size = {train.batch_size} in [train]" if n_rows >= net.least_rows else f"{n_rows} example here"
        raise TrainingError(
            f"the net takes {net.least_rows} rows at once at least, as BatchNorm does: {why} is too few"
        )
    return full + (left >= (net.least_rows if full else 1))


def _check_position(state: TrainingState, train: TrainSpec, n_batches: int) -> None:
    """Raise TrainingError if there are no data, or data that cannot have brought the run to where it stands."""
    if not n_batches:
        raise TrainingError("there are no examples to train on")
    if state.batch and (state.batch >= n_batches or state.n_seen != state.batch * train.batch_size):
        raise TrainingError(
            f"the run stood at batch {state.batch} after {state.n_seen} examples, which these data with "
            f"batch_size = {train.batch_size} cannot have given: start it afresh"
        )


def _prepare(state: TrainingState, train: TrainSpec) -> TrainingState:
    """Return a state with what the optimizer keeps."""
    if OPTIMIZERS[train.optimizer].rows(train) != bool(state.momentum) + bool(state.squares):
        state = state._replace(**init(train, state.params)._asdict())
    return state


def _pace(train: TrainSpec, base: float, done: int, n_all: int) -> Pace:
    """Return the pace of the step after `done` of all. base: the rate of the round."""
    if train.schedule == "constant" and not train.warmup:
        return Pace(base, 1.0, done + 1)
    now, before = (schedule.factor(train, step, n_all) for step in (done, max(0, done - 1)))
    return Pace(base * now, now / before, done + 1)


def _descend(train: TrainSpec, state: TrainingState, changes: Params, pace: Pace) -> None:
    """Move params and what the optimizer keeps by one step, in place.

    changes: the gradients, times the rate where the optimizer takes that and nothing is clipped; used up.
    """
    optimizer = OPTIMIZERS[train.optimizer]
    if train.clip_norm is not None:
        share = clipped(changes, train.clip_norm) * (pace.rate if optimizer.takes_rate else 1.0)
        for change in changes.values():
            change *= share
    optimizer.step(train, state.params, Kept(state.momentum, state.squares), changes, pace)


def _check_finite(step: TrainingStep, loss: float, rate: float, advice: str) -> None:
    """Raise TrainingError on a loss, or at the end of an epoch a parameter, that is not finite."""
    ended = step.batch + 1 == step.n_batches
    finite = math.isfinite(loss) and (not ended or all(np.isfinite(p).all() for p in step.state.all_params.values()))
    if not finite:
        raise TrainingError(
            f"training diverged (loss {loss}) in epoch {step.epoch}, batch {step.batch}, at a learning rate of "
            f"{rate:g}: {advice}"
        )
