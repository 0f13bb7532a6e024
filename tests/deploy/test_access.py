"""deploy/mosquitto with real clients: who may say and hear what, and the limits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from aggregator.config import ServerLimits
from broker.payloads import MAX_CONTROL_BYTES
from broker.topics import ROUTES
from broker.wire import Wire

DEPLOY = Path(__file__).parents[2] / "deploy"
Connect = Callable[..., Any]

FROM_THE_AGGREGATOR = {"aggregator", "candidate", "job", "head", "status", "round", "body", "want", "verdict", "reply"}
FROM_A_DEVICE = {"device", "vitals", "offer", "chunk"}
ON_A_DEVICES_BEHALF = {"device", "offer", "chunk"}
"""What the aggregator writes too: it takes off who has been silent for long, and clears what was retained."""
FROM_AN_OPERATOR = {"command", "query", "notice"}
FOR_EVERY_DEVICE = {"aggregator", "job", "head", "round", "body"}
FOR_ONE_DEVICE = {"device", "want", "verdict"}

_marks = count()


def mark() -> bytes:
    """Return a payload that no other message has: once it is heard, what was said before was heard or never is."""
    return b"mark %d" % next(_marks)


def topic(word: str, device: str) -> str:
    """Return a topic of this word; where the word names a device or a client, this one."""
    named = {"job": "digits-1", "name": "1-3-0", "digest": "0" * 32, "index": "0", "n_examples": "12"}
    return Wire("home").filter_for(word, device=device, client=device, **named)


def test_every_word_on_the_wire_has_its_writer_in_the_access_list() -> None:
    writers = (FROM_THE_AGGREGATOR, FROM_A_DEVICE, FROM_AN_OPERATOR)
    assert sorted(word for words in writers for word in words) == sorted(ROUTES)


@pytest.mark.parametrize("word", sorted(FROM_A_DEVICE))
def test_a_device_writes_its_own_topics_and_nobody_elses(connect: Connect, word: str) -> None:
    device = connect("pi-1")
    assert device.publish(topic(word, "pi-1"))
    assert not device.publish(topic(word, "pi-2"))
    assert not device.publish(topic(word, "aggregator"))


@pytest.mark.parametrize("word", sorted(FROM_THE_AGGREGATOR | FROM_AN_OPERATOR))
@pytest.mark.parametrize("name", ["pi-1", "pi-2"])
def test_a_device_writes_no_topic_of_aggregator_or_operator(connect: Connect, word: str, name: str) -> None:
    assert not connect("pi-1").publish(topic(word, name), retain=ROUTES[word].retain)


def test_a_device_writes_nothing_outside_the_tree(connect: Connect) -> None:
    device = connect("pi-1")
    for elsewhere in ("pi-1", "fedge/1/home", "fedge/2/home/device/pi-1", "fedge/1/home/device/pi-1/more"):
        assert not device.publish(elsewhere)


def test_a_forbidden_publish_reaches_nobody_on_the_older_protocol_either(connect: Connect) -> None:
    aggregator = connect("aggregator")
    aggregator.subscribe("fedge/1/home/#")
    device = connect("pi-1", protocol=MQTTProtocolVersion.MQTTv311)
    device.publish(topic("offer", "pi-2"))
    device.publish(topic("head", "pi-1"))
    last = mark()
    device.publish(topic("offer", "pi-1"), last)
    assert topic("offer", "pi-2") not in (heard := aggregator.hear_until(last))
    assert topic("head", "pi-1") not in heard


@pytest.mark.parametrize("word", sorted(ROUTES))
@pytest.mark.parametrize("name", ["pi-1", "pi-2"])
def test_the_aggregator_writes_all_of_its_topics_and_none_of_the_others(connect: Connect, word: str, name: str) -> None:
    assert connect("aggregator").publish(topic(word, name)) == (word in FROM_THE_AGGREGATOR | ON_A_DEVICES_BEHALF)


@pytest.mark.parametrize("word", sorted(ROUTES))
@pytest.mark.parametrize("name", ["operator", "laptop-7", "pi-1"])
def test_an_operator_writes_commands_under_any_client_id_and_nothing_else(
    connect: Connect, word: str, name: str
) -> None:
    assert connect("operator").publish(topic(word, name)) == (word in FROM_AN_OPERATOR)


HOME_ASSISTANT = ("homeassistant/device/fedge-home-pi-1/config", "homeassistant/fedge/home/pi-1/state")
"""What an operator writes beside the fleet's own topics: a device as Home Assistant is to know it, and its values."""


def test_an_operator_makes_devices_known_to_home_assistant_and_writes_nothing_else_there(connect: Connect) -> None:
    operator = connect("operator")
    assert all(operator.publish(topic, retain=True) for topic in (*HOME_ASSISTANT, "homeassistant/fedge/home/status"))
    for elsewhere in ("status", "light/lamp/config", "device/lamp/set", "device/a/b/config", "sensor/fedge/config"):
        assert not operator.publish(f"homeassistant/{elsewhere}")


