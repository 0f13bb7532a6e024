"""Which packets go to Home Assistant, by made-up views and a made-up clock."""

from __future__ import annotations

import json
from collections.abc import Iterable

from msgspec import structs

from broker.transport import Packet
from fleet.homeassistant.publication import AGAIN_S, GONE_S, STATE_S, Publication
from fleet.sight.view import DeviceState, DeviceView, View


class Watch:
    def __init__(self, devices: Iterable[str] = ()) -> None:
        self.publication = Publication("ha", "home", "1.0", set(devices))
        self.now = 1000.0
        self.view = View("home", 1.0, connected=True)

    def put(self, state: DeviceState, *devices: str, progress: float | None = None) -> None:
        seen = {device: DeviceView(device, state, 0.0, progress=progress) for device in devices}
        self.view = structs.replace(self.view, devices={**self.view.devices, **seen})

    def look(self, after_s: float = 0.0, room: int = 1000) -> list[Packet]:
        self.now += after_s
        self.publication.look(self.view, self.now)
        return list(self.publication.due(self.now, room))


def names(packets: list[Packet]) -> list[str]:
    assert all(packet.retain for packet in packets)
    return [packet.topic for packet in packets]


CONFIG, STATE = "ha/device/fedge-home-pi-1/config", "ha/fedge/home/pi-1/state"


def test_a_device_is_made_known_once_and_its_values_follow() -> None:
    watch = Watch()
    watch.put("online", "pi-1")
    assert names(watch.look()) == [CONFIG, STATE]
    assert watch.publication.devices == {"pi-1"}
    assert watch.look(3600) == []
    watch.put("offline", "pi-1")
    (packet,) = watch.look()
    assert json.loads(packet.payload)["there"] == "offline"


def test_values_go_out_on_change_and_not_more_often_than_they_may() -> None:
    watch = Watch()
    watch.put("online", "pi-1")
    watch.look()
    sent = []
    for n in range(100):
        watch.put("online", "pi-1", progress=n / 100)
        sent += watch.look(1.0)
    assert len(sent) == 100 / STATE_S
    sent += watch.look(STATE_S)
    assert json.loads(sent[-1].payload)["progress"] == 99
    watch.put("online", "pi-1", progress=0.9901)
    assert watch.look(STATE_S) == [], "it is the same for people"


def test_no_more_is_sent_at_once_than_there_is_room_for() -> None:
    watch = Watch()
    watch.put("online", *(f"d{n}" for n in range(10)))
    found = []
    for _ in range(20):
        found += (few := watch.look(room=1))
        assert len(few) == 1
    assert watch.look() == []
    assert len({packet.topic for packet in found}) == 20


def test_all_of_it_is_said_again_at_a_connection_and_when_home_assistant_has_started_but_not_for_a_storm() -> None:
    watch = Watch()
    watch.put("online", "pi-1")
    watch.look()
    watch.publication.again(watch.now)
    assert names(watch.look()) == [CONFIG, STATE]
    watch.publication.again(watch.now + AGAIN_S - 1, is_urgent=False)
    assert watch.look() == []
    watch.publication.again(watch.now + AGAIN_S, is_urgent=False)
    assert names(watch.look(AGAIN_S)) == [CONFIG, STATE]


def test_a_device_that_is_gone_for_good_is_cleared_twice_and_forgotten() -> None:
    watch = Watch()
    watch.put("online", "pi-1")
    watch.look()
    watch.view = structs.replace(watch.view, devices={})
    passed, found = 0.0, list[Packet]()
    while not found:
        found, passed = watch.look(30), passed + 30
    assert GONE_S <= passed <= GONE_S + 60
    assert found == [Packet(CONFIG, b"", retain=True), Packet(STATE, b"", retain=True)]
    assert watch.publication.devices == {"pi-1"}
    assert watch.look(AGAIN_S) == found
    assert watch.publication.devices == set()
    assert watch.look(AGAIN_S) == []


def test_a_device_that_comes_back_in_time_stays() -> None:
    watch = Watch()
    watch.put("online", "pi-1")
    watch.look()
    here, away = watch.view, structs.replace(watch.view, devices={})
    for _ in range(5):
        watch.view = away
        assert [watch.look(30) for _ in range(20)] == [[]] * 20
        watch.view = here
        assert watch.look(30) == []


def test_who_was_published_before_a_start_and_is_gone_is_cleared_but_not_while_nobody_listens() -> None:
    watch = Watch(["pi-1"])
    watch.view = structs.replace(watch.view, connected=False)
    assert [watch.look(60) for _ in range(50)] == [[]] * 50
    watch.view = structs.replace(watch.view, connected=True)
    assert watch.look(86400 * 9) == [], "a leap is no time"
    assert any(names(watch.look(60)) == [CONFIG, STATE] for _ in range(20))


def test_one_that_comes_again_while_it_is_cleared_is_made_known_again() -> None:
    watch = Watch(["pi-1"])
    while not watch.look(60):
        pass
    watch.put("online", "pi-1")
    assert names(watch.look()) == [CONFIG, STATE]
    assert watch.look(AGAIN_S) == []
    assert watch.publication.devices == {"pi-1"}


def test_a_name_that_is_no_level_of_a_topic_is_not_published() -> None:
    watch = Watch()
    watch.put("online", "a/b", "{{ x }}", "#", "")
    assert watch.look() == []
