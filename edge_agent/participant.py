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
 2. A base is trained at most once, whatever dies: `Trained` means that the update is on disk. What is older than the
    last base trained is not trained any more.
 3. Training starts only in a live round that drew this device; it goes on while offline, and stops when the head
    shows that the base has been left (unless the job folds late updates, and this one is not too late for that).
 4. A message of a lower term than the highest seen is of an aggregator that has been replaced, and is ignored; so is
    a head or round that is older than the one known in its own term, which has been overtaken on the way; or a backup
    was restored that knows nothing of the later one, so that this device tells it (`ahead`).
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
    that is here does as well.
12. What is deployed is the mean of the last versions where the job says so. If they cannot be had with the version, it
    is deployed by itself: they are asked for once, and no training on a version that is here waits for them.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no numbers, no threads.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from msgspec import structs

from broker.messages import Head, Offer, Round, Verdict, Version, Want
from edge_agent.effects import (
    Connected,
    Deploy,
    Deployed,
    DeployFailed,
    Disconnected,
    Drop,
    Effect,
    FetchFailed,
    FetchVersion,
    Halt,
    Installed,
    JobEnded,
    ParticipantEvent,
    Ready,
    RequestHead,
    Send,
    Settle,
    Train,
    Trained,
    TrainingFailed,
    UpdateLost,
    Upload,
)
from models import draw
from models.job import JobSpec

FIRST_RESEND_S = 4.0
"""No offer is repeated sooner than about this; where each is answered, that is when it is."""
LAST_RESEND_S = 120.0
"""Pauses do not grow beyond this, and are longer only in a round that lasts longer."""
WAITS = 5
"""Waits for the next base that are remembered."""
PATIENCE = 1.5
"""Times the longest of them before an offer is repeated."""
REFETCH_S = 10.0
FIRST_LOOK_S = 5.0
FIRST_REDEPLOY_S = 60.0
LAST_REDEPLOY_S = 3600.0
ENDED = ("finished", "stopped")
ALWAYS_INLINE_BYTES = 2048
"""A body up to this size goes along at every resend; a larger one only the first time, then it is asked for."""


class Jitter(Protocol):
    """Where the jitter of pauses comes from: a random.Random, or what gives such numbers in less room."""

    def random(self) -> float:
        """Return the next number, from 0 up to 1."""


