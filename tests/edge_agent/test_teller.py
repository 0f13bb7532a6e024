"""What a device says of how it is, by real agents over the in-memory broker and a made-up clock."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from broker.messages import Beacon, Job, Presence, Round, Vitals
from broker.transport import Counters, Denied, wire_bytes
from broker.wire import Wire
from edge_agent.activity import FOR_A_LEADER, FOR_A_ROUND, FOR_A_WORD, IDLE, Activity
from edge_agent.config import VitalsSettings
from edge_agent.effects import Deployed
from edge_agent.home import Home
from edge_agent.jobs import SLICE_S
from edge_agent.resources import Condition, Resources
from edge_agent.teller import FIRST_S, MOST_DISK, MOST_SERVED, PUBACK_BYTES, Teller
from fleet import made_keys
from tests.edge_agent.test_service import DEVICE, JOB, V0, V1, WIRE, Bench, Steady, head, on_disk, verdict

EVERY_S = 900.0
LEADER = Beacon(1, "n", online=True, spread_s=0.0, roll=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def said(bench: Bench) -> Vitals:
    """Return what was said last of how the device is, once that is due."""
    bench.settle(FIRST_S)
    bench.settle(EVERY_S + 60.0)
    last: Vitals = bench.of(Vitals)[-1]
    return last


def test_a_device_says_how_it_is_soon_after_it_has_connected(bench: Bench) -> None:
    bench.settle(FIRST_S - 1.0)
    assert bench.of(Vitals) == []
    passed = bench.link.counters.wire_sent_bytes + bench.link.counters.wire_received_bytes
    bench.settle(1.0)
    (vitals,) = bench.of(Vitals)
    assert (vitals.device, vitals.boot, vitals.doing, vitals.uptime_s) == (DEVICE, 1, "idle", 5.0)
    assert (vitals.disk_free, vitals.heat, vitals.load, vitals.clock) == (10**10, 45.0, 0.1, 1005.0)
    assert vitals.bytes_today == passed > 0


def test_it_lies_at_the_broker_and_goes_by_itself(bench: Bench) -> None:
    bench.settle(FIRST_S)
    bench.settle()
    late = bench.broker.transport("page")
    late.subscribe(WIRE.filter_for("vitals"))
    late.open()
    late.take()
    packet = late.take()
    assert packet is not None
    assert isinstance(WIRE.unpack(packet), Vitals)  # type: ignore[arg-type]  # it is a packet
    bench.now += 3 * 86_400.0
    later = bench.broker.transport("another page")
    later.subscribe(WIRE.filter_for("vitals"))
    later.open()
    later.take()
    assert later.take() is None


def test_what_it_does_is_followed_through_a_round(bench: Bench) -> None:
    assert said(bench).doing == "idle"
    bench.say(LEADER)
    bench.begin()
    assert bench.agent._activity().doing in ("reading", "training", "sending", "waiting")
    bench.offered()
    assert (said(bench).doing, said(bench).job, said(bench).why) == ("waiting", JOB, FOR_A_WORD)
    bench.say(verdict(bench.offered()))
    assert (said(bench).doing, said(bench).why) == ("waiting", FOR_A_ROUND)
    bench.say(structs.replace(LEADER, online=False))
    assert (said(bench).doing, said(bench).why) == ("waiting", FOR_A_LEADER)


def test_how_far_training_is_goes_along_and_is_no_reason_to_speak(bench: Bench) -> None:
    ticks = itertools.count(bench.now, SLICE_S + 0.001)
    bench.agent.jobs._clock = lambda: next(ticks)  # each look at it costs more than a slice: one batch at a time
    for message in (LEADER, Job(JOB, 1, msgspec.to_builtins(bench.spec)), head(), Round(JOB, 1, V0, 60.0)):
        bench.hand.publish(WIRE.pack(message))
    found = []
    while bench.agent.step(0.0):
        activity = bench.agent._activity()
        if activity.doing == "training":
            found.append(activity.progress)
    assert found == [None, 0.25, 0.5, 0.75, 1.0]
    bench.settle()
    assert bench.of(Vitals) == [], "it is not due"


def test_a_job_that_cannot_be_taken_part_in_is_waited_for_with_the_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, open_source=on_disk(tmp_path / "rows.csv"))
    bench.begin()
    vitals = said(bench)
    assert (vitals.doing, vitals.job) == ("waiting", JOB)
    assert "rows.csv" in vitals.why


def test_it_says_what_its_applications_are_answered_by(bench: Bench) -> None:
    bench.begin()
    work = bench.agent.works[JOB]
    work.participant.deployment.policy = structs.replace(work.participant.deployment.policy, last=True)
    bench.agent.jobs.pass_on(JOB, Deployed(V1))
    assert said(bench).serves == {JOB: V1}


def test_nothing_is_said_or_read_where_it_is_off(tmp_path: Path) -> None:
    class Untouched(Resources):
        def condition(self, folder: Path) -> Condition:
            raise AssertionError(folder)

        def wall_clock(self) -> float:
            raise AssertionError

    bench = Bench(tmp_path)
    bench.kill()
    bench.vitals, bench.steady = VitalsSettings(0.0), Untouched()  # type: ignore[assignment]  # as good
    bench.start()
    for _ in range(24):
        bench.settle(3600.0)
    assert bench.of(Vitals) == []
    assert bench.agent.deadline > bench.now + 86_400.0 or bench.agent.jobs.deadline < bench.now + 86_400.0


def test_a_new_connection_and_a_new_leader_are_told_again_after_the_pause(bench: Bench) -> None:
    bench.settle(FIRST_S)
    bench.settle()
    first = bench.of(Vitals)
    assert len(first) == 1
    bench.link.drop()
    bench.settle(1.0)
    bench.link.restore()
    bench.settle(EVERY_S / 2)
    bench.settle()
    assert bench.of(Vitals) == first, "not sooner than it may"
    bench.settle(EVERY_S)
    assert len(bench.of(Vitals)) == 2
    bench.say(LEADER)
    bench.settle(EVERY_S + 60.0)
    assert len(bench.of(Vitals)) == 3
    bench.say(LEADER)
    bench.settle(EVERY_S + 60.0)
    assert len(bench.of(Vitals)) == 3, "it is the same life, over the same connection"


def test_offline_it_looks_at_nothing(bench: Bench) -> None:
    bench.link.drop()
    bench.settle()
    bench.heard.clear()
    bench.steady.condition = lambda _folder: pytest.fail("nobody hears it")  # type: ignore[method-assign]
    bench.settle(10 * EVERY_S)
    bench.settle()
    assert bench.of(Vitals) == []


def test_a_broker_that_takes_none_is_told_nothing_more_and_the_operator_what_to_do(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.settle()
    assert bench.agent._teller is not None
    for denied in (WIRE.filter_for("vitals", device="another"), WIRE.filter_for("vitals", device=DEVICE)):
        assert bench.agent._teller.pace.look_at == bench.now + FIRST_S
        bench.agent._receive(Denied(denied, "not authorized"))
    assert bench.agent._teller.pace.look_at == math.inf
    assert caplog.text.count("access list") == 1
    bench.settle(10 * EVERY_S)
    bench.settle()
    assert bench.of(Vitals) == []
    bench.link.drop()
    bench.settle()
    bench.link.restore()
    bench.settle(FIRST_S)
    bench.settle()
    assert len(bench.of(Vitals)) == 1, "it may be another broker"


def test_the_devices_of_a_fleet_spread_their_first_words(tmp_path: Path) -> None:
    times = []
    for number in range(200):
        home = Home(tmp_path / f"d{number}", f"d{number}", nonce="n")
        teller = Teller(EVERY_S, home, WIRE, Counters(), Resources(), 0.0)
        teller.forget(0.0, 100.0)
        times.append(teller.pace.look_at)
        home.close()
    assert FIRST_S <= min(times) <= max(times) < FIRST_S + 100.0
    in_tenths = [sum(int((at - FIRST_S) / 10) == tenth for at in times) for tenth in range(10)]
    assert min(in_tenths) >= 5, in_tenths


def teller(tmp_path: Path, resources: Resources, wire: Wire = WIRE) -> Teller:
    home = Home(tmp_path / "home", DEVICE, nonce="n")
    home.close()
    one = Teller(EVERY_S, home, wire, Counters(), resources, 0.0)
    one.forget(0.0, 0.0)
    return one


def test_whatever_is_read_and_served_can_be_said(tmp_path: Path) -> None:
    steady = Steady(lambda: -5.0)
    steady.now = Condition(2**60, 149.9999, 1234.5678)
    serves = {f"j-{number:08x}": V0 for number in range(1000)}
    packet = teller(tmp_path, steady).tell(10.0, lambda: Activity("training", JOB, 1.5), lambda: serves)
    assert packet is not None
    vitals = WIRE.unpack(packet)
    assert isinstance(vitals, Vitals)
    assert (vitals.disk_free, vitals.heat, vitals.load, vitals.clock) == (MOST_DISK, 150.0, 1234.57, 0.0)
    assert (vitals.progress, len(vitals.serves)) == (1.0, MOST_SERVED)


def test_in_a_fleet_with_keys_vitals_carry_no_seal_and_everybody_reads_them(tmp_path: Path) -> None:
    trust = made_keys.trust_of("f")
    wire = made_keys.wire_of_device(trust, DEVICE, lambda: 7)
    packet = teller(tmp_path, Steady(lambda: 1e9), wire).tell(10.0, lambda: IDLE, dict)
    assert packet is not None
    assert packet.payload.startswith(b"{")
    for reader in (WIRE, made_keys.wire_of_operator(trust), made_keys.wire_of_server(trust, lambda: 8)):
        assert isinstance(reader.unpack(packet), Vitals)


# A day.

PING_BYTES, KEEPALIVE_S = 4, 60.0
"""PINGREQ and PINGRESP, once each keepalive interval, whatever else is said (broker/keepalive.py)."""
CONNECT_BYTES = 1000
"""CONNECT with a last will, CONNACK, five filters and their answers, generously."""
DAY_S = 86_400.0
MOST_A_DAY = 20_000


@pytest.mark.parametrize("job", [False, True], ids=["no job", "a job that waits"])
def test_an_idle_device_spends_at_most_20_kb_a_day_whatever_its_sensors_say(tmp_path: Path, job: bool) -> None:
    bench = Bench(tmp_path)
    heard_at_broker = bench.broker.transport("wire")
    heard_at_broker.subscribe(f"fedge/1/f/device/{DEVICE}", f"fedge/1/f/vitals/{DEVICE}")
    heard_at_broker.open()
    if job:
        bench.begin()
        bench.say(verdict(bench.offered()))
        bench.settle(EVERY_S)
    bench.say(LEADER)
    bench.heard.clear()
    while heard_at_broker.take() is not None:
        pass
    n_bytes, words = CONNECT_BYTES + DAY_S / KEEPALIVE_S * PING_BYTES, 0
    for minute in range(int(DAY_S / 60)):
        bench.steady.now = Condition(10**10 // (1 + minute % 2), 40.0 + 20.0 * (minute % 2), float(2 * (minute % 2)))
        if minute % 360 == 180:  # its aggregator is restarted
            beacon = structs.replace(LEADER, nonce=f"n{minute}", term=2 + minute)
            bench.say(beacon)
            n_bytes += wire_bytes(WIRE.pack(beacon)) + PUBACK_BYTES
        bench.settle(60.0)
        while (event := heard_at_broker.take()) is not None:
            n_bytes += wire_bytes(event) + PUBACK_BYTES  # type: ignore[arg-type]  # it hears packets alone
            n_bytes += wire_bytes(event) + PUBACK_BYTES if "/device/" in event.topic else 0  # type: ignore[union-attr, arg-type]
            words += 1
    assert words == len(bench.of(Vitals)) + len(bench.of(Presence))
    assert len(bench.of(Vitals)) > 20, "it did speak"
    assert n_bytes <= MOST_A_DAY, (n_bytes, words)
