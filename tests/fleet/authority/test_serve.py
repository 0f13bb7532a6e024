"""Devices that enroll by tokens: real processes, and a real mosquitto over TLS."""

from __future__ import annotations

import datetime as dt
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from identity import certificates
from tests.fleet.authority.conftest import Client
from tests.fleet.authority.enrolling import TokenSite

Connect = Callable[..., Client]


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[TokenSite]:
    made = TokenSite(tmp_path, capsys)
    try:
        made.start_broker()
        yield made
    finally:
        made.stop()


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has had."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_from_nothing_to_an_agent_that_runs_and_the_token_is_gone(site: TokenSite, connect: Connect) -> None:
    serving = site.serve()
    line = site.token("--device", "pi-1", "--labels", "site=north", "--rows", 100)
    asking = site.ask("etc", line)
    mark = site.waiting()
    (request,) = site.requests()
    assert (request["device"], request["labels"]) == ("pi-1", {"site": "north"})
    site.until(lambda: f"fingerprint {mark}" in site.said("etc"), "the device shows the same fingerprint")
    assert not (site.folder / "etc" / "identity").exists(), "nothing is there before it is approved"
    site.fedge("ca", "approve", site.ca, mark)
    assert site.ended(asking, "etc") == 0
    site.until(lambda: not site.requests(), "the token is gone")
    assert site.known_tokens() == []
    etc = site.folder / "etc"
    assert not (etc / ".enrolling").exists()
    assert {file.stat().st_mode & 0o777 for file in (etc / "identity").iterdir()} == {0o600}
    assert 'site = "north"' in (etc / "agent.toml").read_text()
    text = (etc / "agent.toml").read_text().replace("/var/lib/fedge-agent", str(site.folder / "state"))
    (etc / "agent.toml").write_text(text)
    watcher = connect(site.of_staff("admin"), "watcher", "fedge/1/barn/device/+")
    site.start("agent", "-m", "fleet.cli", "agent", "run", "--config", etc / "agent.toml")
    site.until(lambda: any(watcher.heard("fedge/1/barn/device/pi-1")), "the agent is there")
    site.until(lambda: " online" in site.said("agent"), "its log says so")
    assert peak_mb(site.processes[-1].pid) <= 60
    again = site.ask("other", line)
    assert site.ended(again, "other") == 1
    assert "the broker does not know this token: it was used" in site.said("other")
    assert not (site.folder / "other" / "identity").exists()
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(120) == 0


def test_a_token_that_is_used_by_two_enrolls_the_first_alone(site: TokenSite) -> None:
    site.serve()
    line = site.token()
    first = site.ask("first", line, "--device", "pi-1")
    mark = site.waiting()
    # The same client id: the two throw each other off, and each comes back.
    second = site.ask("second", line, "--device", "pi-2")
    assert site.ended(second, "second") == 1
    assert f"this token was used already, by the request {mark} for pi-1" in site.said("second")
    site.fedge("ca", "approve", site.ca, mark)
    assert site.ended(first, "first") == 0
    assert [line["name"] for line in site.told("ca", "show", site.ca)["devices"]] == ["pi-1"]


def test_a_token_for_a_name_enrolls_no_other_and_no_name_that_is_taken(site: TokenSite) -> None:
    site.serve()
    line = site.token("--device", "pi-1")
    assert site.ended(site.ask("etc", line, "--device", "pi-2"), "etc") == 1
    assert "this token is for the device pi-1, and not for pi-2" in site.said("etc")
    forged = line.replace("/pi-1#", "/pi-2#")
    assert site.ended(site.ask("forged", forged), "forged") == 1
    assert "the authority refuses: this token is for the device pi-1" in site.said("forged")
    site.enroll("pi-3")
    site.fedge("ca", "window", site.ca)
    for name, why in (("pi-3", "pi-3 is enrolled already"), ("admin", "admin: is the name of an admin")):
        assert site.ended(site.ask(name, site.token(), "--device", name), name) == 1
        assert f"the authority refuses: {why}" in site.said(name)
        assert not (site.folder / name / "identity").exists()
    site.fedge("ca", "token", site.ca, "--device", "pi-3", code=1)
    assert "--again puts its older self out" in site.capsys.readouterr().err
    assert len(site.told("ca", "show", site.ca)["devices"]) == 1


