"""What people and scripts see of `fedge ca`, `fedge enroll` and `fedge agent adopt`."""

from __future__ import annotations

import datetime as dt
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator.config import AggregatorConfig
from edge_agent.config import AgentConfig
from fleet.authority import said
from fleet.cli import main
from identity.registry import read_registry
from identity.trust import is_of_root, read_trust

DAY = dt.timedelta(days=1)


class Ca:
    """Commands on one directory, and what they said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.at, self._capsys = folder, folder / "ca", capsys
        self.out = self.err = ""

    def __call__(self, *words: object, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main([str(word) for word in words])
        self.out, self.err = self._capsys.readouterr()
        assert found == code, self.err
        return self.out

    def shown(self) -> Any:
        return json.loads(self("ca", "show", self.at, "--json"))


@pytest.fixture
def ca(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ca:
    made = Ca(tmp_path, capsys)
    made("ca", "init", made.at, "--fleet", "barn", "--server", "broker.example", "--server", "10.0.0.1")
    return made


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = dt.datetime.now(dt.UTC) + days * DAY
    for module in ("said", "command", "enrolment"):
        monkeypatch.setattr(f"fleet.authority.{module}.now", lambda: now)


def test_an_authority_has_all_that_a_server_needs_and_says_where_it_is(ca: Ca) -> None:
    shown = ca.shown()
    assert (shown["fleet"], shown["root_is_here"], shown["devices"], shown["warnings"]) == ("barn", True, [], [])
    assert shown["hosts"] == ["broker.example", "10.0.0.1", "localhost", "127.0.0.1"]
    staff = {line["name"]: (line["role"], line["state"]) for line in shown["staff"]}
    assert staff == {name: (name, "good") for name in ("admin", "aggregator", "authority", "broker")}
    trust = read_trust(ca.at / "operators" / "admin" / "trust.json", "barn")
    assert list(trust.operators) == ["admin"]
    assert is_of_root(trust)
    assert read_registry(ca.at / "aggregator" / "registry.json", "barn").devices == {}
    config = msgspec.convert(tomllib.loads((ca.at / "aggregator" / "aggregator.toml").read_text()), AggregatorConfig)
    for name in (config.broker.certificate_file, config.identity.message_key, config.identity.registry):
        assert name is not None
        assert Path(name).exists()
    for path in (ca.at, *ca.at.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    text = ca("ca", "show", ca.at)
    assert shown["fingerprint"] in text
    assert "move them to a medium of their own" in text


def test_an_authority_is_not_written_over(ca: Ca) -> None:
    ca("ca", "init", ca.at, "--fleet", "barn", code=1)
    assert "is there already" in ca.err
    ca("ca", "show", ca.folder, code=1)
    assert "there is no authority here" in ca.err


@pytest.mark.parametrize(("fleet", "why"), [("a b", "no name of a fleet"), ("barn", "no name of a host")])
def test_an_authority_that_cannot_be_made_leaves_nothing(ca: Ca, fleet: str, why: str) -> None:
    ca("ca", "init", ca.folder / "other", "--fleet", fleet, "--server", "é.example", code=1)
    assert why in ca.err
    assert not (ca.folder / "other").exists()


def test_a_device_is_enrolled_and_its_bundle_makes_a_machine_that_device(ca: Ca, tmp_path: Path) -> None:
    out, etc = tmp_path / "pi-1.tar", tmp_path / "etc"
    done = json.loads(ca("enroll", "pi-1", "--ca", ca.at, "--label", "site=north", "room=3", "--out", out, "--json"))
    assert (done["device"], done["epoch"], done["bundle"]) == ("pi-1", 1, str(out))
    assert done["fingerprint"] == ca.shown()["fingerprint"]
    adopted = json.loads(ca("agent", "adopt", out, "--into", etc, "--fingerprint", done["fingerprint"], "--json"))
    assert (adopted["fleet"], adopted["device"], adopted["configured"]) == ("barn", "pi-1", True)
    config = msgspec.convert(tomllib.loads((etc / "agent.toml").read_text()), AgentConfig)
    assert (config.broker.host, config.broker.port) == ("broker.example", 8883)
    assert config.labels == {"site": "north", "room": "3"}
    (etc / "agent.toml").write_text(
        (etc / "agent.toml").read_text().replace("/var/lib/fedge-agent", str(tmp_path / "s"))
    )
    report = json.loads(ca("agent", "run", "--config", etc / "agent.toml", "--check", "--json"))
    assert report["good"], report
    facts = {line["where"]: line["facts"] for line in report["lines"]}
    assert facts["[broker]"]["certificate_days"] in (364, 365)
    assert "[identity]" in facts
    ca("agent", "adopt", out, "--into", etc)
    assert "agent.toml was there before and is as it was" in ca.out


def test_a_bundle_of_another_root_than_one_was_told_of_is_refused(ca: Ca, tmp_path: Path) -> None:
    ca("enroll", "pi-1", "--ca", ca.at, "--out", tmp_path / "b.tar")
    ca("agent", "adopt", tmp_path / "b.tar", "--into", tmp_path / "etc", "--fingerprint", "0000-0000", code=1)
    assert "not the bundle that you were told of" in ca.err
    assert not (tmp_path / "etc").exists()
    ca("agent", "adopt", tmp_path / "b.tar", "--into", tmp_path / "etc", "--group", "nobody-has-this", code=2)
    assert "there is no such group" in ca.err


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["pi/1"], 2, "a name is"),
        (["aggregator"], 1, "a part of the server"),
        (["admin"], 1, "is the name of an admin"),
        (["pi-1", "--labels", "site"], 2, "say NAME=VALUE"),
        (["pi-1", "--labels", "site=a b"], 2, "a name is"),
        (["pi-1", "--server", "http://x"], 2, "without port or scheme"),
    ],
)
def test_what_cannot_be_enrolled_is_said_and_changes_nothing(
    ca: Ca, tmp_path: Path, words: list[str], code: int, why: str
) -> None:
    before = (ca.at / "authority.json").read_bytes()
    ca("enroll", *words, "--ca", ca.at, "--out", tmp_path / "b.tar", code=code)
    assert why in ca.err
    assert not (tmp_path / "b.tar").exists()
    assert (ca.at / "authority.json").read_bytes() == before


def test_a_bundle_that_may_be_needed_is_not_written_over(ca: Ca, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("x")
    ca("enroll", "pi-1", "--ca", ca.at, "--out", tmp_path / "b.tar", code=1)
    assert "may be a bundle that is needed yet" in ca.err
    assert ca.shown()["devices"] == []


def test_a_tampered_bundle_changes_nothing_on_the_device(ca: Ca, tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar"
    ca("enroll", "pi-1", "--ca", ca.at, "--out", bundle)
    bundle.write_bytes(bundle.read_bytes().replace(b"broker.example", b"wicked.example"))
    ca("agent", "adopt", bundle, "--into", tmp_path / "etc", code=1)
    assert "agent.toml is not the one that its manifest names" in ca.err
    assert not (tmp_path / "etc").exists()


def test_people_are_certified_with_the_root_and_have_a_role(ca: Ca, tmp_path: Path) -> None:
    (ca.at / "root").rename(tmp_path / "stick")
    ca("ca", "operator", ca.at, "anna", "--role", "operator", code=1)
    assert "needs the root" in ca.err
    assert "--root DIR" in ca.err
    assert not (ca.at / "operators" / "anna").exists()
    ca("ca", "operator", ca.at, "anna", "--role", "operator", "--root", tmp_path / "stick")
    ca("ca", "operator", ca.at, "otto", "--role", "observer", "--root", tmp_path / "stick")
    ca("ca", "operator", ca.at, "page", "--role", "steward", "--root", tmp_path / "stick")
    trust = read_trust(ca.at / "operators" / "page" / "trust.json")
    assert trust.format == 2
    assert list(trust.stewards) == ["page"]
    assert "page" not in trust.operators
    assert "message_key" in (ca.at / "operators" / "page" / "operator.toml").read_text()
    assert set(read_trust(ca.at / "operators" / "otto" / "trust.json").operators) == {"admin", "anna"}
    assert not (ca.at / "operators" / "otto" / "message.key").exists(), "who only looks signs nothing"
    assert "message_key" not in (ca.at / "operators" / "otto" / "operator.toml").read_text()
    shown = ca.shown()
    assert not shown["root_is_here"]
    assert {line["name"]: line["role"] for line in shown["staff"]}["otto"] == "observer"
    ca("ca", "revoke", ca.at, "anna", "--root", tmp_path / "stick", code=1)  # no broker was told
    assert set(read_trust(ca.at / "trust.json").operators) == {"admin"}


def test_access_lists_follow_a_template_and_who_is_certified(ca: Ca, tmp_path: Path) -> None:
    ca("ca", "acl", ca.at, code=1)
    assert "say --template FILE" in ca.err
    (tmp_path / "acl").write_text("user aggregator\ntopic read a\n#@admin user {name}\npattern read b\n")
    ca("ca", "acl", ca.at, "--template", tmp_path / "acl")
    assert (ca.at / "broker" / "acl.staff").read_text().splitlines()[1:] == [
        "user aggregator",
        "topic read a",
        "user admin",
    ]
    (tmp_path / "acl").write_text("junk\n")
    ca("ca", "acl", ca.at, "--template", tmp_path / "acl", code=1)
    assert "devices could do nothing" in ca.err
    assert json.loads(ca("ca", "acl", ca.at, "--json"))["changed"] == []


def test_a_list_of_the_revoked_that_is_missing_is_named_and_made_anew(ca: Ca) -> None:
    (ca.at / "broker" / "devices.crl").unlink()
    ca("ca", "show", ca.at, code=1)
    assert f"without it the broker lets no device in: `fedge ca renew {ca.at}` makes it anew" in ca.err
    ca("ca", "renew", ca.at)
    assert ca.shown()["list_days_left"] in (29, 30)


def test_the_list_of_the_revoked_is_renewed_and_warned_of(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 25)
    assert "the list of revoked devices ends" in ca.shown()["warnings"][0]
    later(monkeypatch, 31)
    assert "has ended: the broker lets no device in" in ca.shown()["warnings"][0]
    ca("ca", "renew", ca.at)
    assert ca.shown()["warnings"] == []
    assert ca.shown()["list_days_left"] in (29, 30)


def test_certificates_of_the_server_are_renewed_with_the_root_before_they_end(
    ca: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ca.at / "root").rename(tmp_path / "stick")
    key = (ca.at / "broker" / "server.key").read_bytes()
    later(monkeypatch, 600)
    ca("ca", "renew", ca.at)
    assert "the certificate of broker ends on" in ca.err
    assert "--root DIR" in ca.err
    ca("ca", "renew", ca.at, "--root", tmp_path / "stick")
    assert "of broker" not in ca.err
    assert "of admin ends on" in ca.err, "a person's key is the person's"
    staff = {line["name"]: line["days_left"] for line in ca.shown()["staff"]}
    assert staff["broker"] > 700 > 200 > staff["admin"]
    assert (ca.at / "broker" / "server.key").read_bytes() == key


def test_a_device_whose_certificate_ends_is_named(ca: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca("enroll", "pi-1", "--ca", ca.at, "--out", tmp_path / "b.tar")
    later(monkeypatch, 300)
    ca("ca", "renew", ca.at)
    assert "the certificate of device pi-1 ends on" in ca.err
    later(monkeypatch, 366)
    assert ca.shown()["devices"][0]["state"] == "expired"


def test_nobody_is_revoked_who_is_not_there_or_cannot_be_done_without(ca: Ca) -> None:
    ca("ca", "revoke", ca.at, "pi-9", code=1)
    assert "nobody of this name is enrolled" in ca.err
    ca("ca", "revoke", ca.at, "broker", code=1)
    assert "cannot do without" in ca.err


def test_a_mistake_in_the_settings_is_named(ca: Ca) -> None:
    (ca.at / "authority.toml").write_text("[broker]\nprot = 1\n")
    ca("ca", "show", ca.at, code=2)
    assert 'authority.toml: [broker] has no key "prot"; did you mean "port"?' in ca.err


def test_the_settings_that_come_along_name_every_key_with_its_default(ca: Ca) -> None:
    from identity.record import SETTINGS, Settings

    text = "\n".join(line.removeprefix("#") for line in SETTINGS.splitlines() if not line.startswith("# "))
    tree = tomllib.loads(text.replace('reload = ["docker"', 'reload2 = ["docker"'))
    tree["broker"].pop("reload2")
    defaults = msgspec.to_builtins(Settings())
    assert {table: set(keys) for table, keys in tree.items()} == {table: set(keys) for table, keys in defaults.items()}
    examples = ("files", "pid_file", "reload", "passwords")
    for table, keys in tree.items():
        for key, value in keys.items():
            assert key in examples or value == defaults[table][key], key
    assert said.now().tzinfo == dt.UTC
