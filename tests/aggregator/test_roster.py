from __future__ import annotations

import math
from typing import Any

import pytest

from aggregator.roster import LIVES, Part, Roster, Sight
from broker.messages import Failure, Presence, Version

NEWS, STALE = Sight("news"), Sight("stale")


def presence(boot: int = 1, nonce: str = "", *, online: bool = True, device: str = "a", **more: Any) -> Presence:
    return Presence(device, boot, online, **({"incarnation": "i", "nonce": nonce or f"n{boot}"} | more))


def test_a_device_that_speaks_is_known() -> None:
    roster = Roster()
    failed = Failure(Version(1, 2), "it diverged")
    assert roster.see(presence(ready={"j": 10}, unready={"k": "no data"}, failed={"j": failed})) == NEWS
    assert roster.part_in("j", "a") == Part(True, True, "", True, failed, rows=10)
    assert roster.part_in("k", "a") == Part(True, False, "no data", True, None)
    assert roster.part_in("other", "a") == Part(True, False, "", True, None, said=False)


def test_what_the_broker_remembers_is_a_hint_until_the_device_speaks() -> None:
    roster = Roster()
    roster.see(presence(ready={"j": 10}), live=False)
    assert not roster.part_in("j", "a").live
    roster.see(presence(ready={"j": 10}))
    assert roster.part_in("j", "a").live
    roster.see(presence(ready={"j": 10}), live=False)
    assert roster.part_in("j", "a").live, "reading the broker's memory again takes nothing back"
    roster.doubt()
    assert not roster.part_in("j", "a").live


def test_a_last_will_takes_a_device_off_and_leaves_what_it_can() -> None:
    roster = Roster()
    roster.see(presence(ready={"j": 10}))
    assert roster.see(presence(online=False), now=7.0) == NEWS
    assert roster.part_in("j", "a") == Part(False, True, "", True, None, rows=10)
    assert roster.devices["a"].gone_at == 7.0
    roster.see(presence(online=False), now=9.0)
    assert roster.devices["a"].gone_at == 7.0
    roster.see(presence())
    assert roster.devices["a"].gone_at is None


def test_an_offline_of_a_former_life_says_nothing_of_the_present_one() -> None:
    roster = Roster()
    roster.see(presence(1))
    roster.see(presence(2))
    assert roster.see(presence(1, online=False)) == STALE
    assert roster.see(presence(0, online=False)) == STALE
    assert roster.part_in("j", "a").online


def test_a_life_that_ended_before_it_was_heard_of_takes_the_device_off() -> None:
    roster = Roster()
    roster.see(presence(1))
    assert roster.see(presence(2, online=False)) == NEWS
    assert not roster.part_in("j", "a").online
    assert roster.see(presence(1, online=False)) == STALE


def test_one_boot_with_two_nonces_is_a_clone_named_with_both() -> None:
    roster = Roster()
    roster.see(presence(5, "aaaa"))
    sight = roster.see(presence(5, "bbbb"))
    assert (sight.kind, sight.alarm) == ("news", True)
    assert "incarnation i boot 5 nonce aaaa" in sight.told
    assert "incarnation i boot 5 nonce bbbb" in sight.told
    assert roster.devices["a"].alarm == sight.told


def test_two_lives_that_speak_in_turn_are_a_clone_whatever_their_boots() -> None:
    roster = Roster()
    roster.see(presence(5, "aaaa"))
    assert roster.see(presence(6, "bbbb")) == NEWS
    sight = roster.see(presence(5, "aaaa"))
    assert sight.alarm
    assert "speak in turn" in sight.told


def test_the_takeovers_of_two_clones_are_told_each_time() -> None:
    roster = Roster()
    told = 0
    for _ in range(6):
        for nonce in ("aaaa", "bbbb"):
            told += roster.see(presence(5, nonce)).alarm
            roster.see(presence(5, "bbbb" if nonce == "aaaa" else "aaaa", online=False))
    assert told == 11


