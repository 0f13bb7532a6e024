"""Somebody who says anything, with absurd numbers, and is gone: the fleet goes on by itself.

    a version is made ─── up to 100 messages of one role ───▶ gone ─── PATIENCE deadlines ───▶ the next version is made

1. One role: whoever speaks as the aggregator; as a device, of its own name or with the credentials of one that is
   there; as an operator; as a second aggregator. Each message is one that was heard in this world, or one that could
   be, with numbers of `NUMBERS`, or near those that are current, in the place of some of its own; retained or not.
2. When the sender is gone, the job that every device is needed for makes a version within PATIENCE deadlines, and
   nobody helps. No process ends.

Not said here is what only a signature can prevent: a job's tombstone, a job with another specification, an update that
is offered in the name of a device that is there, a round that wants updates coded otherwise and as they can be (who
codes them so is refused), other bytes at the name of a body that is in use, and a beacon with a slightly higher claim
that is left at the broker while the leader is not connected (whoever starts then stands by, as an operator may have
said so: `fedge aggregator take-over` ends that). Nor what its role is there to do: an operator stops no job, and
submits none whose net or training is another.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import Struct, structs, to_builtins

from broker.ceilings import FAR, MOST_CLAIM, MOST_COUNT, MOST_GENERATION, MOST_TERM
from broker.errors import WireError
from broker.messages import (
    Beacon,
    Body,
    Candidate,
    Chunk,
    DeltaAt,
    Explain,
    Head,
    Job,
    Jobs,
    Message,
    Offer,
    Presence,
    Reply,
    Resume,
    Round,
    Show,
    Status,
    Submit,
    Verdict,
    Version,
    Want,
)
from broker.transport import Packet
from fleet.world import insides, jobs, nodes
from fleet.world.nodes import WIRE
from fleet.world.world import World, run_in
from models.job import JobSpec

Role = Literal["aggregator", "device", "twin", "operator", "second"]
ROLES: tuple[Role, ...] = ("aggregator", "device", "twin", "operator", "second")
PATIENCE = 3
"""Deadlines within which a version is made."""
DEADLINE_S = 60.0
MOST_MESSAGES = 100
LIKELY_BUCKETS = 1024
"""An update of these nets may be coded in as many."""
REMEMBERED = 200
"""Messages that were heard last, which somebody may say again otherwise."""
FIRST_S = 120.0
"""By then the first version has been made."""
NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 2**15, 2**16, 2**16 + 1, 1000, 1001, FAR - 1, FAR, FAR + 1, 2 * FAR, 2 * FAR + 1),
    *(MOST_CLAIM - 1, MOST_CLAIM, 2**31, MOST_COUNT - 1, MOST_COUNT, MOST_COUNT + 1, MOST_GENERATION - FAR),
    *(MOST_TERM - 1, MOST_TERM, MOST_TERM + 1, 2**48 - 1, 2**48, 2**52, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1),
)
FRACTIONS = (0.0, -1.0, 1e-9, 0.5, 3600.0, 86_400.0, 86_401.0, 1e9, 1e300)


class HostileReport(NamedTuple):
    """What came of one schedule. why: empty where the fleet went on."""

    seed: int
    role: Role
    messages: int
    versions: int
    recovered_s: float
    why: str
    sha256: str


class HostileWorld(World):
    """A fleet under a clear sky, one job that needs every device, and somebody who says anything."""

    def __init__(self, seed: int, profile: str | None, folder: Path, tell: Callable[[str], None] | None) -> None:
        super().__init__(seed, profile or "calm", folder, tell)
        self.role: Role = self.rng.choice(ROLES)
        self._heard: deque[Packet] = deque(maxlen=REMEMBERED)
        self._forges = False
        self._voice = Voice(self.rng, self.role, self)
        self.n_said = 0
        for device in self.devices:
            device.step_s = min(device.step_s, 1.0)

    def heard(self, packet: Packet) -> None:
        """Note what the broker takes. What is forged is no word of the services, and the laws are about those."""
        if self._forges:
            self.note("somebody", f"-> {packet.topic} {packet.payload[:300]!r}{' (retained)' * packet.retain}")
            return
        self._heard.append(packet)
        super().heard(packet)

    def attack(self) -> HostileReport:
        """Let the fleet work, have somebody speak, and see whether the fleet goes on."""
        self.note("somebody", f"is {self.role}")
        for process in (*self.servers, *self.devices):
            self.agenda.later(self.rng.uniform(0.0, 3.0), process.start)
        self.agenda.later(4.0, self.operator.submit, self._job())
        early = self.rng.random() < 0.2
        self._pass(self.rng.uniform(3.0, 15.0) if early else FIRST_S, lambda: self._made() > 0 and not early)
        n, over_s = self.rng.randint(1, MOST_MESSAGES), self.rng.uniform(0.1, 30.0)
        link = self.broker.transport("somebody")
        link.open()
        until = self.agenda.now + over_s
        for at in sorted(self.rng.uniform(0.0, over_s) for _ in range(n)):
            self.agenda.at(until - over_s + at, self._say, link.publish)
        self._pass(over_s, lambda: False)
        link.close()
        before, gone_at = self._made(), self.agenda.now
        self.note("somebody", f"is gone after {self.n_said} messages")
        self._pass(PATIENCE * DEADLINE_S, lambda: self._made() > before)
        made, took_s = self._made(), round(self.agenda.now - gone_at, 3)
        why = "" if made > before else f"no version in {took_s:.0f} s: {self._state()}"
        ends = [f"{process.name} ended: {process.exits[0][1]}" for process in self._all() if process.exits]
        self._end()
        why = "; ".join(filter(None, (why, *ends)))
        return HostileReport(self.seed, self.role, self.n_said, made, took_s, why, self._hash.hexdigest())

    def _all(self) -> list[nodes.Server | nodes.Device]:
        return [*self.servers, *self.devices]

    def _pass(self, for_s: float, is_enough: Callable[[], bool]) -> None:
        until = self.agenda.now + for_s
        while self.agenda.now < until and not is_enough():
            self.agenda.run(min(self.agenda.now + 1.0, until), self._is_over)

    def _made(self) -> int:
        return self.laws.made.get(self.job, 0)

    @property
    def job(self) -> str:
        """The id of the job that every device is needed for; empty before there is one."""
        return next((job for job in self.laws.made if job.startswith("job1-")), self._announced())

    def _announced(self) -> str:
        ids = (packet.topic.split("/") for packet in self._heard)
        return next((levels[4] for levels in ids if levels[3] == "job" and levels[4].startswith("job1-")), "")

    def _job(self) -> JobSpec:
        pace = jobs.Pace(DEADLINE_S, 4.0, 0.0, (1_000_000,))
        spec = jobs.draw_job(self.rng, "job1", self.n_devices, pace)
        n = self.n_devices
        rounds = structs.replace(
            spec.rounds, quorum=n, target=None, min_devices=None, fraction=1.0, wait="target", over_selection=1.0
        )
        return structs.replace(spec, rounds=rounds)

    def _say(self, publish: Callable[[Packet], bool]) -> None:
        packet = self._voice.packet([WIRE.unpack(packet) for packet in self._heard if packet.payload])
        if packet is None:
            return
        self._forges = True
        try:
            publish(packet)
        finally:
            self._forges = False
        self.n_said += 1

    def _state(self) -> str:
        servers = [f"{server.name} {insides.doing(server)}" for server in self.servers]
        return "; ".join([*servers, *(f"{device.name} {insides.doing(device)}" for device in self.devices)])


class Voice:
    """Draws what somebody says."""

    def __init__(self, rng: random.Random, role: Role, world: HostileWorld) -> None:
        self._rng = rng
        self._role = role
        self._world = world

    def packet(self, known: list[Message]) -> Packet | None:
        """Return the next message; None where it would be one that its role may not or shall not say."""
        message = self._draw(known)
        if message is None:
            return None
        message = self._changed(message)
        try:
            packet = WIRE.pack(message)
        except (WireError, OverflowError, ValueError, TypeError):
            return None  # no writer can say that
        return structs.replace(packet, retain=packet.retain if self._rng.random() < 0.6 else not packet.retain)

    def _draw(self, known: list[Message]) -> Message | None:
        rng, world = self._rng, self._world
        mine = [one for one in known if self._may_say(one)]
        if mine and rng.random() < 0.6:
            kind = rng.choice(sorted({type(one) for one in mine}, key=lambda kind: kind.__name__))
            return rng.choice([one for one in mine if type(one) is kind])
        job, devices = world.job or "job1-00000000", [device.device for device in world.devices]
        device = "x" if self._role == "device" else rng.choice(devices)
        version, base = Version(self._number(1), self._number(0)), Version(1, 0)
        nonce = rng.choice(("z", "somebody", insides.nonce(world.servers[0])))
        beacon = Beacon(1, nonce, online=rng.random() < 0.8, since=self._number(0), empty=rng.random() < 0.1)
        candidate = Candidate(nonce, 1)
        match self._role:
            case "second":
                return rng.choice((beacon, beacon, candidate))
            case "operator":
                request = f"r{rng.randrange(1000)}"
                name = rng.choice(("job1", job, "other"))
                spec = to_builtins(jobs.draw_job(rng, "other", 2, jobs.Pace(DEADLINE_S, 4.0, 0.0, (3,))))
                return rng.choice(
                    (
                        Submit("x", request, spec | {"rounds": self._tree(spec["rounds"])}),
                        Resume("x", request, name),
                        Jobs("x", request, str(self._number(0))),
                        Show("x", request, name, str(self._number(0))),
                        Explain("x", request, name, 1, after=f"{self._number(0)}:{device}"),
                    )
                )
            case "device" | "twin":
                presence = Presence(
                    *(device, 1),
                    online=rng.random() < 0.8,
                    ready={job: 1},
                    done={job: version},
                    ahead={job: Version(self._number(1), self._number(0))},
                    incarnation="00000000",
                    nonce=rng.choice(("n1", "n2")),
                )
                chunk = Chunk(job, device, "0123456789abcdef", 0, rng.randbytes(8))
                offer = Offer(job, device, version, 1, "0123456789abcdef", 8)
                full = structs.replace(offer, body=rng.randbytes(rng.randrange(1, 200)))
                return rng.choice((presence, chunk) if self._role == "twin" else (presence, chunk, offer, full))
        ways = (DeltaAt(0, 1, 100), DeltaAt(self._number(0), self._number(1), 1))
        return rng.choice(
            (
                *(beacon, candidate, Job(job, 1, last=version, spec=self._spec(known))),
                Job(f"gone-{rng.randrange(100):08x}", 1, None),
                Head(job, 1, version, "0" * 32, rng.choice(("running", "finished", "waiting")), ways),
                Status(job, version, "running"),
                Round(job, 1, version, 60.0, attempt=1),
                Body(job, f"{version.generation}-{version.number}-0", 0, b"x" * 10),
                Want(device, job, "0123456789abcdef", "ff"),
                Verdict(device, job, base, "01234567", refused="no"),
                Reply("operator", "r1", ok=True),
                Presence(device, 1, online=rng.random() < 0.5, ready={job: 1}, done={job: version}, nonce="n1"),
            )
        )

    def _spec(self, known: list[Message]) -> dict[str, Any] | None:
        """Return the specification that the job has: another is what only a signature can prevent."""
        return next(
            (one.spec for one in known if isinstance(one, Job) and one.job == self._world.job and one.spec), None
        )

    def _may_say(self, message: Message) -> bool:
        match self._role, message:
            case "second", Beacon() | Candidate():
                return True
            case "aggregator", Job(spec=None):
                return False
            case "aggregator", Body():
                return False
            case (
                "aggregator",
                Beacon() | Candidate() | Job() | Head() | Status() | Round() | Want() | Verdict() | Reply(),
            ):
                return True
            case "twin", Presence() | Chunk():
                return True
        return False

    # Numbers.

    def _number(self, near: int) -> int:
        if self._rng.random() < 0.4:
            return max(0, near + self._rng.randint(-2, 3))
        return self._rng.choice(NUMBERS)

    def _changed(self, message: Message) -> Message:
        """Return a message with other numbers in the place of some of its own."""
        if isinstance(message, Job) and message.spec is None and message.job == self._world.job:
            message = structs.replace(message, job="gone-00000000")
        fields: dict[str, Any] = {}
        for name in message.__struct_fields__:
            value = getattr(message, name)
            if name not in ("spec", "data", "body", "along"):
                fields[name] = self._value(value)
        if isinstance(message, Round) and fields["terms"][0] <= LIKELY_BUCKETS:
            fields["terms"] = message.terms
        return structs.replace(message, **fields)

    def _value(self, value: Any) -> Any:
        match value:
            case bool():
                return value
            case int():
                return self._number(value) if self._rng.random() < 0.5 else value
            case float():
                return self._rng.choice(FRACTIONS) if self._rng.random() < 0.3 else value
            case tuple():
                return tuple(self._value(one) for one in value)
            case dict():
                return {name: self._value(one) for name, one in value.items()}
            case Struct():
                changed = {name: self._value(getattr(value, name)) for name in value.__struct_fields__}
                return structs.replace(value, **changed)
        return value

    def _tree(self, tree: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(value) for name, value in tree.items()}


def attack(seed: int, tell: Callable[[str], None] | None = None) -> HostileReport:
    """Run one schedule. tell: is given the trace, line by line."""
    return run_in(HostileWorld, HostileWorld.attack, seed, None, tell)
