"""A fleet with keys in one process, over the in-memory broker, on a made-up clock; and somebody who owns the broker."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from aggregator.config import AggregatorConfig, ServerLimits
from aggregator.run import Run
from aggregator.service import Aggregator
from aggregator.store import Store
from broker.device_seal import DeviceSeal
from broker.memory import MemoryBroker, MemoryTransport
from broker.messages import Command, Message, Reply, Submit
from broker.operator_seal import OperatorSeal
from broker.server_seal import ServerSeal
from broker.transport import Packet
from broker.wire import Wire, levels
from edge_agent.config import AgentConfig, ModelSettings
from edge_agent.home import Home
from edge_agent.service import Agent, will
from identity.keys import SigningKey, text_of
from identity.registry import Enrolled, Registry, WatchedRegistry
from identity.trust import Trust
from models.data.dataset import Dataset
from models.data.source import DataSource, InMemory
from models.job import JobSpec, ModelSpec, RoundsSpec, TrainSpec

FLEET = "f"
INPUTS, OUTPUTS = 4, 2


def key(n: int) -> SigningKey:
    """The n-th key of these tests."""
    return SigningKey(bytes((n,)) * 32)


ROOT, LEADER, ADA, MALLORY = key(200), key(201), key(202), key(203)
"""The root, the aggregator, an operator, and somebody whom nobody knows."""
TRUST = Trust(FLEET, text_of(ROOT.public), (text_of(LEADER.public),), {"ada": text_of(ADA.public)})


def toy(**changes: object) -> JobSpec:
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=3, wait="all", deadline_s=30.0)
    fields: dict[str, object] = {
        "model": ModelSpec(inputs=INPUTS, hidden=(16,), outputs=OUTPUTS),
        "compression": "light",
        "deploy": "never",
        "rounds": rounds,
        "train": TrainSpec(epochs=1, batch_size=5),
    }
    return JobSpec("toy", **(fields | changes))  # type: ignore[arg-type]  # the tests know the fields


def rows(seed: int) -> Dataset:
    """Two clouds, a little different on every device."""
    rng = np.random.default_rng(seed)
    y = np.arange(20) % OUTPUTS
    X = rng.standard_normal((20, INPUTS)) + 2.0 * y[:, None]
    return Dataset(np.ascontiguousarray(X, np.float32), y)


class KeyedFleet:
    """One aggregator and three agents, all with keys; each can be killed and started again from what is on its disk."""

    def __init__(
        self, folder: Path, n_agents: int = 3, *, chunk_bytes: int = 100_000, checks: bool = True, keys: int = 3
    ) -> None:
        """checks: whether the aggregator has pinned anybody, or signs alone. keys: how many devices have some."""
        self.now = 1000.0
        self.checks = checks
        self.broker = MemoryBroker(lambda: self.now)
        self.folder = folder
        self.chunk_bytes = chunk_bytes
        self.starts = 0
        self.trust, self.leader = TRUST, LEADER
        self.homes: list[Home] = []
        self.wires: dict[str, Wire] = {}
        """Of each device, in its present life."""
        self.links: dict[str, MemoryTransport] = {}
        self.devices = {f"d{n}": key(n) for n in range(n_agents)}
        self.revoked: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.write_registry()
        self.attacker = Attacker(self)
        self.store: Store
        self.link: MemoryTransport
        self.start_aggregator()
        self.agents = {name: self.start_agent(name, keys=n < keys) for n, name in enumerate(self.devices)}

    def write_registry(self) -> None:
        known = {
            name: Enrolled(text_of(one.public), revoked=name in self.revoked) for name, one in self.devices.items()
        }
        new = self.folder / f"registry-{secrets.token_hex(4)}"
        new.write_bytes(msgspec.json.encode(Registry(FLEET, known)))
        new.replace(self.folder / "registry.json")

    def start_aggregator(self) -> Aggregator:
        self.starts += 1
        self.store = Store(self.folder / "aggregator", synced=False)
        self.link = self.broker.transport(f"aggregator-{self.starts}")
        registry = WatchedRegistry(self.folder / "registry.json", FLEET, lambda: self.now)
        seal = ServerSeal(FLEET, self.leader, self.trust, registry)
        self.wire = Wire(FLEET, seal if self.checks else ServerSeal(FLEET, self.leader))
        self.aggregator = Aggregator(
            AggregatorConfig(
                fleet=FLEET,
                state_dir=str(self.folder / "aggregator"),
                limits=ServerLimits(chunk_bytes=self.chunk_bytes, heartbeat_s=5.0, spread_s=0.5),
            ),
            self.store,
            self.link,
            self.wire,
            nonce=f"n{self.starts}",
            clock=lambda: self.now,
        )
        self.aggregator.start()
        return self.aggregator

    def kill_aggregator(self) -> None:
        """As by kill -9: no goodbye, and nothing is left but the disk."""
        self.link.drop()
        self.store.close()

    def start_agent(self, name: str, *, keys: bool = True) -> Agent:
        config = AgentConfig(
            fleet=FLEET,
            state_dir=str(self.folder / name),
            data={"toy": DataSource("memory")},
            models=ModelSettings(inference=False),
        )
        home = Home(self.folder / name, name)
        self.homes.append(home)
        seal = DeviceSeal(FLEET, name, self.trust, self.devices[name])
        wire = self.wires[name] = Wire(FLEET, seal) if keys else Wire(FLEET)
        transport = self.links[name] = self.broker.transport(name, will(wire, home))
        agent = Agent(
            *(config, home, transport, wire),
            clock=lambda: self.now,
            open_source=lambda *_, **__: InMemory(rows(int(name[1:]))),
        )
        agent.most_at_once = 1  # so that who attacks may come between any two things
        agent.start()
        return agent

    def kill_agent(self, name: str) -> None:
        """As by kill -9: no goodbye, and nothing is left but the disk."""
        self.links[name].drop()
        self.agents[name].home.close()

    def restart_agent(self, name: str, *, keys: bool = True) -> Agent:
        self.kill_agent(name)
        self.agents[name] = self.start_agent(name, keys=keys)
        return self.agents[name]

    def close(self) -> None:
        self.store.close()
        for home in self.homes:
            home.close()

    def step(self, seconds: float = 0.02) -> None:
        """Let everybody do a few things, then let time pass."""
        for _ in range(3):
            for one in (self.aggregator, *self.agents.values()):
                one.step(0.0)
        self.now += seconds

    def run(self, until: Callable[[], bool], most_s: float = 900.0) -> None:
        end = self.now + most_s
        while not until():
            assert self.now < end, f"nothing came of it: {self.aggregator.doing}"
            self.step()

    def rest(self, seconds: float = 3.0) -> None:
        """Let some time pass."""
        end = self.now + seconds
        self.run(lambda: self.now >= end)

    def ready(self) -> None:
        """Go on until the aggregator leads and knows everybody."""
        self.run(lambda: self.aggregator.leads and len(self.aggregator.roster.devices) == len(self.agents))
        self.rest()

    def ask(self, command: Command, seal: OperatorSeal | None = None) -> Reply | None:
        """Have an operator give a command, and wait for the answer a while."""
        wire = Wire(FLEET, OperatorSeal(FLEET, self.trust, ADA) if seal is None else seal)
        link = self.broker.transport(command.client)
        link.subscribe(wire.filter_for("reply", client=command.client), wire.filter_for("aggregator"))
        link.open()
        found: list[Reply] = []

        def hear() -> None:
            messages = (wire.unpack(event) for event in iter(link.take, None) if isinstance(event, Packet))
            found.extend(message for message in messages if isinstance(message, Reply))

        hear()
        link.publish(wire.pack(command))
        for _ in range(60):
            self.step()
            hear()
            if found:
                break
        link.close()
        return found[-1] if found else None

    def submit(self, spec: JobSpec | None = None, request: str = "s1") -> str:
        """Submit a job as the operator does, and return its id."""
        self.ready()
        reply = self.ask(self.submission(toy() if spec is None else spec, request))
        assert reply is not None, "no answer"
        assert reply.ok, reply.text
        return reply.text

    def submission(self, spec: JobSpec, request: str, incarnation: str = "0000000a") -> Submit:
        tree: dict[str, Any] = msgspec.to_builtins(spec)
        signature = OperatorSeal(FLEET, TRUST, ADA).sign_spec(f"{spec.name}-{incarnation}", tree)
        submit = Submit("cli", request, tree)
        return structs.replace(submit, incarnation=incarnation, operator="ada", signature=signature)

    def job(self) -> Run:
        return next(iter(self.aggregator.runs.values()))

    def finish(self) -> Run:
        self.run(lambda: bool(self.aggregator.runs) and bool(self.job().coordinator.ended))
        return self.job()

    def refused(self, name: str = "aggregator") -> dict[str, int]:
        """How many words were refused, by kind."""
        who = self.aggregator.refusals if name == "aggregator" else self.agents[name]._refusals
        assert who is not None
        return dict(who.counts)  # type: ignore[arg-type]  # kinds are text


class Attacker:
    """Somebody who owns the broker: hears everything, says anything at any topic, and keeps what he likes from whom."""

    def __init__(self, fleet: KeyedFleet) -> None:
        self._broker = fleet.broker
        self.heard: list[Packet] = []
        self._ear = fleet.broker.transport("ear")
        self._ear.subscribe("#")
        self._ear.open()

    def listen(self) -> list[Packet]:
        """Everything that was ever said."""
        self.heard += [event for event in iter(self._ear.take, None) if isinstance(event, Packet) and event.payload]
        return self.heard

    def recorded(self, word: str, where: Callable[[Message], bool] = lambda _: True) -> list[Packet]:
        """Return the packets of a word that were recorded."""
        found = [packet for packet in self.listen() if levels(packet.topic)[0] == word]
        return [packet for packet in found if where(Wire(FLEET).unpack(packet))]

    def say(self, *said: Message | Packet, retain: bool = False) -> None:
        """Say something: unsigned, or what was recorded, or what he has made of it."""
        self.listen()
        link = self._broker.transport(f"mallory-{secrets.token_hex(2)}")
        link.open()
        for one in said:
            packet = one if isinstance(one, Packet) else Wire(FLEET).pack(one)
            link.publish(structs.replace(packet, retain=retain or packet.retain))
        link.close()