def test_who_has_offered_before_its_presence_came_has_no_new_card() -> None:
    roster = Roster()
    assert roster.hear("a", 1.0, "j-1"), "it is asked who it is"
    assert roster.see(presence(ready={"j-1": 10})) == NEWS
    assert roster.part_in("j-1", "a").ready


def test_a_card_that_was_written_anew_is_taken_in_with_a_line() -> None:
    roster = Roster()
    roster.see(presence(9))
    sight = roster.see(presence(1, "zzzz", incarnation="new", ready={"j": 10}))
    assert (sight.kind, sight.alarm) == ("news", False)
    assert sight.told == (
        "its state directory is a new one: incarnation i boot 9 nonce n9, now incarnation new boot 1 nonce zzzz"
    )
    assert roster.part_in("j", "a") == Part(True, True, "", True, None, rows=10)
    assert roster.see(presence(2, "yyyy", incarnation="new")) == NEWS
    assert roster.see(presence(9, online=False)) == STALE


def test_a_card_that_was_restored_is_taken_in_with_a_line() -> None:
    roster = Roster()
    roster.see(presence(9))
    sight = roster.see(presence(4, "xxxx"))
    assert sight == Sight("news", "its state directory was restored from an older copy (boot 4 after 9)")
    assert roster.see(presence(5, "wwww")) == NEWS
    sight = roster.see(presence(4, "vvvv"), now=3600.0)
    assert sight.alarm
    assert "two devices share this id and start in turn" in sight.told
    assert roster.see(presence(6, "uuuu"), now=3601.0) == NEWS
    assert not roster.see(presence(5, "tttt"), now=200_000.0).alarm


def test_two_cards_of_one_id_that_speak_in_turn_are_two_devices() -> None:
    roster = Roster()
    roster.see(presence(1, "n1", incarnation="old"))
    assert not roster.see(presence(1, "n2", incarnation="new")).alarm
    sight = roster.see(presence(2, "n3", incarnation="old"))
    assert sight.alarm
    assert "two devices share this id and speak in turn" in sight.told
    assert roster.devices["a"].alarm == sight.told


def test_what_is_retained_of_another_life_makes_no_alarm() -> None:
    roster = Roster()
    roster.see(presence(5, "aaaa"))
    assert roster.see(presence(4, "bbbb"), live=False) == STALE
    assert roster.see(presence(5, "bbbb"), live=False) == NEWS
    assert roster.see(presence(6, "bbbb", ready={"j": 1}), live=False) == NEWS
    assert not roster.part_in("j", "a").live


def test_an_agent_that_draws_no_nonce_is_known_by_its_boots() -> None:
    roster = Roster()
    old = {"incarnation": "", "nonce": ""}
    assert roster.see(Presence("a", 3, online=True)) == NEWS
    assert roster.see(Presence("a", 4, online=True)) == NEWS
    assert roster.see(Presence("a", 3, online=False)) == STALE
    assert roster.see(Presence("a", 4, online=False)) == NEWS
    assert roster.see(presence(5, **old)) == NEWS


@pytest.mark.parametrize("n", [3, 10 * LIVES])
def test_an_upgrade_and_many_starts_make_no_alarm(n: int) -> None:
    roster = Roster()
    assert not any(roster.see(presence(boot)).told for boot in range(1, n))
    assert len(roster.devices["a"].lives) <= LIVES


def test_a_silent_device_is_asked_by_saying_that_it_is_gone() -> None:
    roster = Roster()
    roster.see(presence(3, ready={"j": 10}, labels={"site": "north"}))
    assert roster.ask("a", 100.0) == Presence("a", 3, online=False, incarnation="i", nonce="n3")
    assert roster.ask("a", 105.0) is None, "it has not had the time to answer"
    assert roster.ask("a", 110.0) is not None
    assert roster.ask("nobody", 100.0) is None


