from __future__ import annotations

import random

from broker.memory import MemoryTransport
from broker.messages import Explain, Quarantine, Release, Reply, Resume, Stop, Submit
from broker.transport import Packet
from fleet.world.agenda import Agenda
from fleet.world.jobs import POISONS, Operator, Pace, draw_job
from fleet.world.network import WorldBroker
from fleet.world.nodes import WIRE

PACE = Pace(20.0, 4.0, 0.2, (3, 10))


class Office:
    """An operator, and somebody who is asked."""

    keys = False

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.broker = WorldBroker(self.agenda, lambda _packet: None)
        self.n_devices = 3
        self.operator = Operator(self)
        self.ear: MemoryTransport = self.broker.transport("aggregator")
        self.ear.subscribe(WIRE.filter_for("command"))
        self.ear.open()

    def asked(self) -> list[Submit | Stop | Resume | Explain | Quarantine | Release]:
        packets = [event for event in iter(self.ear.take, None) if isinstance(event, Packet)]
        messages = [WIRE.unpack(packet) for packet in packets]
        asked = Submit | Stop | Resume | Explain | Quarantine | Release
        return [message for message in messages if isinstance(message, asked)]

    def answer(self, request: str, ok: bool, text: str = "") -> None:
        self.ear.publish(WIRE.pack(Reply("operator", request, ok, text)))
        self.agenda.run(self.agenda.now + 0.1)


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- a world is a pure function of its seed


def test_every_job_can_be_done_by_the_devices_that_are_there() -> None:
    for seed in range(200):
        n, spare = dice(seed).randint(1, 5), seed % 2
        spec = draw_job(dice(seed), "job", n, PACE, spare=min(spare, n - 1))
        rules = spec.rounds
        assert max(rules.quorum, rules.min_devices or 1, rules.target or 1) <= n
        assert not (spare and rules.wait == "all" and n > 1)


def test_jobs_differ() -> None:
    specs = [draw_job(dice(seed), "job", 5, PACE) for seed in range(60)]
    assert {spec.rounds.wait for spec in specs} == {"target", "all"}
    assert {spec.rounds.late for spec in specs} == {"refuse", "fold"}
    assert {spec.rounds.deadline_s for spec in specs} == {20.0, "learned"}
    assert draw_job(dice(1), "job", 5, PACE, poison=POISONS[0]).model.options == {"poison": POISONS[0]}


def test_a_command_is_repeated_until_it_is_answered() -> None:
    office = Office()
    office.operator.stop("job1")
    office.agenda.run(11.0)
    asked = office.asked()
    assert asked == [asked[0]] * 3
    office.answer(asked[0].request, ok=True)
    office.agenda.run(60.0)
    assert office.asked() == []


def test_a_submit_that_is_refused_is_made_again_under_another_request() -> None:
    office = Office()
    spec = draw_job(dice(1), "job1", 3, PACE)
    office.operator.submit(spec)
    (first,) = office.asked()
    office.answer(first.request, ok=False, text="the disk is full")
    office.agenda.run(21.0)
    (second,) = office.asked()
    assert first.request != second.request
    office.answer(second.request, ok=False, text="job job1 is running: stop it first")
    office.agenda.run(60.0)
    assert office.asked() == []


def test_a_job_is_replaced_once_it_has_stopped() -> None:
    office = Office()
    office.operator.replace(draw_job(dice(1), "job1", 3, PACE))
    (stop,) = office.asked()
    assert isinstance(stop, Stop)
    office.answer(stop.request, ok=True)
    (submit,) = office.asked()
    assert isinstance(submit, Submit)


def test_an_operator_explains() -> None:
    office = Office()
    office.operator.explain("job1", 2)
    assert [type(one) for one in office.asked()] == [Explain]


def test_an_operator_resumes() -> None:
    office = Office()
    office.operator.resume("job1")
    assert office.asked() == [Resume("operator", "r1", "job1")]


def test_an_operator_puts_devices_in_quarantine_and_releases_them() -> None:
    office = Office()
    office.operator.put_in_quarantine("d1", "its clock")
    office.operator.release("d1")
    assert office.asked() == [Quarantine("operator", "r1", "d1", "its clock"), Release("operator", "r2", "d1")]
    assert office.operator.barred == {"d1"}
