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
    began earlier, then the nonce. So whoever was there stays; the other becomes a standby within an answer.
 6. Who was outranked by an aggregator with jobs never leads again by itself, however often it is started: what it has
    is older than what the fleet has. It waits for `--take-over`, or for a backup to be restored.
 7. Where this one or the leader has no job, nothing would be lost by leading: when the leader has been gone for
    STANDBY_S, the standby listens again, and leads where nobody answers.
  8. A beacon alone puts nobody out: it may be forged, or played again, and its sender gone. Who leads and hears of a
     higher rank asks (`asks` of its beacon, a word drawn just now), and stands down for who repeats the word; meanwhile
     it goes on. So it is for who listens (its question is its nonce), and for a standby. Only an operator's word is
     obeyed without that, where the broker has kept it from a time when this one was not there; where words are signed,
     and may be recordings, only one under a term above its own: no recording of a former leader is.
  9. What a voice says that has not answered moves a term by JUMP a minute at most, and a claim by CLAIM_JUMP; no word
     takes one beyond its ceiling. What lies further is heard and not followed, unless an operator says `--take-over`.

`receive(event, now)` and `tick(now)` return effects as data, to be carried out in order; `deadline` says when `tick`
wants to be called. `now` is seconds on any clock that only goes forward. No I/O, no threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from msgspec import structs

from aggregator.lead import (
    AskWhoLeads,
    Connected,
    Effect,
    Heard,
    Lead,
    LeadershipEvent,
    Lost,
    Me,
    Rise,
    Speak,
    StandDown,
)
from broker.ceilings import MOST_CLAIM, MOST_TERM, after
from broker.messages import Beacon, Candidate

__all__ = [
    "AskWhoLeads",
    "Connected",
    "Effect",
    "Heard",
    "Lead",
    "Leadership",
    "LeadershipEvent",
    "Lost",
    "Me",
    "Rise",
    "Speak",
    "StandDown",
]

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
"""Words of others let the term rise no more often than this."""
JUMP = 2**16
"""And by no more than this: an aggregator that was started every five seconds for four days has that many terms more
than a backup of its store."""
CLAIM_JUMP = 16
"""A claim is believed unasked that is so much higher: operators say `--take-over` by hand."""
ASK_AGAIN_S = 1.0
"""Shortest time between two questions to one voice."""

Rank = tuple[int, bool, int, str]