def test_an_expired_token_is_taken_from_the_broker_and_refused(site: TokenSite) -> None:
    site.serve()
    line = site.token("--minutes", 0.02)
    site.until(lambda: site.known_tokens() == [], "it is taken from the broker")
    assert site.ended(site.ask("etc", line), "etc") == 1
    assert "it was used, has expired, was rejected" in site.said("etc")
    assert list((site.folder / "etc").iterdir()) == [], "keys that nothing will come of are not left"


def test_what_an_operator_rejects_is_told_and_over(site: TokenSite) -> None:
    site.serve()
    asking = site.ask("etc", site.token(), "--device", "pi-1")
    site.fedge("ca", "reject", site.ca, site.waiting())
    assert site.ended(asking, "etc") == 1
    assert "the authority refuses: an operator has rejected this request" in site.said("etc")
    assert not (site.folder / "etc" / ".enrolling").exists()
    site.until(lambda: site.known_tokens() == [], "the token is over")
    assert not site.told("ca", "show", site.ca)["devices"]


def test_a_device_that_was_interrupted_goes_on_with_the_same_keys(site: TokenSite) -> None:
    site.serve()
    line = site.token("--device", "pi-1")
    asking = site.ask("etc", line)
    mark = site.waiting()
    asking.send_signal(signal.SIGINT)
    assert site.ended(asking, "etc") == 130
    assert [path.name for path in (site.folder / "etc").iterdir()] == [".enrolling"]
    assert (site.folder / "etc" / ".enrolling").stat().st_mode & 0o077 == 0
    site.fedge("ca", "approve", site.ca, mark)
    assert site.ended(site.ask("etc", line), "etc") == 0
    assert site.said("etc").count(f"fingerprint {mark}") == 2
    assert (site.folder / "etc" / "identity" / "device.crt").exists()


def test_a_server_of_another_root_is_told_nothing(site: TokenSite) -> None:
    site.serve()
    line = site.token("--device", "pi-1")
    other = line[:-64] + "0" * 64
    assert site.ended(site.ask("etc", other), "etc") == 1
    assert "is no server of the root that this token names" in site.said("etc")
    assert "token." not in site.log.partition("mosquitto version")[2], "the broker was told no name of a token"
    wrong_host = line.replace("@localhost:", "@127.0.0.2:")
    assert site.ended(site.ask("host", wrong_host), "host") == 1
    assert "127.0.0.2" in site.said("host")
    assert "nothing was sent" in site.said("host")
    assert site.ended(site.ask("cut", line[:-1]), "cut") == 1
    assert "copy it again, whole" in site.said("cut")
    assert not any((site.folder / name).exists() for name in ("etc", "host", "cut"))


@pytest.mark.parametrize(("days", "why"), [(10, "is not valid yet"), (-1000, "has expired")])
def test_a_server_whose_certificate_is_out_of_its_time_is_told_nothing_and_the_clock_is_named(
    site: TokenSite, days: int, why: str
) -> None:
    line = site.token("--device", "pi-1")
    root, key = (site.ca / "root" / "root.key").read_bytes(), (site.ca / "broker" / "server.key").read_bytes()
    at = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    issuer = (site.ca / "root.crt").read_bytes()
    made = certificates.issue(issuer, root, certificates.public_of(key), "broker", 30, at, server=["localhost"])
    site.stop_broker()
    (site.ca / "broker" / "server-chain.crt").write_bytes(made + issuer)
    site.start_broker()
    assert site.ended(site.ask("etc", line), "etc") == 1
    assert f"the broker's certificate {why}, or its authority's: this machine's clock says" in site.said("etc")
    assert "nothing was sent" in site.said("etc")
    assert not (site.folder / "etc").exists()


