"""Discovery over a real mosquitto: what lies there, what is said again, and that it is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator.config import AggregatorConfig
from aggregator.looking_on import HomeAssistantSettings
from aggregator.store import Store
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.messages import Presence
from broker.transport import Online, Packet
from broker.wire import Wire
from fleet.homeassistant.published import FILE, read, write
from fleet.homeassistant.publisher import Publisher
from fleet.sight.companion import companion_of
from fleet.sight.lookout import lookout_on
from fleet.sight.process import Looking, things_on
from fleet.sight.store_readings import StoreSource
from runtime.formats import NewerFormatError, stamped
from runtime.settings import SettingsError
from tests.fleet.conftest import Until

CONFIG, STATE = "homeassistant/device/fedge-home-pi-1/config", "homeassistant/fedge/home/pi-1/state"
STATUS = "homeassistant/fedge/home/status"


class Client:
    """Home Assistant, as far as a broker sees it, and a device: what lies at a broker, and what it says."""

    def __init__(self, broker: EmbeddedBroker, name: str) -> None:
        self.lies: dict[str, bytes] = {}
        self.heard: list[str] = []
        self.transport = MqttTransport(where(broker), name)
        self.transport.subscribe("homeassistant/#")
        self.transport.open()

    def hear(self) -> None:
        while (event := self.transport.take(0.0)) is not None:
            if isinstance(event, Packet):
                self.heard.append(event.topic)
                self.lies[event.topic] = event.payload

    def has(self, topic: str, holds: Callable[[bytes], bool]) -> bool:
        self.hear()
        return topic in self.lies and holds(self.lies[topic])

    def say(self, packet: Packet) -> bool:
        return self.transport.publish(packet)


@pytest.fixture
def client(mosquitto: EmbeddedBroker) -> Iterator[Client]:
    made = Client(mosquitto, "home-assistant")
    while not isinstance(made.transport.take(20.0), Online):
        pass
    yield made
    made.transport.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state", synced=False)
    yield made
    made.close()


def where(broker: EmbeddedBroker) -> BrokerSettings:
    return BrokerSettings(port=broker.port, protocol=broker.protocol)


@contextmanager
def publishing(broker: EmbeddedBroker, store: Store, prefix: str) -> Iterator[None]:
    looking = Looking("home", str(store.folder), where(broker), homeassistant=HomeAssistantSettings(prefix))
    with lookout_on(where(broker), Wire("home"), StoreSource(store.folder)) as lookout:
        (publisher,) = things_on(lookout, looking, store.folder, lambda: None)
        publisher.start()
        yield
        publisher.stop()


def presence(*, online: bool) -> Packet:
    return Wire("home").pack(Presence("pi-1", 1, online, nonce="n", incarnation="i", software="{{ 7 * 7 }}"))


def test_a_device_is_made_known_kept_up_to_date_and_taken_back(
    store: Store, mosquitto: EmbeddedBroker, client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.homeassistant.publication.AGAIN_S", 0.0)
    monkeypatch.setattr("fleet.homeassistant.publication.STATE_S", 0.0)
    monkeypatch.setattr("fleet.homeassistant.publisher.LOOK_S", 0.1)
    client.say(presence(online=True))
    with publishing(mosquitto, store, "homeassistant"):
        until(lambda: client.has(CONFIG, lambda said: json.loads(said)["dev"]["name"] == "pi-1"))
        until(lambda: client.has(STATUS, lambda said: said == b"online"))
        assert read(store.folder) == {"homeassistant": {"pi-1"}}
        client.say(presence(online=True))
        until(lambda: client.has(STATE, lambda said: json.loads(said)["there"] == "online"))
        client.say(presence(online=False))
        until(lambda: client.has(STATE, lambda said: json.loads(said)["state"] == "offline"))
        client.heard.clear()
        client.say(Packet("homeassistant/status", b"online"))
        until(lambda: client.has(CONFIG, bool) and CONFIG in client.heard and STATE in client.heard)
    until(lambda: client.has(STATUS, lambda said: said == b"offline"))
    late = Client(mosquitto, "another")
    until(lambda: late.has(CONFIG, bool) and late.has(STATE, bool))
    late.transport.close()
    assert b"7 * 7" not in b"".join(late.lies.values())
    config = AggregatorConfig("home", state_dir=str(store.folder))
    assert companion_of(config, Path("x"), is_installed=False) is not None, "which takes back what lies there"
    with publishing(mosquitto, store, ""):
        until(lambda: client.has(CONFIG, lambda said: not said) and client.has(STATE, lambda said: not said))
        until(lambda: not (store.folder / FILE).exists())
    assert companion_of(config, Path("x"), is_installed=False) is None
    assert client.lies[STATUS] == b""


def test_under_another_prefix_nothing_is_left_under_the_former(
    store: Store, mosquitto: EmbeddedBroker, client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.homeassistant.publisher.LOOK_S", 0.1)
    client.say(presence(online=True))
    client.say(Packet(CONFIG, b"{}", retain=True))
    write(store.folder, {"homeassistant": {"pi-1"}})
    client.transport.subscribe("other/#")
    with publishing(mosquitto, store, "other"):
        until(lambda: client.has(CONFIG, lambda said: not said))
        until(lambda: client.has("other/device/fedge-home-pi-1/config", bool))
        until(lambda: read(store.folder) == {"other": {"pi-1"}})


def test_who_may_not_write_there_is_named_once(
    store: Store, tmp_path: Path, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "acl").write_text("topic read #\ntopic write fedge/#\n", encoding="utf-8")
    write(store.folder, {"homeassistant": {f"d{n}" for n in range(9)}})
    rules = [f"acl_file {tmp_path / 'acl'}"]
    with (
        start_broker(tmp_path / "broker", prefer="mosquitto", config_lines=rules) as broker,
        publishing(broker, store, ""),
    ):
        until(lambda: "Home Assistant hears nothing: homeassistant/" in caplog.text)
    assert caplog.text.count("Home Assistant hears nothing") == 1


def test_the_file_is_refused_by_name_where_it_is_newer_and_begun_anew_where_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / FILE
    write(tmp_path, {"homeassistant": {"b", "a"}, "empty": set()})
    assert path.read_bytes() == b'{"devices":{"homeassistant":["a","b"]},"format":1,"checksum":"17fceec3"}'
    whole = path.read_bytes()
    for damaged in (b"", b"{", whole[:-5], whole.replace(b'"a"', b'"c"'), stamped(whole.replace(b'"a"', b'"#"'))):
        path.write_bytes(damaged)
        caplog.clear()
        assert read(tmp_path) == {}
        assert "homeassistant.json: is damaged" in caplog.text
    path.write_bytes(stamped(b'{"devices":[],"format":2,"checksum":"00000000"}'))
    with pytest.raises(NewerFormatError, match=r"homeassistant.json has format 2"):
        read(tmp_path)
    with pytest.raises(SettingsError, match="format 2"):
        Publisher(lookout_on(BrokerSettings(), Wire("home")), BrokerSettings(), "ha", tmp_path, "1")
