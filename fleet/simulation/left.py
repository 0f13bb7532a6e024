"""What a simulated job leaves, at its end or wherever it stands: its model, and which devices did nothing for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aggregator import evaluation, streaks
from aggregator.run import Run
from aggregator.store import Store
from broker.messages import Metrics
from edge_agent.service import Agent
from models.agreement import Agreed
from models.chain import Chain
from models.data import dataset
from models.data.dataset import Dataset
from models.job import JobSpec
from models.measures.table import THRESHOLD
from models.nets.buffered import buffered
from models.nets.finetune import served as whole
from models.nets.net import Net
from models.nets.normalised import normalised
from models.params import Params
from models.trail import Trail


class Left(NamedTuple):
    """The model that devices would serve now."""

    number: int
    """Of its version."""
    params: Params
    agreed: Agreed | None
    about: dict[str, str]
    """What the model says of where it is from."""


class Deployed:
    """What a device would deploy that follows every version."""

    def __init__(self, spec: JobSpec, test: Dataset, net: Net, chain: Chain) -> None:
        self._net = net
        self._spec = spec
        self._test = dataset.fit(test, spec.model)
        self.trail = Trail(chain, chain.first())
        """The versions so far, where the mean of the last ones is deployed."""

    def follow(self, number: int, step: bytes) -> Metrics:
        """Go on to the next version; return how good the mean is, as fields of a row; nothing where none is wanted."""
        if self._spec.averaged == 1:
            return {}
        first = self._spec.averaged_from(number)
        self.trail.take(number, step, first)
        now = self.trail.now
        net = normalised(buffered(self._net, now.buffers), self._spec.contract, now.agreed)
        found = evaluation.evaluate(net, self.trail.mean(first), self._test)
        return {f"deployed_{name}": found[name] for name in ("accuracy", "loss") if name in found}


def left_of(run: Run, spec: JobSpec, net: Net, chain: Chain, trail: Trail) -> Left:
    """Return what devices would serve of a job. trail: the versions so far, where the mean of the last is deployed."""
    state, number = run.state(), run.version.number
    held = chain.take(chain.first(), state.number, state.body) if number else chain.first()
    about = {"job": run.job, "version": str(run.version), "sha256": run.sha256}
    if THRESHOLD in run.metrics:
        about[THRESHOLD] = repr(run.metrics[THRESHOLD])
    if spec.averaged > 1 and trail.now.number == number:
        served = trail.served(spec.averaged_from(number))
        if served.since is not None:
            about |= {"sha256": served.model.sha256(), "averaged_since": str(served.since)}
        return Left(number, whole(net, served.params(chain.spec)), held.agreed, about)
    return Left(number, whole(net, held.params(chain.spec)), held.agreed, about)


def idle(run: Run, agents: Iterable[Agent], store: Store) -> dict[str, str]:
    """Return the devices that do nothing for a job any more, and why: what they have cannot be used, their training
    fails, or whatever they send is refused.
    """
    found: dict[str, str] = {}
    for agent in agents:
        if why := agent.jobs.unready.get(run.job):
            found[agent.device] = why
        elif run.job in agent.jobs.failed:
            found[agent.device] = agent.jobs.failed[run.job].why
    n_rounds = max(1, run.version.number)
    refused = {device for device, n in run.streaks.items() if n >= min(streaks.MANY, n_rounds)}
    if refused:
        reasons = {one.device: one.refused for one in store.verdicts(run.job) if one.refused}
        found |= {device: reasons.get(device, "what it sends is refused") for device in sorted(refused - found.keys())}
    return found
