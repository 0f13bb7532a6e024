"""Who leads a fleet: one aggregator of several that may have been started, as a pure state machine.

               nobody answers
     LISTENING ──────────────▶ LEADING          speaks: a beacon, with a last will
         │  ▲                     │
   somebody │ nobody has led for  │ outranked
    leads│  │ long, and nothing   ▼
         └──┴─ would be lost ── STANDBY         says nothing, and has no will

 1. Nobody says anything as a leader, its goodbye included, who does not lead. A last will comes with leading. 2. Who
 starts asks who leads (`AskWhoLeads`), and listens: briefly where nothing at the broker claims to lead, longer where
    something does. It leads at once only after its own former life, which the lock on its state directory proves dead.
 3. The term rises only when somebody leads: above the highest that it has given out or heard.
 4. Who leads answers every other voice with its own beacon (`Speak`): a question, another leader, the late last will of
    somebody's former life.
 5. Two who lead settle it by rank: the operator's word first (`--take-over`), then who has jobs, then whose leadership
    began earlier, then the nonce. So whoever was there stays; the other becomes a standby within one message.
 6. Who was outranked by an aggregator with jobs never leads again by itself, however often it is started: what it has
    is older than what the fleet has. It waits for `--take-over`, or for a backup to be restored.
 7. Where this one or the leader has no job, nothing would be lost by leading: when the leader has been gone for
    STANDBY_S, the standby listens again, and leads where nobody answers.
 8. Where words are signed, whoever owns the broker can still play old ones. So nobody gives way to a beacon whose term
    is not above its own: a recording never is. Who does lead rises above whoever asks, or speaks, under a term that is
    not below its own, and is heard then.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no threads.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct, structs

from broker.messages import Beacon, Candidate

SETTLE_S = 0.2
"""After connecting, how long what is retained may take to arrive."""
QUIET_S = 0.5
"""How long to listen where nothing claims to lead."""
LISTEN_S = 3.0
"""How long a leader that the broker knows of may take to answer; it may be in the middle of making a version."""
STANDBY_S = 20.0
"""How long the leader may be gone before a standby without jobs steps in: a supervisor restarts it sooner."""
SPEAK_S = 0.5
"""Shortest time between two answers."""
RISE_S = 60.0
"""Devices' words let the term rise no more often than this."""
FAR = 2**48
"""Terms and claims beyond this are nonsense, and are not heard."""
JUMP = 2**20
"""A device's word lets the term rise by no more than this: no fleet has had more starts."""

Rank = tuple[int, bool, int, str]


class Me(Struct):
    """What this aggregator knows of itself when it starts.

    term: the highest that its store has led with. claim: of operators, likewise. empty: it has no job. former: nonce of
    its last life that led from this very directory; "" where there is none, or the directory was copied or restored.
    replaced: nonce of an aggregator with jobs that has outranked it; "" where none has. restored: an operator has put a
    backup in place, which may be older than a take-over: only who is alive stands against it.
    """

    nonce: str
    store: str
    term: int = 0
    claim: int = 0
    empty: bool = True
    former: str = ""
    replaced: str = ""
    restored: bool = False


class Connected(Struct, frozen=True):
    """The broker is reachable, and what it has retained is on its way."""


class Lost(Struct, frozen=True):
    """The broker is not reachable."""


class Heard(Struct, frozen=True):
    """A beacon has come. live: said now, not retained from before."""

    beacon: Beacon
    live: bool


LeadershipEvent = Connected | Lost | Heard | Candidate


class AskWhoLeads(Struct, frozen=True):
    """Ask who leads."""


class Lead(Struct, frozen=True):
    """Make term and claim durable and connect again with a last will; from the next `Online` on this one leads."""

    term: int
    claim: int


class Rise(Struct, frozen=True):
    """Make a higher term durable, and say everything again under it."""

    term: int


class Speak(Struct, frozen=True):
    """Publish the beacon."""


class StandDown(Struct, frozen=True):
    """Stop leading, or do not begin: drop what was to be said, have no last will any more.

    replaced: nonce of the leader, where this one must not lead again by itself.
    """

    leader: Beacon
    replaced: str


Effect = AskWhoLeads | Lead | Rise | Speak | StandDown