def test_a_machine_that_is_another_device_keeps_what_it_is_and_uses_up_no_token(site: TokenSite) -> None:
    site.serve()
    etc = site.enrolled("pi-1")
    before = (etc / "identity" / "device.crt").read_bytes()
    assert site.ended(site.ask("pi-1", site.token("--device", "pi-2")), "pi-1") == 1
    assert "is that of pi-1 of fleet barn, and not of pi-2" in site.said("pi-1")
    assert (etc / "identity" / "device.crt").read_bytes() == before
    assert not site.requests()


def test_enrolled_again_the_older_self_is_out(site: TokenSite, connect: Connect) -> None:
    site.serve()
    older = connect(site.of_device(site.enrolled("old", device="pi-1")), "pi-1")
    site.until(lambda: older.is_online, "the older is online")
    newer_etc = site.enrolled("new", "--again", device="pi-1")
    site.until(lambda: any("revoked" in reason for reason in older.reasons), "the older is out")
    newer = connect(site.of_device(newer_etc), "pi-1")
    site.until(lambda: newer.is_online, "the newer is in")
    assert not older.is_online
    (line,) = site.told("ca", "show", site.ca)["devices"]
    assert (line["epoch"], line["state"]) == (2, "good")


DEATHS = {
    "before the record": ("identity.authority", "Authority._commit"),
    "before the lists": ("identity.authority", "Authority.publish"),
    "before the answer": ("fleet.authority.serve", "Server._answer"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_killed_between_issue_and_reply_the_device_gets_one_certificate_all_the_same(
    site: TokenSite, death: str
) -> None:
    module, name = DEATHS[death]
    kind, method = name.split(".")
    patch = (
        f"import os, signal, {module} as m\nm.{kind}.{method} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
    )
    line = site.token("--device", "pi-1")
    site.fedge("ca", "window", site.ca)
    dying = site.serve(patch)
    asking = site.ask("etc", line)
    assert site.ended(dying, "serve") == -signal.SIGKILL
    assert asking.poll() is None, "the device waits on"
    issued = (site.ca / "issued" / "pi-1.crt").read_bytes()
    site.serve()
    assert site.ended(asking, "etc") == 0
    (device,) = site.told("ca", "show", site.ca)["devices"]
    assert device["epoch"] == 1
    given = (site.folder / "etc" / "identity" / "device.crt").read_bytes()
    assert given == (site.ca / "issued" / "pi-1.crt").read_bytes()
    if death != "before the record":
        assert given == issued, "what was certified is what is handed out"
    site.until(lambda: not site.requests(), "the token is gone")


def test_a_device_renews_its_certificate_by_itself_and_a_revoked_one_does_not(
    site: TokenSite, connect: Connect
) -> None:
    site.serve()
    site.set_up("[validity]\ndevice_days = 0.01\n")  # so that it is late at once
    etc = site.enrolled("pi-1")
    site.set_up()
    before = (etc / "identity" / "device.crt").read_bytes(), (etc / "identity" / "device.key").read_bytes()
    text = (etc / "agent.toml").read_text().replace("/var/lib/fedge-agent", str(site.folder / "state"))
    (etc / "agent.toml").write_text(text)
    agent = site.start("agent", "-m", "fleet.cli", "agent", "run", "--config", etc / "agent.toml")
    site.until(lambda: "renewed our certificate" in site.said("agent"), "it is renewed")
    after = (etc / "identity" / "device.crt").read_bytes(), (etc / "identity" / "device.key").read_bytes()
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert not (etc / ".renewing").exists()
    assert "cryptography" not in Path(f"/proc/{agent.pid}/maps").read_text(), "the agent has no room for that"
    assert peak_mb(agent.pid) <= 60
    agent.send_signal(signal.SIGTERM)
    agent.wait(120)
    client = connect(site.of_device(etc), "pi-1")
    site.until(lambda: client.is_online, "the new certificate is taken")
    (line,) = site.told("ca", "show", site.ca)["devices"]
    assert line["epoch"] == 1
    assert line["days_left"] > 300
    site.fedge("ca", "revoke", site.ca, "pi-1")
    assert re.search(r"renew device=pi-1 state=granted", site.said("serve"))
