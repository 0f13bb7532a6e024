"""How good a version is: on the test split held here, or else by what its devices say of their training.

It is the version itself, from which training goes on, that the history and the rules to stop go by, also where the mean
of the last ones is deployed.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import structs

from aggregator import bases
from aggregator.config import AggregatorConfig
from aggregator.store import Claim
from broker.messages import Metrics
from models.agreement import Agreed
from models.buffers import NO_BUFFERS, Buffers
from models.data.dataset import Dataset, DatasetError
from models.data.source import read, stamp
from models.job import JobSpec, StopSpec
from models.lattice import Model
from models.measures import exact
from models.measures import table as measures
from models.nets.buffered import buffered
from models.nets.net import Net
from models.nets.normalised import normalised
from models.sections import scores_versions

NO_STOP = StopSpec()


def prepare(spec: JobSpec, config: AggregatorConfig, base: str = "") -> tuple[Net, Dataset | None]:
    """Build a job's net and read its test split by its contract, if there is one here: all of it is scored.

    base: SHA-256 of what is frozen of the net, where that does not follow from the job. Raises ModelError or
    DatasetError.
    """
    net = bases.net_of(spec, config, bases.finder(spec, config, base))
    source = config.tests.get(spec.data_name)
    whole = structs.replace(spec.contract, validation=0.0)
    return net, read(source, spec.model, whole, config.models.allow) if source else None


def is_measured(spec: JobSpec, *, has_test: bool) -> bool:
    """Return whether anybody measures what a job's rule to stop goes by: a test split here, devices on what they hold
    back, or, of the loss alone, devices in their training.
    """
    return has_test or scores_versions(spec) or spec.rounds.stop.metric == "loss"


def is_by_devices(spec: JobSpec, *, has_test: bool) -> bool:
    """Return whether what a job's rule to stop goes by is what devices measure of a version once they have it."""
    return scores_versions(spec) and not has_test and spec.rounds.stop.metric != "loss"


def check_measured(spec: JobSpec, config: AggregatorConfig) -> None:
    """Raise ValueError, with what to do, for a job whose rule to stop would never hold: nobody measures its metric."""
    if spec.rounds.stop.is_set and not is_measured(spec, has_test=spec.data_name in config.tests):
        raise ValueError(
            f"nobody would measure {spec.rounds.stop.metric}, which [rounds.stop] goes by: add "
            f"[tests.{spec.data_name}] to aggregator.toml and start the aggregator again, or validation = 0.1 to "
            "[contract], or leave [rounds.stop] out"
        )


def check_defined(spec: JobSpec, test: Dataset | None, metrics: Metrics) -> None:
    """Raise DatasetError where the rows of a test split never give what a job's rule to stop goes by.

    metrics: of any version. A class that no row has, has no recall, and labels that are all the same have no R2.
    """
    metric = spec.rounds.stop.metric
    others = {"accuracy", "rmse"} & metrics.keys()
    what = "none is of that class, or all are" if spec.model.classifies else "all have the same label"
    if spec.model.finds_anomalies:  # what wants a threshold is known later, and then where the AUC is
        others = set() if metric == "false_alarms" or "auc" in metrics else {"loss"} & metrics.keys()
        what = "none is labelled an anomaly, or all are"
    if test is not None and spec.rounds.stop.is_set and others and metric != "loss" and metric not in metrics:
        raise DatasetError(
            f"[tests.{spec.data_name}]: {metric}, which [rounds.stop] goes by, is not defined on its {len(test.y):,} "
            f"rows: {what}; test on others as well, or stop by another measure"
        )


class Scorer:
    """Scores versions on a job's test split, here or in another process: pickled it is how to be made there."""

    def __init__(self, spec: JobSpec, config: AggregatorConfig, base: str = "") -> None:
        """Build the net and read the test split. base: as `prepare`. Raises ModelError or DatasetError."""
        source = config.tests.get(spec.data_name)
        self._made_of = spec, config, "" if source is None else str(stamp(source)), base
        self.net, self.test = prepare(spec, config, base)

    def __call__(self, model: Model, agreed: Agreed | None = None, buffers: Buffers = NO_BUFFERS) -> Metrics:
        """Return all measures of a version; nothing without a test split, or where its fleet has yet to agree on what a
        net takes. agreed: what it has agreed on. buffers: of the version.

        It is evaluated all the same: who submits a job hears at once of a net or a split that cannot be.
        """
        contract, stop = self._made_of[0].contract, self._made_of[0].rounds.stop
        net = normalised(buffered(self.net, buffers), contract, agreed)
        found = evaluate(net, model, self.test, contract.class_names, (stop.metric,))
        return {} if contract.agrees and agreed is None else found

    def __reduce__(self) -> tuple[Callable[[bytes, bytes, str, str], Scorer], tuple[bytes, bytes, str, str]]:
        """Return how it is made elsewhere: once for all versions of a job, and again where its file is another one."""
        spec, config, stamp, base = self._made_of
        return _scorer, (msgspec.json.encode(spec), msgspec.json.encode(config), stamp, base)


