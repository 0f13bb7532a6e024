"""What a made-up fleet is asked to do: jobs of different rules, and an operator who submits, stops and replaces them.

An operator repeats a command until it is answered, since any packet may be lost, and asks anew, a while later, for what
was refused because of the weather.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from msgspec import structs, to_builtins

from broker.errors import WireError
from broker.messages import Command, Explain, Quarantine, Release, Reply, Resume, Stop, Submit
from broker.operator_seal import OperatorSeal
from broker.transport import Packet
from fleet import made_keys
from fleet.world import nets
from fleet.world.agenda import Agenda
from fleet.world.network import WorldBroker
from fleet.world.nodes import TRUST, WIRE
from models.contract import NO_CONTRACT, ContractSpec
from models.job import CompressionSpec, JobSpec, RoundsSpec, StopSpec, TrainSpec

REPEAT_S = 5.0
AGAIN_S = 20.0
MOST_TRIES = 60
BATCH = 4
POISONS = (
    *("train:raise", "train:shape", "train:kill", "build:raise"),
    *("evaluate:raise", "evaluate:shape", "evaluate:kill"),
)


NETS = ((), (12,))
"""Hidden layers: ten numbers, too few for a sketch, or eighty-six."""
AGREEING, ONE_IN = ContractSpec(normalise="standard"), 5
"""Of one job in so many the fleet agrees on how its rows are normalised, before it trains."""
RICH = ContractSpec(normalise="standard", class_weight="balanced", validation=0.2)
CODINGS: tuple[Literal["off", "strong"] | CompressionSpec, ...] = ("off", "strong", CompressionSpec(codec="int8"))


class Pace(NamedTuple):
    """How long a round of this world may take, and how long its jobs go on."""

    deadline_s: float
    grace_s: float
    learned: float
    """Share of the jobs whose deadline is learned."""
    most_rounds: tuple[int, ...]


def draw_job(rng: random.Random, name: str, n_devices: int, pace: Pace, *, poison: str = "", spare: int = 0) -> JobSpec:
    """Draw a job that n_devices can do, even while `spare` of them fail it."""
    wait: Literal["target", "all"] = "all" if not spare and rng.random() < 0.3 else "target"
    quorum = rng.randint(1, max(1, n_devices - spare))
    target = rng.choice([None, None, rng.randint(quorum, n_devices)])
    deadline_s: float | Literal["learned"] = "learned" if rng.random() < pace.learned else pace.deadline_s
    rounds = RoundsSpec(
        fraction=rng.choice([1.0, 1.0, 0.5]),
        target=target,
        quorum=quorum,
        min_devices=rng.choice([None, None, n_devices - spare]) or None,
        over_selection=rng.choice([1.0, 1.5]),
        wait=wait,
        deadline_s=deadline_s,
        grace_s=pace.grace_s,
        max_rounds=rng.choice(pace.most_rounds),
        late=rng.choice(["refuse", "fold"]),
        max_staleness=rng.choice([2, 20]),
    )
    model, seed = nets.model(poison, rng.choice(NETS)), rng.randrange(1000)
    return JobSpec(
        name,
        model,
        seed=seed,
        data="toy",
        contract=AGREEING if seed % ONE_IN == 0 else NO_CONTRACT,
        compression=rng.choice(CODINGS),
        deploy="never",
        train=TrainSpec(epochs=rng.choice([1, 1, 2]), batch_size=BATCH),
        rounds=rounds,
    )


def enriched(rng: random.Random, spec: JobSpec) -> JobSpec:
    """Return a job that asks for all there is: its fleet agrees and scores, its best version is kept, and served."""
    stop = StopSpec(metric="accuracy", patience=rng.choice((1, 2, 3)))
    rounds = structs.replace(spec.rounds, stop=stop, keep_every=rng.choice((None, 2)))
    return structs.replace(spec, contract=RICH, rounds=rounds)


class World(Protocol):
    """What an operator needs of the world."""

    agenda: Agenda
    broker: WorldBroker
    keys: bool
    n_devices: int


class Operator:
    """Somebody with a console, who is never offline for long."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wire = made_keys.wire_of_operator(TRUST) if world.keys else WIRE
        self._link = world.broker.transport("operator")
        self._link.poke = self._hear
        self._link.subscribe(WIRE.filter_for("reply", client="operator"))
        if world.keys:
            self._link.subscribe(WIRE.filter_for("aggregator"))  # a command names the life that it is said to
        self._link.open()
        self._asked: dict[str, Callable[[Reply], None]] = {}
        self._n_asked = 0
        self.submitted: dict[str, JobSpec] = {}
        """The last job that was submitted under a name."""
        self.barred: set[str] = set()
        """Devices that were to be put in quarantine at some time."""

    def submit(self, spec: JobSpec, tries: int = MOST_TRIES) -> None:
        """Have a job started."""
        self.submitted[spec.name] = spec

        def answered(reply: Reply) -> None:
            if not reply.ok and "is running" not in reply.text and tries:
                self._world.agenda.later(AGAIN_S, self.submit, spec, tries - 1)

        request = self._request()
        self._ask(request, self._signed(Submit("operator", request, to_builtins(spec)), spec.name), answered)

    def _signed(self, submit: Submit, name: str) -> Submit:
        seal = self._wire.seal
        if not isinstance(seal, OperatorSeal):
            return submit
        return seal.signed(submit, name, f"{self._n_asked:08x}")

    def stop(self, name: str) -> None:
        """Have a job stopped."""
        request = self._request()
        self._ask(request, Stop("operator", request, name), lambda _reply: None)

    def replace(self, spec: JobSpec) -> None:
        """Stop what goes by this name and, when that is answered, submit this in its place."""
        request = self._request()
        command = Stop("operator", request, spec.name)
        self._ask(request, command, lambda _reply: self.submit(spec))

    def explain(self, name: str, number: int) -> None:
        """Ask how a version came about."""
        request = self._request()
        self._ask(request, Explain("operator", request, name, number), lambda _reply: None)

    def resume(self, name: str) -> None:
        """Have a job tried again that is at rest."""
        request = self._request()
        self._ask(request, Resume("operator", request, name), lambda _reply: None)

    def put_in_quarantine(self, device: str, why: str) -> None:
        """Have nothing of a device counted any more."""
        self.barred.add(device)
        request = self._request()
        self._ask(request, Quarantine("operator", request, device, why), lambda _reply: None)

    def release(self, device: str) -> None:
        """Have a device take part again."""
        request = self._request()
        self._ask(request, Release("operator", request, device), lambda _reply: None)

    def _request(self) -> str:
        self._n_asked += 1
        return f"r{self._n_asked}"

    def _ask(self, request: str, command: Command, answered: Callable[[Reply], None], tries: int = MOST_TRIES) -> None:
        self._asked[request] = answered
        self._say(request, command, tries)

    def _say(self, request: str, command: Command, tries: int) -> None:
        if request in self._asked and tries:
            self._link.notice("nothing was heard for too long")
            self._link.restore()
            self._link.publish(self._wire.pack(command))
            self._world.agenda.later(REPEAT_S, self._say, request, command, tries - 1)

    def _hear(self) -> None:
        # Asked again at once, an aggregator that is within a step would hear it before it has ended that step.
        self._world.agenda.later(0.0, self._take)

    def _take(self) -> None:
        while (event := self._link.take()) is not None:
            if not isinstance(event, Packet):
                continue
            try:
                message = self._wire.unpack(event)
            except WireError:
                continue
            if isinstance(message, Reply) and (answered := self._asked.pop(message.request, None)):
                answered(message)
