"""The systemd units, as systemd itself reads them (apt: systemd)."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("edge-agent", "aggregator")
MOST_EXPOSURE = 20
"""In tenths, of `systemd-analyze security`: 0 is sealed, 100 has no protection; below 21 it is called OK."""


@pytest.fixture
def unit(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The unit with a program that exists on any machine in the place of ours."""
    text = (DEPLOY / f"{request.param}.service").read_text()
    path = tmp_path / f"{request.param}.service"
    path.write_text(text.replace("/opt/fedge/bin/fedge", "/bin/true"))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS, indirect=True)
def test_systemd_finds_nothing_to_complain_about(unit: Path) -> None:
    verdict = analyze("verify", "--man=no", unit)
    complaints = [line for line in verdict.stderr.splitlines() if unit.name in line]
    assert (verdict.returncode, complaints) == (0, [])


def test_systemd_would_complain_about_a_key_that_it_does_not_know(tmp_path: Path) -> None:
    unit = tmp_path / "wrong.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nMemoryMaximum=1\n")
    assert "MemoryMaximum" in analyze("verify", "--man=no", unit).stderr


def test_systemd_finds_nothing_to_complain_about_in_the_timer(tmp_path: Path) -> None:
    for name in ("ca-renew.service", "ca-renew.timer"):
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/fedge/bin/fedge", "/bin/true"))
    verdict = analyze("verify", "--man=no", tmp_path / "ca-renew.timer", tmp_path / "ca-renew.service")
    complaints = [line for line in verdict.stderr.splitlines() if "ca-renew" in line]
    assert (verdict.returncode, complaints) == (0, [])
    verdict = analyze("security", "--offline=yes", "--no-pager", "--threshold=40", tmp_path / "ca-renew.service")
    assert verdict.returncode == 0, verdict.stdout


def test_systemd_finds_nothing_to_complain_about_in_who_answers_tokens(tmp_path: Path) -> None:
    assert settings("ca-serve.service")["ExecStart"] == "/opt/fedge/bin/fedge ca serve /var/lib/fedge-ca"
    text = (DEPLOY / "ca-serve.service").read_text()
    (tmp_path / "ca-serve.service").write_text(text.replace("/opt/fedge/bin/fedge", "/bin/true"))
    verdict = analyze("verify", "--man=no", tmp_path / "ca-serve.service")
    complaints = [line for line in verdict.stderr.splitlines() if "ca-serve" in line]
    assert (verdict.returncode, complaints) == (0, [])
    verdict = analyze("security", "--offline=yes", "--no-pager", "--threshold=40", tmp_path / "ca-serve.service")
    assert verdict.returncode == 0, verdict.stdout


def test_the_list_of_the_revoked_is_renewed_every_day_and_made_up_for() -> None:
    text = (DEPLOY / "ca-renew.timer").read_text().splitlines()
    assert {"OnCalendar=daily", "Persistent=true"} <= set(text)
    assert settings("ca-renew.service")["ExecStart"] == "/opt/fedge/bin/fedge ca renew /var/lib/fedge-ca"


@pytest.mark.parametrize("unit", UNITS, indirect=True)
def test_what_a_broken_in_service_could_reach_is_little(unit: Path) -> None:
    verdict = analyze("security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSURE}", unit)
    assert verdict.returncode == 0, verdict.stdout


def settings(name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read_string((DEPLOY / name).read_text())
    return parser["Service"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_the_command_with_the_file_that_is_installed(name: str) -> None:
    kind = name.removeprefix("edge-")
    assert settings(f"{name}.service")["ExecStart"] == (
        f"/opt/fedge/bin/fedge {kind} run --config /etc/fedge/{kind}.toml"
    )


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_started_again_for_ever_except_on_a_bad_configuration(name: str) -> None:
    text = (DEPLOY / f"{name}.service").read_text()
    service = settings(f"{name}.service")
    mistakes = {"aggregator": "2 3"}.get(name, "2")  # 3: it was told to exit when another leads
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("always", mistakes)
    assert re.search(r"^StartLimitIntervalSec=0$", text, re.MULTILINE)


@pytest.mark.parametrize("name", UNITS)
def test_the_state_directory_of_the_unit_is_the_one_in_its_configuration(name: str) -> None:
    folder = f'state_dir = "/var/lib/{settings(f"{name}.service")["StateDirectory"]}"'
    assert folder in (DEPLOY / f"{name.removeprefix('edge-')}.toml").read_text().splitlines()


@pytest.mark.parametrize("name", UNITS)
def test_only_the_main_process_may_feed_the_watchdog(name: str) -> None:
    service = settings(f"{name}.service")
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) > 0


def test_the_pause_between_restarts_grows_where_systemd_knows_how() -> None:
    service = settings("backoff.conf")
    assert int(service["RestartSteps"]) > 0
    assert int(service["RestartMaxDelaySec"]) > int(settings("edge-agent.service")["RestartSec"])