@pytest.mark.parametrize("user", ["pi-1", "aggregator"])
def test_nobody_else_writes_to_home_assistant(connect: Connect, user: str) -> None:
    assert not any(connect(user).publish(topic, retain=True) for topic in HOME_ASSISTANT)


def say_everything(connect: Connect, last: bytes) -> None:
    """Publish on every topic of pi-1 and pi-2, each by who may; then `last`, which everybody hears."""
    aggregator, operator = connect("aggregator"), connect("operator")
    for name in ("pi-1", "pi-2"):
        device = connect(name)
        assert all(device.publish(topic(word, name)) for word in FROM_A_DEVICE)
        assert all(aggregator.publish(topic(word, name)) for word in FROM_THE_AGGREGATOR)
        assert all(operator.publish(topic(word, name)) for word in FROM_AN_OPERATOR)
    assert aggregator.publish(topic("job", ""), last)


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_a_curious_device_hears_the_aggregator_and_itself_and_no_other_device(
    broker: Any, connect: Connect, protocol: MQTTProtocolVersion
) -> None:
    broker.add_user("curious").check_returncode()
    broker.process.send_signal(signal.SIGHUP)
    curious = connect("curious", protocol=protocol)
    curious.subscribe("#")
    say_everything(connect, last := mark())
    assert set(curious.hear_until(last)) == {topic(word, "pi-1") for word in FOR_EVERY_DEVICE}
    aggregator = connect("aggregator")
    for word in ("want", "verdict"):
        assert aggregator.publish(topic(word, "curious"))
    assert curious.publish(topic("device", "curious"))
    assert aggregator.publish(topic("round", ""), last)
    assert set(curious.hear_until(last)) == {topic(word, "curious") for word in FOR_ONE_DEVICE}


@pytest.mark.parametrize("protocol", [MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311])
def test_a_device_has_all_pieces_of_a_body_by_one_filter(connect: Connect, protocol: MQTTProtocolVersion) -> None:
    wire, aggregator, device = Wire("home"), connect("aggregator"), connect("pi-1", protocol=protocol)
    pieces = [wire.filter_for("body", job="digits-1", name="1-7-0", index=str(index)) for index in range(12)]
    others = [
        wire.filter_for("body", job=job, name=name, index="0") for job, name in (("digits-1", "1-7-6"), ("j", "1-7-0"))
    ]
    for each in pieces + others:
        assert aggregator.publish(each, b"lies here", retain=True)
    device.subscribe(wire.filter_for("body", job="digits-1", name="1-7-0"))
    assert aggregator.publish(pieces[0], last := mark())
    assert set(device.hear_until(last)) == set(pieces)
    for each in pieces + others:
        assert aggregator.publish(each, b"", retain=True)


@pytest.mark.parametrize("user", ["aggregator", "operator"])
def test_aggregator_and_operator_hear_everything(connect: Connect, user: str) -> None:
    listener = connect(user)
    listener.subscribe("fedge/1/home/#")
    say_everything(connect, last := mark())
    wanted = {topic(word, name) for word in ROUTES for name in ("pi-1", "pi-2")}
    assert wanted <= set(listener.hear_until(last))


def test_a_retained_presence_is_not_shown_to_a_device_that_comes_later(connect: Connect) -> None:
    connect("pi-2").publish(topic("device", "pi-2"), b"private", retain=True)
    device = connect("pi-1")
    device.subscribe(topic("device", "+"), topic("device", "pi-2"))
    device.publish(topic("device", "pi-1"), last := mark())
    assert topic("device", "pi-2") not in device.hear_until(last)


def test_how_a_device_is_is_shown_to_operators_alone(connect: Connect) -> None:
    connect("pi-2").publish(topic("vitals", "pi-2"), said := mark(), retain=True)
    operator, device = connect("operator"), connect("pi-1")
    operator.subscribe(topic("vitals", "+"))
    operator.hear_until(said)
    device.subscribe(topic("vitals", "+"), topic("vitals", "pi-2"), topic("vitals", "pi-1"), topic("device", "pi-1"))
    device.publish(topic("vitals", "pi-1"), mark())
    device.publish(topic("device", "pi-1"), last := mark())
    assert set(device.hear_until(last)) <= {topic("device", "pi-1")}, "not even its own"


def test_the_last_will_of_a_device_tells_the_aggregator(connect: Connect) -> None:
    aggregator = connect("aggregator")
    aggregator.subscribe(topic("device", "+"))
    device = connect("pi-1", will=(topic("device", "pi-1"), last := mark()))
    device.die()
    aggregator.hear_until(last)


def test_the_last_will_of_the_aggregator_tells_the_devices(connect: Connect) -> None:
    device = connect("pi-1")
    device.subscribe(topic("aggregator", ""))
    connect("aggregator", will=(topic("aggregator", ""), last := mark())).die()
    device.hear_until(last)


def test_a_will_in_the_name_of_another_device_is_dropped(connect: Connect) -> None:
    aggregator = connect("aggregator")
    aggregator.subscribe(topic("device", "+"))
    connect("pi-1", will=(topic("device", "pi-2"), forged := mark())).die()
    # The same user is the same client id: the broker is done with the first before it lets the second in.
    honest = connect("pi-1", will=(topic("device", "pi-1"), last := mark()))
    honest.die()
    assert forged not in aggregator.hear_until(last).values()


