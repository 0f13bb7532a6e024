"""What the fleet is held against: the same net trained in one place, on everybody's examples together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.agreement import Agreed
from models.buffers import NO_BUFFERS, for_training
from models.data.dataset import Dataset
from models.frozen import Find
from models.job import JobSpec
from models.lattice import initial, of_params
from models.nets import table as nets
from models.nets.net import Net
from models.nets.normalised import normalised
from models.params import Params
from models.training import train
from models.training.weights import weights_of


def together(shares: Sequence[Dataset]) -> Dataset:
    """Return the examples of all devices, one after the other."""
    weights = [one.weights for one in shares if one.weights is not None]
    return Dataset(
        np.concatenate([one.X for one in shares]),
        np.concatenate([one.y for one in shares]),
        "all devices' examples",
        np.concatenate(weights) if len(weights) == len(shares) else None,
    )


def trained_centrally(
    spec: JobSpec,
    data: Dataset,
    rounds: int,
    agreed: Agreed | None = None,
    *,
    find: Find | None = None,
    start: Params | None = None,
) -> tuple[Net, Params]:
    """Train as a fleet of one device would that holds all the data; return the net, which takes raw rows.

    The same start, optimizer, learning rate and batch size, and as many passes over the data as each device of the
    fleet made: `rounds` times the job's epochs, less version 1's where that is what the net's own code gives. agreed:
    what the fleet has agreed on. find, start: what is frozen of the net, and trained tensors that it starts from, where
    a file gives them. Raises ModelError, TrainingError or WeightError.
    """
    net = normalised(nets.of_job(spec, allow=nets.factories_of(spec.model), find=find), spec.contract, agreed)
    first = initial(net.spec, spec.seed) if net.start is None else of_params(net.start, net.spec)
    params, beside = first.params(net.spec), for_training(net, NO_BUFFERS)
    params |= start or {}
    weights = weights_of(data, spec.contract, () if agreed is None else agreed.class_counts)
    for number in range(0 if net.start is None else 1, rounds):
        state = train.begin(params, train.seed_for(spec.seed, number, "central"), beside)
        ended = train.finish(train.steps(net, state, data, spec.train, version_number=number, weights=weights), state)
        params, beside = ended.params, dict(ended.buffers)
    return net, params | beside
