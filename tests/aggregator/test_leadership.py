"""Leadership by itself: candidates, leaders and a made-up clock; the laws at the end, for many of them at once."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

from aggregator.leadership import (
    JUMP,
    LISTEN_S,
    QUIET_S,
    RISE_S,
    SPEAK_S,
    STANDBY_S,
    AskWhoLeads,
    Connected,
    Effect,
    Heard,
    Lead,
    Leadership,
    Lost,
    Me,
    Rise,
    Speak,
    StandDown,
)
from broker.ceilings import MOST_CLAIM, MOST_TERM
from broker.messages import Beacon, Candidate

WORDS = itertools.count()


def drawn() -> str:
    return f"{next(WORDS):08x}"


def one(nonce: str = "a", *, take_over: bool = False, **known: Any) -> Leadership:
    return Leadership(Me(nonce, f"store-{nonce}", **known), draw=drawn, take_over=take_over)


def full(nonce: str = "a", **known: Any) -> Leadership:
    return one(nonce, **({"empty": False, "term": 20} | known))


def beacon(nonce: str = "x", *, online: bool = True, **more: Any) -> Beacon:
    return Beacon(**({"term": 20, "nonce": nonce, "online": online, "since": 20} | more))


def live(**more: Any) -> Heard:
    return Heard(beacon(**more), live=True)


def answering(to: Leadership, **more: Any) -> Heard:
    """What a leader says that is there: it repeats what it was asked, or, by who only listens, its nonce."""
    return live(answers=to.asks if to.state == "leading" else to.me.nonce, **more)


def met(leader: Leadership, now: float = 5.0, **more: Any) -> list[Effect]:
    """Have a leader hear of another of a higher rank, and that answer."""
    assert leader.receive(live(**more), now) == [Speak()]
    assert leader.asks
    return leader.receive(answering(leader, **more), now + 0.1)


def retained(**more: Any) -> Heard:
    return Heard(beacon(**more), live=False)


def leading(leader: Leadership | None = None) -> Leadership:
    leader = leader or full()
    leader.receive(Connected(), 0.0)
    (lead,) = leader.tick(QUIET_S)
    assert isinstance(lead, Lead)
    leader.receive(Lost(), 1.0)
    assert leader.receive(Connected(), 1.0) == []
    return leader


def wary(**known: Any) -> Leadership:
    return Leadership(Me("a", "store-a", **({"empty": False, "term": 20} | known)), draw=drawn, wary=True)


# Where old words may be played again.


@pytest.mark.parametrize("term", [3, 20])
def test_a_recording_keeps_nobody_from_leading(term: int) -> None:
    again = wary()
    again.receive(Connected(), 0.0)
    for n in range(int(200 * LISTEN_S)):
        assert again.receive(live(nonce="b", term=term, since=1, claim=9), n / 100) in ([], [AskWhoLeads()])
        assert again.tick(n / 100) == []
    assert again.tick(2 * LISTEN_S) == [Lead(21, 9)]


@pytest.mark.parametrize("term", [3, 20, 21])
def test_a_recording_makes_no_leader_stand_down(term: int) -> None:
    leader = leading(wary())
    assert leader.receive(live(nonce="b", term=term, since=1, claim=9), 10.0) == [Speak()]
    assert leader.tick(10.0 + LISTEN_S) == ([Rise(22), Speak()] if term == 21 else [Speak()])
    assert (leader.state, leader.me.replaced) == ("leading", "")


@pytest.mark.parametrize("term", [3, 20])
def test_a_recording_of_an_operators_word_is_not_obeyed(term: int) -> None:
    again, leader = wary(), leading(wary())
    again.receive(Connected(), 0.0)
    again.receive(retained(nonce="b", term=term, claim=9), 0.1)
    leader.receive(retained(nonce="b", term=term, claim=9), 10.0)
    assert (again.state, leader.state) == ("listening", "leading")


def test_who_leads_rises_above_who_asks_and_is_then_believed() -> None:
    leader, second = leading(wary()), Leadership(Me("b", "store-b", term=30, empty=False), draw=drawn, wary=True)
    assert second.receive(Connected(), 10.0) == [AskWhoLeads()]
    assert second.receive(live(nonce="a", term=21), 10.1) == [AskWhoLeads()]
    assert leader.receive(Candidate("b", 30), 10.2) == [Rise(31), Speak()]
    (down,) = second.receive(live(nonce="a", term=31, answers=leader.answers), 10.3)
    assert isinstance(down, StandDown)


# Listening.


def test_it_asks_and_listens_before_it_leads() -> None:
    first = one()
    assert first.receive(Connected(), 0.0) == [AskWhoLeads()]
    assert first.tick(QUIET_S - 0.01) == []
    assert first.tick(QUIET_S) == [Lead(1, 0)]
    assert first.deadline == math.inf


def test_the_term_rises_above_all_that_was_heard_and_given_out() -> None:
    later = full(term=3)
    later.receive(Connected(), 0.0)
    later.receive(retained(online=False, term=40), 0.1)
    assert later.tick(QUIET_S) == [Lead(41, 0)]


def test_a_leader_that_answers_is_left_to_lead() -> None:
    second = one()
    second.receive(Connected(), 0.0)
    assert second.receive(retained(), 0.1) == []
    assert second.tick(LISTEN_S) == []
    (down,) = second.receive(answering(second), 2.0)
    assert isinstance(down, StandDown)
    assert second.state == "standby"


def test_a_leader_that_the_broker_only_remembers_has_time_to_answer_and_is_then_followed() -> None:
    second = full()
    second.receive(Connected(), 0.0)
    second.receive(retained(term=25), 0.1)
    assert second.tick(0.1 + LISTEN_S) == [Lead(26, 0)]


def test_after_its_own_former_life_it_leads_at_once() -> None:
    again = full(former="before")
    again.receive(Connected(), 0.0)
    assert again.receive(retained(nonce="before"), 0.01) == [Lead(21, 0)]


def test_of_two_that_listen_the_one_with_jobs_goes_first() -> None:
    rich, poor = full("a"), one("z")
    rich.receive(Connected(), 0.0)
    poor.receive(Connected(), 0.0)
    rich.receive(Candidate("z", 0, empty=True), 0.1)
    poor.receive(Candidate("a", 20), 0.1)
    assert poor.tick(QUIET_S) == []
    assert rich.tick(QUIET_S) == [Lead(21, 0)]


def test_who_was_outranked_once_never_leads_again_by_itself() -> None:
    old = full(replaced="x")
    old.receive(Connected(), 0.0)
    assert old.tick(QUIET_S) == []
    assert old.state == "standby"
    old.receive(live(online=False), 10.0)
    assert old.deadline == math.inf


def test_an_operators_word_ends_that() -> None:
    old = full(replaced="x", take_over=True)
    old.receive(Connected(), 0.0)
    old.receive(live(claim=2), 0.1)
    assert old.tick(QUIET_S) == [Lead(21, 3)]
    assert old.me.replaced == ""


def test_a_backup_put_in_place_by_an_operator_leads_when_nobody_else_does() -> None:
    restored = full(restored=True)
    restored.receive(Connected(), 0.0)
    restored.receive(retained(online=False, claim=4, term=90), 0.1)
    assert restored.tick(QUIET_S) == [Lead(91, 4)]


def test_whom_an_operator_has_replaced_does_not_lead_while_the_other_is_away() -> None:
    old = full()
    old.receive(Connected(), 0.0)
    (down,) = old.receive(retained(online=False, claim=1), 0.1)
    assert isinstance(down, StandDown)
    assert down.replaced == "", "a last will proves that nobody is there"
    assert old.stays
    assert old.tick(1e6) == []


@pytest.mark.parametrize("alive", [True, False])
def test_only_who_is_there_and_has_jobs_replaces_for_good(alive: bool) -> None:
    old = full()
    old.receive(Connected(), 0.0)
    word = answering(old, claim=1) if alive else retained(claim=1)
    (down,) = old.receive(word, 0.1)
    assert isinstance(down, StandDown)
    assert down.replaced == ("x" if alive else "")
    assert (old.stays, old.gone) == (True, not alive)


def test_words_of_devices_let_the_term_rise_once_a_minute() -> None:
    leader = leading(one())
    assert [type(effect) for effect in leader.hear_term(9, 100.0)] == [Rise, Speak]
    assert leader.me.term == 10
    for term in range(10, 300):
        assert Rise not in map(type, leader.hear_term(term, 101.0))
    leader.tick(102.0)
    assert leader.deadline == 100.0 + RISE_S
    assert leader.tick(100.0 + RISE_S)[0] == Rise(300)
    assert leader.deadline == math.inf


def test_one_without_jobs_leads_in_the_name_of_whom_an_operator_has_put_there() -> None:
    """Nothing would be lost by leading, and when the other is back it stands above this one all the same."""
    fresh = one()
    fresh.receive(Connected(), 0.0)
    assert fresh.receive(retained(online=False, claim=3, term=40), 0.1) == []
    assert fresh.tick(QUIET_S) == [Lead(41, 3)]


def test_a_restored_one_leaves_a_fleet_without_jobs_to_whom_an_operator_has_put_there() -> None:
    restored = full(restored=True)
    restored.receive(Connected(), 0.0)
    (down,) = restored.receive(answering(restored, empty=True, claim=2), 0.1)
    assert isinstance(down, StandDown)
    assert down.replaced == ""


# Standing by.


def test_a_standby_without_jobs_steps_in_when_the_leader_has_been_gone_for_long() -> None:
    second = one()
    second.receive(Connected(), 0.0)
    second.receive(answering(second), 0.1)
    assert second.deadline == math.inf
    second.receive(live(online=False), 10.0)
    assert second.tick(10.0 + STANDBY_S - 0.1) == []
    assert second.tick(10.0 + STANDBY_S) == [AskWhoLeads()]
    assert second.tick(10.0 + STANDBY_S + LISTEN_S) == [Lead(21, 0)]


def test_a_leader_that_is_restarted_in_time_finds_its_place_free() -> None:
    second = one()
    second.receive(Connected(), 0.0)
    second.receive(answering(second), 0.1)
    second.receive(live(online=False), 10.0)
    second.receive(live(nonce="y", term=21), 16.0)
    assert second.deadline == math.inf


def test_late_wills_of_others_do_not_make_a_standby_wait_anew() -> None:
    second = one()
    second.receive(Connected(), 0.0)
    second.receive(answering(second), 0.1)
    second.receive(live(online=False), 10.0)
    for nonce in ("y", "x", "z"):
        second.receive(live(nonce=nonce, online=False), 25.0)
    assert second.deadline == 10.0 + STANDBY_S


def standing_by_for_an_empty_one() -> Leadership:
    """An operator has put another in this one's place, and no job was submitted there yet."""
    old = full()
    old.receive(Connected(), 0.0)
    (down,) = old.receive(answering(old, claim=1, empty=True), 0.1)
    assert isinstance(down, StandDown)
    assert down.replaced == ""
    return old


