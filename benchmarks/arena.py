"""A broker, a fleet that works, and whoever attacks it, for benchmarks.attackers: rounds, CPU and memory of a window.

Rounds are read from what the aggregator logs, so that they are counted whatever becomes of anybody's connection.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.attacked import JOB, aggregator_toml
from benchmarks.intruders import Reached
from benchmarks.memory import rss_mb, spent_s
from broker.connection import BrokerSettings
from broker.embedded import find_mosquitto
from broker.errors import StartError
from broker.messages import Beacon
from broker.wire import Wire
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch, WatchError
from fleet.local.processes import FEDGE, Child, Children
from fleet.local.stage import FLEET
from fleet.problems.problem import device_names

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
DEVICES = 4
WARM = 2
STILL = 4.0
"""Windows of this many times their length without a commit are ended: the fleet stands still."""
LOOK_S = 0.01
COMMITTED = re.compile(rb" version job=(\S+) version=\d+\.(\d+) ")


class Window(Struct, frozen=True):
    """Some rounds, from a commit to a commit. broker, aggregator: parts of a processor that they took. mb: the broker's
    RSS at the end of it."""

    rounds: int
    seconds: float
    broker: float
    aggregator: float
    mb: float

    @property
    def round_s(self) -> float:
        """Seconds that a round took; inf where there was none."""
        return self.seconds / self.rounds if self.rounds else float("inf")


class Arena:
    """A broker, a fleet that works, and an operator who looks on."""

    def __init__(self, folder: Path, children: Children, names: Sequence[str]) -> None:
        self._folder = folder
        self._children = children
        self.ports = _free_port(), _free_port()
        self.broker = self._start_broker(names)
        self.job = ""
        self._version = -1
        self._log = folder / "aggregator.log"
        self._read = 0

    def settings(self, user: str) -> BrokerSettings:
        """Return how a user reaches the broker, on the port where it belongs."""
        port = self.ports[user in ("aggregator", "operator")]
        password = self._folder / f"{user}.password"
        return BrokerSettings(port=port, username=user, password_file=str(password))

    def _start_broker(self, names: Sequence[str]) -> Child:
        program = find_mosquitto()
        if program is None or shutil.which("mosquitto_passwd") is None:
            raise StartError("mosquitto and mosquitto_passwd are needed: `apt install mosquitto`")
        passwords = self._folder / "passwd"
        passwords.write_text("".join(f"{name}:{name}\n" for name in names))
        passwords.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
        for name in names:
            (self._folder / f"{name}.password").write_text(f"{name}\n")
        text = (DEPLOY / "mosquitto.conf").read_text(encoding="utf-8")
        for pattern, with_ in (
            (r"^listener 1883$", f"listener {self.ports[0]} 127.0.0.1"),
            (r"^listener 1884$", f"listener {self.ports[1]} 127.0.0.1"),
            (r"/mosquitto/config/passwd$", str(passwords)),
            (r"/mosquitto/config/acl$", str(DEPLOY / "acl")),
        ):
            text = re.sub(pattern, with_, text, flags=re.MULTILINE)
        conf = self._folder / "mosquitto.conf"
        conf.write_text(text + ("\nuser root\n" if os.geteuid() == 0 else ""), encoding="utf-8")
        child = self._children.start("mosquitto", [program, "-c", str(conf)], self._folder / "mosquitto.log")
        time.sleep(0.5)
        self._children.check()
        return child

    def __enter__(self) -> Arena:
        """Start the fleet and its job, and let the first rounds pass."""
        config = self._folder / "aggregator.toml"
        config.write_text(aggregator_toml(self._folder, self.settings("aggregator")), encoding="utf-8")
        command = [*FEDGE, "aggregator", "run", "--config", str(config)]
        self.aggregator = self._children.start("aggregator", command, self._log)
        command = [sys.executable, "-m", "benchmarks.attacked", str(self._folder), str(self.ports[0])]
        self._children.start("devices", [*command, *device_names(DEVICES)], self._folder / "devices.log")
        with Watch(over_mqtt("watch", self.settings("operator"), Wire(FLEET)), heard=("aggregator",)) as watch:
            for heard in watch.hear():
                self._children.check()
                if isinstance(heard, Beacon) and heard.online:
                    break
            watch.submit(JOB)
            self.pass_rounds(WARM)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the fleet to its children's end."""

    def _commit(self) -> bool:
        """Read on in the log; return whether there was another version."""
        self._children.check()
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        before = self._version
        for job, number in COMMITTED.findall(text):
            self.job, self._version = job.decode(), int(number)
        return self._version > before

    def pass_rounds(self, n: int) -> None:
        """Look on until there were so many commits. Raises WatchError."""
        until = time.monotonic() + 120.0
        while n > 0:
            if self._commit():
                n -= 1
                until = time.monotonic() + 120.0
            elif time.monotonic() > until:
                raise WatchError(f"no round ends within 120 s; the logs are in {self._folder}")
            time.sleep(LOOK_S)

    def window(self, seconds: float) -> Window:
        """Look on from a commit that was just seen until the first one so many seconds later."""
        began, first, broker, aggregator = time.monotonic(), self._version, *self._spent()
        while True:
            is_commit, now = self._commit(), time.monotonic()
            if (is_commit and now >= began + seconds) or now >= began + STILL * max(seconds, 10.0):
                break
            time.sleep(LOOK_S)
        s, mb = now - began, rss_mb(self.broker.process.pid)
        spent = self._spent()
        return Window(self._version - first, s, (spent[0] - broker) / s, (spent[1] - aggregator) / s, mb)

    def _spent(self) -> tuple[float, float]:
        return spent_s(self.broker.process.pid), spent_s(self.aggregator.process.pid)

    def attack(self, name: str, user: str, seconds: float) -> tuple[Window, float, Reached]:
        """Return a window with this attack, how long the next commit then takes, and what the attack has come to."""
        command = [sys.executable, "-m", "benchmarks.intruders", name]
        command += [str(self._folder), str(self.ports[0]), user, self.job]
        with Children() as intruder:
            child = intruder.start(user, command, self._folder / f"{user}.log")
            self.pass_rounds(WARM)  # while it starts
            (self._folder / f"{user}.go").touch()
            window = self.window(seconds)
            if child.process.poll() is not None:
                intruder.check()
        ended = time.monotonic()
        self.pass_rounds(1)
        reached = self._folder / f"{user}.reached"
        if not reached.exists():
            raise StartError(f"the attack {name} has not begun; the end of its log is in {child.log}")
        return window, time.monotonic() - ended, msgspec.json.decode(reached.read_bytes(), type=Reached)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
