"""The scripts: shellcheck's opinion (apt: shellcheck), and what the installer says it would do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))


def install(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPLOY / "install-agent.sh", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    verdict = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert (verdict.returncode, verdict.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "fedge-0.1.0-py3-none-any.whl"
    path.touch()
    return path


def test_a_dry_run_shows_every_step_and_takes_none(wheel: Path) -> None:
    before = Path("/opt/fedge").exists()
    shown = install("--dry-run", wheel)
    assert (shown.returncode, shown.stderr) == (0, "")
    steps = [line for line in shown.stdout.splitlines() if line.startswith("+ ")]
    for step in ("pip install", f"file://{wheel}", "--check", "edge-agent.service", "enable", "restart"):
        assert any(step in line for line in steps), step
    assert "nothing was done" in shown.stdout
    assert Path("/opt/fedge").exists() == before


def test_the_configuration_is_checked_before_the_service_is_started(wheel: Path) -> None:
    shown = install("--dry-run", wheel).stdout
    assert shown.index("/etc/fedge/agent.toml") < shown.index("--check") < shown.index("systemctl restart")


def test_what_the_agent_may_read_is_not_for_everybody(wheel: Path, tmp_path: Path) -> None:
    for name in ("agent.toml", "password"):
        (tmp_path / name).touch()
    shown = install("--dry-run", "--config", tmp_path / "agent.toml", "--password", tmp_path / "password", wheel)
    for name in ("agent.toml", "password"):
        assert f"+ install -o root -g fedge -m 0640 {tmp_path}/{name} /etc/fedge/{name}" in shown.stdout


def test_a_bundle_is_taken_by_code_that_checks_it_before_the_agent_starts(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "pi-1.tar").touch()
    shown = install("--dry-run", "--bundle", tmp_path / "pi-1.tar", wheel).stdout
    adopted = f"+ /opt/fedge/bin/fedge agent adopt {tmp_path}/pi-1.tar --into /etc/fedge --group fedge"
    assert shown.index("pip install") < shown.index(adopted) < shown.index("--check") < shown.index("restart")
    assert "fedge\\[inference\\,identity\\]" in shown
    assert "install -o root -g fedge -m 0640" not in shown, "agent.toml is the one of the bundle"
    refused = install("--dry-run", "--bundle", "/nowhere.tar", wheel)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/nowhere.tar: no such file" in refused.stderr


def test_a_token_is_used_before_the_agent_starts_and_stands_in_no_list_of_processes(
    wheel: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("fedge-token://secret\n")
    shown = install("--dry-run", "--token", tmp_path / "token", wheel).stdout
    asked = "+ /opt/fedge/bin/fedge agent enroll - --etc /etc/fedge --group fedge"
    assert shown.index("pip install") < shown.index(asked) < shown.index("--check") < shown.index("restart")
    assert "+ chown -R fedge:fedge /etc/fedge/identity" in shown, "the agent renews it"
    assert "secret" not in shown
    assert "fedge\\[inference\\,identity\\]" in shown


def test_the_extras_are_the_owners_choice(wheel: Path) -> None:
    assert "fedge\\[inference\\]" in install("--dry-run", wheel).stdout
    assert "fedge\\ @" in install("--dry-run", wheel, FEDGE_EXTRAS="").stdout


def test_an_uninstall_leaves_configuration_and_state_unless_asked() -> None:
    kept, purged = install("--uninstall", "--dry-run").stdout, install("--uninstall", "--purge", "--dry-run").stdout
    assert "/etc/fedge" not in kept
    assert "/var/lib/fedge-agent" not in kept
    assert "/var/lib/fedge-agent" in purged


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "needs a wheel or a source folder"),
        (["/nowhere.whl"], "/nowhere.whl: no such wheel"),
        (["/tmp"], "neither a wheel nor a folder with pyproject.toml"),
        (["--frobnicate"], "unknown option --frobnicate"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--uninstall", "x.whl"], "--uninstall takes no wheel"),
        (["a.whl", "b.whl"], "one wheel or source folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], complaint: str) -> None:
    refused = install("--dry-run", *arguments)
    assert refused.returncode == 1
    assert complaint in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_found_out_before_anything_is_done(wheel: Path) -> None:
    refused = install("--dry-run", "--config", "/nowhere.toml", wheel)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/nowhere.toml: no such file" in refused.stderr
