"""What somebody is told of, with made-up views and a made-up clock."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from msgspec import structs

from aggregator.looking_on import NotifySettings
from broker.messages import Notice, Vitals
from fleet.notices import incidents
from fleet.notices.incidents import DAY_S, HOLD_S, Incidents, Surroundings
from fleet.notices.told import Told
from fleet.sight.view import DeviceState, DeviceView, Happened, View

AT = 1_700_000_000.0
KINDS = (*NotifySettings().kinds, "device.back")
HOUR_S = 3600.0


class Watch:
    """Incidents under a clock of its own."""

    def __init__(self, settings: NotifySettings | None = None, told: Told | None = None) -> None:
        self.told = Told() if told is None else told
        self.settings = settings or NotifySettings(kinds=KINDS)
        self.incidents = Incidents(self.settings, self.told)
        self.now = AT
        self.n = self.told.last or 0
        self.view = View("f", AT, connected=True)
        self.around = Surroundings("/var/lib/fedge")

    def look(self, *happened: Happened, after_s: float = 0.0) -> list[Notice]:
        self.now += after_s
        return self.incidents.look(self.view, happened, self.around, self.now)

    def pass_time(self, seconds: float, step_s: float = 10.0) -> list[Notice]:
        until, found = self.now + seconds, list[Notice]()
        while self.now < until:
            found += self.look(after_s=step_s)
        return found

    def happen(self, kind: str, text: str = "it is so", *, job: str = "", device: str = "") -> Happened:
        self.n += 1
        return Happened(self.n, self.now, kind, text, job, device)

    def put(self, state: DeviceState, devices: Iterable[str] = ("pi-1",), vitals: Vitals | None = None) -> None:
        seen = {device: DeviceView(device, state, self.now, vitals=vitals) for device in devices}
        self.view = structs.replace(self.view, devices={**self.view.devices, **seen})

    def again(self) -> Watch:
        """Return what starts where this one has been killed."""
        written = msgspec.json.decode(msgspec.json.encode(self.told), type=Told)
        other = Watch(self.settings, written)
        other.view, other.now, other.around = self.view, self.now, self.around
        return other


def kinds(notices: list[Notice]) -> list[str]:
    return [notice.kind for notice in notices]


def test_an_end_of_a_job_is_told_once_whatever_comes_after_it() -> None:
    watch = Watch()
    (notice,) = watch.look(watch.happen("job.finished", "digits has finished", job="digits-1"))
    assert notice == Notice(AT, "job.ended", "digits has finished", "digits-1")
    deleted = watch.happen("job.deleted", job="digits-1")
    assert watch.look(deleted, after_s=HOUR_S) == []
    assert watch.again().look(deleted) == [], "nor after a start"
    assert kinds(watch.look(watch.happen("job.stopped", job="other-2"), after_s=HOUR_S)) == ["job.ended"]


def test_more_incidents_than_are_remembered_are_told_of_once_and_leave_room_for_what_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(incidents, "MOST_OPEN", 20)
    watch = Watch()
    for n in range(50):
        watch.put("online", [f"pi-{n:02}"], Vitals(f"pi-{n:02}", 1, disk_free=1))
    watch.around = Surroundings("/var/lib/fedge", free=1)
    (notice,) = watch.look()
    assert notice.text.startswith("20 disks are nearly full")
    assert "the server" in notice.text
    assert watch.pass_time(HOUR_S) == []
    assert kinds(watch.look(watch.happen("job.finished", job="digits-1"))) == ["job.ended"], "what happens is told"
    assert watch.pass_time(HOUR_S) == []
    assert caplog.text.count("20 incidents are open") == 1


def test_an_event_that_was_looked_at_is_not_told_again() -> None:
    watch = Watch(told=Told(last=7))
    assert watch.look(Happened(7, AT, "job.finished", "old", "a")) == []
    assert watch.look(Happened(8, AT, "job.finished", "new", "b"))[0].text == "new"
    assert watch.told.last == 8


def test_abandoned_rounds_of_a_job_are_one_incident_until_an_hour_without() -> None:
    watch = Watch()
    assert kinds(watch.look(watch.happen("round.abandoned", job="a"))) == ["round.abandoned"]
    for _ in range(10):
        assert watch.look(watch.happen("round.abandoned", job="a"), after_s=1800) == []
    assert watch.look(watch.happen("round.abandoned", "and 50 more rounds came to no version")) == []
    assert watch.look(after_s=HOUR_S + 1) == []
    assert kinds(watch.look(watch.happen("round.abandoned", job="a"))) == ["round.abandoned"]


def test_a_device_is_lost_after_its_time_and_back_when_it_is() -> None:
    watch = Watch()
    watch.put("offline")
    assert watch.pass_time(HOUR_S - 60) == []
    (notice,) = watch.pass_time(300)
    assert (notice.kind, notice.device, notice.text) == ("device.lost", "pi-1", "pi-1 has been away for 1 h 00 min")
    assert watch.pass_time(3 * HOUR_S) == []
    again = watch.again()
    assert again.pass_time(3 * HOUR_S) == [], "nor after a start"
    again.put("online")
    (back,) = again.pass_time(60)
    assert (back.kind, back.device) == ("device.back", "pi-1")
    assert again.pass_time(HOUR_S) == []
    again.put("silent")
    assert kinds(again.pass_time(HOUR_S + 300)) == ["device.lost"]


def test_a_start_does_not_begin_to_count_anew() -> None:
    watch = Watch()
    watch.put("offline")
    assert watch.pass_time(HOUR_S - 600) == []
    assert kinds(watch.again().pass_time(900)) == ["device.lost"]


def test_a_device_that_comes_back_in_time_is_not_lost() -> None:
    watch = Watch()
    for _ in range(5):
        watch.put("offline")
        assert watch.pass_time(HOUR_S / 2) == []
        watch.put("online")
        assert watch.pass_time(30) == []


def test_only_time_in_which_somebody_listens_counts_and_a_leap_of_the_clock_does_not() -> None:
    watch = Watch()
    watch.put("offline")
    watch.look()
    assert watch.look(after_s=365 * DAY_S) == []
    watch.view = structs.replace(watch.view, connected=False)
    assert watch.pass_time(3 * HOUR_S) == []
    watch.view = structs.replace(watch.view, connected=True)
    assert watch.pass_time(HOUR_S / 2) == []
    assert watch.look(after_s=-DAY_S) == []
    assert kinds(watch.pass_time(HOUR_S)) == ["device.lost"]


def test_a_storm_of_lost_devices_is_one_notice_though_they_go_over_a_minute() -> None:
    watch, fleet = Watch(), [f"pi-{n:04}" for n in range(5000)]
    watch.put("online", fleet)
    found = []
    for n in range(0, 5000, 500):
        watch.put("offline", fleet[n : n + 500])
        found += watch.pass_time(10)
    found += watch.pass_time(HOUR_S + 300, step_s=50)
    (notice,) = found
    names = "pi-0000, pi-0001, pi-0002, pi-0003, pi-0004 and 4,995 more"
    assert notice.text == f"5,000 devices have been away for 1 h 00 min or longer: {names}"
    watch.put("online", fleet)
    (back,) = watch.pass_time(120)
    assert back.text.startswith("5,000 devices that were lost are back: pi-0000")


def test_what_is_in_quarantine_or_was_never_there_is_not_lost() -> None:
    watch = Watch()
    watch.put("quarantined", ("bad",))
    watch.put("unknown", ("old",))
    assert watch.pass_time(2 * HOUR_S) == []


def test_a_device_that_is_gone_for_good_is_forgotten_but_not_in_the_first_minute_of_a_start() -> None:
    watch = Watch()
    watch.put("offline")
    assert kinds(watch.pass_time(HOUR_S + 300)) == ["device.lost"]
    again = watch.again()
    again.view = structs.replace(again.view, devices={})
    again.pass_time(30)
    assert "pi-1" in again.told.lost
    again.pass_time(60)
    assert not again.told.lost


def test_a_clone_is_told_once_while_there_are_signs_of_it() -> None:
    watch = Watch()
    clone = watch.happen("device.clone", "two devices speak as pi-1", device="pi-1")
    assert watch.look(clone)[0].text == "two devices speak as pi-1"
    watch.view = structs.replace(
        watch.view, devices={"pi-1": DeviceView("pi-1", "online", AT, alarm="two devices share this id")}
    )
    assert watch.pass_time(3 * HOUR_S) == []
    watch.put("online")
    assert watch.look(after_s=HOUR_S + 1) == []
    assert kinds(watch.look(watch.happen("device.clone", device="pi-1"))) == ["device.clone"]


def test_refused_words_are_told_once_until_an_hour_without() -> None:
    watch = Watch()
    assert watch.look(watch.happen("words.refused", "9 messages were refused"))[0].text == "9 messages were refused"
    assert [watch.look(watch.happen("words.refused"), after_s=60) for _ in range(100)] == [[]] * 100
    watch.look(after_s=HOUR_S + 1)
    assert kinds(watch.look(watch.happen("words.refused"))) == ["words.refused"]


def test_a_disk_is_told_when_it_is_nearly_full_and_not_while_it_wavers() -> None:
    watch = Watch()
    watch.around = structs.replace(watch.around, free=400_000_000)
    watch.put("online", vitals=Vitals("pi-1", 1, disk_free=312_000_000))
    other, one = watch.look()
    assert (one.text, one.device) == ("the disk of pi-1 is nearly full: 312 MB left", "pi-1")
    assert (other.text, other.device) == ("the server's disk at /var/lib/fedge is nearly full: 400 MB left", "")
    for free in (510_000_000, 490_000_000) * 5:
        watch.around = structs.replace(watch.around, free=free)
        assert watch.look(after_s=HOLD_S) == []
    watch.around = structs.replace(watch.around, free=700_000_000)
    assert watch.look(after_s=HOLD_S) == []
    watch.around = structs.replace(watch.around, free=1)
    assert kinds(watch.look(after_s=HOLD_S)) == ["disk"]


def test_a_certificate_is_told_when_it_will_end_soon_and_again_when_the_next_one_will() -> None:
    watch = Watch()
    watch.around = Surroundings(ends={"/ca.crt": AT + 15 * DAY_S})
    assert watch.look() == []
    assert watch.look(after_s=2 * DAY_S)[0].text == "/ca.crt ends in 13 days: have it renewed"
    assert [watch.look(after_s=HOUR_S) for _ in range(20)] == [[]] * 20
    watch.around = Surroundings(ends={"/ca.crt": AT})
    assert watch.look(after_s=HOUR_S)[0].text == "/ca.crt has ended: have it renewed"


def test_more_of_a_kind_than_a_few_are_counted_in_one_notice_a_minute_at_most() -> None:
    watch = Watch()
    assert len(watch.look(*(watch.happen("device.clone", device=f"a{n}") for n in range(3)))) == 3
    for n in range(30):
        assert watch.look(watch.happen("device.clone", device=f"b{n:02}"), after_s=1.0) == []
    held = watch.again()
    held.now += HOLD_S
    (notice,) = held.look()
    assert notice.text == "30 devices share their id with another one, it seems: b00, b01, b02, b03, b04 and 25 more"


@pytest.mark.parametrize("kind", ["job.finished", "round.abandoned", "device.clone", "words.refused"])
def test_what_nobody_wants_to_know_is_not_told(kind: str) -> None:
    watch = Watch(NotifySettings(kinds=()))
    watch.around = Surroundings(free=0, ends={"c": 0.0})
    watch.put("offline")
    assert watch.look(watch.happen(kind, job="a", device="b")) == []
    assert watch.pass_time(2 * HOUR_S) == []


def test_words_of_strangers_act_on_nobodys_screen() -> None:
    watch = Watch()
    (notice,) = watch.look(watch.happen("job.stopped", "\x1b[2Jstopped\nroot: all is well {n}" + "x" * 999, job="a"))
    assert notice.text.isprintable()
    assert len(notice.text) <= 400


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("incidents.MOST_OPEN", 50), ("incidents.MOST_HELD", 50)):
        monkeypatch.setattr(f"fleet.notices.{name}", most)
    monkeypatch.setattr("fleet.notices.missing.MOST_DEVICES", 50)
    watch = Watch()
    watch.put("offline", [f"pi-{n}" for n in range(100)])
    watch.look(*(watch.happen("device.clone", device=f"a{n}") for n in range(3)))
    watch.look(*(watch.happen("device.clone", device=f"b{n}") for n in range(200)), after_s=1.0)
    watch.pass_time(30)
    told = watch.told
    assert (len(told.open), len(told.held["device.clone"]), told.more["device.clone"], len(told.away)) == (
        50,
        50,
        150,
        50,
    )
    assert watch.look(after_s=HOLD_S)[0].text.startswith("200 devices share")
