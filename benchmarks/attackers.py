"""What one device with its own credentials can cost the others: rounds a minute with and without each attack.

    python -m benchmarks.attackers                                  # three pairs of 60 s for each attack: an hour
    python -m benchmarks.attackers --seconds 15 --pairs 1 --attacks qos0 dribble
    python -m benchmarks.attackers --json attackers.json

mosquitto has deploy's configuration and access list, its two listeners and passwords. The aggregator is a process; the
devices share one, have a connection each, and take PACE_S to read their rows, so that a round takes about two seconds
and the processor is not what it waits for. Updates are 800 kB, in pieces, and there is room for one at a time.

A pair is a window without the attack and one with it, each from one commit to another, after the fleet has gone on by
itself for a while. Every attack comes from a device of its own, that has not been seen before, and connects again at
once whenever it is thrown off. What costs the others more than a tenth is said at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, to_builtins

from benchmarks import intruders
from benchmarks.attacked import JOB, aggregator_toml
from benchmarks.memory import rss_mb
from broker.connection import BrokerSettings
from broker.embedded import find_mosquitto
from broker.errors import StartError
from broker.messages import Beacon, Status
from broker.wire import Wire
from fleet.console.display import duration
from fleet.console.observer import over_mqtt
from fleet.console.watch import Watch, WatchError
from fleet.local.processes import FEDGE, Child, ChildDiedError, Children, interruptible
from fleet.local.stage import FLEET
from fleet.problems.problem import device_names

DEPLOY = Path(__file__).parents[1] / "deploy" / "mosquitto"
DEVICES = 4
GOAL = 1.1
"""Times as long as without the attack a round may take."""
WARM = 3
STILL = 4.0
"""Windows of this many times their length without a commit are ended: the fleet stands still."""
INTERRUPTED = 130


class Window(Struct, frozen=True):
    """Some rounds, from a commit to a commit."""

    rounds: int
    seconds: float

    @property
    def a_minute(self) -> float:
        """Rounds a minute."""
        return 60.0 * self.rounds / self.seconds


class Attack(Struct, frozen=True):
    """What an attack costs. ratio: of the times of a round, with and without it; the median of its pairs."""

    name: str
    calm: list[Window]
    attacked: list[Window]
    ratio: float
    recovery_s: float
    """From its end to the next commit, at worst."""
    broker_mb: float
    """RSS of mosquitto at the end of it, at most."""


class Arena:
    """A broker, a fleet that works, and an operator who looks on."""

    def __init__(self, folder: Path, children: Children, names: Sequence[str]) -> None:
        self._folder = folder
        self._children = children
        self.ports = _free_port(), _free_port()
        self.broker = self._start_broker(names)
        self._watch = Watch(over_mqtt("watch", self.settings("operator"), Wire(FLEET)), heard=("aggregator", "status"))
        self.job = ""
        self.version = -1

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
        self._children.start("aggregator", command, self._folder / "aggregator.log")
        command = [sys.executable, "-m", "benchmarks.attacked", str(self._folder), str(self.ports[0])]
        self._children.start("devices", [*command, *device_names(DEVICES)], self._folder / "devices.log")
        self._watch.__enter__()
        for heard in self._watch.hear():
            self._children.check()
            if isinstance(heard, Beacon) and heard.online:
                break
        self._watch.submit(JOB)
        self.window(0.0, WARM)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the fleet to its children's end."""
        self._watch.__exit__()

    def window(self, seconds: float, rounds: int = 1) -> Window:
        """Look on from the next commit until a commit so many seconds and rounds later."""
        began_at: float | None = None
        began, until, last_at = 0, time.monotonic() + 120.0, 0.0
        for heard in self._watch.hear():
            self._children.check()
            now = time.monotonic()
            if isinstance(heard, Status) and heard.version.number > self.version:
                self.version, self.job, last_at = heard.version.number, heard.job, now
                if began_at is None:
                    began_at, began = now, self.version
                    until = now + STILL * max(seconds, 10.0)
                elif now >= began_at + seconds and self.version >= began + rounds:
                    return Window(self.version - began, now - began_at)
            if now > until:
                if began_at is None:
                    raise WatchError(f"no round ends within 120 s; the logs are in {self._folder}")
                return Window(self.version - began, now - began_at)
        raise WatchError(f"the fleet is silent since {last_at:.0f}")

    def attack(self, name: str, user: str, seconds: float) -> tuple[Window, float, float]:
        """Return a window with this attack, how long the next commit then takes, and the broker's RSS in MB."""
        command = [
            sys.executable,
            "-m",
            "benchmarks.intruders",
            name,
            str(self._folder),
            str(self.ports[0]),
            user,
            self.job,
        ]
        with Children() as intruder:
            child = intruder.start(user, command, self._folder / f"{user}.log")
            window = self.window(seconds)
            mb = rss_mb(self.broker.process.pid)
            if child.process.poll() is not None:
                intruder.check()
        ended = time.monotonic()
        self.window(0.0, 1)
        return window, time.monotonic() - ended, mb


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0; 1 where something could not be run, 2 for bad input."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.seconds <= 0 or asked.pairs < 1:
        parser.error("there is nothing to measure without a second and a pair")
    if asked.json is not None and not asked.json.resolve().parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    try:
        with interruptible(), tempfile.TemporaryDirectory(prefix="fedge-attackers-") as name:
            return _measure(asked, Path(name))
    except (StartError, ChildDiedError, WatchError, OSError, subprocess.CalledProcessError) as error:
        print(f"attackers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


def _measure(asked: argparse.Namespace, folder: Path) -> int:
    intruders_ = [f"{name}-{pair}" for name in asked.attacks for pair in range(asked.pairs)]
    names = ["aggregator", "operator", *device_names(DEVICES), *intruders_]
    print(
        f"{DEVICES} devices, updates of 800 kB, room for one; {asked.pairs} pairs of windows of {asked.seconds:g} s\n"
        f"\n{'attack':<12}{'rounds a minute':>16}{'attacked':>10}{'times as long':>15}{'recovery s':>12}"
        f"{'broker MB':>11}",
        flush=True,
    )
    found: list[Attack] = []
    with Children() as children, Arena(folder, children, names) as arena:
        began, n = time.monotonic(), len(asked.attacks)
        for done, name in enumerate(asked.attacks):
            found.append(_pairs(arena, name, asked.pairs, asked.seconds))
            _print(found[-1])
            left = (time.monotonic() - began) / (done + 1) * (n - done - 1)
            print(f"[{done + 1}/{n}] {name}; about {duration(left)} left", file=sys.stderr, flush=True)
        if asked.logs is not None:
            shutil.copytree(folder, asked.logs, ignore=shutil.ignore_patterns("*.password", "passwd"))
    lost = [
        f"{one.name}: {one.ratio:.2f} times as long, where {GOAL:g} is the goal" for one in found if one.ratio > GOAL
    ]
    print("\n" + "\n".join(f"over its goal: {line}" for line in lost) if lost else "\nnothing is over its goal")
    if asked.json is not None:
        text = json.dumps({"attacks": to_builtins(found), "over": lost}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")
    return 0


def _pairs(arena: Arena, name: str, pairs: int, seconds: float) -> Attack:
    calm, attacked, recoveries, mbs = [], [], [], []
    for pair in range(pairs):
        calm.append(arena.window(seconds))
        window, recovery_s, mb = arena.attack(name, f"{name}-{pair}", seconds)
        attacked.append(window)
        recoveries.append(recovery_s)
        mbs.append(mb)
        arena.window(0.0, WARM)
    ratios = [one.a_minute / max(other.a_minute, 0.01) for one, other in zip(calm, attacked, strict=True)]
    return Attack(name, calm, attacked, statistics.median(ratios), max(recoveries), max(mbs))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _print(attack: Attack) -> None:
    calm, attacked = (
        statistics.median(window.a_minute for window in windows) for windows in (attack.calm, attack.attacked)
    )
    print(
        f"{attack.name:<12}{calm:>16.1f}{attacked:>10.1f}{attack.ratio:>15.2f}{attack.recovery_s:>12.1f}"
        f"{attack.broker_mb:>11.0f}",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="of a window, at least")
    parser.add_argument("--pairs", type=int, default=3, metavar="N")
    names = list(intruders.ATTACKS)
    parser.add_argument("--attacks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep what the fleet has said there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