class Participant:
    """A device's part in one job.

    offer: the update on disk that waits for its end. names: former names of its base. trained: the last base trained,
    to its end or to a failure.
    deployed: the version in the model slot. deploys: whether this device has a slot. online: whether the broker is
    reachable now. rng: for the jitter of resends.
    """

    __slots__ = (
        "_ahead",
        "_alone",
        "_backoff_s",
        "_deployed",
        "_deploying",
        "_deploys",
        "_fetching",
        "_fetching_since",
        "_head",
        "_installed",
        "_look_at",
        "_look_s",
        "_names",
        "_offered",
        "_online",
        "_over",
        "_redeploy_at",
        "_redeploy_s",
        "_refetch_at",
        "_resend_at",
        "_rng",
        "_round",
        "_round_ends_at",
        "_sent_body",
        "_since",
        "_source_now",
        "_term",
        "_trained",
        "_training",
        "_waits",
        "device",
        "job",
        "offer",
        "spec",
        "why",
    )  # else it would weigh five times as much: more attributes than Python shares the names of

    def __init__(
        self,
        device: str,
        job: str,
        spec: JobSpec,
        rng: Jitter,
        *,
        offer: Offer | None = None,
        names: Collection[Version] = (),
        trained: Version | None = None,
        deployed: Version | None = None,
        deploys: bool = True,
        online: bool = True,
        now: float = 0.0,
    ) -> None:
        self.device = device
        self.job = job
        self.spec = spec
        self.offer = offer
        self.why = "its data have not been looked at yet"
        self._rng = rng
        self._trained = trained
        self._deployed = deployed
        self._deploys = deploys
        self._deploying: Version | None = None
        self._redeploy_at: float | None = None
        self._redeploy_s = FIRST_REDEPLOY_S
        self._online = online
        self._term = 0
        self._head: Head | None = None
        self._round: Round | None = None
        self._round_ends_at = 0.0
        self._ahead: Version | None = None
        self._installed: Version | None = None
        self._since = 0
        """Number of the first version from which on every one, up to the installed one, can be had here."""
        self._alone: Version | None = None
        """A version that is deployed by itself, as those before it could not be had."""
        self._fetching: Version | None = None
        self._fetching_since = 0
        """Number of the first version that is wanted on the way."""
        self._source_now: Head | Round | None = None
        """What the last fetch went by."""
        self._refetch_at: float | None = None
        self._training: Version | None = None
        self._names = frozenset(names)
        """Former names of the base that is trained on or offered to."""
        self._look_at: float | None = now
        self._look_s = FIRST_LOOK_S
        self._over: Version | None = None
        self._sent_body = False
        self._resend_at = now
        self._backoff_s: float | None = None
        """How long to wait after the next offer; None for the first time."""
        self._offered: tuple[Version, float] | None = None
        """A base that was offered to, and since when the next one is waited for; None after an outage."""
        self._waits: tuple[float, ...] = ()
        """The last few waits from an offer to the next base."""

    # What goes in.

    def receive(self, event: ParticipantEvent, now: float) -> list[Effect]:
        """Take one event and give what follows from it."""
        match event:
            case Head() | Round() | JobEnded() if event.term < self._term:
                return []
            case Round() if self._round and (event.term, event.base) < (self._round.term, self._round.base):
                self._ahead = self._round.base
                return []
            case Head() if self._head and (event.term, event.version) < (self._head.term, self._head.version):
                self._ahead = self._head.version
                return []
            case Head():
                self._follow(event.term, event.version)
                self._head = event
                if event.state in ENDED:
                    self._over = event.version
            case JobEnded(last, term):
                self._follow(term, last)
                self._over = last
            case Round():
                self._follow(event.term, event.base)
                before, self._round = self._round, event
                self._round_ends_at, self._ahead = now + event.seconds_left, None
                self._be_drawn_again(before, now)
            case Want():
                return self._upload(event, now)
            case Verdict():
                return self._settle(event, now)
            case Connected(spread_s):
                self._online = True
                self._backoff_s = None
                self._resend_at = now + self._rng.random() * spread_s
            case Disconnected():
                self._online, self._offered = False, None
            case Ready(why):
                self.why = why
            case Installed(version, since):
                self._installed, self._since = version, version.number if since is None else since
                if version == self._fetching and self._fetching_since < self._since:
                    self._alone = version
                self._fetching = None
            case FetchFailed(version):
                if version == self._fetching:
                    if self._fetching_since < version.number:
                        self._alone = version
                    self._fetching, self._installed, self._refetch_at = None, None, now + REFETCH_S
                    self._doubt_head(now)
            case Trained(offer):
                self._finish_training(offer.base)
                self._hold(offer, now)
            case TrainingFailed(base):
                self._finish_training(base)
            case UpdateLost(settled):
                self.offer, self._trained = None, settled
            case Deployed(version):
                self._deployed = version
                if version == self._deploying:
                    self._deploying, self._redeploy_at, self._redeploy_s = None, None, FIRST_REDEPLOY_S
            case DeployFailed(version):
                if version == self._deploying:
                    self._deploying, self._redeploy_at = None, now + self._redeploy_s
                    self._redeploy_s = min(2 * self._redeploy_s, LAST_REDEPLOY_S)
        return self._advance(now)

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        return self._advance(now)

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do, if nothing is received before."""
        earliest = self._redeploy_at
        if self._online:
            for at in (self._resend_at if self.offer else None, self._refetch_at, self._look_at):
                if at is not None and (earliest is None or at < earliest):
                    earliest = at
        return earliest

    # What can be asked.

    @property
    def doing(self) -> str:
        """One phrase for the device's presence."""
        if self.offer:
            return f"offering an update to version {self.offer.base}"
        if self._training:
            return f"training on version {self._training}"
        if self._fetching:
            return f"fetching version {self._fetching}"
        return ""

    def drawn(self) -> bool:
        """Return whether the last round announced drew this device."""
        round_ = self._round
        if round_ is None:
            return False
        return draw.ticket(draw.salt(self.spec.seed, round_.base.number), self.device) <= round_.threshold

    @property
    def trained(self) -> Version | None:
        """The last base trained, to its end or to a failure."""
        return self._trained

    @property
    def done(self) -> Version | None:
        """The last base that this device is done with. An update that is offered speaks for itself."""
        return None if self.offer else self._trained

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as is known here."""
        return self._over is not None

    @property
    def ahead(self) -> Version | None:
        """A later version than the one that was spoken of last: who has lost it should know."""
        return self._ahead

    @property
    def follows(self) -> bool:
        """Whether every head is needed, so that it pays to go on hearing them: not where rounds carry the ways."""
        along = self._round is not None and 2 * self._round.threshold > draw.MAX_TICKET
        return self._deploys_on_the_way and self.spec.deploy == "every 1" and not along

    @property
    def _deploys_on_the_way(self) -> bool:
        return self._deploys and self.spec.deploy not in ("never", "final")

    # What follows.

    def _advance(self, now: float) -> list[Effect]:
        self._go_by_the_present_name(now)
        effects = self._let_go(now)  # first, so that the next round finds this device free
        if self._training and self._is_too_late(self._training):
            effects.append(Halt(self._training, self._is_renamed(self._training)))
            self._training = None
        if self._redeploy_at is not None and now >= self._redeploy_at:
            self._redeploy_at = None
        wanted = self._wanted(now)
        source = None if wanted is None else self._source(wanted)
        effects += self._look(wanted, source, now)
        if self.offer and self._online and now >= self._resend_at:
            effects.append(self._send(self.offer, now))
        if wanted is None or (source is None and self._installed != wanted):
            self._refetch_at = None
            return [*effects, *self._drop(wanted)]
        if source is not None and not self._is_here(wanted):
            effects += self._fetch(source, wanted, now)
        if self._installed != wanted:
            return effects
        if self._wants_to_deploy(wanted) and self._is_here(wanted):
            self._deploying = wanted
            effects.append(Deploy(wanted))
        if self._wants_to_train(wanted, now) and self._round:
            self._training, self._names = wanted, frozenset(self._round.aliases)
            effects.append(Train(wanted, self._round.terms, self._round.aliases))
        return effects

    def _latest(self) -> Version | None:
        """Return the newest version heard of."""
        latest = self._over
        if self._head is not None and (latest is None or self._head.version > latest):
            latest = self._head.version
        if self._round is not None and (latest is None or self._round.base > latest):
            latest = self._round.base
        return latest

    def _wanted(self, now: float) -> Version | None:
        """Return the newest version, if it is needed here."""
        latest = self._latest()
        if latest is None or not (self._wants_to_deploy(latest) or self._wants_to_train(latest, now)):
            return None
        return latest

    def _first(self, wanted: Version) -> int:
        """Return the number of the first version that is needed with this one: itself, or what it is averaged with."""
        if wanted == self._alone or not self._wants_to_deploy(wanted):
            return wanted.number
        return self.spec.averaged_from(wanted.number)

    def _is_here(self, wanted: Version) -> bool:
        """Return whether a version is here, with those before it that are needed."""
        return self._installed == wanted and self._since <= self._first(wanted)

    def _source(self, wanted: Version) -> Head | Round | None:
        """Return what says how to get the wanted version: its round, if what it carries is enough here, or its head."""
        here, round_ = self._installed, self._round
        if round_ is not None and round_.base == wanted and round_.along:
            starts_here = round_.way and here is not None and wanted == here.following()
            if (starts_here and self._since <= self._first(wanted)) or not wanted.number:
                return round_
        return self._head if self._head is not None and self._head.version == wanted else None

    def _look(self, wanted: Version | None, source: Head | Round | None, now: float) -> list[Effect]:
        """Ask for the head that describes the wanted version, or for any at the start; again, ever less often."""
        unknown = self._latest() is None and self._deploys_on_the_way
        behind = unknown if wanted is None else source is None and not self._is_here(wanted)
        if not behind:
            self._look_at, self._look_s = None, FIRST_LOOK_S
            return []
        if not self._online or (self._look_at is not None and now < self._look_at):
            return []
        self._look_at = now + self._look_s
        self._look_s = min(2 * self._look_s, LAST_RESEND_S)
        return [RequestHead()]

    def _is_too_late(self, base: Version) -> bool:
        """Return whether an update to this base would be refused."""
        latest = self._latest()
        if self._over or latest is None or latest == base or (latest > base and self._may_be(base, latest)):
            return self._over is not None
        staleness = latest.number - base.number
        may_be_late = self.spec.rounds.late == "fold" and 0 < staleness <= self.spec.rounds.max_staleness
        return not may_be_late or latest.generation != base.generation

    def _wants_to_train(self, latest: Version, now: float) -> bool:
        round_ = self._round
        return (
            not self.why
            and self._over is None
            and round_ is not None
            and round_.base == latest
            and now < self._round_ends_at
            and self.drawn()
            and (self._trained is None or self._trained < latest)
            and not self._is_settled(latest)
            and self._training is None
            and self.offer is None
        )

    def _is_settled(self, version: Version) -> bool:
        """Return whether this device is done with this version, under a former name of it, as its round says."""
        return self._round is not None and self._round.base == version and self.device in self._round.settled

    def _aliases(self, version: Version) -> tuple[Version, ...]:
        """Return the former names of a version, as far as its round tells them."""
        return self._round.aliases if self._round is not None and self._round.base == version else ()

    def _is_renamed(self, base: Version) -> bool:
        """Return whether the base at hand goes on under another name: by any that it has had it is the present one."""
        round_, latest = self._round, self._latest()
        if round_ is None or self._over is not None or round_.base != latest or latest == base:
            return False
        if latest.number != base.number:
            return False
        return not {base, *self._names}.isdisjoint((latest, *round_.aliases))

    def _may_be(self, base: Version, latest: Version) -> bool:
        """Return whether the newest version may be the base at hand under another name, until its round says it."""
        if latest.number != base.number:
            return False
        told = self._round is not None and self._round.base == latest
        return not told or self._is_renamed(base)

    def _wants_to_deploy(self, latest: Version) -> bool:
        if not self._deploys or latest in (self._deployed, self._deploying) or self._redeploy_at is not None:
            return False
        if self.spec.deploy == "never":
            return False
        if latest == self._over:
            return True
        every = self.spec.deploy.removeprefix("every ")
        return every.isdigit() and latest.number % int(every) == 0 and latest.number > 0

    def _fetch(self, source: Head | Round, wanted: Version, now: float) -> list[Effect]:
        if self._fetching == wanted or (self._refetch_at is not None and now < self._refetch_at):
            return []
        self._fetching, self._refetch_at, self._source_now = wanted, None, source
        self._fetching_since = first = self._first(wanted)
        return [FetchVersion(wanted, source, None if first == wanted.number else first)]

    def _drop(self, wanted: Version | None) -> list[Effect]:
        """Stop fetching what is not wanted any more."""
        if self._fetching is None or self._fetching == wanted:
            return []
        self._fetching = None
        return [Drop()]

    def _doubt_head(self, now: float) -> None:
        """Read the head again before the next try, if this one went by it: its bodies may be cut otherwise by now."""
        if isinstance(self._source_now, Head):
            self._head, self._look_at, self._look_s = None, now + REFETCH_S, FIRST_LOOK_S

    def _follow(self, term: int, version: Version) -> None:
        """Go by words of this term on this version. What had ended may have been brought back by a backup."""
        if self._over is not None and (term > self._term or version > self._over):
            self._over = None
        self._term = term

    def _finish_training(self, base: Version) -> None:
        self._trained = base
        self._training = None

    # The update that is offered.

    def _hold(self, offer: Offer, now: float) -> None:
        self.offer = offer
        self._sent_body = False
        self._resend_at = now
        self._backoff_s = None
        self._offered = (offer.base, now) if self._online else None

    def _send(self, offer: Offer, now: float) -> Effect:
        with_body = not self._sent_body or len(offer.body) <= ALWAYS_INLINE_BYTES
        self._sent_body = True
        self._pause(now, self._patience(now) if self._backoff_s is None else self._backoff_s)
        return Send(offer, with_body)

    def _upload(self, want: Want, now: float) -> list[Effect]:
        if self.offer is None or want.digest != self.offer.digest:
            return []
        self._pause(now, self._patience(now))
        return [Upload(want)]

    def _be_drawn_again(self, before: Round | None, now: float) -> None:
        """Offer again soon if a further attempt to leave the base draws this device: it may not have been heard."""
        offer, round_ = self.offer, self._round
        if offer is None or before is None or round_ is None or not self._sent_body:
            return
        goes_on = offer.base in (round_.base, *round_.aliases) and before.base in (round_.base, *round_.aliases)
        if goes_on and round_.attempt > before.attempt and self.drawn():
            self._backoff_s = None
            self._resend_at = min(self._resend_at, now + FIRST_RESEND_S * self._rng.random())

    def _pause(self, now: float, pause_s: float) -> None:
        """Offer again after about this long, and then after ever longer."""
        self._resend_at = now + pause_s * (0.75 + 0.5 * self._rng.random())
        self._backoff_s = min(2 * pause_s, max(pause_s, LAST_RESEND_S))

    def _patience(self, now: float) -> float:
        """Return how long no word may come on an update that has just been offered (law 10)."""
        left_s = max(0.0, self._round_ends_at - now)
        if self.spec.rounds.late == "fold":
            return FIRST_RESEND_S
        if not self._waits:
            return min(max(left_s / 2, FIRST_RESEND_S), LAST_RESEND_S)
        return min(max(PATIENCE * max(self._waits), FIRST_RESEND_S), max(left_s, LAST_RESEND_S))

    def _go_by_the_present_name(self, now: float) -> None:
        """Offer the update under the leader's name for its base, where the leader cannot know the one it has here."""
        offer, round_ = self.offer, self._round
        if offer is None or round_ is None or round_.base < offer.base or offer.base in round_.aliases:
            return
        if not self._is_renamed(offer.base):
            return
        self._names |= {offer.base}
        self.offer, self._trained = structs.replace(offer, base=round_.base), round_.base
        self._sent_body, self._backoff_s = False, None
        self._resend_at = min(self._resend_at, now + FIRST_RESEND_S * self._rng.random())

    def _let_go(self, now: float) -> list[Effect]:
        """Forget the update if its base has been left, and note how long that took."""
        if self._offered is not None and self._is_left(self._offered[0]):
            self._waits = (*self._waits, now - self._offered[1])[-WAITS:]
            self._offered = None
        offer = self.offer
        if offer is None or self._may_be_folded(offer.base) or not self._is_left(offer.base):
            return []
        self.offer = None
        return [Settle(self.job, offer.base, later=self._latest())]

    def _may_be_folded(self, base: Version) -> bool:
        """Return whether an update may count though its base was left: nobody says so but its verdict.

        What is not older than the present version, and of another generation, nobody can fold into that.
        """
        latest = self._latest()
        if self.spec.rounds.late != "fold" or latest is None:
            return self.spec.rounds.late == "fold"
        return base.generation == latest.generation or base.number < latest.number

    def _is_left(self, base: Version) -> bool:
        """Return whether what is announced shows that this base has been left for good, or the job is over."""
        latest = self._latest()
        if latest is None or latest < base:
            return False
        if self._over is not None and self._over >= base:
            return True
        return latest != base and not self._may_be(base, latest)

    def _settle(self, verdict: Verdict, now: float) -> list[Effect]:
        offer = self.offer
        if offer is None or verdict.base != offer.base or not offer.digest.startswith(verdict.digest):
            return []
        self.offer = None
        latest = self._latest()
        renamed = latest if latest is not None and offer.base in self._aliases(latest) else None
        self._trained = renamed or self._trained
        return [Settle(self.job, offer.base, verdict, renamed), *self._advance(now)]


def without_body(offer: Offer) -> Offer:
    """Return the offer as it is sent when its body does not go along."""
    return structs.replace(offer, body=b"")
