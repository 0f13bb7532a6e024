"""One device's part in one job, as a pure state machine.

             drawn, on a base not                                                       the base is left,
             trained before                                                             or a verdict comes
      IDLE ──────────────────▶ FETCHING ──Installed──▶ TRAINING ──Trained──▶ OFFERING ──────────────▶ IDLE
       ▲                           │                       │
       └───────────────────────────┴── the base is left ───┘

 1. At most one update is offered, and the next training waits for its end. That is a verdict, or that its base has been
    left: a later one is announced, or the job's end, and whoever announces it has made durable before what became of
    the update. No verdict comes unasked for an update that was counted, but where the job folds late ones: there it is
    offered until it has one, because leaving its base settles nothing. (But a version of another generation and of no
    higher number does: into that nobody can fold it.)
 2. A base is trained at most once, whatever dies: `Trained` means that the update is on disk. (Where it failed, and a
    round says that updates are coded otherwise, once more: the first one may have been forged.) What is older than the
    last base trained is not trained any more.
 3. Training starts only in a live round that drew this device; it goes on while offline, and stops when the head
    shows that the base has been left (unless the job folds late updates, and this one is not too late for that).
 4. A message of a lower term than the one before is of an aggregator that has been replaced, and is ignored, unless it
    is the term of the leader's beacon: then the one before was nobody's. So is a head or round that is older than the
    one known in its own term, which has been overtaken on the way; or a backup was restored that knows nothing of the
    later one, so that this device tells it (`ahead`); and a leader that repeats it all the same is believed
    (announced.py). The last base trained is none where it lies further than FAR above what is announced.
 5. A verdict counts only for the very update that is offered: same base, same digest.
 6. A version is fetched only while it is needed: to train on it, or because the job's deploy policy names it.
 7. What cannot arrive is not sent: while offline nothing is offered, asked for or repeated, and no time is kept for it.
 8. A version that could not be put into the slot is tried again, with growing pauses, while it is the one to serve.
 9. A base that a restored backup has given another name is the base it was: an update to its former name is offered on,
    and settled under the present one. Who has been settled under the former one is done with it only if the round says
    so: the backup may be older than that. So it is where a copy and its original lead in turn, each with a name of its
    own for the version that they had in common: training goes on where it stood, and the update is offered under the
    name that the present leader has for its base, once that is the higher one. (A lower one is about to be raised:
    whoever has it hears of the higher one by the offer.)
10. An offer is repeated when no word has come for longer than rounds usually last: for one and a half times the longest
    of the last few waits from an offer to the next base, as this device has heard them through; the first time, for
    half of what is left of the round. So nothing is repeated in an ordinary round, and one that was lost on its way
    costs about a round. After that the pauses double. A new connection, of either side, may have swallowed the offer:
    it is repeated at once, and who repeats it is answered with the verdict that it has. So may the link have, where a
    further attempt to leave the base draws this device: it is repeated within a few seconds.
11. Heads are read, not followed. A round, or the job's end, names a version; the head that describes it is asked for
    when that version is needed here, and again while it does not come. A round that carries the way from the version
    that is here does as well, and one that proves a version whose body follows from the job.
12. What is deployed is the mean of the last versions where the job says so. If they cannot be had with the version, it
    is deployed by itself: they are asked for once, and no training on a version that is here waits for them.
13. A head carries the threshold of a job that finds anomalies, which is known after its version: who deploys such goes
    on hearing them once the job has ended, or where it deploys versions on the way.

Beside this a version may be fetched for the model slot alone, whatever becomes of the update (law 6).

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no numbers, no threads. What the wire
brings is legal in every state, and so is what comes late from a fetch that was given up, or from the model slot. What
the shell says of its own work is not: `TABLE` says where.
"""

from __future__ import annotations

from enum import Flag, auto

from msgspec import structs

from broker.messages import Head, Offer, Round, Verdict, Version, Want
from edge_agent.announced import FAR, NO_NAMES, Announced
from edge_agent.deployment import Deployment, policy
from edge_agent.effects import (
    Connected,
    Deploy,
    Deployed,
    DeployFailed,
    Disconnected,
    Effect,
    FetchFailed,
    Halt,
    Installed,
    JobEnded,
    ParticipantEvent,
    Ready,
    Send,
    Settle,
    Setup,
    Tick,
    Train,
    Trained,
    TrainingFailed,
    UpdateLost,
    Upload,
)
from edge_agent.resend import Jitter, Resend
from edge_agent.versions import Versions
from models import draw
from runtime.states import StateTable


