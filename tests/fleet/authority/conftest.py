"""An authority with a real mosquitto that reads its files: one listener for devices, one for everybody else."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.transport import Offline, Online, Packet
from fleet.cli import main

WAIT_S = 20.0
TEMPLATE = """\
user aggregator
topic readwrite fedge/1/+/#
user authority
topic readwrite fedge/1/+/device/+
topic readwrite fedge/1/+/vitals/+
#@observer user {name}
#@observer topic read fedge/1/+/#
#@admin user {name}
#@admin topic read fedge/1/+/#
#@admin topic write fedge/1/+/command/+
pattern write fedge/1/+/device/%u
pattern write fedge/1/+/vitals/%u
pattern read fedge/1/+/device/%u
pattern read fedge/1/+/aggregator
"""
CONFIGURATION = """\
per_listener_settings true
set_tcp_nodelay true
persistence false
pid_file {folder}/pid
user root
log_dest stderr
log_type all
listener {port} 127.0.0.1
use_username_as_clientid true
cafile {files}/devices-ca.crt
crlfile {files}/devices.crl
acl_file {files}/acl.devices
certfile {files}/server.crt
keyfile {files}/server.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
listener {other_port} 127.0.0.2
cafile {files}/devices-ca.crt
certfile {files}/server.crt
keyfile {files}/server.key
listener {inner_port} 127.0.0.1
cafile {files}/staff-ca.crt
crlfile {files}/staff.crl
acl_file {files}/acl.staff
certfile {files}/server.crt
keyfile {files}/server.key
require_certificate true
use_identity_as_username true
tls_version tlsv1.3
"""


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Site:
    """A server: its authority's directory, its broker, and what devices have."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, folder / "ca"
        self.port, self.inner_port, self.other_port = free_ports(3)
        (folder / "acl").write_text(TEMPLATE)
        self.fedge("ca", "init", self.ca, "--fleet", "barn", "--server", "localhost", "--acl", folder / "acl")
        settings = f'port = {self.port}\ninner_port = {self.inner_port}\npid_file = "{folder}/pid"\n'
        (self.ca / "authority.toml").write_text(f"[broker]\n{settings}")
        self.broker: subprocess.Popen[bytes] | None = None
        self.configuration = CONFIGURATION

    def fedge(self, *arguments: object, code: int = 0) -> None:
        assert main([str(argument) for argument in arguments]) == code

    def start_broker(self) -> None:
        words = {"folder": self.folder, "files": self.ca / "broker", "port": self.port}
        words |= {"inner_port": self.inner_port, "other_port": self.other_port}
        (self.folder / "mosquitto.conf").write_text(self.configuration.format(**words))
        program = "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else "mosquitto"
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.broker = subprocess.Popen([program, "-c", self.folder / "mosquitto.conf"], stderr=log, stdout=log)
        self.until(lambda: re.search(r"mosquitto version .* running", self.log) is not None, "the broker runs")

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text()

    def stop_broker(self) -> None:
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(10)
            self.broker = None

    def until(self, so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not so():
            assert time.monotonic() < deadline, f"{what}: never\n{self.log}"
            time.sleep(0.02)

    def enroll(self, device: str, *more: object) -> Path:
        """Enroll a device, and return the folder of its configuration."""
        bundle = self.folder / f"{device}-{time.monotonic_ns()}.tar"
        self.fedge("enroll", device, "--ca", self.ca, "--out", bundle, *more)
        etc = self.folder / bundle.stem
        self.fedge("agent", "adopt", bundle, "--into", etc)
        return etc

    def of_device(self, etc: Path, **more: Any) -> BrokerSettings:
        folder = etc / "identity"
        files = {
            "ca_file": folder / "ca.crt",
            "certificate_file": folder / "device.crt",
            "key_file": folder / "device.key",
        }
        return BrokerSettings("localhost", self.port, **({k: str(v) for k, v in files.items()} | more))

    def of_staff(self, name: str = "aggregator", **more: Any) -> BrokerSettings:
        folder = self.ca / ("aggregator" if name == "aggregator" else f"operators/{name}")
        files = {
            "ca_file": folder / "ca.crt",
            "certificate_file": folder / f"{name}.crt",
            "key_file": folder / f"{name}.key",
        }
        return BrokerSettings("localhost", self.inner_port, **({k: str(v) for k, v in files.items()} | more))


class Client:
    """A connection of ours, and everything that it was told."""

    def __init__(self, settings: BrokerSettings, name: str, *filters: str, will: Packet | None = None) -> None:
        self.transport = MqttTransport(settings, name, will, first_retry_s=0.05, last_retry_s=0.2)
        self.transport.subscribe(*filters)
        self.transport.open()
        self.events: list[Any] = []

    def look(self) -> None:
        while (event := self.transport.take(0.0)) is not None:
            self.events.append(event)

    @property
    def is_online(self) -> bool:
        self.look()
        states = [event for event in self.events if isinstance(event, Online | Offline)]
        return bool(states) and isinstance(states[-1], Online)

    @property
    def reasons(self) -> list[str]:
        self.look()
        return [event.reason for event in self.events if isinstance(event, Offline)]

    def heard(self, topic: str) -> list[bytes]:
        self.look()
        return [event.payload for event in self.events if isinstance(event, Packet) and event.topic == topic]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.stop_broker()


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connected(*arguments: Any, **more: Any) -> Client:
        clients.append(Client(*arguments, **more))
        return clients[-1]

    yield connected
    for client in clients:
        client.transport.close(0.2)