def test_what_the_broker_remembers_of_who_was_asked_and_has_not_answered_says_nothing() -> None:
    roster = Roster()
    roster.see(presence(3), now=40.0)
    roster.see(presence(3), now=50.0)
    assert roster.is_alive("a", 100.0, since=-math.inf)
    roster.ask("a", 100.0)
    assert roster.see(presence(3), live=False, now=101.0) == STALE
    assert roster.see(presence(3), now=102.0) == NEWS, "it answers"
    assert roster.see(presence(3), live=False, now=103.0) == NEWS
    roster.ask("a", 200.0)
    assert roster.see(presence(3, online=False), now=201.0) == NEWS, "its will is no memory"
    assert roster.see(presence(3), live=False, now=202.0) == STALE, "and no answer"
    roster.ask("a", 300.0)
    assert roster.see(presence(4), live=False, now=301.0) == NEWS, "another life has not been asked"


def test_what_the_broker_remembers_is_no_sign_of_life() -> None:
    roster = Roster()
    for now in (1.0, 2.0):
        roster.see(presence(1), live=False, now=now)
    assert not roster.is_alive("a", 3.0, since=-math.inf)
    roster.see(presence(1), now=4.0)
    for online in (False, True):
        roster.see(presence(1, online=online), live=False, now=5.0)
    assert not roster.part_in("j", "a").live, "it has been off since it was heard"


def test_a_device_that_says_both_of_a_job_is_not_ready() -> None:
    roster = Roster()
    roster.see(presence(1, ready={"j": 10}, unready={"j": "its disk is full"}))
    assert (roster.part_in("j", "a").ready, roster.part_in("j", "a").why) == (False, "its disk is full")


def test_what_is_retained_of_a_former_life_says_nothing() -> None:
    roster = Roster()
    roster.see(presence(1))
    roster.see(presence(2))
    assert roster.see(presence(1), live=False) == STALE


def test_what_is_retained_of_a_former_card_makes_no_alarm() -> None:
    roster = Roster()
    roster.see(presence(1))
    roster.see(presence(1, "m1", incarnation="new"))
    assert roster.see(presence(2, "n9"), live=False).told == ""
    assert roster.devices["a"].alarm == ""


def test_on_a_new_connection_nobody_has_been_asked() -> None:
    roster = Roster()
    roster.see(presence(3), now=50.0)
    roster.ask("a", 100.0)
    roster.doubt()
    assert roster.see(presence(3), live=False, now=101.0) == NEWS
    assert roster.ask("a", 102.0) is not None


def test_who_speaks_and_is_held_to_be_offline_is_to_be_asked() -> None:
    roster = Roster(most=2)
    roster.see(presence(3))
    assert not roster.hear("a", 1.0)
    assert roster.is_alive("a", 60.0, since=-math.inf)
    assert not roster.is_alive("a", 62.0, since=-math.inf)
    assert not roster.is_alive("nobody", 1.0, since=-math.inf)
    assert not roster.is_alive("a", 2.0, since=1.0), "it was not heard since"
    roster.doubt()
    assert not roster.is_alive("a", 3.0, since=-math.inf), "it was heard before the connection was lost"
    roster.see(presence(3, online=False))
    assert roster.hear("a", 2.0)
    assert not roster.is_alive("a", 2.0, since=-math.inf)
    assert roster.hear("b", 2.0)
    assert roster.ask("b", 2.0) == Presence("b", 0, online=False)
    assert not roster.hear("c", 2.0), "the roster is full"


def test_who_speaks_of_a_job_that_its_presence_does_not_mention_is_to_be_asked() -> None:
    """A presence is said when something changes, and once: this one was lost."""
    roster = Roster()
    roster.see(Presence("a", 1, online=True, ready={"j-1": 5}, unready={"j-2": "no data"}))
    assert [roster.hear("a", 1.0, job) for job in ("j-1", "j-2", "", "j-3")] == [False, False, False, True]


def test_a_roster_has_an_end() -> None:
    roster = Roster(most=1)
    roster.see(presence(1))
    assert roster.see(presence(1, device="b")) == Sight("full")
    assert roster.see(presence(1, online=False)) == NEWS
    assert set(roster.devices) == {"a"}
