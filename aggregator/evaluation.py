"""How good a version is: on the test split held here, or else by what its devices say of their training.

It is the version itself, from which training goes on, that the history and the rules to stop go by, also where the mean
of the last ones is deployed.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from aggregator.config import AggregatorConfig
from aggregator.store import Claim
from broker.messages import Metrics
from models.agreement import Agreed
from models.data.dataset import Dataset
from models.data.source import read, stamp
from models.job import JobSpec
from models.lattice import Model
from models.nets import table as nets
from models.nets.net import Net
from models.nets.normalised import normalised


def prepare(spec: JobSpec, config: AggregatorConfig) -> tuple[Net, Dataset | None]:
    """Build a job's net and read its test split by its contract, if there is one here: all of it is scored.

    Raises ModelError or DatasetError.
    """
    net = nets.build(spec.model, allow=config.models.allow)
    source = config.tests.get(spec.data_name)
    whole = structs.replace(spec.contract, validation=0.0)
    return net, read(source, spec.model, whole, config.models.allow) if source else None


class Scorer:
    """Scores versions on a job's test split, here or in another process: pickled it is how to be made there."""

    def __init__(self, spec: JobSpec, config: AggregatorConfig) -> None:
        """Build the net and read the test split. Raises ModelError or DatasetError."""
        source = config.tests.get(spec.data_name)
        self._made_of = spec, config, "" if source is None else str(stamp(source))
        self.net, self.test = prepare(spec, config)

    def __call__(self, model: Model, agreed: Agreed | None = None) -> Metrics:
        """Return loss and accuracy of a version; nothing without a test split, or where its fleet has yet to agree on
        what a net takes. agreed: what it has agreed on.

        It is evaluated all the same: who submits a job hears at once of a net or a split that cannot be.
        """
        contract = self._made_of[0].contract
        found = evaluate(normalised(self.net, contract, agreed), model, self.test)
        return {} if contract.agrees and agreed is None else found

    def __reduce__(self) -> tuple[Callable[[bytes, bytes, str], Scorer], tuple[bytes, bytes, str]]:
        """Return how it is made elsewhere: once for all versions of a job, and again where its file is another one."""
        spec, config, stamp = self._made_of
        return _scorer, (msgspec.json.encode(spec), msgspec.json.encode(config), stamp)


@functools.lru_cache(maxsize=4)
def _scorer(spec: bytes, config: bytes, _stamp: str) -> Scorer:
    return Scorer(msgspec.json.decode(spec, type=JobSpec), msgspec.json.decode(config, type=AggregatorConfig))


def evaluate(net: Net, model: Model, test: Dataset | None) -> Metrics:
    """Return loss and accuracy on the test split; nothing without one."""
    if test is None:
        return {}
    metrics = net.evaluate(model.params(net.spec), test.X, test.y)
    found = {"loss": metrics.loss} | ({} if metrics.accuracy is None else {"accuracy": metrics.accuracy})
    return {name: value for name, value in found.items() if math.isfinite(value)}


LARGEST_LOSS = 1e100
"""A device that says more is broken."""


FEWEST_VOICES = 2
"""Devices that must have counted before what they report says anything: nobody's own word is enough."""


def reported_loss(updates: Sequence[Claim]) -> Metrics:
    """Return the training loss that devices report: the upper median over all whose updates count; nothing for one.

    One voice a device, whatever it claims to have trained on: of its losses in order the one in the middle, of an even
    number the larger of the two there. A device that reports none, or nonsense, has one that is larger than all. So a
    target is reached where more than half of the devices that count report one within it, two at least; these are a
    quorum of the job or more, since no version is made of fewer. Fewer than half can neither feign it nor hinder it.
    Nothing where more than half report none, or just half.
    """
    voices = {update.device: update.loss for update in updates}  # of one whose late update counts, too, the last
    if len(voices) < FEWEST_VOICES:
        return {}
    losses = (math.inf if loss is None or not abs(loss) <= LARGEST_LOSS else loss for loss in voices.values())
    middle = statistics.median_high(losses)
    return {"loss": middle} if middle < math.inf else {}


def measured(scores: Metrics | None, updates: Sequence[Claim]) -> Metrics:
    """Return all that is known of a version: who made it, and how good it is.

    scores: on the test split; None where there is none, and what devices report stands for it. "examples" is what they
    claim, "device_loss" what `reported_loss` makes of what they report.
    """
    told = reported_loss(updates)
    return {
        "participants": float(len(updates)),
        "examples": float(sum(u.n_examples for u in updates)),
        **{f"device_{name}": value for name, value in told.items()},
        **(told if scores is None else scores),
    }


ANNOUNCED = ("accuracy", "loss", "participants")
"""The metrics that everybody may see; the rest is in the store and in the log."""


def announced(metrics: Metrics) -> Metrics:
    return {name: float(f"{metrics[name]:.4g}") for name in ANNOUNCED if name in metrics}
