from __future__ import annotations

import statistics

import pytest

from aggregator.gates import MIN_PEERS
from aggregator.peers import LOOKS_BACK, MOST, Peer, Peers


def base(before: tuple[Peer, ...], number: int, norms: dict[str, float], far: bool = False) -> tuple[Peer, ...]:
    peers = Peers(before, number)
    for device, norm in norms.items():
        peers.note(norm, device, far=far)
    return peers.following()


def fleet(n: int, norm: float) -> dict[str, float]:
    return {f"d{k:03d}": norm + k / 1000 for k in range(n)}


def test_each_device_has_one_norm_however_often_it_has_sent_one() -> None:
    found: tuple[Peer, ...] = ()
    for number in range(10):
        found = base(found, number, {"often": 9.0, f"seldom{number % 4}": 1.0})
    assert sorted(peer.norm for peer in found) == [1.0] * 4 + [9.0]


def test_an_update_does_not_move_what_is_usual_on_its_own_base() -> None:
    peers = Peers(base((), 0, fleet(5, 1.0)), 1)
    before = peers.usual
    for device, norm in fleet(5, 100.0).items():
        peers.note(norm, device, far=True)
    assert peers.usual == before


def test_the_norms_of_a_fleet_that_changes_are_usual_once_half_of_it_has_changed() -> None:
    before = base((), 0, fleet(9, 1.0))
    fewer = [peer.norm for peer in base(before, 1, fleet(4, 50.0), far=True)]
    more = [peer.norm for peer in base(before, 1, fleet(5, 50.0), far=True)]
    assert statistics.median(fewer) < 2
    assert statistics.median(more) >= 50


def test_fewer_than_half_of_the_devices_do_not_move_what_is_usual_beyond_an_honest_one() -> None:
    found = base((), 0, fleet(11, 1.0))
    for number in range(1, 50):
        found = base(found, number, fleet(11, 1.0) | {f"liar{k}": 1e9 for k in range(10)})
    assert statistics.median(peer.norm for peer in found) < 2


def test_devices_that_are_gone_are_forgotten_after_some_versions() -> None:
    found = base((), 0, {f"gone{k}": 1.0 for k in range(60)})
    for number in range(1, LOOKS_BACK + 1):
        found = base(found, number, fleet(20, 50.0))
        assert ("gone0" in {peer.device for peer in found}) == (number < LOOKS_BACK)
    assert statistics.median(peer.norm for peer in found) > 50


def test_a_large_fleet_is_remembered_from_all_over_its_norms_and_not_by_the_smallest() -> None:
    found = base((), 0, {f"d{k:04d}": float(k) for k in range(1000)})
    assert len(found) == MOST
    assert statistics.median(peer.norm for peer in found) == pytest.approx(500, abs=10)
    later = base(found, 1, {f"e{k}": 500.0 for k in range(40)})
    assert len(later) == MOST
    older = [peer.norm for peer in later[40:]]
    assert statistics.median(older) == pytest.approx(500, abs=20)


def test_norms_of_nobody_known_are_dropped_as_soon_as_there_are_others() -> None:
    old = tuple(Peer(1.0, "", 7) for _ in range(MOST))
    assert len(base(old, 7, fleet(MIN_PEERS - 1, 50.0))) == MOST
    assert len(base(old, 7, fleet(MIN_PEERS, 50.0))) == MIN_PEERS


def test_that_one_is_far_is_told_apart_from_that_most_are() -> None:
    peers = Peers((), 0)
    peers.note(9.0, "a", far=True)
    assert not peers.most_are_far(), "one device says nothing of the others"
    for device in "bcd":
        peers.note(1.0, device, far=False)
    assert not peers.most_are_far()
    for device in "efgh":
        peers.note(9.0, device, far=True)
    assert peers.most_are_far()
    assert (peers.n_far, peers.n_heard) == (5, 8)


def test_what_is_usual_by_now_has_the_one_that_has_just_come_and_those_of_its_base_in_their_places() -> None:
    peers = Peers(base((), 0, {"a": 1.0, "b": 2.0, "c": 3.0}), 1)
    peers.note(50.0, "a", far=True)
    assert sorted(peers.usual_by_now(70.0, "b")) == [3.0, 50.0, 70.0]
    assert sorted(peers.usual) == [1.0, 2.0, 3.0]
