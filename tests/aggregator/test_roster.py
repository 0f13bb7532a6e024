from __future__ import annotations

from aggregator.roster import CLONE_SWAPS, Roster
from broker.messages import Presence


def presence(boot: int, online: bool = True, device: str = "a", **more: object) -> Presence:
    return Presence(device, boot, online, **more)  # type: ignore[arg-type]


def test_a_device_that_speaks_is_known() -> None:
    roster = Roster()
    assert roster.see(presence(1, ready={"j": 10}, unready={"k": "no data"})) == "news"
    assert roster.part_in("j", "a") == (True, True, "")
    assert roster.part_in("k", "a") == (True, False, "no data")
    assert roster.part_in("other", "a") == (True, False, "")


def test_an_offline_of_an_older_boot_says_nothing_of_the_newer() -> None:
    roster = Roster()
    roster.see(presence(2, ready={"j": 10}))
    assert roster.see(presence(1, online=False)) == "stale"
    assert roster.part_in("j", "a")[0]


def test_an_offline_of_the_same_boot_counts() -> None:
    roster = Roster()
    roster.see(presence(2))
    assert roster.see(presence(2, online=False)) == "news"
    assert not roster.part_in("j", "a")[0]


def test_one_late_packet_is_not_yet_a_clone() -> None:
    roster = Roster()
    roster.see(presence(2))
    assert roster.see(presence(1)) == "stale"


def test_two_boots_that_speak_in_turn_are_a_clone() -> None:
    roster = Roster()
    said = [roster.see(presence(boot)) for _ in range(CLONE_SWAPS) for boot in (2, 1)]
    assert said[-1] == "clone"
    assert roster.devices["a"].cloned


def test_wills_of_old_boots_make_no_clone() -> None:
    roster = Roster()
    roster.see(presence(9))
    assert {roster.see(presence(boot, online=False)) for boot in range(8)} == {"stale"}


def test_a_roster_has_an_end() -> None:
    roster = Roster(most=1)
    roster.see(presence(1))
    assert roster.see(presence(1, device="b")) == "full"
    assert roster.see(presence(1, online=False)) == "news"
    assert set(roster.devices) == {"a"}