def test_a_standby_is_replaced_as_soon_as_the_leader_has_a_job() -> None:
    old = standing_by_for_an_empty_one()
    assert old.receive(live(claim=1, empty=True), 5.0) == []
    assert old.receive(live(claim=1), 5.5) == [AskWhoLeads()]
    (down,) = old.receive(answering(old, claim=1), 6.0)
    assert isinstance(down, StandDown)
    assert down.replaced == "x"
    old.receive(live(online=False, claim=1), 10.0)
    assert old.deadline == math.inf


def test_a_will_does_not_say_whether_there_is_a_job_and_a_standby_goes_by_what_the_leader_said() -> None:
    old = standing_by_for_an_empty_one()
    old.receive(live(online=False, claim=1), 10.0)
    assert old.tick(10.0 + STANDBY_S) == [AskWhoLeads()]
    (down,) = old.receive(retained(online=False, claim=1), 31.0)
    assert isinstance(down, StandDown)
    assert down.replaced == "", "it had no job when it was heard last"
    assert old.deadline == 31.0 + STANDBY_S


def test_a_leader_with_jobs_takes_its_place_back_from_one_without() -> None:
    stand_in, back = leading(one("s")), full("a", term=20)
    back.receive(Connected(), 50.0)
    effects = back.receive(Heard(Beacon(21, "s", online=True, since=21, empty=True), live=True), 50.1)
    assert effects == [Lead(22, 0)]
    (down,) = met(stand_in, 50.3, term=22, nonce="a", since=22)
    assert isinstance(down, StandDown)
    assert down.replaced == ""


