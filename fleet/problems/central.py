"""What the fleet is held against: the same net trained in one place, on everybody's examples together."""

from __future__ import annotations

from models.data.dataset import Dataset
from models.job import JobSpec
from models.lattice import initial
from models.nets import table as nets
from models.nets.losses import Metrics
from models.training import train


def train_centrally(spec: JobSpec, data: Dataset, test: Dataset, rounds: int) -> Metrics:
    """Train as a fleet of one device would that holds all the data, and give the metrics on the test split.

    The same start, optimizer, learning rate and batch size, and as many passes over the data as each device of the
    fleet made: `rounds` times the job's epochs. Raises ModelError or TrainingError.
    """
    net = nets.build(spec.model, allow=nets.factories_of(spec.model))
    params = initial(net.spec, spec.seed).params(net.spec)
    for number in range(rounds):
        state = train.begin(params, train.seed_for(spec.seed, number, "central"))
        params = train.finish(train.steps(net, state, data, spec.train, version_number=number), state).params
    return net.evaluate(params, test.X, test.y)
