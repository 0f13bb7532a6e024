"""What somebody who owns the broker tries, against the real services: nothing of it arrives, and training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs, to_builtins

from aggregator import generations
from broker import envelope
from broker.ceilings import MOST_GENERATION, MOST_NUMBER, MOST_TERM
from broker.device_seal import DeviceSeal
from broker.messages import (
    Beacon,
    Candidate,
    DeltaAt,
    Head,
    Job,
    Message,
    Offer,
    Presence,
    Round,
    Stop,
    Submit,
    Verdict,
    Version,
    Want,
    along,
)
from broker.operator_seal import OperatorSeal
from broker.server_seal import ServerSeal
from broker.transport import Packet
from broker.wire import Wire, levels
from identity.keys import SigningKey, text_of
from models.job import ModelSpec, RoundsSpec
from tests.fleet.keyed_fleet import ADA, FLEET, LEADER, MALLORY, TRUST, KeyedFleet, key, toy

PLAIN = Wire(FLEET)
FAR = MOST_TERM - 1
JOB = "toy-0000000a"


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[KeyedFleet]:
    whole = KeyedFleet(tmp_path / "fleet")
    yield whole
    whole.close()


@pytest.fixture(scope="module")
def calm_sha256(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What an undisturbed fleet comes to with the toy job."""
    whole = KeyedFleet(tmp_path_factory.mktemp("calm") / "fleet")
    whole.submit()
    sha256 = whole.finish().sha256
    whole.close()
    return sha256


def test_a_fleet_with_keys_trains_and_refuses_nothing(fleet: KeyedFleet) -> None:
    fleet.submit()
    assert fleet.finish().coordinator.ended == "finished"
    assert not refusals(fleet)


@pytest.mark.parametrize("keys", [0, 2, 3])
def test_an_aggregator_that_only_signs_has_devices_with_and_without_keys(
    tmp_path: Path, calm_sha256: str, keys: int
) -> None:
    fleet = KeyedFleet(tmp_path / "fleet", checks=False, keys=keys)
    fleet.submit()
    fleet.kill_agent("d2")
    fleet.rest(1.0)
    assert not fleet.aggregator.roster.devices["d2"].presence.online
    fleet.agents["d2"] = fleet.start_agent("d2", keys=keys == 3)
    assert fleet.finish().sha256 == calm_sha256
    assert not sum(sum(agent._refusals.counts.values()) for agent in fleet.agents.values() if agent._refusals)
    assert not fleet.aggregator.refusals.counts
    fleet.close()


def halfway(fleet: KeyedFleet) -> None:
    """Have the job be at version 1, with the round on it open."""
    fleet.submit()
    fleet.run(lambda: fleet.job().version.number == 1)


# What is made up.

V1, V9 = Version(1, 1), Version(MOST_GENERATION, MOST_NUMBER)
HUGE = {"name": "huge", "model": {"inputs": 4, "hidden": [100_000, 100_000], "outputs": 2}, "data": "toy"}
MADE_UP: dict[str, Callable[[], list[Message]]] = {
    "a beacon of a huge term": lambda: [Beacon(FAR, "ffffffff", online=True, since=1, claim=9)],
    "a goodbye of a huge term": lambda: [Beacon(FAR, "ffffffff", online=False)],
    "a candidate of a huge term": lambda: [Candidate("ffffffff", FAR, claim=9)],
    "a round of a huge term": lambda: [Round(JOB, FAR, V9, 600.0)],
    "a round on a model of its own": lambda: [Round(JOB, 2, Version(1, 2), 600.0, along=along("ab" * 32, b"body"))],
    "a head far ahead": lambda: [Head(JOB, FAR, V9, "0" * 64, ways=(DeltaAt(0, MOST_NUMBER, 10),))],
    "a head that ends the job": lambda: [Head(JOB, 1, V1, "0" * 64, state="stopped")],
    "a job too large for anybody": lambda: [Job("huge-00000001", 1, HUGE)],
    "a tombstone": lambda: [Job(JOB, 1)],
    "the end of the job": lambda: [Job(JOB, 1, to_builtins(toy()), last=V1)],
    "a verdict for each device": lambda: [Verdict(f"d{n}", JOB, V1, "0" * 8) for n in range(3)],
    "a want for each device": lambda: [Want(f"d{n}", JOB, "0" * 32, "01") for n in range(3)],
    "a presence for each device": lambda: [Presence(f"d{n}", 99, online=True, nonce="x") for n in range(3)],
    "a last will for each device": lambda: [Presence(f"d{n}", 1, online=False) for n in range(3)],
    "an offer of each device": lambda: [
        Offer(JOB, f"d{n}", V1, 20, "0" * 16, 3, body=b"\x00\x00\x00") for n in range(3)
    ],
    "a command": lambda: [Stop("cli", "m1", "toy")],
}
SIGNERS: dict[str, Callable[[], Wire]] = {
    "unsigned": lambda: PLAIN,
    "signed as an aggregator of other keys": lambda: Wire(FLEET, ServerSeal(FLEET, MALLORY)),
    "signed as an operator of other keys": lambda: Wire(FLEET, OperatorSeal(FLEET, TRUST, MALLORY)),
    "signed by an enrolled device": lambda: Wire(FLEET, DeviceSeal(FLEET, "d1", None, key(2))),
}