# Leading.


def test_a_question_is_answered() -> None:
    leader = leading()
    assert leader.receive(Candidate("b", 0), 5.0) == [Speak()]


def test_a_late_will_of_a_former_life_is_spoken_over() -> None:
    leader = leading()
    assert leader.receive(live(nonce="former", online=False, term=3), 5.0) == [Speak()]


def test_a_late_will_of_a_higher_term_raises_ours() -> None:
    leader = leading()
    assert leader.receive(live(nonce="former", online=False, term=30), 5.0) == [Rise(31), Speak()]


def test_who_has_led_for_longer_goes_on() -> None:
    leader, copy = leading(full("a", term=20)), leading(full("b", term=30))
    theirs = Beacon(31, "b", online=True, since=31)
    assert leader.receive(Heard(theirs, live=True), 5.0) == [Rise(32), Speak()]
    (down,) = met(copy, 5.0, term=21, nonce="a", since=21)
    assert isinstance(down, StandDown)
    assert down.replaced == "a"


def test_the_operators_word_stands_above_that() -> None:
    (down,) = met(leading(), claim=1, since=99)
    assert isinstance(down, StandDown)


@pytest.mark.parametrize("online", [True, False])
def test_whom_an_operator_has_put_there_meanwhile_is_obeyed_also_when_it_is_away(online: bool) -> None:
    leader = leading()
    (down,) = leader.receive(retained(claim=1, online=online), 5.0)
    assert isinstance(down, StandDown)
    assert down.replaced == "", "only who is there replaces for good"
    assert leader.stays


