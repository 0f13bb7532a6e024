"""Revocation with a real mosquitto over TLS: out at once, for good, and nobody else is disturbed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from broker.transport import Packet
from fleet.authority.cut import remove_password
from tests.fleet.authority.conftest import TEMPLATE, Client, Site

Connect = Callable[..., Client]


def topic(device: str, word: str = "device") -> str:
    return f"fedge/1/barn/{word}/{device}"


def online(device: str, site: Site, connect: Connect, *more: object) -> Client:
    """A device that has said that it is there, and whose will says that it is gone."""
    client = connect(
        site.of_device(site.enroll(device, *more)), device, will=Packet(topic(device), b"gone", retain=True)
    )
    site.until(lambda: client.is_online, f"{device} is online")
    assert client.transport.publish(Packet(topic(device), b"here", retain=True))
    assert client.transport.publish(Packet(topic(device, "vitals"), b"warm", retain=True))
    return client


def test_a_revoked_device_is_cut_cannot_return_and_is_forgotten_and_the_others_notice_nothing(
    site: Site, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    site.start_broker()
    out, other = online("pi-1", site, connect), online("pi-2", site, connect)
    watcher = connect(site.of_staff(), "watcher", topic("+"), topic("+", "vitals"))
    site.until(lambda: watcher.heard(topic("pi-1")) == [b"here"], "pi-1 is there")
    site.until(lambda: watcher.heard(topic("pi-1", "vitals")) == [b"warm"], "and says how it is")
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["done"]
    assert [(step["what"], step["done"]) for step in told["steps"]] == [
        ("record", True),
        ("lists", True),
        ("broker reads its lists", True),
        ("connection is cut", True),
        ("retained topic is cleared", True),
    ]
    site.until(lambda: any("revoked" in reason for reason in out.reasons), "pi-1 is told why")
    assert not out.is_online
    heard = watcher.heard(topic("pi-1"))
    assert heard[:2] == [b"here", b"gone"]
    assert set(heard[2:]) == {b""}, "cleared after the will"
    assert other.is_online
    assert not other.reasons
    late = connect(site.of_staff(), "late", topic("+"), topic("+", "vitals"))
    site.until(lambda: bool(late.heard(topic("pi-2")) and late.heard(topic("pi-2", "vitals"))), "all has come")
    assert not late.heard(topic("pi-1"))
    assert not late.heard(topic("pi-1", "vitals")), "nor of how it was"
    site.fedge("ca", "revoke", site.ca, "pi-1", "--json")
    assert json.loads(capsys.readouterr().out)["steps"][0]["text"] == "was revoked before"


def test_the_older_self_of_a_device_that_is_enrolled_again_is_cut_and_the_new_one_comes_in(
    site: Site, connect: Connect
) -> None:
    site.start_broker()
    older = online("pi-1", site, connect)
    newer = online("pi-1", site, connect)
    site.until(lambda: any("revoked" in reason for reason in older.reasons), "the older one is told why")
    assert newer.is_online
    assert not newer.reasons


def test_where_the_broker_does_not_read_its_list_the_command_says_so_and_completes_when_run_again(
    site: Site, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    site.start_broker()
    out = online("pi-1", site, connect)
    settings = site.ca / "authority.toml"
    right = settings.read_text()
    settings.write_text(right.replace("pid_file", "#pid_file"))
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    said = capsys.readouterr().out
    assert "NOT DONE  broker reads its lists: nobody has said how" in said
    assert "NOT DONE  connection is cut: it came back" in said
    assert "run this again" in said
    settings.write_text(right)
    site.fedge("ca", "revoke", site.ca, "pi-1")
    site.until(lambda: any("revoked" in reason for reason in out.reasons), "pi-1 is told why")


def test_while_the_broker_is_away_a_device_is_revoked_all_the_same(
    site: Site, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    etc = site.enroll("pi-1")
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    said = capsys.readouterr().out
    assert "done      lists" in said
    assert f"{site.folder}/pid" in said
    assert "nobody listens on 127.0.0.1" in said
    site.start_broker()
    client = connect(site.of_device(etc), "pi-1")
    site.until(lambda: any("revoked" in reason for reason in client.reasons), "pi-1 is not let in")


def test_without_a_right_to_clear_the_topic_the_command_says_which(
    site: Site, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "acl").write_text("user authority\ntopic read a\npattern write fedge/1/+/device/%u\n")
    site.fedge("ca", "acl", site.ca, "--template", site.folder / "acl", code=1)
    site.start_broker()
    online("pi-1", site, connect)
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    said = capsys.readouterr().out
    assert "done      connection is cut" in said
    assert f"let user authority read and write {topic('pi-1')}" in said


def test_under_an_access_list_of_before_there_were_vitals_a_device_is_revoked_all_the_same(
    site: Site, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    older = [line for line in TEMPLATE.splitlines() if "vitals" not in line]
    assert len(older) == len(TEMPLATE.splitlines()) - 2
    (site.folder / "acl").write_text("\n".join(older) + "\n")
    site.fedge("ca", "acl", site.ca, "--template", site.folder / "acl", code=1)
    site.start_broker()
    out = online("pi-1", site, connect)
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1")
    assert "done      retained topic is cleared" in capsys.readouterr().out
    site.until(lambda: any("revoked" in reason for reason in out.reasons), "pi-1 is told why")


def test_a_process_that_is_no_mosquitto_is_not_sent_a_signal(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.enroll("pi-1")
    (site.folder / "pid").write_text("1")
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    assert "process 1 is no mosquitto" in capsys.readouterr().out


def test_a_command_may_tell_the_broker(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.enroll("pi-1")
    mark = site.folder / "told"
    (site.ca / "authority.toml").write_text(f'[broker]\nreload = ["touch", "{mark}"]\n')
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    assert mark.exists()
    (site.ca / "authority.toml").write_text('[broker]\nreload = ["sh", "-c", "echo no >&2; exit 3"]\n')
    capsys.readouterr()
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    assert "exit 3: no; see [broker] reload" in capsys.readouterr().out


def test_a_password_goes_too(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    passwords = site.folder / "passwd"
    passwords.write_text("pi-1:x\npi-10:y\npi-2:z\n")
    passwords.chmod(0o640)
    (site.ca / "authority.toml").write_text(f'[broker]\npasswords = "{passwords}"\n')
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)  # a device that was never enrolled; no broker is told
    assert f"done      password: {passwords}: removed" in capsys.readouterr().out
    site.fedge("ca", "revoke", site.ca, "pi-1", code=1)
    assert f"done      password: {passwords}: has none of it" in capsys.readouterr().out, (
        "what is left can be completed"
    )
    assert passwords.read_text() == "pi-10:y\npi-2:z\n"
    assert passwords.stat().st_mode & 0o777 == 0o640
    assert not remove_password(passwords, "pi-1")