class Leadership:
    """Whether this aggregator leads. take_over: an operator has said that it shall. wary: words are signed and may be
    recordings (law 8).
    """

    def __init__(self, me: Me, *, take_over: bool = False, wary: bool = False) -> None:
        self.me = me
        self._wary = wary
        self._listens_since = 0.0
        self.state: Literal["listening", "leading", "standby"] = "listening"
        self.leader: Beacon | None = None
        """The last other leader heard of."""
        self.gone = False
        """Whether that one is there no more."""
        self.since = 0
        """The term that this leadership began with."""
        self._take_over = take_over
        self._heard_term = 0
        self._heard_claim = me.claim
        self._online = False
        self._until = math.inf
        """When to stop listening, or, as a standby, when to listen again."""
        self._speak_at = math.inf
        self._spoke_at = -math.inf
        self._told_term = 0
        """The highest term that a device has said it has heard."""
        self._rise_at = math.inf
        self._risen_at = -math.inf

    @property
    def deadline(self) -> float:
        """When `tick` has something to do; inf for never."""
        return min(self._until, self._speak_at, self._rise_at)

    @property
    def rank(self) -> Rank:
        """What decides between two who lead: the higher one goes on."""
        return (self.me.claim, not self.me.empty, -self.since, self.me.nonce)

    def receive(self, event: LeadershipEvent, now: float) -> list[Effect]:
        """Take one event and return what follows from it."""
        match event:
            case Connected():
                return self._connect(now)
            case Lost():
                self._online = False
                self._until = self._speak_at = self._rise_at = math.inf
                return []
            case Candidate():
                return self._hear_candidate(event, now)
            case Heard(beacon, live):
                return self._hear(beacon, live, now)

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        effects: list[Effect] = []
        if now >= self._speak_at:
            effects += self._speak(now)
        if now >= self._rise_at:
            effects += self._rise(now)
        if now >= self._until:
            self._until = math.inf
            if self.state == "standby":
                effects += self._listen(now, LISTEN_S)
            elif self.state == "listening":
                effects += self._lead_or_wait()
        return effects

    # Connecting.

    def _connect(self, now: float) -> list[Effect]:
        self._online = True
        if self.state == "leading":
            return []  # the service says everything again, the beacon first
        if self.state == "standby":
            self._watch(now)
            return []
        if self._take_over:
            self._until = now + SETTLE_S
            return []
        return self._listen(now, QUIET_S)

    def _listen(self, now: float, for_s: float) -> list[Effect]:
        self.state = "listening"
        self._until = now + for_s
        self._listens_since = now
        return [AskWhoLeads()]

    def _lead_or_wait(self) -> list[Effect]:
        """Lead, now that nobody has answered, unless this one was told once to leave it to another."""
        if self._take_over:
            self.me.claim = self._heard_claim + 1
        elif self.me.restored:
            self.me.claim = self._heard_claim
        elif self.me.replaced:
            self.state = "standby"
            return []
        else:
            self.me.claim = self._heard_claim  # whom an operator has named is away, and has no job or this one has none
        self._take_over = self.me.restored = False
        self.me.replaced = ""
        self.me.term = self.since = max(self.me.term, self._heard_term) + 1
        self.state = "leading"
        self._until = math.inf
        return [Lead(self.me.term, self.me.claim)]

    # What others say.

    def _hear(self, beacon: Beacon, live: bool, now: float) -> list[Effect]:
        if beacon.nonce == self.me.nonce or max(beacon.term, beacon.claim) > FAR:
            return []
        self._heard_term = max(self._heard_term, beacon.term)
        self._heard_claim = max(self._heard_claim, beacon.claim)
        is_former = self.state == "listening" and beacon.nonce == self.me.former
        if self._wary and beacon.term <= self.me.term and not is_former:
            return self._hear_an_old_one(beacon, now)
        if self.state == "leading":
            return self._meet(beacon, live, now)
        if beacon.online:
            self.leader = beacon
        elif self.leader is not None and beacon.nonce == self.leader.nonce:
            beacon = structs.replace(beacon, empty=self.leader.empty)  # a last will does not know
        if self._take_over:
            return []
        if self.state == "listening":
            return self._listen_to(beacon, live, now)
        if self._is_replaced_by(beacon, live):
            return self._stand_down(beacon, live, now)
        self._watch(None if beacon.online and live else now)
        return []

    def _hear_an_old_one(self, beacon: Beacon, now: float) -> list[Effect]:
        """Hear what may be a recording: whoever does lead says so under a higher term, once it has heard of ours."""
        if self.state == "leading":
            return [*self._above(beacon.term), *self._answer(now)]
        if self.state == "listening" and beacon.online and not self._take_over:
            self._until = max(self._until, self._listens_since + LISTEN_S)
        return []

    def _above(self, term: int) -> list[Effect]:
        """Return what raises the term above this one, where it is not."""
        if term < self.me.term:
            return []
        self.me.term = term + 1
        return [Rise(self.me.term)]

    def _listen_to(self, beacon: Beacon, live: bool, now: float) -> list[Effect]:
        if beacon.claim > self.me.claim and not self.me.empty and not self.me.restored:
            return self._stand_down(beacon, live, now)  # an operator has put another in this one's place, there or not
        if not beacon.online:
            return []
        if beacon.nonce == self.me.former:
            return self._lead_or_wait()
        if not live:
            self._until = max(self._until, now + LISTEN_S)
            return []
        if beacon.empty and not self.me.empty and beacon.claim <= self.me.claim:
            return self._lead_or_wait()
        return self._stand_down(beacon, live, now)

    def _meet(self, beacon: Beacon, live: bool, now: float) -> list[Effect]:
        """As a leader, hear another voice."""
        theirs: Rank = (beacon.claim, not beacon.empty, -beacon.since, beacon.nonce)
        alive = beacon.online and live
        if beacon.claim > self.me.claim or (alive and theirs > self.rank):
            return self._stand_down(beacon, live, now)
        return [*self._above(beacon.term), *self._answer(now)]

    def _hear_candidate(self, candidate: Candidate, now: float) -> list[Effect]:
        if candidate.nonce == self.me.nonce or max(candidate.term, candidate.claim) > FAR:
            return []
        if self.state == "leading":
            return [*(self._above(candidate.term) if self._wary else []), *self._answer(now)]
        if self.state == "listening" and not self._take_over and self._gives_way_to(candidate):
            self._until = max(self._until, now + LISTEN_S)
        return []

    def _gives_way_to(self, other: Candidate) -> bool:
        """Return whether of two who would lead, and do not yet, the other goes first."""
        mine = (self.me.claim, not self.me.empty, self.me.term, self.me.nonce)
        return (other.claim, not other.empty, other.term, other.nonce) > mine

    def hear_term(self, term: int, now: float) -> list[Effect]:
        """Take a device's word that it has heard a higher term: rise above it, or nobody would listen."""
        if self.state != "leading" or not self.me.term <= term <= min(self.me.term + JUMP, FAR):
            return []
        self._told_term = max(self._told_term, term)
        if now < self._risen_at + RISE_S:
            self._rise_at = self._risen_at + RISE_S
            return []
        return self._rise(now)

    def _rise(self, now: float) -> list[Effect]:
        self._risen_at, self._rise_at = now, math.inf
        if self.state != "leading" or self._told_term < self.me.term:
            return []
        self.me.term = self._told_term + 1
        return [Rise(self.me.term), *self._answer(now)]

    # Answering.

    def _answer(self, now: float) -> list[Effect]:
        if not self._online:
            return []
        if now - self._spoke_at >= SPEAK_S:
            return self._speak(now)
        self._speak_at = self._spoke_at + SPEAK_S
        return []

    def _speak(self, now: float) -> list[Effect]:
        self._spoke_at, self._speak_at = now, math.inf
        return [Speak()] if self.state == "leading" and self._online else []

    # Standing by.

    def _is_replaced_by(self, leader: Beacon, live: bool) -> bool:
        """Return whether this one must not lead again by itself: only who is there, and has jobs, does that."""
        return live and leader.online and not (self.me.empty or leader.empty or self.me.replaced)

    def _stand_down(self, leader: Beacon, live: bool, now: float) -> list[Effect]:
        self.state = "standby"
        self.leader = leader
        self._until = self._speak_at = math.inf
        if self._is_replaced_by(leader, live):
            self.me.replaced = leader.nonce
        self._watch(None if leader.online and live else now)
        return [StandDown(leader, self.me.replaced)]

    @property
    def stays(self) -> bool:
        """Whether it stands by until an operator says otherwise, though the leader may be gone."""
        return self.state == "standby" and not self._may_lead

    @property
    def _may_lead(self) -> bool:
        return not self.me.replaced and (self.me.empty or self.leader is None or self.leader.empty)

    def _watch(self, gone_at: float | None) -> None:
        """As a standby, note since when nobody leads (None: somebody does)."""
        self.gone = gone_at is not None
        if gone_at is not None and self._may_lead:
            self._until = min(self._until, gone_at + STANDBY_S)  # late wills of others do not make it wait anew
        else:
            self._until = math.inf
