"""A whole fleet at a broker with locked.conf: a real aggregator, two real agents, an operator and an observer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from fleet.console import operator
from fleet.console.operator import DeniedError, OperatorConfig
from runtime.settings import load
from tests.deploy.locked import Site
from tests.deploy.raw import WAIT_S

JOB = """\
name = "blobs"
deploy = "never"
[model]
inputs = 4
outputs = 3
[rounds]
min_devices = 2
quorum = 2
max_rounds = 3
"""


def configure(site: Site, folder: Path, who: str, listener: str, more: str = "") -> Path:
    """Write the TOML file of somebody who comes in at a listener by his certificate."""
    certificate, key = site.files(who)
    file = folder / f"{who}.toml"
    file.write_text(
        f'fleet = "home"\n{more}\n[broker]\nhost = "localhost"\nport = {site.ports[listener]}\n'
        f'ca_file = "{site.ca}/root.crt"\ncertificate_file = "{certificate}"\nkey_file = "{key}"\n'
    )
    return file


@pytest.fixture
def own_site(site: Site, tmp_path: Path) -> Iterator[Site]:
    """Return a broker of the test's own, since what a fleet retains stays there."""
    made = Site.beside(site)
    made.start(tmp_path / "broker")
    yield made
    made.stop()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start a service of ours, and end it with the test."""
    with ExitStack() as stack:

        def start(role: str, config: Path) -> None:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
            log = stack.enter_context((tmp_path / f"{config.stem}.log").open("wb"))
            command = [sys.executable, "-m", "fleet.cli", role, "run", "--config", str(config)]
            process = subprocess.Popen(command, env=environment, stderr=log)
            stack.callback(process.wait, WAIT_S)
            stack.callback(process.terminate)

        yield start


@pytest.mark.slow
def test_a_job_is_done_while_an_observer_looks_on(own_site: Site, run: Callable[..., None], tmp_path: Path) -> None:
    site, rng = own_site, np.random.default_rng(0)
    run("aggregator", configure(site, tmp_path, "aggregator", "server", f'state_dir = "{tmp_path}/state"'))
    for device in ("pi-1", "pi-2"):
        y = np.arange(60) % 3
        rows = tmp_path / f"{device}.npz"
        np.savez(rows, X=(rng.standard_normal((60, 4)) + y[:, None]).astype(np.float32), y=y)
        keys = f'device = "{device}"\nstate_dir = "{tmp_path}/{device}"'
        file = configure(site, tmp_path, device, "devices", keys)
        file.write_text(f'{file.read_text()}[data.blobs]\npath = "{rows}"\n[models]\ninference = false\n')
        run("agent", file)
    otto, olga = (load(configure(site, tmp_path, who, "people"), OperatorConfig) for who in ("otto", "olga"))
    job = tmp_path / "job.toml"
    job.write_text(JOB)
    with pytest.raises(DeniedError):
        operator.submit(olga, job)
    operator.submit(otto, job)
    until = time.monotonic() + 3 * WAIT_S
    while (line := next(one for one in operator.jobs(olga) if one.name == "blobs")).state != "finished":
        assert time.monotonic() < until, line
    assert (line.version, line.devices_ready) == ("1.3", 2)
    (fates,) = (one.fates for one in operator.explain(olga, "blobs", 3))
    assert fates == {"pi-1": "counted", "pi-2": "counted"}
