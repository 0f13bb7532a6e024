"""A real fleet, its page beyond its machine, and a real Prometheus that logs in there as deploy/prometheus says (apt:
prometheus).

Each panel of the dashboard finds something there, and each rule of the alerts can be evaluated.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.console import operator
from fleet.local.processes import FEDGE
from fleet.local.toml import written
from tests.fleet.conftest import Fleet, Until
from tests.fleet.web.browser import GOOD

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/fedge.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
SILENT = {
    # Of a fleet on this machine, in a moment:
    "Next certificate ends in A": "it has no certificates",
    "Heat of devices A": "there may be no sensor",
    "The open round A": "none may be open",
}
RANGE = "30s"
NAME = "bo"
"""The observer who scrapes."""
OF_A_LOGIN = ("scheme", "tls_config", "  ca_file", "basic_auth", "  username", "  password_file")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fetched(url: str, **how: Any) -> str:
    try:
        return httpx.get(url, timeout=10, **how).text
    except httpx.HTTPError:
        return ""


class Scraped:
    """A Prometheus, and the page that it scrapes."""

    def __init__(self, page: int, prometheus: int, certificate: Path, log: Path) -> None:
        self.log, self.page, self._prometheus = log, f"https://127.0.0.1:{page}", prometheus
        self._tls = ssl.create_default_context(cafile=certificate)

    def exposition(self, auth: tuple[str, str] | None = (NAME, GOOD)) -> str:
        return fetched(f"{self.page}/metrics", verify=self._tls, auth=auth)

    def ask(self, what: str, **query: str) -> Any:
        answer = fetched(f"http://127.0.0.1:{self._prometheus}/api/v1/{what}?{urllib.parse.urlencode(query)}")
        return json.loads(answer)["data"] if answer.startswith("{") else {}  # it may be starting

    def query(self, query: str) -> list[Any]:
        return list(self.ask("query", query=query).get("result", ()))


@pytest.fixture
def scraped(two_devices: Fleet, until: Until, users: Path, certificate: tuple[Path, Path]) -> Scraped:
    page, port, folder = free_port(), free_port(), two_devices.folder / "prometheus"
    folder.mkdir()
    config = two_devices.config
    web = {"metrics_devices": 2, "users_file": str(users)}
    web |= {"certificate_file": str(certificate[0]), "key_file": str(certificate[1])}
    config.write_text(config.read_text() + "\n" + written({"web": web}))
    who = operator.load_config(config)
    operator.submit(who, two_devices.job())
    garbage = ["-p", str(who.broker.port), "-t", f"fedge/1/{who.fleet}/device/x", "-m", "garbage"]
    subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", *garbage], check=True)
    start = two_devices.children.start
    start("page", [*FEDGE, "web", "run", "--config", str(config), "--web", f"0.0.0.0:{page}"], folder / "page.log")
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    (folder / "password").write_text(GOOD)
    for before, after in (
        ("127.0.0.1:8080", f"127.0.0.1:{page}"),
        ("_interval: 15s", "_interval: 1s"),
        *(
            (f"    #{line}", f"    {line}")
            for line in ("scheme", "tls_config", "  ca_file", "basic_auth", "  username")
        ),
        ("    #  password_file", "      password_file"),
        ("username: prometheus", f"username: {NAME}"),
        ("/etc/prometheus/fedge-web-ca.crt", str(certificate[0])),
        ("/etc/prometheus/fedge-web-password", str(folder / "password")),
    ):
        assert before in text, before
        text = text.replace(before, after)
    (folder / "prometheus.yml").write_text(text)
    (folder / "fedge.rules.yml").write_text((DEPLOY / "prometheus/fedge.rules.yml").read_text())
    found = Scraped(page, port, certificate[0], folder / "page.log")
    until(lambda: 'fedge_words_refused_total{why="garbage"} 1.0' in found.exposition(), 60.0)
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    program = shutil.which("prometheus")
    assert program is not None, "apt-get install prometheus"
    start("prometheus", [program, *options, f"--web.listen-address=127.0.0.1:{port}"], folder / "prometheus.log")
    return found


def test_a_fleet_is_scraped_and_every_panel_and_every_rule_finds_it(scraped: Scraped, until: Until) -> None:
    assert scraped.log.read_text().count("login=done") == 1, "Argon2id is slow: once for many scrapes"
    assert scraped.exposition(None) == '{"error":"this takes a login"}'
    body = scraped.exposition()
    verdict = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, text=True, check=False)
    assert (verdict.returncode, verdict.stderr) == (0, "")

    # counters are written every five seconds, and a rate is of two of them
    until(lambda: bool(scraped.query("sum(rate(fedge_rounds_total{outcome='committed'}[30s])) > 0")), 90.0)
    assert scraped.query('fedge_job_quorum{job=~"blobs-[0-9a-f]{8}"}'), "its label is its own"
    assert not scraped.query('{exported_job!=""}')
    assert [one["value"][1] for one in scraped.query('up{job="fedge"}')] == ["1"]

    silent = {}
    for name, query in QUERIES.items():
        asked = query.replace("$job", ".+").replace("$__rate_interval", RANGE)
        assert "$" not in asked, name
        answer = scraped.ask("query", query=asked)
        assert answer, f"{name} is no query: {asked}"
        if not answer["result"]:
            silent[name] = asked
    assert silent.keys() <= SILENT.keys()

    rules = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
    written = re.findall(r"- alert: (\w+)", (DEPLOY / "prometheus/fedge.rules.yml").read_text())
    until(lambda: all(r["health"] == "ok" for g in scraped.ask("rules")["groups"] for r in g["rules"]))
    assert [rule["name"] for rule in rules] == written
    # two devices, both of which the job needs
    assert [rule["name"] for rule in rules if rule["state"] != "inactive"] in ([], ["FedgeQuorumAtRisk"])
