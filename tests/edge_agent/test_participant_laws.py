"""The participant's laws, held against what a near enough network and disk can do to it.

The rules stay close to the live state: heads and rounds are of the current version, the one before or the next;
verdicts are on the update that is offered, or on one that was; the process dies between two effects. A fetch that was
given up ends late, a slot has its say whenever it likes. And the shell errs: what it cannot have to say in a state is
refused, and changes nothing.
"""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from broker.messages import Head, Offer, Round, Verdict, Version, Want, echo
from edge_agent.effects import (
    Connected,
    Deploy,
    Deployed,
    DeployFailed,
    Drop,
    Effect,
    FetchFailed,
    FetchVersion,
    Halt,
    Installed,
    JobEnded,
    Ready,
    RequestHead,
    Send,
    Settle,
    Setup,
    Train,
    Trained,
    TrainingFailed,
    UpdateLost,
    Upload,
)
from edge_agent.effects import ParticipantEvent as DeviceEvent
from edge_agent.participant import Participant
from models import draw
from models.job import JobSpec, ModelSpec, RoundsSpec
from runtime.states import IllegalEventError

near = st.sampled_from([0, 0, 0, -1])
dies = st.sampled_from([None, None, None, 0, 1])


class ParticipantLaws(RuleBasedStateMachine):
    """A participant, what is on its disk, and a record of all that it ever did."""

    @initialize(
        late=st.sampled_from(["refuse", "fold"]),
        deploy=st.sampled_from(["never", "final", "every 2", "every 1", "every 1"]),
        averaged=st.sampled_from([1, 4, 4]),
    )
    def begin(self, late: str, deploy: str, averaged: int) -> None:
        rounds = RoundsSpec(late=late)  # type: ignore[arg-type]  # drawn from its literals
        self.spec = JobSpec("j", ModelSpec(), deploy=deploy, deploy_average=averaged, rounds=rounds)
        self.now = 0.0
        self.boots = 0
        # The aggregator's side.
        self.generation = 1
        self.number = 0 if averaged == 1 else 30
        self.aliases: tuple[Version, ...] = ()
        self.former: dict[Version, tuple[Version, ...]] = {}
        self.same: dict[Version, Version] = {}
        """Former names to present ones."""
        self.root: dict[Version, Version] = {}
        """Names to the first one of the same version, for ever."""
        self.term = 1
        self.job_ended = False
        self.left = self.began = self.version
        """What the term before had come to, and what this one began with."""
        # On the disk.
        self.update: Offer | None = None
        self.names: tuple[Version, ...] = ()
        self.settled: Version | None = None
        # For the laws.
        self.finished: list[Version] = []
        self.failed: list[Version] = []
        self.verdicts: dict[tuple[Version, str], Verdict] = {}
        self.live: dict[tuple[int, Version], float] = {}
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.training: Version | None = None
        self.fetching: Version | None = None
        self.given_up: Version | None = None
        """The last one that was fetched, and then no more."""
        self.wanted: int | None = None
        """The first version that is wanted on the way of what is fetched."""
        self.heard: tuple[int, Version] | None = None
        self.heard_term = 0
        self.named = {Version(0, 0)}
        self.known_as: dict[Version, tuple[Version, ...]] = {}
        """Version to its former names, as its last round has told them."""
        self.over = False
        self.installed: set[Version] = set()
        self.since: dict[Version, int] = {}
        """The first version from which on every one is here, of what is installed."""
        self.asked: set[Version] = set()
        """What could not be had with those before it, or not at all."""
        self.failed = []
        self.live = {}
        setup = Setup(
            device="d",
            job="j-1",
            spec=self.spec,
            offer=self.update,
            names=self.names,
            trained=self.update.base if self.update else self.settled,
        )
        self.core = Participant(setup, random.Random(self.boots), self.now)  # noqa: S311 -- jitter
        self.carry_out(self.core.receive(Ready(), self.now))

    def tell(self, event: DeviceEvent, die_at: int | None = None) -> None:
        self.carry_out(self.core.receive(event, self.now), die_at)

    def carry_out(self, effects: list[Effect], die_at: int | None = None) -> None:
        for n, effect in enumerate(effects):
            if n == die_at:
                self.start()
                return
            self.do(effect)

    def do(self, effect: Effect) -> None:
        match effect:
            case FetchVersion(version, source, since):
                assert since is None or version not in self.asked, "asks again for what it is averaged with"
                assert since in (None, self.spec.averaged_from(version.number))
                if isinstance(source, Head):
                    assert self.heard == (source.term, version), "fetches what the last head does not name"
                else:
                    assert source.way or not version.number, "fetches what its round does not carry"
                    assert source.base == version, "fetches by another's round"
                    before = Version(version.generation, version.number - 1)
                    assert not version.number or before in self.installed, "has not where it starts"
                    assert since is None or self.since[before] <= since, "has not what it is averaged with"
                self.given_up = self.fetching or self.given_up
                self.fetching, self.by_head, self.wanted = version, isinstance(source, Head), since
            case Train(base, _, names):
                assert names == self.known_as[base]
                assert self.training is None, "two trainings at once"
                assert self.update is None, "trains while an update is without verdict"
                assert base not in (*self.finished, *self.failed), "trains a base again"
                assert base in self.installed, "trains on what is not here"
                assert self.now < max(until for (_, at), until in self.live.items() if at == base), "no live round"
                self.training = base
            case Halt(base, goes_on):
                assert self.training == base
                assert not goes_on, "goes on with what it may go on with as it is"
                assert self.over or self.same.get(base) != max(self.named), "halts for another name of its base"
                assert self.over or max(self.named) > base, "halts for nothing"
                self.training = None
            case Send(offer, _):
                assert self.update is not None, "offers what is not on the disk"
                assert self.is_one(offer.base, self.update.base), "offers to another base than it was trained on"
                assert structs.replace(offer, base=self.update.base) == self.update, "offers what is not on the disk"
            case Upload(want):
                assert self.update is not None
                assert want.digest == self.update.digest
            case Settle(_, base, verdict, renamed, later):
                assert self.update is not None, "settles nothing"
                assert self.is_one(base, self.update.base), "settles another base"
                if verdict is not None:
                    assert (verdict.base, verdict.digest) == (base, echo(self.update)), "settles by any verdict"
                else:
                    assert later is not None
                    foreign = later.generation != base.generation and later.number <= base.number
                    may_come_late = self.spec.rounds.late == "fold" and not foreign
                    assert not may_come_late, "an update that may come late is let go without a word"
                    assert later in self.named, "lets go for what nobody has announced"
                    assert later > base or self.over, "lets go at its own base"
                    assert self.over or self.same.get(base) != later, "lets go at another name of its base"
                self.settled, self.update = renamed or base, None
            case Deploy(version):
                assert version in self.installed, "deploys what is not here"
                first = self.spec.averaged_from(version.number)
                assert self.since[version] <= first or version in self.asked, "deploys by itself what may be averaged"
            case Drop():
                self.given_up, self.fetching = self.fetching, None
            case RequestHead():
                pass

    def is_one(self, name: Version, former: Version) -> bool:
        """Return whether a name is that of a version, or another one of it."""
        return self.root.get(name, name) == self.root.get(former, former)

    @property
    def version(self) -> Version:
        return Version(self.generation, self.number)

    def about(self, back: int) -> Version:
        """Return the current version, or the one before it, if that was of this term too."""
        return max(Version(self.generation, max(0, self.number + back)), self.began)

    # What comes over the network.

    def hear_head(self, version: Version, term: int, die_at: int | None = None) -> None:
        ended = self.job_ended and version == self.version
        if term >= self.heard_term:
            self.heard_term = term
            self.named.add(version)
            self.over = self.over or ended
            if self.heard is None or (term, version) >= self.heard:
                self.heard = (term, version)
        self.tell(Head("j-1", term, version, "0" * 32, state="finished" if ended else "running"), die_at)

    def hear_round(
        self, base: Version, seconds: float, drawn: bool, along: bool = False, die_at: int | None = None
    ) -> None:
        self.named.add(base)
        self.heard_term = self.term
        if drawn:
            self.live[self.term, base] = max(self.now + seconds, self.live.get((self.term, base), 0.0))
        beside = b"12345678" + (b"way" if base.number else b"") if along else b""
        aliases = self.former.setdefault(base, self.aliases if base == self.version else ())
        self.known_as[base] = aliases
        threshold = draw.MAX_TICKET if drawn else 0
        self.tell(Round("j-1", self.term, base, seconds, threshold=threshold, aliases=aliases, along=beside), die_at)

    @rule(back=near, old_term=st.sampled_from([False, False, False, True]), die_at=dies)
    def a_head_comes(self, back: int, old_term: bool, die_at: int | None) -> None:
        self.hear_head(self.left if old_term else self.about(back), self.term - old_term, die_at)

    @precondition(lambda self: self.heard is not None and self.heard[0] == self.term)
    @rule()
    def an_aggregator_that_was_replaced_speaks(self) -> None:
        before = (self.core.doing, self.core.deadline)
        assert self.core.receive(Head("j-1", self.term - 1, Version(self.generation, 99), "0" * 32), self.now) == []
        assert self.core.receive(Round("j-1", self.term - 1, Version(self.generation, 99), 60.0), self.now) == []
        assert (self.core.doing, self.core.deadline) == before

    @rule(back=near, seconds=st.sampled_from([5.0, 60.0]), drawn=st.booleans(), along=st.booleans(), die_at=dies)
    def a_round_comes(self, back: int, seconds: float, drawn: bool, along: bool, die_at: int | None) -> None:
        self.hear_round(self.about(back), seconds, drawn, along, die_at)

    @rule(newer=st.booleans(), along=st.booleans())
    def all_that_is_needed_comes(self, newer: bool, along: bool) -> None:
        if newer:
            self.a_version_is_made()
        self.hear_round(self.version, 60.0, drawn=True, along=along)
        self.hear_head(self.version, self.term)
        if self.fetching is not None:
            self.the_fetch_ends(failed=False, die_at=None)

    @rule()
    def a_version_is_made(self) -> None:
        if not self.job_ended:
            self.number, self.aliases = self.number + 1, ()

    @precondition(lambda self: not self.job_ended)
    @rule(lost=st.sampled_from([0, 0, 1, 2]), another=st.booleans())
    def a_backup_is_restored(self, lost: int, another: bool) -> None:
        """Have the aggregator go on from a version that it may have left before, under a new name.

        another: it is another one, a copy of which the last name is not known, but those before it are.
        """
        self.number = max(0, self.number - lost)
        former, self.generation = self.version, self.generation + 10
        names = [name for name, now in self.same.items() if now == former]
        self.same = dict.fromkeys([*names, former][-8:], self.version)
        self.root[self.version] = self.root.get(former, former)
        self.aliases = tuple(names[-8:]) if another and names else tuple(self.same)
        self.former[self.version] = self.aliases
        self.term += 1
        self.left, self.began = former, self.version

    @rule()
    def the_aggregator_starts_again(self) -> None:
        self.term += 1
        self.left = self.began = self.version
        if self.job_ended:  # what it says first is that
            self.heard_term = self.term
            self.tell(JobEnded(self.version, self.term))

    @precondition(lambda self: self.number not in (0, 1, 2, 3, 30, 31))
    @rule()
    def the_job_ends(self) -> None:
        self.job_ended = self.over = True
        self.named.add(self.version)
        self.heard_term = self.term
        self.tell(JobEnded(self.version, self.term))

    @precondition(lambda self: self.update is not None)
    @rule(refused=st.booleans(), die_at=dies)
    def the_verdict_comes(self, refused: bool, die_at: int | None) -> None:
        update = self.core.offer
        assert update is not None
        fresh = Verdict("d", "j-1", update.base, echo(update), "absurd" if refused else "")
        self.tell(self.verdicts.setdefault((update.base, update.digest), fresh), die_at)

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data())
    def an_old_verdict_comes_again(self, data: st.DataObject) -> None:
        self.tell(data.draw(st.sampled_from(list(self.verdicts.values()))))

    @precondition(lambda self: self.update is not None)
    @rule(mine=st.booleans())
    def the_body_is_wanted(self, mine: bool) -> None:
        assert self.update is not None
        want = Want("d", "j-1", self.update.digest if mine else "f" * 32, "01")
        effects = self.core.receive(want, self.now)
        assert effects == ([Upload(want)] if mine else [])
        self.carry_out(effects)

    @rule()
    def the_broker_is_back(self) -> None:
        self.tell(Connected(2.0))

    # What happens on the device.

    @rule(settled=st.booleans())
    def a_whole_round_goes_by(self, settled: bool) -> None:
        self.all_that_is_needed_comes(newer=True, along=settled)
        if self.training is not None:
            self.the_training_ends(die_at=None)
        if settled and self.update is not None:
            self.the_verdict_comes(refused=False, die_at=None)

    @precondition(lambda self: self.fetching is not None)
    @rule()
    def the_fetch_takes_longer_than_the_round(self) -> None:
        self.now += 61.0
        self.the_fetch_ends(failed=False, die_at=None)

    @precondition(lambda self: self.fetching is not None)
    @rule(failed=st.sampled_from([False, False, True]), die_at=dies, short=st.booleans())
    def the_fetch_ends(self, failed: bool, die_at: int | None, short: bool = False) -> None:
        version = self.given_up = self.fetching
        self.fetching = None
        assert version is not None
        if failed and self.by_head:
            self.heard = None  # that head is doubted
        if self.wanted is not None and (failed or short):
            self.asked.add(version)
        if not failed:
            self.installed.add(version)
            self.since[version] = version.number if self.wanted is None or short else self.wanted
        self.tell(FetchFailed(version) if failed else Installed(version, self.since[version]), die_at)

    @precondition(lambda self: self.training is not None)
    @rule(die_at=dies)
    def the_training_ends(self, die_at: int | None) -> None:
        base, self.training = self.training, None
        assert base is not None
        self.finished.append(base)
        self.names = self.known_as[base]
        # The same digest for every base: only the base tells the updates apart.
        self.update = Offer("j-1", "d", base, 10, "ab" * 16, 9, body=b"x" * 9)
        self.tell(Trained(self.update), die_at)

    @precondition(lambda self: self.training is not None)
    @rule()
    def the_training_fails(self) -> None:
        base, self.training = self.training, None
        assert base is not None
        self.failed.append(base)
        self.tell(TrainingFailed(base, "it diverged"))

    @precondition(lambda self: self.given_up is not None)
    @rule(failed=st.booleans())
    def a_fetch_that_was_given_up_ends_late(self, failed: bool) -> None:
        version = self.given_up
        if version is None or version == self.fetching:
            return
        if failed:
            self.tell(FetchFailed(version))
            return
        self.installed.add(version)
        self.since[version] = version.number
        self.tell(Installed(version))

    @precondition(lambda self: self.spec.deploy != "never")
    @rule(back=near, failed=st.booleans())
    def the_slot_has_its_say(self, back: int, failed: bool) -> None:
        version = self.about(back)
        self.tell(DeployFailed(version, "the disk is full") if failed else Deployed(version))

    def illegal(self) -> list[DeviceEvent]:
        """Return what nobody can have to say now."""
        never = Version(99, 99)
        offers = [Offer("j-1", "d", base, 10, "cd" * 16, 9) for base in (self.version, never) if base != self.training]
        events: list[DeviceEvent] = [Installed(never), FetchFailed(never), *map(Trained, offers)]
        events += [TrainingFailed(offer.base, "it diverged") for offer in offers]
        if self.training is not None:
            events += [Trained(Offer("j-2", "d", self.training, 10, "cd" * 16, 9))]
        if self.update is None:
            events += [UpdateLost(self.settled)]
        if self.spec.deploy == "never":
            events += [Deployed(self.version), DeployFailed(self.version, "the disk is full")]
        return events

    @rule(seconds=st.sampled_from([0.0, 6.0, 61.0]))
    def the_shell_errs(self, seconds: float) -> None:
        before = pickle.dumps(self.core)
        for event in self.illegal():
            with pytest.raises(IllegalEventError, match=f"^{type(event).__name__} came while "):
                self.core.receive(event, self.now + seconds)
            assert pickle.dumps(self.core) == before, "an illegal event has changed something"

    @rule()
    def the_power_is_cut(self) -> None:
        self.start()

    @rule(seconds=st.sampled_from([0.5, 6.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.core.tick(self.now))

    @precondition(lambda self: self.core.deadline is not None)
    @rule()
    def the_alarm_rings(self) -> None:
        deadline = self.core.deadline
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.carry_out(self.core.tick(self.now))
        later = self.core.deadline
        assert later is None or later > self.now, "it spins"

    # What must always hold.

    @invariant()
    def the_core_does_not_contradict_itself(self) -> None:
        self.core.check()

    @invariant()
    def the_core_knows_what_is_on_the_disk(self) -> None:
        offered = self.core.offer
        if offered is None or self.update is None:
            assert offered == self.update
        else:
            assert self.is_one(offered.base, self.update.base)
            assert structs.replace(offered, base=self.update.base) == self.update

    @invariant()
    def a_training_whose_update_would_be_refused_does_not_go_on(self) -> None:
        if self.training is not None:
            assert not self.over
            latest = max(self.named)
            known = latest <= self.training or self.is_one(latest, self.training)
            known = known or (latest.number == self.training.number and latest not in self.known_as)  # not told yet
            assert self.spec.rounds.late == "fold" or known

    @invariant()
    def an_update_without_verdict_is_offered_again(self) -> None:
        if self.update is not None:
            deadline = self.core.deadline
            assert deadline is not None
            assert deadline <= self.now + 150.0

    @invariant()
    def no_base_is_finished_twice(self) -> None:
        assert len(self.finished) == len(set(self.finished))


TestParticipantLaws = ParticipantLaws.TestCase
TestParticipantLaws.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
