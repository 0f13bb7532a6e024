"""A real mosquitto with the access list and the limits of deploy/, and clients of it that wait for their answers."""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.deploy.locked import Site

DEPLOY = Path(__file__).parents[2] / "deploy"
USERS = ("aggregator", "operator", "pi-1", "pi-2")
WAIT_S = 120.0
"""Longest wait for an answer that must come; nothing waits for one that must not."""


class Broker(NamedTuple):
    """A running mosquitto.

    inner_port: the listener of aggregator and operators.
    folder: what deploy/ is on a server (mosquitto/passwd, secrets/).
    """

    process: subprocess.Popen[bytes]
    port: int
    inner_port: int
    folder: Path

    def password(self, user: str) -> str:
        return (self.folder / "secrets" / f"{user}.password").read_text().strip()

    def add_user(self, *arguments: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DEPLOY / "mosquitto" / "add-user.sh", *arguments],
            env=os.environ | {"FEDGE_LOCAL": "1", "FEDGE_DEPLOY": str(self.folder)},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def configuration(port: int, inner_port: int, folder: Path) -> str:
    """Give deploy's mosquitto.conf with ports and paths of this test, and not a line else changed."""
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
    for pattern, replacement in (
        (r"^listener 1883$", f"listener {port} 127.0.0.1"),
        (r"^listener 1884$", f"listener {inner_port} 127.0.0.1"),
        (r"/mosquitto/config/passwd$", f"{folder}/mosquitto/passwd"),
        (r"/mosquitto/config/acl$", f"{DEPLOY}/mosquitto/acl"),
    ):
        text, n = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert n == 1, f"{pattern} is not there once but {n} times"
    # Started by root it would become the user mosquitto, who may not look into a test's folder.
    return text + "\nuser root\n"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("deploy")
    port, inner_port = free_port(), free_port()
    conf, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    conf.write_text(configuration(port, inner_port, folder))
    with log.open("wb") as output, ExitStack() as stack:
        for user in USERS:
            Broker(None, 0, 0, folder).add_user(user).check_returncode()  # type: ignore[arg-type]  # not started yet
        program = "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else "mosquitto"
        process = subprocess.Popen([program, "-c", conf], stdout=output, stderr=output)
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        for some_port in (port, inner_port):
            await_listener(process, some_port, log)
        yield Broker(process, port, inner_port, folder)


def await_listener(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text())


class Client:
    """One connection; every call waits for the broker's answer to it."""

    def __init__(
        self,
        port: int,
        user: str | None,
        password: str | None,
        *,
        client_id: str = "",
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        will: tuple[str, bytes] | None = None,
        manual_ack: bool = False,
    ) -> None:
        self.heard: queue.Queue[MQTTMessage] = queue.Queue()
        self.ended: queue.Queue[int] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self.paho = PahoClient(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, manual_ack=manual_ack
        )
        self.paho.username_pw_set(user, password)
        if will:
            self.paho.will_set(will[0], will[1], qos=1, retain=True)
        self.paho.on_message = lambda _client, _data, message: self.heard.put(message)
        self.paho.on_connect = lambda _c, _d, _f, code, properties: self._answers.put((code.value, properties))
        self.paho.on_subscribe = lambda _c, _d, _mid, codes, _p: self._answers.put([c.value for c in codes])
        self.paho.on_publish = lambda _c, _d, _mid, code, _p: self._answers.put(code.value)
        self.paho.on_disconnect = lambda _c, _d, _f, code, _p: self.ended.put(code.value)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        self.connected, self.limits = self._answers.get(timeout=WAIT_S)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
        """Say whether the broker took it: MQTT 5 PUBACK reason codes from 128 on are refusals."""
        self.paho.publish(topic, payload, qos=1, retain=retain)
        code: int = self._answers.get(timeout=WAIT_S)
        return code < 128

    def subscribe(self, *filters: str) -> None:
        self.paho.subscribe([(each, 1) for each in filters])
        self._answers.get(timeout=WAIT_S)

    def hear_until(self, last: bytes) -> dict[str, bytes]:
        """Return what came, by topic, up to and without the payload `last`."""
        found: dict[str, bytes] = {}
        while (message := self.heard.get(timeout=WAIT_S)).payload != last:
            found[message.topic] = bytes(message.payload)
        return found

    def die(self) -> None:
        """Break the connection without a DISCONNECT, as a power cut does."""
        self.paho.loop_stop()
        link = self.paho.socket()
        assert link is not None
        link.close()

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return an authority's directory with credentials; its brokers are started by who needs one."""
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def locked_broker(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return the site with a broker that runs, and certificates that nobody should have."""
    site.forge("expired", ("pi-1",), days=(-30, -1))
    site.forge("too early", ("pi-1",), days=(1, 30))
    site.forge("stranger", ("pi-1",), by="stranger")
    site.forge("itself", ("pi-1",), by="itself")
    site.forge("signed by a device", ("pi-1",), by="pi-2")
    site.forge("a server's", ("pi-1",), server=True)
    for name in ("aggregator", "otto", "authority"):
        site.forge(f"as {name}", (name,))
    odd: dict[str, tuple[str, ...]] = {"plus": ("+",), "hash": ("#",), "slash": ("pi-1/9",), "capitals": ("PI-1",)}
    odd |= {"two names": ("pi-1", "pi-2"), "nameless": (), "empty": ("",), "early end": ("pi-1\0x",)}
    odd |= {"long": ("x" * 60_000,), "line feed": ("pi-1\n",)}
    for name, common_names in odd.items():
        site.forge(name, common_names)
    site.start(tmp_path_factory.mktemp("locked"))
    yield site
    site.stop()


Connect = Callable[..., Client]


@pytest.fixture
def connect(broker: Broker) -> Iterator[Connect]:
    """Connect as a user of the broker, on the port where that user belongs."""
    with ExitStack() as stack:

        def connect_as(user: str, **options: Any) -> Client:
            port = broker.inner_port if user in ("aggregator", "operator") else broker.port
            client = Client(port, user, options.pop("password", None) or broker.password(user), **options)
            stack.callback(client.close)
            return client

        yield connect_as
