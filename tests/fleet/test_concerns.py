from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pytest

from broker.connection import BrokerSettings
from fleet import roles
from fleet.concerns import DAY_S, Daily, concerns, list_concerns
from identity import certificates
from identity.registry import Registry

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def broker(tmp_path: Path) -> BrokerSettings:
    key = certificates.new_key()
    files = {"ca.crt": certificates.new_authority(key, "fedge root", "barn", 90, NOW), "device.key": key}
    files["device.crt"] = certificates.issue(files["ca.crt"], key, key, "pi-1", 30, NOW)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o640)
    paths = [str(tmp_path / name) for name in ("ca.crt", "device.crt", "device.key")]
    return BrokerSettings(ca_file=paths[0], certificate_file=paths[1], key_file=paths[2])


def test_a_certificate_is_of_concern_in_the_last_third_of_its_time(broker: BrokerSettings) -> None:
    assert concerns(broker, now=NOW) == []
    assert concerns(broker, now=NOW + 19 * DAY) == []
    (late,) = concerns(broker, now=NOW + 21 * DAY)
    assert "in 8 days: have it renewed before" in late
    (ended,) = concerns(broker, now=NOW + 31 * DAY)
    assert "has expired on" in ended
    assert "timedatectl" in ended


def test_a_clock_from_before_the_program_was_made_is_named_with_its_source(broker: BrokerSettings) -> None:
    boot = dt.datetime(1970, 1, 1, 0, 3, tzinfo=dt.UTC)
    clock, early = concerns(broker, now=boot)
    assert "this machine's clock says 1970-01-01 00:03 UTC" in clock
    assert "timedatectl set-ntp true" in clock
    assert "is not valid before" in early
    assert concerns(BrokerSettings(), now=boot) == [], "without certificates no clock matters"


def test_a_secret_that_everybody_can_read_is_named_with_what_to_do(broker: BrokerSettings, tmp_path: Path) -> None:
    (tmp_path / "device.key").chmod(0o644)
    (tmp_path / "state").mkdir(mode=0o755)
    found = concerns(broker, str(tmp_path / "state"), None, str(tmp_path / "none"), now=NOW)
    assert [text.partition(": ")[2] for text in found] == [
        f"chmod o= {tmp_path / 'device.key'}",
        f"chmod o= {tmp_path / 'state'}",
    ]


@pytest.mark.parametrize(("days", "words"), [(-1, "has ended"), (9, "ends on"), (11, ""), (None, "")])
def test_the_brokers_list_of_the_revoked_is_of_concern_long_before_it_ends(days: int | None, words: str) -> None:
    registry = Registry("barn", list_until=None if days is None else NOW + days * DAY)
    assert [words in text for text in list_concerns(registry, NOW)] == ([True] if words else [])


def test_concerns_are_said_at_the_start_and_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    with caplog.at_level(logging.WARNING):
        daily = Daily(lambda: ["it ends"], lambda: now)
        for now in (1.0, DAY_S - 1.0, DAY_S, DAY_S + 1.0, 2 * DAY_S + 1.0):  # noqa: B007 -- the clock reads it
            daily.tick()
    assert caplog.messages == ["it ends"] * 3


def test_a_service_looks_at_its_concerns_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.roles.notify.watchdog_interval_s", lambda: 1e-9)
    days = iter([0.0, 0.0, *(n * DAY_S for n in range(1, 9))])
    said: list[str] = []
    daily = Daily(lambda: said.append("again") or [], lambda: next(days))
    steps = iter([False, False, True])
    roles._loop(lambda _s: True, lambda: next(steps), lambda: "doing", daily)
    assert len(said) > 1