@functools.lru_cache(maxsize=4)
def _scorer(spec: bytes, config: bytes, _stamp: str, base: str) -> Scorer:
    return Scorer(msgspec.json.decode(spec, type=JobSpec), msgspec.json.decode(config, type=AggregatorConfig), base)


def evaluate(
    net: Net, model: Model, test: Dataset | None, classes: Sequence[str] = (), also: Collection[str] = ()
) -> Metrics:
    """Return all measures on the test split, finite ones; nothing without one.

    classes: their names, in order. also: measures of single classes that are wanted whatever the number of classes.
    Loss and accuracy are the net's own words, weighted over blocks of rows.
    """
    if test is None:
        return {}
    params, n = model.params(net.spec), len(test.y)
    told = [net.evaluate(params, test.X[rows], test.y[rows]) for rows in exact.blocks(n, net.model)]
    found = exact.on_rows(net.model, partial(net.predict, params), test.X, test.y, classes, also).found
    found["loss"] = _mean([(metrics.loss, metrics.n) for metrics in told])
    if "mean_score" in found:  # of the normal rows alone
        found["loss"] = found.pop("mean_score")
    if net.model.classifies:
        found["accuracy"] = _mean([(metrics.accuracy or 0.0, metrics.n) for metrics in told])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _mean(parts: Sequence[tuple[float, int]]) -> float:
    """Return the mean over all rows of what is the mean over so many each; of one part as it is, bit for bit."""
    if len(parts) == 1:
        return parts[0][0]
    return math.fsum(value * n for value, n in parts) / sum(n for _, n in parts)


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


ANNOUNCED = ("accuracy", "loss", "participants", "threshold")
"""The metrics that everybody may see, and that of the rule to stop; the rest is in the store."""
MOST_NAME = 40
"""Characters of a metric's name in a message (broker/messages.py)."""


def announced(metrics: Metrics, stop: StopSpec = NO_STOP) -> Metrics:
    """Return what everybody is told of a version, in four digits. A name that is too long for a message is cut."""
    return {_cut(name): float(f"{value:.4g}") for name, value in shown(metrics, stop).items()}


def shown(metrics: Metrics, stop: StopSpec) -> Metrics:
    """Return what an operator sees of a version in one line."""
    names = dict.fromkeys((*ANNOUNCED, stop.metric) if stop.is_set else ANNOUNCED)
    return {name: metrics[name] for name in names if name in metrics}


def scored_version(by_devices: Metrics) -> Metrics:
    """Return of which version that is what devices say, where it is not the current one."""
    return {"scored_version": by_devices["scored_version"]} if by_devices else {}


def scores_of(number: int, metrics: Metrics, spec: JobSpec) -> dict[str, Any]:
    """Return all that was measured of a version, as plain values: {"number", "measures", "confusion"}.

    confusion: a row for each class, of how many rows were answered which, the last one none; empty where it was not
    kept.
    """
    measures_ = {name: value for name, value in metrics.items() if not measures.is_detail(name)}
    matrix = measures.confusion_of(metrics, spec.model.n_classes) if spec.model.classifies else []
    return {"number": number, "measures": measures_, "confusion": matrix}


def lean(metrics: Metrics, stop: StopSpec) -> Metrics:
    """Return what is kept in memory of a version that is not the current one: all but what is of single classes.

    Of the metric of the rule to stop, what is measured here and by devices: who has both goes by the former.
    """
    wanted = (stop.metric, f"federated_{stop.metric}")
    return {name: value for name, value in metrics.items() if ":" not in name or name in wanted}


def _cut(name: str) -> str:
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