class State(Flag):
    """How far this device is with its update."""

    IDLE = auto()
    FETCHING = auto()
    TRAINING = auto()
    OFFERING = auto()


IDLE, FETCHING, TRAINING, OFFERING = State
ILLEGAL = State(0)
FREE = IDLE | FETCHING | TRAINING
ANY = FREE | OFFERING

# A row for each event, a column for each state that it may come in; a cell says which states may follow.
# fmt: off
TABLE = StateTable(State, {
    #                IDLE      FETCHING  TRAINING  OFFERING
    Head:           (FREE,     FREE,     FREE,     ANY),
    Round:          (FREE,     FREE,     FREE,     ANY),
    JobEnded:       (FREE,     FREE,     FREE,     ANY),
    Want:           (IDLE,     FETCHING, TRAINING, OFFERING),
    Verdict:        (IDLE,     FETCHING, TRAINING, ANY),
    Connected:      (FREE,     FREE,     FREE,     ANY),
    Disconnected:   (FREE,     FREE,     FREE,     ANY),
    Ready:          (FREE,     FREE,     FREE,     ANY),
    Installed:      (FREE,     FREE,     FREE,     ANY),  # see `_reason_against`
    FetchFailed:    (FREE,     FREE,     FREE,     ANY),  # the same
    Trained:        (ILLEGAL,  ILLEGAL,  ANY,      ILLEGAL),
    TrainingFailed: (ILLEGAL,  ILLEGAL,  FREE,     ILLEGAL),
    UpdateLost:     (ILLEGAL,  ILLEGAL,  ILLEGAL,  FREE),
    Deployed:       (FREE,     FREE,     FREE,     ANY),
    DeployFailed:   (FREE,     FREE,     FREE,     ANY),
    Tick:           (FREE,     FREE,     FREE,     ANY),
}, words=("nothing is done", "a version is fetched", "a training is under way", "an update is offered"), needs={
    Trained: "nothing is trained", TrainingFailed: "nothing is trained", UpdateLost: "no update is offered",
})
# fmt: on


