"""Make the files of a job whose net has buffers: python -m tests.formats.make_buffered, into tests/formats/buffered.

    state.bin         the state of version 1, in the server's store (aggregator/record.py)
    checkpoint.bin    a training on version 0, after its third step (models/training/checkpoint.py)

They are committed, and never made anew: they are what some fedge wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from aggregator.learner import Learner
from aggregator.record import start
from models import buffers, sections
from models.buffers import NO_BUFFERS, for_training, named
from models.chain import Chain
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, TrainSpec
from models.nets.torch_net import TorchNet
from models.training import train

HERE = Path(__file__).resolve().parent / "buffered"
MODEL = ModelSpec("mlp", inputs=2, hidden=(3,), outputs=2)
JOB = JobSpec("buffered", MODEL, train=TrainSpec(batch_size=8, momentum=0.5))
NET = TorchNet(MODEL, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))
ROWS = Dataset(np.array([[k % 5, k % 3] for k in range(40)], np.float32), np.arange(40) % 2, "made up")


def state() -> train.TrainingState:
    """Return a training after its third step."""
    params = Chain(NET.spec, JOB).first().model.params(NET.spec)
    begun = train.begin(params, bytes(32), for_training(NET, NO_BUFFERS))
    run = train.steps(NET, begun, ROWS, JOB.train, version_number=0)
    return [next(run).state for _ in range(3)][-1]


def learner() -> Learner:
    """Return a job of one device, whose numbers are none that Torch has worked out: they may differ by machine."""
    made = Learner(NET, JOB, start(NET, JOB).to_bytes())
    coding = Chain(NET.spec, JOB).coding(0, made.terms)
    delta = {tensor.name: np.full(tensor.shape, 0.25, np.float32) for tensor in NET.spec}
    now = named({t.name: np.array([1.5, 0.3, 7e-5], np.float32) for t in NET.buffers}, NET.buffers)
    said = buffers.encode(now, made.now.held.buffers)
    coded = coding.encode(delta, np.random.default_rng(0))
    made.admit(sections.join({sections.DELTA: coded, sections.BUFFERS: said}), 24, None, None, "d0")
    made.take(made.next())
    return made


def main() -> None:
    HERE.mkdir()
    (HERE / "state.bin").write_bytes(learner().now.to_bytes())
    (HERE / "checkpoint.bin").write_bytes(train.to_bytes(state()))


if __name__ == "__main__":
    main()