# A beacon alone.


@pytest.mark.parametrize("forged", [{"since": 0}, {"claim": 1}, {"claim": 2**20, "term": 2**40}, {"nonce": "zz"}])
@pytest.mark.parametrize("online", [True, False])
def test_a_beacon_that_nobody_answers_for_puts_nobody_out(forged: dict[str, Any], online: bool) -> None:
    leader = leading()
    for n in range(100):
        effects = leader.receive(live(online=online, **forged), 5.0 + n / 10)
        assert not any(isinstance(effect, StandDown) for effect in effects)
    effects = [effect for n in range(100) for effect in leader.tick(16.0 + n)]
    assert leader.state == "leading"
    assert Speak() in effects, "the fleet hears again who leads"
    assert leader.me.term <= 21 + JUMP + 2
    assert leader.deadline == math.inf


def test_an_answer_to_another_question_is_none() -> None:
    leader = leading()
    leader.receive(live(since=0), 5.0)
    asked = leader.asks
    leader.tick(5.0 + LISTEN_S)
    leader.receive(live(since=0), 9.0)
    assert leader.asks not in ("", asked)
    assert leader.receive(live(since=0, answers=asked), 9.6) == [Speak()]
    assert leader.state == "leading"


def test_who_leads_repeats_what_it_is_asked() -> None:
    leader = leading()
    leader.receive(live(claim=0, since=99, asks="abcd"), 5.0)
    assert leader.answers == "abcd"
    leader.receive(Candidate("b", 0), 6.0)
    assert leader.answers == "b"


def test_who_listens_waits_for_an_answer_to_its_own_question() -> None:
    second = full()
    second.receive(Connected(), 0.0)
    assert second.receive(live(term=25), 0.1) == [AskWhoLeads()]
    assert second.tick(0.1 + LISTEN_S) == [Lead(26, 0)]