def test_nobody_comes_in_without_the_right_password(connect: Connect, broker: Any) -> None:
    assert connect("pi-1", password="guess").connected == 135
    broker.add_user("gone").check_returncode()
    password = broker.password("gone")
    broker.add_user("--remove", "gone").check_returncode()
    broker.process.send_signal(signal.SIGHUP)
    assert connect("gone", password=password).connected == 135


def test_no_device_can_take_the_aggregators_session_over(connect: Connect) -> None:
    aggregator = connect("aggregator", client_id="home-aggregator-b6e30f5d")
    aggregator.subscribe(topic("offer", "+"))
    thief = connect("pi-1", client_id="home-aggregator-b6e30f5d")
    assert thief.connected == 0
    thief.publish(topic("offer", "pi-1"), last := mark())
    aggregator.hear_until(last)
    assert aggregator.ended.empty()


@pytest.mark.parametrize(("user", "word"), [("operator", "command"), ("aggregator", "reply")])
def test_two_of_the_servers_side_at_once_do_not_end_each_other(connect: Connect, user: str, word: str) -> None:
    watching = connect(user, client_id="one")
    watching.subscribe(topic(word, "+"))
    connect(user, client_id="two").publish(topic(word, "two"), last := mark())
    watching.hear_until(last)
    assert watching.ended.empty()


def test_a_new_device_comes_in_after_a_reload_that_disturbs_nobody(broker: Any, connect: Connect) -> None:
    aggregator = connect("aggregator")
    aggregator.subscribe(topic("device", "+"))
    broker.add_user("pi-new").check_returncode()
    broker.process.send_signal(signal.SIGHUP)
    newcomer = connect("pi-new")
    last = mark()
    assert newcomer.publish(topic("device", "pi-new"), last)
    aggregator.hear_until(last)
    assert aggregator.ended.empty()


def test_a_busy_aggregator_loses_none_of_the_acknowledged_messages(connect: Connect) -> None:
    n = 3000  # three times the default of max_queued_messages, beyond which acknowledged messages are dropped
    aggregator, device = connect("aggregator", manual_ack=True), connect("pi-1")
    aggregator.subscribe(topic("offer", "pi-1"))
    assert all(device.publish(topic("offer", "pi-1"), b"%d" % i) for i in range(n))
    heard = []
    for _ in range(n):
        message = aggregator.heard.get(timeout=120)
        heard.append(int(message.payload))
        aggregator.paho.ack(message.mid, message.qos)
    assert heard == list(range(n))


def test_the_largest_packet_is_announced_and_holds_the_largest_message(connect: Connect) -> None:
    largest = connect("pi-1").limits.MaximumPacketSize
    assert largest > ServerLimits().chunk_bytes + MAX_CONTROL_BYTES + 1024  # and the topic


def test_the_health_check_of_compose_sees_a_living_and_a_dead_broker(broker: Any) -> None:
    line = re.search(r"^ +test: (\[.*\])$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert line is not None
    kind, shell = json.loads(line[1].replace("$$", "$"))
    assert kind == "CMD-SHELL"
    alive = subprocess.run(["sh", "-c", re.sub(r"-p 1883", f"-p {broker.port}", shell)], check=False)
    dead = subprocess.run(["sh", "-c", re.sub(r"-p 1883", "-p 1", shell)], check=False)
    assert (alive.returncode, dead.returncode) == (0, 1)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "a b", "x" * 65, "../x", "a:b", "é", "a\nb"])
def test_a_name_that_is_no_level_of_a_topic_gets_no_password(broker: Any, name: str) -> None:
    before = (broker.folder / "mosquitto" / "passwd").read_bytes()
    refused = broker.add_user(name)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert (broker.folder / "mosquitto" / "passwd").read_bytes() == before


@pytest.mark.parametrize(("option", "code", "said"), [("--help", 0, "--remove NAME"), ("-x", 1, "no option -x")])
def test_an_option_is_not_taken_for_a_name(broker: Any, option: str, code: int, said: str) -> None:
    before = (broker.folder / "mosquitto" / "passwd").read_bytes()
    done = broker.add_user(option)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True)
    assert (broker.folder / "mosquitto" / "passwd").read_bytes() == before


def test_a_password_is_replaced_and_stands_only_in_its_owners_file(broker: Any) -> None:
    broker.add_user("pi-3", "-", typed="first\n").check_returncode()
    broker.add_user("pi-3", "-", typed="second\n").check_returncode()
    lines = (broker.folder / "mosquitto" / "passwd").read_text().splitlines()
    assert [line.split(":")[0] for line in lines].count("pi-3") == 1
    assert "second" not in "".join(lines)
    assert broker.password("pi-3") == "second"
    assert (broker.folder / "secrets" / "pi-3.password").stat().st_mode & 0o077 == 0
    assert (broker.folder / "mosquitto" / "passwd").stat().st_mode & 0o077 == 0


def test_a_password_is_not_taken_from_the_command_line(broker: Any) -> None:
    assert broker.add_user("pi-1", "secret").returncode == 1
