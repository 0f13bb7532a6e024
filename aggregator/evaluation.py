"""How good a version is: on the test split held here, or else by what its devices say of their training.

It is the version itself, from which training goes on, that the history and the rules to stop go by, also where the mean
of the last ones is deployed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aggregator.config import AggregatorConfig
from aggregator.store import Claim
from broker.messages import Metrics
from models import nets
from models.dataset import Dataset
from models.job import JobSpec
from models.lattice import Model
from models.nets import Net
from models.source import read


def prepare(spec: JobSpec, config: AggregatorConfig) -> tuple[Net, Dataset | None]:
    """Build a job's net and read its test split, if there is one here. Raises ModelError or DatasetError."""
    net = nets.build(spec.model, allow=config.models.allow)
    source = config.tests.get(spec.data_name)
    return net, read(source, spec.model) if source else None


def evaluate(net: Net, model: Model, test: Dataset | None) -> Metrics:
    """Return loss and accuracy on the test split; nothing without one."""
    if test is None:
        return {}
    metrics = net.evaluate(model.params(net.spec), test.X, test.y)
    found = {"loss": metrics.loss} | ({} if metrics.accuracy is None else {"accuracy": metrics.accuracy})
    return {name: value for name, value in found.items() if math.isfinite(value)}


LARGEST_LOSS = 1e100
"""A device that says more is broken, and one of them must not hide what all others say."""


def mean_loss(updates: Sequence[Claim]) -> Metrics:
    """Return the training loss that devices reported, weighted by their examples; nothing where none makes sense.

    By fsum, which rounds once: a stop may hang on it, so neither the order of the updates nor the Python may show in it
    (the built-in sum of floats is another from 3.12 on).
    """
    told = [(u.n_examples, u.loss) for u in updates if u.loss is not None and abs(u.loss) <= LARGEST_LOSS]
    return {"loss": math.fsum(n * loss for n, loss in told) / sum(n for n, _ in told)} if told else {}


def measure(net: Net, model: Model, test: Dataset | None, updates: Sequence[Claim]) -> Metrics:
    """Return all that is known of a version: who made it, and how good it is."""
    told = mean_loss(updates)
    return {
        "participants": float(len(updates)),
        "examples": float(sum(u.n_examples for u in updates)),
        **{f"device_{name}": value for name, value in told.items()},
        **(told if test is None else evaluate(net, model, test)),
    }


ANNOUNCED = ("accuracy", "loss", "participants")
"""The metrics that everybody may see; the rest is in the store and in the log."""


def announced(metrics: Metrics) -> Metrics:
    return {name: float(f"{metrics[name]:.4g}") for name in ANNOUNCED if name in metrics}
