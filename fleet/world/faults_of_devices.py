"""Faults to plant in the agent, and in what both sides share: each takes one fix out. See plants.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aggregator import jobs as aggregator_jobs
from broker.messages import Offer, Verdict, Version
from broker.outgoing import Outgoing
from broker.transport import Packet
from edge_agent import home, outbox
from edge_agent import jobs as agent_jobs
from edge_agent.announced import Announced
from edge_agent.disk import Disk
from edge_agent.effects import Disconnected, Effect, Halt, Settle
from edge_agent.jobs import Jobs
from edge_agent.outbox import Outbox
from edge_agent.participant import Participant
from edge_agent.presence import Announcer
from edge_agent.resend import Resend
from edge_agent.work import Work
from fleet.world.network import WorldTransport
from fleet.world.patches import Patches
from models.codec import Terms
from runtime.failpoints import reach
from runtime.faults import Marks


def keep_the_outbox_in_memory(patches: Patches) -> None:
    """Put no update on disk."""

    def put(self: Outbox, offer: Offer, body: bytes, _terms: Terms, probed: Any = None, names: Any = ()) -> None:
        reach("outbox.put.between", (offer.job, offer.base))
        (self.folder / "checkpoint.bin").unlink(missing_ok=True)
        self._body, self.offer, self.probed, self.names = body, offer, probed, names

    patches.set(Outbox, "put", put)


def forget_checkpoints(patches: Patches) -> None:
    """Begin every training anew."""
    patches.set(Outbox, "resume", lambda _self, *_where, **_names: None)


def resume_by_one_name(patches: Patches) -> None:
    """Go on with a training under the very name alone that it was begun under."""
    resume = Outbox.resume

    def resume_by_name(self: Outbox, base: Version, *where: Any) -> Any:
        found = self._read("checkpoint.bin", outbox._Checkpoint)
        return None if found is not None and found.base != base else resume(self, base, *where)

    patches.set(Outbox, "resume", resume_by_name)


def forget_names(patches: Patches) -> None:
    """Take an update for one to its base only where the round has that very name among the former ones."""

    def may_be(self: Announced, base: Version, latest: Version) -> bool:
        told = self.round is not None and self.round.base == latest
        return latest.number == base.number and (not told or base in self.aliases(latest))

    patches.set(Announced, "may_be", may_be)
    patches.set(Participant, "_go_by_the_present_name", lambda _self, _now: None)


def offer_once(patches: Patches) -> None:
    """Offer an update once."""
    send = Resend.send

    def send_once(self: Resend, offer: Offer, now: float, left_s: float) -> bool:
        with_body = send(self, offer, now, left_s)
        self.at = math.inf
        return with_body

    patches.set(Resend, "send", send_once)


def settle_by_any_verdict(patches: Patches) -> None:
    """Take any verdict for that on the update that is offered."""

    def settle(self: Participant, verdict: Verdict, now: float) -> list[Effect]:
        if self.offer is None:
            return []
        self.offer = None
        return [Settle(verdict.job, verdict.base, verdict), *self._advance(now)]

    patches.set(Participant, "_settle", settle)


def let_go_at_an_alias(patches: Patches) -> None:
    """Take another name of a base for a later one."""

    def is_left(self: Announced, base: Version) -> bool:
        latest = self.latest()
        return latest is not None and (latest > base or self.over is not None)

    patches.set(Announced, "is_left", is_left)


def let_go_once_sent(patches: Patches) -> None:
    """Take it for an acknowledgement that the broker has taken an offer."""
    let_go = Participant._let_go

    def let_go_if_sent(self: Participant, now: float) -> list[Effect]:
        offer, latest = self.offer, self.announced.latest()
        if offer is None or not self.resend.has_sent_body or self.announced.may_be_folded(offer.base):
            return let_go(self, now)
        self.offer = None
        self.resend.end_wait(now)
        return [Settle(self.job, offer.base, later=latest)]

    patches.set(Participant, "_let_go", let_go_if_sent)


def say_hello_once(patches: Patches) -> None:
    """Do not answer roll calls."""
    patches.set(Announcer, "forget", lambda _self, _now, _wait_s: None)


def listen_for_ever(patches: Patches) -> None:
    """Never unsubscribe."""
    patches.set(WorldTransport, "unsubscribe", lambda _self, *_filters: None)


def halt_and_wait(patches: Patches) -> None:
    """Do nothing after a halt until something is heard again."""
    advance = Participant._advance

    def advance_or_halt(self: Participant, now: float) -> list[Effect]:
        effects = advance(self, now)
        halts: list[Effect] = [effect for effect in effects if isinstance(effect, Halt)]
        if halts:
            self._training = self.versions.fetching = self.versions._refetch_at = self.versions._look_at = None
        return halts or effects

    patches.set(Participant, "_advance", advance_or_halt)


def share_state_directories(patches: Patches) -> None:
    """Neither lock a state directory nor look whose it is."""
    read_mark = home._read_mark

    def anybodys(folder: Path, disk: Disk) -> Any:
        found = read_mark(folder, disk)
        return None if found is None else home._Mark(_Anybody(found.device), found.incarnation)

    def unlocked(folder: Path) -> Any:
        return (folder / "lock").open("a+", encoding="ascii")

    patches.set(home, "_locked", unlocked)
    patches.set(home, "_read_mark", anybodys)


class _Anybody(str):
    """An id that is everybody's."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def queue_while_offline(patches: Patches) -> None:
    """Keep everything that is said while offline, and go on saying it."""
    receive = Participant.receive

    def never_offline(self: Participant, event: Any, now: float) -> list[Effect]:
        return [] if isinstance(event, Disconnected) else receive(self, event, now)

    def put(self: Outgoing, packet: Packet) -> None:
        self._waiting[object()] = packet  # type: ignore[index]  # each is kept, the same one too

    patches.set(Participant, "receive", never_offline)
    patches.set(Outgoing, "put", put)
    patches.set(Outgoing, "clear", lambda _self: None)


def keep_deleted_jobs(patches: Patches) -> None:
    """Ignore tombstones of jobs that this process has not worked on."""
    forget = Jobs._forget

    def forget_what_runs(self: Jobs, job: str) -> None:
        if job in self.works:
            forget(self, job)

    patches.set(Jobs, "_forget", forget_what_runs)
    patches.set(Jobs, "_sweep", lambda _self: None)


def starve_other_jobs(patches: Patches) -> None:
    """Train for the first job that has something to do."""

    def first(self: Jobs) -> Work | None:
        return next((work for work in self.works.values() if work.busy), None)

    patches.set(Jobs, "next_turn", first)


def have_no_boundary(patches: Patches) -> None:
    """Let what a job's own code throws leave the process."""

    def through(act: Callable[[], Any], *_passes: type[Exception]) -> Any:
        return act()

    patches.set(aggregator_jobs, "contain", through)
    patches.set(agent_jobs, "contain", through)


def have_no_marks(patches: Patches) -> None:
    """Forget that a job has killed this process."""
    patches.set(Marks, "reason", lambda _self, _job: "")


def mark_a_job_by_its_id_alone(patches: Patches) -> None:
    """Let what goes well at the start wipe out the deaths in training."""
    leave = Marks.leave
    patches.set(Marks, "leave", lambda self, job, _place=None: leave(self, job))
