from __future__ import annotations

from fleet.world.agenda import Agenda, Clock


def test_things_happen_in_the_order_of_their_time_then_of_their_planning() -> None:
    agenda, done = Agenda(), list[str]()
    for seconds, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        agenda.later(seconds, done.append, name)
    agenda.run(1.5)
    assert (done, agenda.now) == (["a", "b"], 1.5)
    agenda.run(9.0)
    assert (done, agenda.now, agenda.n_done) == (["a", "b", "c"], 9.0, 3)


def test_what_is_planned_for_the_past_happens_next_and_time_does_not_go_back() -> None:
    agenda, seen = Agenda(), list[float]()
    agenda.run(5.0)
    agenda.at(1.0, lambda: seen.append(agenda.now))
    agenda.run(6.0)
    assert seen == [5.0]


def test_enough_is_enough() -> None:
    agenda, done = Agenda(), list[int]()
    for n in range(5):
        agenda.later(n, done.append, n)
    agenda.run(9.0, lambda: len(done) == 2)
    assert (done, agenda.now) == ([0, 1], 1.0)


def test_a_clock_has_its_own_beginning_and_only_goes_forward() -> None:
    agenda = Agenda()
    clock = Clock(agenda, 100.0)
    assert clock() == 100.0
    clock.spend(5.0)
    assert clock() == 105.0
    assert clock.settle() == 5.0
    assert clock() == 105.0, "the world has not caught up yet"
    agenda.run(7.0)
    assert clock() == 107.0
    assert clock.in_the_world(110.0) == 10.0