class Leadership:
    """Whether this aggregator leads. take_over: an operator has said that it shall. draw: gives a word at random. wary:
    words are signed, and may be recordings (law 8).
    """

    def __init__(self, me: Me, *, draw: Callable[[], str], take_over: bool = False, wary: bool = False) -> None:
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
        self._draw = draw
        self._heard_term = 0
        self._heard_claim = me.claim
        """The highest that are believed without an operator."""
        self._seen_term = self._seen_claim = 0
        """The highest that anybody has said."""
        self.asks = ""
        """What a leader of a higher rank is asked to repeat; empty while this one is in no doubt."""
        self.answers = ""
        """What this one repeats, as it was asked to."""
        self._to_answer = ""
        self._doubts_until = math.inf
        self._doubted_term = 0
        self._asked_at = -math.inf
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
        return min(self._until, self._speak_at, self._rise_at, self._doubts_until)

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
                self._end_doubt()
                return []
            case Candidate():
                return self._hear_candidate(event, now)
            case Heard(beacon, live):
                return self._hear(beacon, live, now)

    def tick(self, now: float) -> list[Effect]:
        """Return what follows from the time alone."""
        effects: list[Effect] = []
        if now >= self._doubts_until:
            effects += self._go_on(now)
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
            self.me.claim = after(max(self._heard_claim, self._seen_claim), MOST_CLAIM)
            self._heard_term = max(self._heard_term, self._seen_term)
        elif self.me.restored:
            self.me.claim = self._heard_claim
        elif self.me.replaced:
            self.state = "standby"
            return []
        else:
            self.me.claim = self._heard_claim  # whom an operator has named is away, and has no job or this one has none
        self._take_over = self.me.restored = False
        self.me.replaced = ""
        self.me.term = self.since = after(max(self.me.term, self._heard_term), MOST_TERM)
        self.state = "leading"
        self._until = math.inf
        return [Lead(self.me.term, self.me.claim)]

    # What others say.

    def _hear(self, beacon: Beacon, live: bool, now: float) -> list[Effect]:
        if beacon.nonce == self.me.nonce:
            return self._hear_own(beacon, live, now)
        is_there = self._is_answer(beacon, live)
        self._note(beacon, is_there=is_there)
        if self.state == "leading":
            return self._meet(beacon, live, now, is_there=is_there)
        if beacon.online:
            self.leader = beacon
        elif self.leader is not None and beacon.nonce == self.leader.nonce:
            beacon = structs.replace(beacon, empty=self.leader.empty)  # a last will does not know
        if self._take_over:
            return []
        if self.state == "listening":
            return self._listen_to(beacon, live, now, is_there=is_there)
        if self._is_replaced_by(beacon, live):
            return self._stand_down(beacon, live, now) if is_there else self._ask(now)
        self._watch(None if beacon.online and live else now)
        return []

    def _hear_own(self, beacon: Beacon, live: bool, now: float) -> list[Effect]:
        """Hear what goes by this one's own name: an echo, or what it would never say, which it does not leave there."""
        other = beacon.term != self.me.term or beacon.claim != self.me.claim or not beacon.online
        return self._answer(now) if self.state == "leading" and live and other else []

    def _is_answer(self, beacon: Beacon, live: bool) -> bool:
        """Return whether a beacon repeats what this one has asked: whoever says it is there now."""
        asked = self.asks if self.state == "leading" else self.me.nonce
        return live and beacon.online and asked != "" and beacon.answers == asked

    def _note(self, beacon: Beacon, *, is_there: bool) -> None:
        self._seen_term = max(self._seen_term, beacon.term)
        self._seen_claim = max(self._seen_claim, beacon.claim)
        if is_there or beacon.term <= self.me.term + JUMP:
            self._heard_term = max(self._heard_term, beacon.term)
        if is_there or beacon.claim <= self.me.claim + CLAIM_JUMP:
            self._heard_claim = max(self._heard_claim, beacon.claim)

    def _listen_to(self, beacon: Beacon, live: bool, now: float, *, is_there: bool) -> list[Effect]:
        if self._is_obeyed(beacon) and not live and not self.me.empty and not self.me.restored:
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
        if is_there:
            return self._stand_down(beacon, live, now)
        # Whoever is there answers; recordings, played again and again, do not keep this one from leading.
        self._until = max(self._until, min(now, self._listens_since + LISTEN_S) + LISTEN_S)
        return self._ask(now)

    def _is_obeyed(self, beacon: Beacon) -> bool:
        """Return whether an operator's word may stand behind a beacon that nobody answers for."""
        above = beacon.term > self.me.term or not self._wary
        return above and self.me.claim < beacon.claim <= self.me.claim + CLAIM_JUMP

    def _ask(self, now: float) -> list[Effect]:
        if now < self._asked_at + ASK_AGAIN_S:
            return []
        self._asked_at = now
        return [AskWhoLeads()]

    def _meet(self, beacon: Beacon, live: bool, now: float, *, is_there: bool) -> list[Effect]:
        """As a leader, hear another voice."""
        theirs: Rank = (beacon.claim, not beacon.empty, -beacon.since, beacon.nonce)
        outranked = beacon.online and live and theirs > self.rank
        if (outranked and is_there) or (not live and self._is_obeyed(beacon)):
            return self._stand_down(beacon, live, now)
        self._to_answer = beacon.asks if live and beacon.online else ""
        if outranked:
            return self._doubt(beacon, now)
        return self._rise_above(beacon.term, now) or self._answer(now)

    # Doubt.

    def _doubt(self, beacon: Beacon, now: float) -> list[Effect]:
        """Ask a leader of a higher rank whether it is there, and go on meanwhile."""
        if not self.asks:
            self.asks, self._doubts_until = self._draw(), now + LISTEN_S
        self._doubted_term = max(self._doubted_term, beacon.term)
        return self._answer(now)

    def _go_on(self, now: float) -> list[Effect]:
        """Go on, as nobody has answered: the fleet shall hear who leads, above what was said last."""
        term = self._doubted_term
        self._end_doubt()
        return self._rise_above(term, now) or self._answer(now)

    def _end_doubt(self) -> None:
        self.asks, self._doubts_until, self._doubted_term = "", math.inf, 0

    def _hear_candidate(self, candidate: Candidate, now: float) -> list[Effect]:
        if candidate.nonce == self.me.nonce:
            return []
        if self.state == "leading":
            self._to_answer = candidate.nonce
            rise = self._rise_above(candidate.term, now) if self._wary else []  # under a lower one it is not heard
            return rise or self._answer(now)
        if self.state == "listening" and not self._take_over and self._gives_way_to(candidate):
            self._until = max(self._until, now + LISTEN_S)
        return []

    def _gives_way_to(self, other: Candidate) -> bool:
        """Return whether of two who would lead, and do not yet, the other goes first."""
        mine = (self.me.claim, not self.me.empty, self.me.term, self.me.nonce)
        return (other.claim, not other.empty, other.term, other.nonce) > mine

    def hear_term(self, term: int, now: float) -> list[Effect]:
        """Take a device's word that it has heard a higher term: rise above it, or say who leads all the same."""
        if self.state != "leading" or term < self.me.term:
            return []
        return self._rise_above(term, now) or self._answer(now)

    def hear_nonsense(self, now: float) -> list[Effect]:
        """Write over a beacon that nobody understands."""
        return self._answer(now) if self.state == "leading" else []

    def _rise_above(self, term: int, now: float) -> list[Effect]:
        """Rise above a term that somebody has said, where that can be honest; later where this one has just risen."""
        if not self.me.term <= term <= self.me.term + JUMP:
            return []
        self._told_term = max(self._told_term, term)
        if now < self._risen_at + RISE_S:
            self._rise_at = self._risen_at + RISE_S
            return []
        return self._rise(now)

    def _rise(self, now: float) -> list[Effect]:
        told, self._told_term = self._told_term, 0
        self._rise_at = math.inf
        if self.state != "leading" or not self.me.term <= told < MOST_TERM:
            return []
        self._risen_at, self.me.term = now, told + 1
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
        self.answers, self._to_answer = self._to_answer, ""
        return [Speak()] if self.state == "leading" and self._online else []

    # Standing by.

    def _is_replaced_by(self, leader: Beacon, live: bool) -> bool:
        """Return whether this one must not lead again by itself: only who is there, and has jobs, does that."""
        return live and leader.online and not (self.me.empty or leader.empty or self.me.replaced)

    def _stand_down(self, leader: Beacon, live: bool, now: float) -> list[Effect]:
        self.state = "standby"
        self.leader = leader
        self._until = self._speak_at = self._rise_at = math.inf
        self._end_doubt()
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
