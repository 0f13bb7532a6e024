"""A whole agent, made from a bundle, at a broker that knows it by its certificate; and what it says once it is out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from tests.fleet.authority.conftest import Client, Site


def test_an_agent_runs_from_its_bundle_and_says_in_its_log_that_it_was_revoked(
    site: Site, connect: Callable[..., Client]
) -> None:
    site.start_broker()
    etc = site.enroll("pi-1")
    text = (etc / "agent.toml").read_text().replace("/var/lib/fedge-agent", str(site.folder / "state"))
    (etc / "agent.toml").write_text(text)
    watcher = connect(site.of_staff("admin"), "watcher", "fedge/1/barn/device/+")
    site.until(lambda: watcher.is_online, "who watches is there")
    log = site.folder / "agent.log"
    command = [sys.executable, "-m", "fleet.cli", "agent", "run", "--config", str(etc / "agent.toml")]
    with log.open("wb") as output:
        agent = subprocess.Popen(command, stderr=output, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        site.until(lambda: any(watcher.heard("fedge/1/barn/device/pi-1")), "the agent is there")
        site.fedge("ca", "revoke", site.ca, "pi-1")
        site.until(lambda: "is revoked: this device was put out" in log.read_text(), "the agent is told why")
        assert watcher.heard("fedge/1/barn/device/pi-1")[-1] == b""
        assert agent.poll() is None, "it goes on, for a card that is enrolled again"
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(120)
    assert (site.folder / "state").stat().st_mode & 0o007 == 0, "what it has learned is not for everybody"
    assert "can be used by everybody" not in log.read_text()