class Participant:
    """A device's part in one job. rng: for the jitter of resends."""

    __slots__ = (
        "_coded",
        "_failed",
        "_online",
        "_training",
        "announced",
        "deployment",
        "device",
        "job",
        "offer",
        "resend",
        "spec",
        "trained",
        "versions",
        "why",
    )  # else it would weigh five times as much: more attributes than Python shares the names of

    def __init__(self, setup: Setup, rng: Jitter, now: float = 0.0) -> None:
        self.device = setup.device
        self.job = setup.job
        self.spec = setup.spec
        self.offer = setup.offer
        self.why = "its data have not been looked at yet"
        self.announced = Announced(setup.device, setup.spec, setup.names)
        self.resend = Resend(rng, now, folds=setup.spec.rounds.late == "fold")
        self.deployment = Deployment(policy(setup.spec, has_slot=setup.has_slot), setup.deployed)
        self.versions = Versions(self.announced, now, knows_wholes=setup.knows_wholes)
        self._online = setup.online
        self.trained = setup.trained
        """The last base trained, to its end or to a failure."""
        self._training: Version | None = None
        self._coded = (0, 0, 0)
        """How the update of that training is to be coded."""
        self._failed: tuple[Version, tuple[int, int, int]] | None = None
        """The last base whose training failed, and how its update was to be coded."""

    # What goes in.

    def receive(self, event: ParticipantEvent, now: float) -> list[Effect]:
        """Take one event and return what follows from it.

        Raises IllegalEventError, and changes nothing, for one that is illegal now.
        """
        state = self._state
        follow = TABLE.follow(state, type(event))
        if why := self._reason_against(event):
            raise TABLE.illegal(state, type(event), why)
        effects = self._take(event, now)
        assert self._state in follow, f"{event} led to {self._state}"  # noqa: S101 -- before anything is carried out
        return effects

    def _reason_against(self, event: ParticipantEvent) -> str:
        """Return why this very event is illegal, where its kind is not; "" where it is legal."""
        match event:
            case Installed(version) | FetchFailed(version) if not self.versions.was_fetched(version):
                return f"version {version} was not fetched"
            case Trained(offer) if (offer.job, offer.device, offer.base) != (self.job, self.device, self._training):
                return f"it is version {self._training} that is trained on here, for {self.job}, not {offer.base}"
            case TrainingFailed(base) if base != self._training:
                return f"it is version {self._training} that is trained on, and not {base}"
            case Deployed() | DeployFailed() if not self.deployment.policy.last:
                return "this device deploys nothing of this job"
        return ""

    def _take(self, event: ParticipantEvent, now: float) -> list[Effect]:
        match event:
            case Head() | Round() | JobEnded():
                if not self._hear(event, now):
                    return []
            case Want():
                return self._upload(event, now)
            case Verdict():
                return self._settle(event, now)
            case Connected(spread_s):
                self._online = True
                self.resend.connected(spread_s, now)
            case Disconnected():
                self._online = False
                self.resend.disconnected()
            case Ready(why):
                self.why = why
            case Installed(version, since):
                self.versions.install(version, since)
            case FetchFailed(version):
                self.versions.fail(version, now)
            case Trained(offer):
                self._training, self.trained, self.offer = None, offer.base, offer
                self.resend.hold(offer.base, now, online=self._online)
            case TrainingFailed(base):
                self._training, self.trained, self._failed = None, base, (base, self._coded)
            case UpdateLost(settled):
                self.offer, self.trained = None, settled
            case Deployed(version):
                self.deployment.end(version)
            case DeployFailed(version):
                self.deployment.fail(version, now)
        return self._advance(now)

    def _hear(self, event: Head | Round | JobEnded, now: float) -> bool:
        """Take what is announced, and return whether it is news."""
        before = self.announced.round
        if not self.announced.hear(event, now):
            return False
        if isinstance(event, Round) and self.offer and self.announced.follows_up(before, self.offer.base):
            self.resend.be_drawn_again(now)
        return True

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        follow = TABLE.follow(self._state, Tick)
        effects = self._advance(now)
        assert self._state in follow, f"the time led to {self._state}"  # noqa: S101 -- before anything is carried out
        return effects

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do, if nothing is received before."""
        earliest = self.deployment.deadline
        if not self._online:
            return earliest
        refetch_at, look_at = self.versions.deadlines
        for at in (refetch_at, look_at, self.resend.at if self.offer else None):
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    # What can be asked.

    @property
    def _state(self) -> State:
        if self.offer is not None:
            return OFFERING
        if self._training is not None:
            return TRAINING
        return IDLE if self.versions.fetching is None else FETCHING

    @property
    def doing(self) -> str:
        """One phrase for the device's presence."""
        match self._state, self.offer:
            case State.OFFERING, Offer(base=base):
                return f"offering an update to version {base}"
            case State.TRAINING, _:
                return f"training on version {self._training}"
            case State.FETCHING, _:
                return f"fetching version {self.versions.fetching}"
        return ""

    @property
    def done(self) -> Version | None:
        """The last base that this device is done with. An update that is offered speaks for itself."""
        return None if self.offer else self.trained

    @property
    def online(self) -> bool:
        """Whether the broker is reachable."""
        return self._online

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as is known here."""
        return self.announced.over is not None

    @property
    def ahead(self) -> Version | None:
        """A later version than the one that was spoken of last: who has lost it should know."""
        return self.announced.ahead

    @property
    def follows(self) -> bool:
        """Whether every head is needed, so that it pays to go on hearing them: not where rounds carry the ways."""
        if self.calibrates and (self.over or self.deployment.policy.every > 0):
            return True
        round_ = self.announced.round
        along = round_ is not None and 2 * round_.threshold > draw.MAX_TICKET
        return self.deployment.policy.every == 1 and not along

    @property
    def calibrates(self) -> bool:
        """Whether what is deployed goes by a threshold, which heads carry: it may be known after the version is."""
        return self.deployment.policy.last and self.spec.model.finds_anomalies

    # What follows.

    def _advance(self, now: float) -> list[Effect]:
        self._go_by_the_present_name(now)
        effects = self._let_go(now)  # first, so that the next round finds this device free
        if self._training and self.announced.is_too_late(self._training):
            effects.append(Halt(self._training, self.announced.is_renamed(self._training)))
            self._training = None
        self.deployment.pass_time(now)
        wanted = self._wanted(now)
        first = 0 if wanted is None else self._first(wanted)
        source = None if wanted is None else self.versions.source(wanted, first)
        effects += self._look(wanted, first, source, now)
        if self.offer and self._online and now >= self.resend.at:
            effects.append(Send(self.offer, self.resend.send(self.offer, now, self.announced.left_s(now))))
        if wanted is None or (source is None and self.versions.here != wanted):
            return [*effects, *self.versions.drop(wanted)]
        is_here = self.versions.is_here(wanted, first)
        if source is not None and not is_here:
            effects += self.versions.fetch(wanted, first, source, now)
        if self.versions.here != wanted:
            return effects
        if is_here and self._wants_to_deploy(wanted):
            self.deployment.begin(wanted)
            effects.append(Deploy(wanted))
        if self._wants_to_train(wanted, now) and (round_ := self.announced.round):
            self._training, self._coded = wanted, round_.terms
            self.announced.names = frozenset(round_.aliases) or NO_NAMES
            effects.append(Train(wanted, round_.terms, round_.aliases))
        return effects

    def _wanted(self, now: float) -> Version | None:
        """Return the newest version, if it is needed here."""
        latest = self.announced.latest()
        if latest is None or not (self._wants_to_deploy(latest) or self._wants_to_train(latest, now)):
            return None
        return latest

    def _first(self, wanted: Version) -> int:
        """Return the number of the first version that is needed with this one: itself, or what it is averaged with."""
        if self.versions.is_alone(wanted) or not self._wants_to_deploy(wanted):
            return wanted.number
        return self.spec.averaged_from(wanted.number)

    def _look(self, wanted: Version | None, first: int, source: Head | Round | None, now: float) -> list[Effect]:
        """Ask for the head that describes the wanted version, or for any at the start."""
        if wanted is None:
            behind = self.announced.latest() is None and self.deployment.policy.every > 0
            behind = behind or (self.follows and self.calibrates and self.announced.head is None)
        else:
            behind = source is None and not self.versions.is_here(wanted, first)
        return self.versions.look(now, behind=behind, online=self._online)

    def _wants_to_train(self, latest: Version, now: float) -> bool:
        if self._training is not None or self.offer is not None or self.why:
            return False
        is_new = self.trained is None or self.trained < latest or self.trained.is_far_above(latest, FAR)
        is_new = is_new or (self._failed is not None and self._failed[0] == latest and self._failed[1] != self._terms)
        return is_new and self.announced.calls_for(latest, now)

    @property
    def _terms(self) -> tuple[int, int, int] | None:
        """How the last round announced wants updates to be coded."""
        return None if self.announced.round is None else self.announced.round.terms

    def _wants_to_deploy(self, latest: Version) -> bool:
        return self.deployment.wants(latest, self.announced.over)

    # The update that is offered.

    def _upload(self, want: Want, now: float) -> list[Effect]:
        if self.offer is None or want.digest != self.offer.digest:
            return []
        self.resend.be_asked(now, self.announced.left_s(now))
        return [Upload(want)]

    def _go_by_the_present_name(self, now: float) -> None:
        """Offer the update under the leader's name for its base, where the leader cannot know the one it has here."""
        offer = self.offer
        name = None if offer is None else self.announced.leaders_name(offer.base)
        if offer is None or name is None:
            return
        self.announced.names |= {offer.base}
        self.offer, self.trained = structs.replace(offer, base=name), name
        self.resend.rename(now)

    def _let_go(self, now: float) -> list[Effect]:
        """Forget the update if its base has been left, and note how long that took."""
        announced, offer = self.announced, self.offer
        if self.resend.awaits is not None and announced.is_left(self.resend.awaits):
            self.resend.end_wait(now)
        if offer is None:
            return []
        latest = announced.latest()
        nobodys = latest is not None and offer.base.is_far_above(latest, FAR)  # no leader will ever have that base
        if not nobodys and (announced.may_be_folded(offer.base) or not announced.is_left(offer.base)):
            return []
        self.offer = None
        return [Settle(self.job, offer.base, later=latest)]

    def _settle(self, verdict: Verdict, now: float) -> list[Effect]:
        offer = self.offer
        if offer is None or verdict.base != offer.base or not offer.digest.startswith(verdict.digest):
            return []
        self.offer = None
        latest = self.announced.latest()
        renamed = latest if latest is not None and offer.base in self.announced.aliases(latest) else None
        self.trained = renamed or self.trained
        return [Settle(self.job, offer.base, verdict, renamed), *self._advance(now)]

    def check(self) -> None:
        """Raise AssertionError where this contradicts itself, for tests."""
        assert self.offer is None or self._training is None, "offers and trains"  # noqa: S101 -- a check
        assert self.offer is None or self.offer.base == self.trained, "offers what was not trained"  # noqa: S101
        assert self._training is None or self.versions.here is not None, "trains on nothing"  # noqa: S101 -- a check


def without_body(offer: Offer) -> Offer:
    """Return the offer as it is sent when its body does not go along."""
    return structs.replace(offer, body=b"")