def test_what_is_said_in_its_own_name_is_not_left_there() -> None:
    leader = leading()
    mine = {"nonce": "a", "term": 21}
    assert leader.receive(live(**mine), 5.0) == []
    for forged in (mine | {"online": False}, mine | {"term": 2**40}, mine | {"claim": 3}):
        assert leader.receive(live(**forged), 6.0) in ([Speak()], [])
    assert leader.deadline == 6.0 + SPEAK_S
    assert leader.me.term == 21


def test_an_operator_stands_above_all_that_was_said() -> None:
    old = full(take_over=True)
    old.receive(Connected(), 0.0)
    old.receive(retained(term=2**39, claim=900), 0.1)
    assert old.tick(QUIET_S) == [Lead(2**39 + 1, 901)]


def test_nothing_is_counted_up_beyond_its_ceiling() -> None:
    old = full(take_over=True)
    old.receive(Connected(), 0.0)
    old.receive(retained(term=MOST_TERM, claim=MOST_CLAIM), 0.1)
    assert old.tick(QUIET_S) == [Lead(MOST_TERM, MOST_CLAIM)]
    old.receive(Connected(), 1.0)
    assert old.receive(live(term=MOST_TERM, nonce="y", claim=0), 5.0) == [Speak()]
    assert old.hear_term(MOST_TERM, 6.0) == [Speak()]
    assert old.me.term == MOST_TERM


def test_answers_are_no_flood() -> None:
    leader = leading()
    said = [effect for n in range(100) for effect in leader.receive(Candidate("b", 0), 5.0 + n / 1000)]
    assert said == [Speak()]
    assert leader.deadline == 5.0 + SPEAK_S
    assert leader.tick(5.0 + SPEAK_S) == [Speak()]


def test_a_device_that_has_heard_a_higher_term_is_believed() -> None:
    assert leading().hear_term(50, 5.0) == [Rise(51), Speak()]
    assert leading().hear_term(3, 5.0) == []
    assert full().hear_term(50, 5.0) == []


def test_a_term_that_is_too_far_is_answered_and_not_followed() -> None:
    leader = leading()
    assert leader.hear_term(21 + JUMP, 5.0) == [Rise(22 + JUMP), Speak()]
    assert leader.hear_term(23 + 2 * JUMP, 100.0) == [Speak()]
    assert leader.me.term == 22 + JUMP


# Many at once.


