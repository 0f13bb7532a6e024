"""What deploy/ has for Prometheus and Grafana: held against promtool (apt: prometheus) and against each other."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"
RULES = (PROMETHEUS / "fedge.rules.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
COMPOSE = (DEPLOY / "compose.yaml").read_text()
DASHBOARD = json.loads((GRAFANA / "dashboards/fedge.json").read_text())


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def service(name: str) -> str:
    """Give what compose.yaml says of a service."""
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    assert found is not None
    return found[1]


def test_prometheus_reads_its_configuration_and_the_rules() -> None:
    verdict = promtool("check", "config", "prometheus.yml")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr
    assert f"{len(ALERTS)} rules found" in verdict.stdout


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    verdict = promtool("test", "rules", "fedge.rules.test.yml")
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize("expression", ["vector(0) == 1", "vector(1) == 1"], ids=["never", "always"])
def test_an_alert_that_never_fires_or_always_does_is_noticed(expression: str, tmp_path: Path) -> None:
    broken, n = re.subn(
        r"        expr: .*\n(?:          .*\n)*(?:        for: .*\n)?", f"        expr: {expression}\n", RULES
    )
    assert n == len(ALERTS)
    (tmp_path / "fedge.rules.yml").write_text(broken)
    (tmp_path / "fedge.rules.test.yml").write_text((PROMETHEUS / "fedge.rules.test.yml").read_text())
    verdict = promtool("test", "rules", "fedge.rules.test.yml", folder=tmp_path)
    assert verdict.returncode != 0
    told = verdict.stdout + verdict.stderr
    assert [alert for alert in ALERTS if alert not in told] == []


def test_every_panel_asks_the_source_that_is_provisioned() -> None:
    source = (GRAFANA / "provisioning/datasources/prometheus.yml").read_text()
    uid = re.findall(r"^    uid: (\S+)$", source, re.MULTILINE)
    panels = DASHBOARD["panels"]
    asked = {one["datasource"]["uid"] for panel in panels for one in (panel, *panel["targets"])}
    assert [*asked] == uid
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    assert "url: http://127.0.0.1:9090" in source
    where = re.findall(r"path: (\S+)", (GRAFANA / "provisioning/dashboards/fedge.yml").read_text())
    assert f"./grafana/dashboards:{where[0]}:ro" in service("grafana")


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not taken & cells
        taken |= cells


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_what_monitors_is_asked_for_pinned_and_reached_from_this_machine_alone(name: str) -> None:
    text = service(name)
    assert "    profiles: [monitoring]\n" in text
    assert re.search(r"^    image: \S+:v?\d+\.\d+\.\d+$", text, re.MULTILINE)
    assert re.search(r"listen-address=127\.0\.0\.1:9090|GF_SERVER_HTTP_ADDR: 127\.0\.0\.1", text)
    assert all(line in text for line in ("    read_only: true\n", "    cap_drop: [ALL]\n", "no-new-privileges:true"))
    assert "ports:" not in text


@pytest.mark.parametrize("profile", [[], ["--profile", "monitoring"]])
def test_compose_reads_the_file_with_the_profile_and_without(profile: list[str]) -> None:
    verdict = subprocess.run(
        ["docker-compose", "-f", DEPLOY / "compose.yaml", *profile, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verdict.returncode == 0, verdict.stderr
