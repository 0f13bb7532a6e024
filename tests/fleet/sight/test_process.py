"""A real aggregator with its companion: what the page shows, and that neither's death is the other's trouble."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from fleet.cli import main
from fleet.local import stage
from fleet.local.processes import FEDGE, Children
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from fleet.roles import companion_of_aggregator, load_aggregator
from fleet.sight.process import Looking, Speaker, read, speaker_of
from models.job import JobSpec, ModelSpec
from runtime.settings import SettingsError
from tests.fleet.conftest import JOB, blobs

Until = Callable[[Callable[[], bool]], None]


def page_of(log: Path) -> str:
    """Return where the page was last said to be."""
    found = re.findall(r"web=listening address=(\S+)", log.read_text(encoding="utf-8"))
    return str(found[-1]) if found else ""


def pid_of(log: Path) -> int:
    return int(re.findall(r"looks-on=started pid=(\d+)", log.read_text(encoding="utf-8"))[-1])


def ask(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 -- of this test
        body = answer.read()
    return json.loads(body) if "json" in answer.headers["content-type"] else body.decode()


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; one that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_rounds_and_page_each_go_on_without_the_other(tmp_path: Path, mosquitto: EmbeddedBroker, until: Until) -> None:
    data, folder = blobs(120), tmp_path / "fleet"
    folder.mkdir()
    where = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    shares = dealt(data, deal("iid", data.y, 2, 0))
    built = stage.build(folder, spec, shares, blobs(60, seed=1), where, page="127.0.0.1:0")
    log = built.aggregator.log
    (tmp_path / "job.toml").write_text(JOB.format(name="blobs", max_rounds=100_000), encoding="utf-8")
    with Children() as children:
        aggregator, *_ = stage.start(children, built)
        until(lambda: "online" in log.read_text(encoding="utf-8") and bool(page_of(log)))
        assert main(["job", "submit", str(tmp_path / "job.toml"), "--config", str(built.aggregator.config)]) == 0

        def version() -> int:
            jobs = ask(f"{page_of(log)}api/fleet")["jobs"]
            return int(jobs[0]["version"][1]) if jobs else -1

        until(lambda: version() > 1)
        fleet = ask(f"{page_of(log)}api/fleet")
        assert fleet["devices"]["online"] == 2
        assert ask(f"{page_of(log)}jobs/{fleet['jobs'][0]['job']}").count("blobs") > 2

        killed, first = pid_of(log), page_of(log)
        os.kill(killed, signal.SIGKILL)
        before = len(re.findall("web=listening", log.read_text(encoding="utf-8")))
        until(lambda: len(re.findall("web=listening", log.read_text(encoding="utf-8"))) > before)
        assert page_of(log) != first
        at = version()
        until(lambda: version() > at)

        companion = pid_of(log)
        assert companion != killed
        aggregator.process.send_signal(signal.SIGKILL)
        until(lambda: is_gone(companion))
        aggregator.process.wait()


def test_it_ends_when_it_is_asked_to_though_somebody_looks_on(tmp_path: Path, until: Until) -> None:
    config, log = tmp_path / "aggregator.toml", tmp_path / "log"
    config.write_text(f'fleet = "f"\nstate_dir = "{tmp_path}/none"\n[broker]\nport = 1\n', encoding="utf-8")
    command = [*FEDGE, "web", "run", "--config", str(config), "--web", "127.0.0.1:0"]
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        until(lambda: bool(page_of(log)))
        assert "The store cannot be read" in ask(page_of(log)), "there is none, and no broker"
        assert "No connection to the broker" in ask(page_of(log))
        with urllib.request.urlopen(f"{page_of(log)}live/", timeout=20) as stream:  # noqa: S310 -- of this test
            assert stream.readline().startswith(b"retry")
            process.terminate()
            assert process.wait(30) == 0


def test_it_never_speaks_as_the_aggregator() -> None:
    broker = BrokerSettings(username="aggregator", password_file="p", ca_file="c")
    assert speaker_of(Looking("f", broker=broker)) == Speaker("f", BrokerSettings(ca_file="c"))


def test_it_speaks_as_observer_toml_says(tmp_path: Path) -> None:
    observer, config = tmp_path / "observer.toml", tmp_path / "aggregator.toml"
    config.write_text(f'fleet = "f"\n[observer]\nconfig = "{observer}"\n', encoding="utf-8")
    observer.write_text('fleet = "f"\n[broker]\nusername = "eve"\n', encoding="utf-8")
    assert speaker_of(read(config)).broker.username == "eve"
    observer.write_text('fleet = "g"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"observer.toml: fleet: it is of g, not of f"):
        speaker_of(read(config))


@pytest.mark.parametrize(
    ("web", "why"),
    [
        ('bind = "0.0.0.0:8080"', "beyond this machine"),
        ('bind = "192.168.1.2:8080"\ncertificate_file = "c"\nkey_file = "k"', "beyond this machine"),
        ('bind = "fleet.example:8080"\nusers_file = "u"', "beyond this machine"),
        ('bind = "127.0.0.1:99999"', "99999 is no port"),
        ('bind = "127.0.0.1:8080"\ncertificate_file = "c"', "of no use without each other"),
    ],
)
def test_a_page_for_strangers_is_a_bad_configuration(
    tmp_path: Path, web: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text(f'fleet = "f"\nstate_dir = "{tmp_path}/s"\n[web]\n{web}\n', encoding="utf-8")
    for command in (["aggregator", "run"], ["aggregator", "run", "--check"], ["web", "run"]):
        assert main([*command, "--config", str(config)]) == 2
        assert why in capsys.readouterr().err


def test_a_page_may_be_open_to_others_with_a_certificate_and_users_or_in_a_container(tmp_path: Path) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text(
        'fleet = "f"\n[web]\nbind = "0.0.0.0:1"\ncertificate_file = "c"\nkey_file = "k"\nusers_file = "u"\n',
        encoding="utf-8",
    )
    assert read(config).web.bind == "0.0.0.0:1"
    config.write_text('fleet = "f"\n', encoding="utf-8")
    assert read(config, "0.0.0.0:1", in_container=True).web.in_container
    assert load_aggregator(config, "0.0.0.0:1", in_container=True).web.in_container
    for bind in ("8080", "host", "a b:1", "127.0.0.1:123456"):
        with pytest.raises(SettingsError, match="--web: bind"):
            load_aggregator(config, bind)


def test_a_check_says_where_the_page_will_be_and_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text(f'fleet = "f"\nstate_dir = "{tmp_path}/s"\n[web]\nbind = "127.0.0.1:8080"\n', encoding="utf-8")
    check = ["aggregator", "run", "--check", "--config", str(config)]
    assert main(check) == 0
    assert "[web] the page will be at http://127.0.0.1:8080/" in capsys.readouterr().out
    monkeypatch.setattr("aggregator.looking_on.PAGE_PACKAGES", ("no_such_package",))
    assert main(check) == 0, "everything else works without"
    assert "pip install fedge[web]" in capsys.readouterr().out
    assert main(["web", "run", "--config", str(config)]) == 2
    assert "pip install fedge[web]" in capsys.readouterr().err


def test_an_aggregator_without_the_extra_says_so_and_starts_no_page(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.looking_on.PAGE_PACKAGES", ("no_such_package",))
    config = tmp_path / "aggregator.toml"
    config.write_text('fleet = "f"\n', encoding="utf-8")
    loaded = load_aggregator(config, "127.0.0.1:8080")
    assert loaded.web.bind == "127.0.0.1:8080"
    assert companion_of_aggregator(loaded, config) is None
    assert "pip install fedge[web]" in caplog.text
