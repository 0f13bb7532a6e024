"""Keys by configuration: what a process makes of the files that its [identity] names, and real processes with keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import structs

from benchmarks.memory import peak_mb
from broker.ceilings import MOST_GENERATION, MOST_NUMBER, MOST_TERM
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.messages import Beacon, Head, Job, Version
from broker.operator_seal import OperatorSeal
from broker.server_seal import ServerSeal
from broker.wire import Wire
from fleet.cli import main
from fleet.console.observer import over_mqtt
from fleet.identity import wire_of_aggregator, wire_of_device, wire_of_operator
from fleet.local import stage
from fleet.local.keys import LocalKeys, make
from fleet.local.processes import Children
from fleet.local.stage import Stage
from fleet.local.toml import written
from identity.keys import SigningKey, text_of
from identity.registry import read_registry
from identity.settings import DeviceIdentity, IdentitySettings, ServerIdentity
from identity.trust import read_trust, sign_trust, write_trust
from models.job import JobSpec, ModelSpec
from runtime.settings import SettingsError
from tests.fleet.test_signed_bytes import rows

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def keys(tmp_path: Path) -> LocalKeys:
    return make(tmp_path / "keys", "f", ["d1"])


def server(keys: LocalKeys, **other: str | None) -> ServerIdentity:
    return ServerIdentity(**(keys.of_aggregator | other))


def test_a_fleet_without_keys_says_at_its_start_that_it_trusts_its_broker(caplog: pytest.LogCaptureFixture) -> None:
    assert wire_of_device("f", "d1", DeviceIdentity()) == Wire("f")
    assert wire_of_aggregator("f", ServerIdentity()) == Wire("f")
    assert [record.message.count("trusts its broker") for record in caplog.records] == [1, 1]


def test_with_all_keys_nothing_is_said(keys: LocalKeys, caplog: pytest.LogCaptureFixture) -> None:
    wires = [
        wire_of_device("f", "d1", DeviceIdentity(**keys.of_device("d1"))),
        wire_of_aggregator("f", server(keys)),
        wire_of_operator("f", keys.of_operator),
    ]
    assert [wire.seal.trusts or wire.seal.signs for wire in wires] == [True, True, True]
    assert not caplog.records


def test_an_observer_has_pinned_keys_and_none_of_its_own(keys: LocalKeys) -> None:
    seal = wire_of_operator("f", structs.replace(keys.of_operator, message_key=None)).seal
    assert isinstance(seal, OperatorSeal)
    assert not seal.signs


def test_what_an_aggregator_does_not_check_it_says(keys: LocalKeys, caplog: pytest.LogCaptureFixture) -> None:
    wire = wire_of_aggregator("f", server(keys, registry=None, trust=None))
    assert isinstance(wire.seal, ServerSeal)
    assert "trusts its broker on devices ([identity] registry) and operators ([identity] trust)" in caplog.text


WRONG: dict[str, tuple[Callable[[LocalKeys], Any], str]] = {
    "no such key": (lambda _: wire_of_device("f", "d", DeviceIdentity(message_key="/no/key")), "message_key: /no/key"),
    "no such trust": (lambda _: wire_of_device("f", "d", DeviceIdentity(trust="/no/trust")), "trust: /no/trust"),
    "another fleet's": (lambda k: wire_of_device("g", "d1", DeviceIdentity(**k.of_device("d1"))), "not of 'g'"),
    "registry without a key": (
        lambda k: wire_of_aggregator("f", server(k, message_key=None)),
        "trust and registry: is",
    ),
    "a device's key": (
        lambda k: wire_of_aggregator("f", server(k, message_key=k.of_device("d1")["message_key"])),
        "no device would believe",
    ),
    "no registry": (lambda k: wire_of_aggregator("f", server(k, registry="/no/registry")), "registry: /no/registry"),
    "an operator without trust": (
        lambda k: wire_of_operator("f", structs.replace(k.of_operator, trust=None)),
        "of no use without trust",
    ),
    "an operator with the aggregator's key": (
        lambda k: wire_of_operator("f", IdentitySettings(**k.of_device("aggregator"))),
        "is no operator's key",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_keys_that_cannot_be_used_are_named_before_anything_starts(keys: LocalKeys, what: str) -> None:
    make_wire, why = WRONG[what]
    with pytest.raises(SettingsError, match=rf"^\[identity\].*{why}"):
        make_wire(keys)


@pytest.mark.parametrize("good", [True, False])
def test_the_pinned_keys_are_replaced_by_a_later_file_that_is_signed(
    keys: LocalKeys, tmp_path: Path, good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config, pinned = tmp_path / "agent.toml", keys.folder / "trust.json"
    config.write_text(written({"fleet": "f", "device": "d1", "identity": keys.of_device("d1")}))
    old = SigningKey.generate()
    trust = structs.replace(read_trust(pinned), aggregator=(text_of(old.public),))
    write_trust(pinned, trust)
    after = structs.replace(trust, serial=2, aggregator=(text_of(SigningKey.generate().public),))
    write_trust(tmp_path / "new.json", sign_trust(after, old if good else SigningKey.generate()))
    code = main(["agent", "trust", str(tmp_path / "new.json"), "--config", str(config)])
    said = capsys.readouterr()
    assert code == (0 if good else 2)
    assert ("with serial 2; start again" in said.out) == good
    assert ("neither the root nor the aggregator" in said.err) != good
    assert read_trust(pinned).serial == (2 if good else 1)
    write_trust(tmp_path / "newer.json", sign_trust(structs.replace(trust, serial=2), old))
    assert main(["agent", "trust", str(tmp_path / "newer.json"), "--config", str(config), "--json"]) == (
        2 if good else 0
    )
    if not good:
        assert json.loads(capsys.readouterr().out) == {"file": str(pinned), "fleet": "f", "serial": 2}


# Real processes.


class Real(NamedTuple):
    stage: Stage
    operator: Path
    job: Path
    children: Children
    broker: BrokerSettings


@pytest.fixture
def real(tmp_path: Path, mosquitto: EmbeddedBroker) -> Iterator[Real]:
    broker = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    spec = JobSpec("activity", ModelSpec(inputs=561, hidden=(32,), outputs=6), data="activity", deploy="never")
    made = make(tmp_path / "keys", stage.FLEET, ["device-00", "device-01"])
    plan = stage.build(tmp_path / "fleet", spec, [rows(0), rows(1)], None, broker, inference=False, keys=made)
    assert [device.name for device in plan.devices] == ["device-00", "device-01"]
    operator = tmp_path / "operator.toml"
    identity = {"trust": made.of_operator.trust, "message_key": made.of_operator.message_key}
    operator.write_text(written({"fleet": stage.FLEET, "broker": {"port": mosquitto.port}, "identity": identity}))
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "activity"\ndata = "activity"\ndeploy = "never"\n[model]\ninputs = 561\nhidden = [32]\noutputs = 6\n'
        "[rounds]\nquorum = 2\nmax_rounds = 5\n"
    )
    with Children() as children:
        stage.start(children, plan)
        yield Real(plan, operator, job, children, broker)


def line(operator: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    if main(["job", "list", "--config", str(operator), "--json"]):
        return {}
    return next(iter(json.loads(capsys.readouterr().out)["jobs"]), {})


@pytest.mark.slow
def test_whoever_owns_a_real_broker_stops_nobody_and_a_revoked_device_is_out_without_a_restart(
    real: Real, until: Until, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    until(lambda: "leads" in real.stage.aggregator.log.read_text())
    wire, far = Wire(stage.FLEET), MOST_TERM - 1
    mallory = over_mqtt("mallory", real.broker, wire)
    huge = {"name": "huge", "model": {"inputs": 4, "hidden": [100_000, 100_000], "outputs": 2}, "data": "activity"}
    with mallory:
        assert mallory.connect(10.0) == ""
        mallory.say(Job("huge-00000001", far, huge))
        mallory.say(Head("activity-00000001", far, Version(MOST_GENERATION, MOST_NUMBER), "00" * 32))
        mallory.say(Beacon(far, "ffffffff", online=True, since=1, claim=9))
        until(lambda: all("not signed by who should have" in role.log.read_text() for role in real.stage.roles))
    assert main(["job", "submit", str(real.job), "--config", str(real.operator)]) == 0
    until(lambda: line(real.operator, capsys).get("state") == "finished")
    assert all("huge" not in role.log.read_text().replace("/job/huge-00000001", "") for role in real.stage.devices)
    registry = read_registry(tmp_path / "keys" / "registry.json")
    gone = {"device-01": structs.replace(registry.devices["device-01"], revoked=True)}
    (tmp_path / "new.json").write_bytes(msgspec.json.encode(structs.replace(registry, devices=registry.devices | gone)))
    (tmp_path / "new.json").replace(tmp_path / "keys" / "registry.json")
    until(lambda: "device=device-01 is revoked" in real.stage.aggregator.log.read_text())
    until(lambda: line(real.operator, capsys).get("devices_online") == 1)


@pytest.mark.slow
def test_an_operator_with_a_key_has_a_fleet_of_processes_train_within_its_memory(
    real: Real, until: Until, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    until(lambda: "leads" in real.stage.aggregator.log.read_text())
    capsys.readouterr()
    assert main(["job", "submit", str(real.job), "--config", str(real.stage.aggregator.config)]) == 2
    assert "is no operator's key" in capsys.readouterr().err
    bare = tmp_path / "bare.toml"
    bare.write_text(real.operator.read_text().partition("[identity]")[0])
    assert main(["job", "submit", str(real.job), "--config", str(bare)]) == 1
    assert "signed commands alone" in capsys.readouterr().err
    observer = tmp_path / "observer.toml"
    lines = real.operator.read_text().splitlines()
    observer.write_text("\n".join(line for line in lines if not line.startswith("message_key")))
    assert main(["job", "list", "--config", str(observer)]) == 0
    assert main(["job", "submit", str(real.job), "--config", str(observer)]) == 2
    assert "observers may only look" in capsys.readouterr().err
    assert main(["job", "submit", str(real.job), "--config", str(real.operator)]) == 0
    until(lambda: line(observer, capsys).get("state") == "finished")
    assert main(["job", "stop", "activity", "--config", str(observer)]) == 2
    assert "observers may only look" in capsys.readouterr().err
    agents = [child for child in real.children._children if child.name != "aggregator"]
    assert [peak_mb(child.process.pid) <= 60 for child in agents] == [True, True]
    onnx = tmp_path / "model.onnx"
    assert main(["job", "export", "activity", "--out", str(onnx), "--config", str(real.operator)]) == 0
    logs = [role.log.read_text() for role in real.stage.roles]
    assert not any("refused" in log and "word" in log.partition("refused")[2][:20] for log in logs[1:])