class Fleet:
    """Aggregators that hear each other over a broker, after a while, and are restarted when they die."""

    def __init__(self, seed: int, kinds: list[dict[str, Any]]) -> None:
        self.rng = random.Random(seed)  # noqa: S311 -- a schedule
        self.now = 0.0
        self.kinds = kinds
        self.disks = [Me("", f"store-{n}", **kind) for n, kind in enumerate(kinds)]
        self.lives: list[Leadership | None] = [None] * len(kinds)
        self.starts = [0] * len(kinds)
        self.boot_at = [self.rng.random() * 5 for _ in kinds]
        self.retained: Beacon | None = None
        self.agenda: list[tuple[float, int, Any]] = []
        self.overlap = 0.0
        self.term = 0

    def start(self, n: int) -> None:
        self.starts[n] += 1
        disk = self.disks[n]
        nonce = f"{n}-{self.starts[n]}"
        life = Leadership(
            Me(nonce, disk.store, disk.term, disk.claim, disk.empty, former=disk.nonce, replaced=disk.replaced),
            draw=drawn,
        )
        self.lives[n] = life
        self.follow(n, life.receive(Connected(), self.now))
        if self.retained is not None:
            self.follow(n, life.receive(Heard(self.retained, live=False), self.now))

    def kill(self, n: int, pause: float) -> None:
        life = self.lives[n]
        if life is None:
            return
        if life.state == "leading" and self.rng.random() < 0.7:
            self.later(self.rng.choice([0.0, 30.0]), self.publish, Beacon(life.me.term, life.me.nonce, online=False))
        self.lives[n] = None
        self.boot_at[n] = self.now + pause

    def later(self, seconds: float, act: Any, *args: Any) -> None:
        self.agenda.append((self.now + seconds, len(self.agenda), (act, args)))

    def publish(self, message: Beacon | Candidate) -> None:
        if isinstance(message, Beacon):
            self.retained = message
        for n in range(len(self.lives)):
            self.later(self.rng.random() * 0.05, self.deliver, n, self.starts[n], message)

    def deliver(self, n: int, start: int, message: Beacon | Candidate) -> None:
        life = self.lives[n]
        if life is None or self.starts[n] != start:
            return
        event = Heard(message, live=True) if isinstance(message, Beacon) else message
        self.follow(n, life.receive(event, self.now))

    def beacon(self, life: Leadership) -> Beacon:
        me = life.me
        return Beacon(
            *(me.term, me.nonce),
            online=True,
            since=life.since,
            claim=me.claim,
            empty=me.empty,
            asks=life.asks,
            answers=life.answers,
        )

    def follow(self, n: int, effects: list[Effect]) -> None:
        life, disk = self.lives[n], self.disks[n]
        assert life is not None
        for effect in effects:
            match effect:
                case AskWhoLeads():
                    me = life.me
                    self.publish(Candidate(me.nonce, me.term, me.claim, me.empty))
                case Lead(term, claim):
                    disk.term, disk.claim, disk.nonce, disk.replaced = term, claim, life.me.nonce, ""
                    self.later(0.2, self.speak, n, self.starts[n])
                case Rise(term):
                    assert term > disk.term
                    disk.term = term
                case Speak():
                    self.publish(self.beacon(life))
                case StandDown(_, replaced):
                    disk.replaced = replaced

    def speak(self, n: int, start: int) -> None:
        life = self.lives[n]
        if life is not None and self.starts[n] == start and life.state == "leading":
            self.publish(self.beacon(life))

    def leaders(self) -> list[int]:
        return [n for n, life in enumerate(self.lives) if life is not None and life.state == "leading"]

    def run(self, until: float) -> None:
        while self.now < until:
            self.now += 0.05
            due = sorted(item for item in self.agenda if item[0] <= self.now)
            self.agenda = [item for item in self.agenda if item[0] > self.now]
            for _, _, (act, args) in due:
                act(*args)
            for n, life in enumerate(self.lives):
                if life is None and self.now >= self.boot_at[n]:
                    self.start(n)
                elif life is not None and self.now >= life.deadline:
                    self.follow(n, life.tick(self.now))
            self.overlap = self.overlap + 0.05 if len(self.leaders()) > 1 else 0.0
            assert self.overlap < 5.0, "two have led for five seconds"


EMPTY: dict[str, Any] = {}
JOBS = {"term": 20, "empty": False}
COPY = {"term": 20, "empty": False}
FLEETS = [[JOBS, EMPTY], [JOBS, COPY], [EMPTY, EMPTY], [JOBS, COPY, EMPTY]]


@pytest.mark.parametrize("kinds", FLEETS, ids=["empty", "copy", "fresh", "three"])
@pytest.mark.parametrize("seed", range(8))
def test_exactly_one_leads_whoever_is_killed_and_nobody_flaps(kinds: list[dict[str, Any]], seed: int) -> None:
    fleet = Fleet(seed, kinds)
    fleet.run(30.0)
    assert len(fleet.leaders()) == 1
    for _ in range(4):
        fleet.kill(fleet.rng.randrange(len(kinds)), fleet.rng.choice([0.2, 5.0]))
        fleet.run(fleet.now + 30.0)
        assert len(fleet.leaders()) == 1
    starts = list(fleet.starts)
    leaders = fleet.leaders()
    fleet.run(fleet.now + 120.0)
    assert (fleet.starts, fleet.leaders()) == (starts, leaders)


def test_a_second_aggregator_without_jobs_never_leads_beside_one_that_has_some() -> None:
    fleet = Fleet(3, [JOBS, EMPTY])
    fleet.boot_at = [0.0, 10.0]
    for _ in range(20):
        fleet.run(fleet.now + 30.0)
        fleet.kill(0, 5.0)
        fleet.run(fleet.now + 3.0)
        fleet.kill(1, 5.0)
    fleet.run(fleet.now + 30.0)
    assert fleet.leaders() == [0]
    assert fleet.disks[0].replaced == ""