def refusals(fleet: KeyedFleet) -> int:
    """Count what was refused, by whomever."""
    return sum(sum(fleet.refused(name).values()) for name in ("aggregator", *fleet.agents))


@pytest.mark.parametrize(
    ("signer", "retained"), [*((signer, False) for signer in SIGNERS), ("unsigned", True)], ids=lambda one: str(one)
)
@pytest.mark.parametrize("what", MADE_UP)
def test_what_is_made_up_is_refused_and_training_goes_on(
    fleet: KeyedFleet, calm_sha256: str, what: str, signer: str, retained: bool
) -> None:
    halfway(fleet)
    term = fleet.aggregator.term
    wire = SIGNERS[signer]()
    fleet.attacker.say(*(wire.pack(message) for message in MADE_UP[what]()), retain=retained)
    fleet.step(0.0)
    is_junk = retained and what == "an offer of each device"  # cleared, unread
    assert is_junk or refusals(fleet)
    assert (fleet.aggregator.term, fleet.store.term, fleet.aggregator.leads) == (term, term, True)
    assert all(agent._term == term and list(agent.works) == [JOB] for agent in fleet.agents.values())
    assert not any(agent.jobs.unready for agent in fleet.agents.values())
    assert fleet.finish().sha256 == calm_sha256
    assert fleet.job().coordinator.ended == "finished"
    assert bool(fleet.aggregator.guard.strays.cleared) == is_junk


# What is changed on its way.


def test_a_word_without_its_envelope_is_refused(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    bare = [structs.replace(p, payload=envelope.split(p.payload)[1]) for p in fleet.attacker.listen() if _is_proved(p)]
    assert {levels(packet.topic)[0] for packet in bare} >= {"aggregator", "job", "head", "round", "offer", "device"}
    fleet.attacker.say(*bare)
    fleet.step(0.0)
    assert refusals(fleet) >= len(bare) / 2
    assert fleet.finish().sha256 == calm_sha256


def _is_proved(packet: Packet) -> bool:
    return levels(packet.topic)[0] not in ("body", "chunk") and envelope.split(packet.payload)[0] is not None


def test_a_signature_of_another_word_topic_or_fleet_is_none(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    beacon = fleet.attacker.recorded("aggregator")[-1]
    head = fleet.attacker.recorded("head")[-1]
    round_ = fleet.attacker.recorded("round")[-1]
    elsewhere = Wire("g", ServerSeal("g", LEADER)).pack(Beacon(FAR, "x", online=True))
    crossed = [
        Packet(head.topic.replace(JOB, "toy-0000000b"), head.payload),
        Packet(round_.topic.replace(JOB, "toy-0000000b"), round_.payload),
        Packet(elsewhere.topic.replace("/g/", "/f/"), elsewhere.payload),
        Packet(beacon.topic, _signature_of(head) + PLAIN.pack(Beacon(FAR, "x", online=True)).payload),
        Packet(round_.topic, _signature_of(round_) + PLAIN.pack(Round(JOB, 1, Version(1, 2), 600.0)).payload),
    ]
    before = refusals(fleet)
    fleet.attacker.say(*crossed)
    fleet.step(0.0)
    assert refusals(fleet) >= before + 4
    assert fleet.finish().sha256 == calm_sha256


def _signature_of(packet: Packet) -> bytes:
    closed, _ = envelope.split(packet.payload)
    assert closed is not None
    return closed.to_bytes()


def test_one_devices_update_under_anothers_name_is_refused(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    fleet.broker.policy = lambda _to, packet: 0 if levels(packet.topic)[0] == "offer" else 1  # he keeps them
    fleet.run(lambda: _held(fleet))
    fleet.broker.policy = None
    offers = list(_offers_at_the_broker(fleet))
    assert not fleet.job().coordinator.counted
    fleet.attacker.say(*offers)
    fleet.step(0.0)
    assert fleet.refused()["stranger"] >= len(offers)
    assert not fleet.job().coordinator.counted
    assert fleet.finish().sha256 == calm_sha256


def _held(fleet: KeyedFleet) -> bool:
    works = [agent.works.get(JOB) for agent in fleet.agents.values()]
    return all(work is not None and work.participant.offer is not None for work in works)


def _offers_at_the_broker(fleet: KeyedFleet) -> Iterator[Packet]:
    """Each device's last offer, as if it were the next device's."""
    for n, agent in enumerate(fleet.agents.values()):
        offer = agent.works[JOB].participant.offer
        assert offer is not None
        packet = fleet.wires[f"d{n}"].pack(offer)
        yield Packet(packet.topic.replace(f"/d{n}/", f"/d{(n + 1) % 3}/"), packet.payload)


def test_an_update_of_another_body_under_the_same_envelope_is_refused(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    offers = fleet.attacker.recorded("offer")
    swapped = [Packet(p.topic, p.payload[:-1] + bytes((p.payload[-1] ^ 1,))) for p in offers]
    fleet.attacker.say(*swapped)
    fleet.step(0.0)
    assert fleet.refused()["stranger"] == len(swapped)
    assert fleet.finish().sha256 == calm_sha256


def test_swapped_bodies_of_a_version_are_not_installed(tmp_path: Path) -> None:
    fleet = KeyedFleet(tmp_path / "fleet", chunk_bytes=1024)
    spec = toy(model=ModelSpec(inputs=4, hidden=(300,), outputs=2), compression="off")
    fleet.submit(spec)

    fleet.run(lambda: fleet.job().version.number >= 1)
    bodies = fleet.attacker.recorded("body")
    assert bodies
    fleet.attacker.say(*(Packet(p.topic, bytes(len(p.payload)), retain=True) for p in bodies))
    fleet.restart_agent("d0")
    fleet.rest(2.0)
    assert all(work._version is None for work in fleet.agents["d0"].works.values())
    fleet.attacker.say(*bodies, retain=True)
    assert fleet.finish().coordinator.ended == "finished"
    fleet.close()


def test_an_update_in_pieces_is_under_a_digest_that_cannot_be_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.workspace.CHUNK_BYTES", 1024)
    fleet = KeyedFleet(tmp_path / "fleet", chunk_bytes=1024)
    fleet.submit(toy(model=ModelSpec(inputs=4, hidden=(300,), outputs=2), compression="off"))
    fleet.finish()
    offers = [PLAIN.unpack(p) for p in fleet.attacker.recorded("offer")]
    pieces = [levels(p.topic)[3] for p in fleet.attacker.recorded("chunk")]
    assert pieces
    assert {len(digest) for digest in pieces} == {32}
    assert {len(offer.digest) for offer in offers if isinstance(offer, Offer) and not offer.body} == {32}
    assert refusals(fleet) == 0
    fleet.close()


def test_an_update_from_before_there_were_keys_counts_once_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.workspace.CHUNK_BYTES", 1024)
    shas = []
    for keys in (True, False):
        fleet = KeyedFleet(tmp_path / str(keys), chunk_bytes=1024)
        fleet.submit(toy(model=ModelSpec(inputs=4, hidden=(300,), outputs=2), compression="off"))
        fleet.restart_agent("d0", keys=keys)
        fleet.run(lambda one=fleet: JOB in one.agents["d0"].works and _offers(one, "d0"))  # type: ignore[misc]
        offer = fleet.agents["d0"].works[JOB].participant.offer
        assert offer is not None
        assert len(offer.digest) == (32 if keys else 16)
        fleet.restart_agent("d0")
        shas.append(fleet.finish().sha256)
        fleet.close()
    assert shas[0] == shas[1]


def _offers(fleet: KeyedFleet, name: str) -> bool:
    return fleet.agents[name].works[JOB].participant.offer is not None


# What was said before, and is said again.


def test_old_rounds_and_heads_are_not_followed(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    old = [*fleet.attacker.recorded("round"), *fleet.attacker.recorded("head")]
    fleet.run(lambda: fleet.job().version.number >= 2)
    rounds = {name: agent.works[JOB].participant.announced.round for name, agent in fleet.agents.items()}
    fleet.attacker.say(*old, retain=True)
    fleet.step(0.0)
    assert all(fleet.refused(name)["repeated"] for name in fleet.agents)
    assert rounds == {name: agent.works[JOB].participant.announced.round for name, agent in fleet.agents.items()}
    assert fleet.finish().sha256 == calm_sha256


@pytest.mark.parametrize("while_", ["it leads", "it starts", "a device starts"])
def test_beacons_of_former_lives_of_the_aggregator_are_followed_by_nobody(
    fleet: KeyedFleet, calm_sha256: str, while_: str
) -> None:
    fleet.submit()
    for _ in range(2):
        fleet.kill_aggregator()
        fleet.start_aggregator()
        fleet.ready()
    old = [p for p in fleet.attacker.recorded("aggregator") if _is_former(p, fleet.aggregator.nonce)]
    assert len(old) >= 2
    term = fleet.aggregator.term
    if while_ == "it starts":
        fleet.kill_aggregator()
        fleet.start_aggregator()
        term += 1
    if while_ == "a device starts":
        fleet.restart_agent("d0")
    for _ in range(20):
        fleet.attacker.say(*old)
        fleet.rest(0.1)
    fleet.run(lambda: fleet.aggregator.leads)
    assert fleet.aggregator.term == term
    assert all(fleet.wires[name].seal.term <= term for name in fleet.agents)
    assert fleet.finish().sha256 == calm_sha256


def _is_former(packet: Packet, nonce: str) -> bool:
    message = PLAIN.unpack(packet)
    return isinstance(message, Beacon) and message.online and message.nonce != nonce


def test_rounds_of_a_former_term_are_not_followed_by_a_device_that_was_started_again(
    fleet: KeyedFleet, calm_sha256: str
) -> None:
    halfway(fleet)
    old = fleet.attacker.recorded("round")
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.ready()
    fleet.restart_agent("d0")
    fleet.agents["d0"].step(0.0)
    assert fleet.agents["d0"]._term == fleet.aggregator.term
    fleet.rest(1.0)
    fleet.attacker.say(*old)
    fleet.agents["d0"].step(0.0)
    assert fleet.finish().sha256 == calm_sha256
    assert fleet.refused("d0").get("repeated", 0) >= 1


def test_a_device_that_was_started_again_goes_back_to_no_version_that_it_is_done_with(
    fleet: KeyedFleet, calm_sha256: str
) -> None:
    halfway(fleet)
    old = [*fleet.attacker.recorded("round"), *fleet.attacker.recorded("head")]
    fleet.run(lambda: fleet.job().version.number == 2)
    fleet.restart_agent("d0")
    he_keeps = {"round", "head"}
    fleet.broker.policy = lambda to, packet: 0 if to.client_id == "d0" and levels(packet.topic)[0] in he_keeps else 1
    fleet.run(lambda: JOB in fleet.agents["d0"].works)
    fleet.broker.policy = None
    fleet.attacker.say(*old)
    for _ in range(20):
        fleet.agents["d0"].step(0.0)
        part = fleet.agents["d0"].works[JOB].participant
        assert part.trained is not None
        assert part.trained >= V1
        assert part._training is None or part._training > V1
    assert fleet.finish().sha256 == calm_sha256


def test_a_job_that_was_deleted_never_begins_again_whoever_announces_it(fleet: KeyedFleet) -> None:
    halfway(fleet)
    announced = fleet.attacker.recorded("job")[-1]
    fleet.finish()
    reply = fleet.ask(fleet.submission(toy(), "s2", "0000000b"))  # which takes the place of the first
    assert reply is not None
    assert reply.ok, reply.text
    fleet.rest()
    assert all(list(agent.works) == ["toy-0000000b"] for agent in fleet.agents.values())
    job = PLAIN.unpack(announced)
    assert isinstance(job, Job)
    captured = Wire(FLEET, ServerSeal(FLEET, LEADER, TRUST))
    for name in fleet.agents:
        fleet.restart_agent(name)
    fleet.rest()
    fleet.attacker.say(announced, captured.pack(structs.replace(job, term=fleet.aggregator.term + 1)))
    fleet.rest()
    assert all(list(agent.works) == ["toy-0000000b"] for agent in fleet.agents.values())
    assert fleet.finish().coordinator.ended == "finished"


def test_a_captured_aggregator_cannot_invent_a_job(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    captured = Wire(FLEET, ServerSeal(FLEET, LEADER, TRUST))
    spec = to_builtins(toy(seed=5))
    mine = OperatorSeal(FLEET, TRUST, MALLORY).sign_spec("toy-0000000c", spec)
    ada = OperatorSeal(FLEET, TRUST, ADA).sign_spec("toy-0000000b", spec)
    invented = [
        Job("toy-0000000c", 1, spec),
        Job("toy-0000000c", 1, spec, operator="mallory", signature=mine),
        Job("toy-0000000c", 1, spec, operator="ada", signature=mine),
        Job("toy-0000000c", 1, spec, operator="ada", signature=ada),  # which is of another id
        Job("toy-0000000b", 1, spec | {"seed": 6}, operator="ada", signature=ada),  # of another specification
    ]
    fleet.attacker.say(*map(captured.pack, invented))
    fleet.rest(0.1)
    for agent in fleet.agents.values():
        assert list(agent.works) == [JOB]
        assert agent.jobs.unready.keys() == {"toy-0000000b", "toy-0000000c"}
        assert "no operator" in agent.jobs.unready["toy-0000000c"]
    assert fleet.finish().sha256 == calm_sha256


def test_words_of_yesterdays_session_are_refused_by_both_sides(fleet: KeyedFleet, calm_sha256: str) -> None:
    fleet.submit()
    fleet.run(lambda: fleet.job().version.number == 1)
    offers = fleet.attacker.recorded("offer")
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.ready()
    fleet.attacker.say(*offers)
    fleet.step(0.0)
    assert fleet.refused()["stranger"] >= len(offers)
    assert fleet.finish().sha256 == calm_sha256


def test_an_offer_that_is_played_again_in_its_session_is_refused(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    offers = fleet.attacker.recorded("offer")
    fleet.attacker.say(*offers)
    fleet.step(0.0)
    assert fleet.refused() == {"repeated": len(offers)}
    assert fleet.finish().sha256 == calm_sha256


def test_a_verdict_of_a_former_life_of_a_device_is_refused(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    wire = fleet.wire
    verdict = wire.pack(Verdict("d0", JOB, V1, fleet_digest(fleet, "d0"), refused="away with it"))
    fleet.restart_agent("d0")
    fleet.rest(0.3)
    fleet.attacker.say(verdict)
    fleet.step(0.0)
    assert fleet.refused("d0") == {"forged": 1}
    assert fleet.finish().sha256 == calm_sha256


def fleet_digest(fleet: KeyedFleet, name: str) -> str:
    offer = fleet.agents[name].works[JOB].participant.offer
    return "0" * 8 if offer is None else offer.digest[:8]


def test_presences_of_a_former_life_are_no_more_than_hints(fleet: KeyedFleet, calm_sha256: str) -> None:
    fleet.ready()
    old = fleet.attacker.recorded("device", lambda m: getattr(m, "device", "") == "d0")
    fleet.restart_agent("d0")
    fleet.rest()
    now = fleet.aggregator.roster.devices["d0"].presence
    fleet.attacker.say(*old)
    fleet.step(0.0)
    assert fleet.aggregator.roster.devices["d0"].presence == now
    assert not fleet.aggregator.roster.devices["d0"].alarm
    fleet.submit()
    assert fleet.finish().sha256 == calm_sha256


def test_commands_are_done_once_and_in_one_life_of_the_aggregator(fleet: KeyedFleet) -> None:
    halfway(fleet)
    fleet.finish()
    submitted = fleet.attacker.recorded("command")
    fleet.aggregator._commands._done.clear()  # as after 256 others
    fleet.attacker.say(*submitted)
    fleet.rest()
    assert [run.job for run in fleet.aggregator.runs.values()] == [JOB]
    stop = Wire(FLEET, seal := OperatorSeal(FLEET, TRUST, ADA))
    seal.leader = PLAIN.unpack(fleet.attacker.recorded("aggregator")[-1]).exchange[:16]  # type: ignore[union-attr]
    packet = stop.pack(Stop("cli", "x1", "toy"))
    fleet.kill_aggregator()
    fleet.start_aggregator()
    fleet.ready()
    reply = fleet.ask(fleet.submission(toy(), "s3", "0000000d"))
    assert reply is not None
    assert reply.ok
    fleet.attacker.say(packet)
    fleet.rest(0.5)
    assert fleet.refused()["repeated"] == 1
    assert fleet.finish().coordinator.ended == "finished"


def test_a_stop_that_is_played_again_in_the_same_life_stops_nothing(fleet: KeyedFleet) -> None:
    halfway(fleet)
    reply = fleet.ask(Stop("cli", "x1", "toy"))
    assert reply is not None
    assert reply.text.startswith("stopped")
    stop = fleet.attacker.recorded("command", lambda message: isinstance(message, Stop))
    reply = fleet.ask(fleet.submission(toy(), "s3", "0000000d"))
    assert reply is not None
    assert reply.ok
    fleet.aggregator._commands._done.clear()  # as after 256 others
    fleet.attacker.say(*stop)
    assert fleet.finish().coordinator.ended == "finished"


@pytest.mark.parametrize(
    ("key", "why"),
    [(None, "signed commands alone"), (SigningKey.generate(), "does not have your key among the pinned ones")],
)
def test_an_operator_whose_key_is_missing_or_not_pinned_is_told_so(
    fleet: KeyedFleet, key: SigningKey | None, why: str
) -> None:
    fleet.ready()
    link = fleet.broker.transport("cli")
    link.subscribe(PLAIN.filter_for("reply", client="cli"))
    link.open()
    wire = Wire(FLEET, OperatorSeal(FLEET, TRUST, key))
    link.publish(wire.pack(Submit("cli", "s1", to_builtins(toy()))))
    fleet.rest(1.0)
    replies = [PLAIN.unpack(event) for event in iter(link.take, None) if isinstance(event, Packet)]
    assert [why in getattr(reply, "text", "") for reply in replies] == [True]
    assert not fleet.aggregator.runs


def test_a_fleet_whose_aggregators_key_was_stolen_goes_on_under_another(fleet: KeyedFleet, calm_sha256: str) -> None:
    halfway(fleet)
    stolen = Wire(FLEET, ServerSeal(FLEET, LEADER))
    fleet.attacker.say(stolen.pack(Beacon(FAR, "ffffffff", online=True, since=1)))
    fleet.rest()
    fleet.kill_aggregator()
    fleet.leader, old = key(210), fleet.trust
    fleet.trust = structs.replace(old, aggregator=(text_of(fleet.leader.public),), serial=2)
    fleet.start_aggregator()
    for name in fleet.agents:
        fleet.restart_agent(name)
    fleet.ready()
    fleet.attacker.say(stolen.pack(Beacon(FAR, "fffffffe", online=True, since=1)), stolen.pack(Job(JOB, FAR)))
    fleet.rest()
    assert all(fleet.refused(name)["forged"] >= 2 for name in fleet.agents)
    assert fleet.finish().sha256 == calm_sha256


# Revocation, and what must not be lost.


def test_a_revoked_device_is_out_within_five_seconds(fleet: KeyedFleet) -> None:
    fleet.submit(toy(rounds=RoundsSpec(quorum=2, min_devices=2, max_rounds=6, deadline_s=30.0, wait="target")))
    fleet.run(lambda: fleet.job().version.number >= 1)
    fleet.revoked.add("d2")
    fleet.write_registry()
    fleet.rest(5.0)
    assert not fleet.aggregator.roster.devices["d2"].presence.online
    before = fleet.refused().get("forged", 0)
    fleet.agents["d2"].jobs.say_again()
    fleet.agents["d2"]._announcer.forget(fleet.now, 0.0)
    fleet.rest(1.0)
    assert fleet.refused()["forged"] > before
    assert fleet.finish().coordinator.ended == "finished"


def test_a_registry_that_is_damaged_or_gone_leaves_the_last_one(fleet: KeyedFleet, calm_sha256: str) -> None:
    fleet.submit()
    path = fleet.folder / "registry.json"
    path.write_bytes(b"{")
    fleet.rest(3.0)
    path.unlink()
    assert fleet.finish().sha256 == calm_sha256


def test_a_store_of_yesterday_whose_round_waited_for_one_that_is_gone_gives_no_number_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "place", lambda _file: "here")  # an image of the whole disk is put back
    fleet = KeyedFleet(tmp_path / "fleet", n_agents=2)
    rules = RoundsSpec(quorum=1, min_devices=1, target=2, max_rounds=5, deadline_s=30.0)
    fleet.submit(toy(rounds=rules))
    fleet.broker.policy = lambda _to, packet: 0 if "d0" in packet.topic.split("/") and "offer" in packet.topic else 1
    fleet.run(lambda: fleet.job().version.number == 1 and len(fleet.job().coordinator.counted) == 1)
    fleet.kill_aggregator()
    shutil.copytree(fleet.folder / "aggregator", tmp_path / "yesterday")
    fleet.broker.policy = None
    fleet.start_aggregator()
    fleet.run(lambda: bool(fleet.aggregator.runs) and fleet.job().version.number >= 3)
    fleet.kill_aggregator()
    fleet.kill_agent("d0")
    del fleet.agents["d0"]
    shutil.rmtree(fleet.folder / "aggregator")
    (tmp_path / "yesterday").rename(fleet.folder / "aggregator")
    fleet.start_aggregator()
    fleet.finish()
    proofs: dict[Version, set[str]] = {}
    for packet in fleet.attacker.recorded("head"):
        head = PLAIN.unpack(packet)
        assert isinstance(head, Head)
        proofs.setdefault(head.version, set()).add(head.sha256)
    assert [version for version, found in proofs.items() if len(found) > 1] == []
    assert fleet.job().version.generation > 1
    fleet.close()


@pytest.mark.parametrize("who", ["aggregator", "devices", "both", "broker"])
def test_nothing_is_lost_when_somebody_is_started_again_in_the_middle(
    fleet: KeyedFleet, calm_sha256: str, who: str
) -> None:
    fleet.submit()
    for n in range(12):
        for _ in range(n % 4):
            fleet.step(0.0)
        if who in ("aggregator", "both"):
            fleet.kill_aggregator()
            fleet.start_aggregator()
        if who in ("devices", "both"):
            fleet.restart_agent(f"d{n % 3}")
        if who == "broker":
            fleet.broker.stop(keep=bool(n % 2))
            fleet.broker.start()
        fleet.rest(0.4)
        if fleet.aggregator.runs and fleet.job().coordinator.ended:
            break
    began = fleet.now
    assert fleet.finish().sha256 == calm_sha256
    assert fleet.now - began < 60.0


def test_offers_wait_for_no_pause_when_the_aggregator_was_started_again(fleet: KeyedFleet, calm_sha256: str) -> None:
    fleet.submit()
    fleet.broker.policy = lambda _to, packet: 0 if levels(packet.topic)[0] == "offer" else 1
    fleet.run(lambda: _held(fleet))
    fleet.kill_aggregator()
    fleet.broker.policy = None
    fleet.start_aggregator()
    began = fleet.now
    fleet.run(lambda: bool(fleet.aggregator.runs) and fleet.job().version.number >= 1)
    assert fleet.now - began < 5.0
    assert fleet.refused() == {}  # each has introduced itself before
    assert fleet.finish().sha256 == calm_sha256


def test_what_was_offered_before_any_beacon_was_heard_is_offered_again_at_the_first(
    fleet: KeyedFleet, calm_sha256: str
) -> None:
    fleet.submit()
    fleet.broker.policy = lambda _to, packet: 0 if levels(packet.topic)[0] == "offer" else 1
    fleet.run(lambda: _held(fleet))
    fleet.broker.policy = None
    fleet.kill_aggregator()
    fleet.broker.stop()
    fleet.broker.start()
    for name in fleet.agents:
        fleet.kill_agent(name)
    fleet.agents = {name: fleet.start_agent(name) for name in fleet.devices}
    end = fleet.now + 0.5
    while fleet.now < end:  # nobody leads, and nothing lies at the broker
        for agent in fleet.agents.values():
            agent.step(0.0)
        fleet.now += 0.02
    fleet.start_aggregator()
    began = fleet.now
    fleet.run(lambda: bool(fleet.aggregator.runs) and fleet.job().version.number >= 1)
    assert fleet.now - began < 2.0, "nobody waits for the pause after an offer, which is 3 s at least"
    assert fleet.finish().sha256 == calm_sha256
