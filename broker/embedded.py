"""A broker of one's own on loopback, as a child process: for the demo and for tests, never for a fleet.

mosquitto where it is installed, else amqtt (pure Python, MQTT 3.1.1 only). The child dies with us, however we die:
on Linux the kernel kills it when the thread that started it ends, so start it from a thread that stays.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from broker.errors import StartError
from runtime.children import environment

logger = logging.getLogger(__name__)

Kind = Literal["mosquitto", "amqtt"]

MOSQUITTO_CONFIG = """\
# Written by broker/embedded.py at every start.
# Without a listener line mosquitto 2 picks its own; loopback keeps strangers out, so anonymous is fine.
listener {port} 127.0.0.1
allow_anonymous true
# At the default of 1000 mosquitto drops messages that it has acknowledged; 0 (no limit) is broken in 2.0.11.
max_queued_messages 100000
# As many as our client announces: a reader with a slow answer still sees a full pipe.
max_inflight_messages 64
# Small packets go out at once: 300 connects take 2 s instead of 17 s.
set_tcp_nodelay true
# Retained topics are a projection of the aggregator's store; what the broker forgets is published again.
persistence false
sys_interval 0
log_dest stderr
log_type error
log_type warning
log_type notice
"""

_STAY_ROOT = ("# Changing its user would cut the leash: the kernel then forgets to kill it with us.", "user root")

_START_S = 15.0  # amqtt takes a second or two to import; a busy machine may take more
_STOP_S = 5.0
_SEARCH = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"  # where sbin is not on a user's PATH

# Runs first in the child, in place of a preexec_fn, which is not safe in a process with threads: asks the kernel to
# kill it with its parent (PR_SET_PDEATHSIG = 1), looks whether that has already happened, and becomes the broker.
_LEASH = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_broker(
    folder: Path, *, port: int | None = None, prefer: Kind | None = None, config_lines: Sequence[str] = ()
) -> EmbeddedBroker:
    """Start a broker on 127.0.0.1 and wait until it answers.

    folder: for its configuration and log; made where it is missing. port: a free one when not given.
    config_lines: added to mosquitto's configuration, where the last word counts.
    Raises StartError when there is no broker to start or it does not answer, with the end of its log.
    """
    kind = _choose(prefer)
    if config_lines and kind == "amqtt":
        raise StartError("config_lines are for mosquitto, which is not installed or not wanted")
    folder.mkdir(parents=True, exist_ok=True)
    broker = EmbeddedBroker(kind, folder, port or _free_port(), config_lines)
    broker.start()
    return broker


def on_leash(command: Sequence[str]) -> list[str]:
    """Return the command line that runs a program, named by its path, as a child that dies with its starter.

    Its starter is a thread. The promise is the kernel's, however we die, and holds on Linux alone.
    """
    return [sys.executable, "-IS", "-c", _LEASH, str(os.getpid()), *command]


def find_mosquitto() -> str | None:
    """Return the path of the mosquitto program, if it is installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SEARCH}")


class EmbeddedBroker:
    """A broker that runs as our child. As a context manager it stops at the end."""

    host = "127.0.0.1"

    def __init__(self, kind: Kind, folder: Path, port: int, config_lines: Sequence[str] = ()) -> None:
        self.kind, self.folder, self.port = kind, folder, port
        self._config_lines = tuple(config_lines)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the child. Raises StartError when it is not running."""
        if self._process is None:
            raise StartError("the broker is not running")
        return self._process.pid

    @property
    def protocol(self) -> Literal["auto", "3.1.1"]:
        """What to write in BrokerSettings: amqtt leaves an MQTT 5 CONNECT unanswered, and finding out takes seconds."""
        return "3.1.1" if self.kind == "amqtt" else "auto"

    @property
    def log_path(self) -> Path:
        """Where the child writes its log."""
        return self.folder / f"{self.kind}.log"

    def start(self) -> None:
        """Start the child and wait until it answers; nothing happens when it runs. Raises StartError."""
        if self._process is not None:
            return
        if self._answers():
            raise StartError(f"port {self.port} is in use by another program")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                on_leash(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                process_group=0,  # Ctrl-C is for us: we stop the broker after those who use it
            )
        self._wait_until_it_answers()
        logger.info("broker=started kind=%s port=%d pid=%d", self.kind, self.port, self.pid)

    def stop(self) -> None:
        """Ask the child to end, and see to it. Nothing happens when it is not running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """End the child as by kill -9."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def __enter__(self) -> EmbeddedBroker:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _command(self) -> list[str]:
        """Write the configuration; give the command line."""
        if self.kind == "amqtt":
            return [sys.executable, "-m", "broker.embedded", str(self.port)]
        config = self.folder / "mosquitto.conf"
        lines = [
            MOSQUITTO_CONFIG.format(port=self.port),
            *(_STAY_ROOT if os.geteuid() == 0 else ()),
            *self._config_lines,
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [find_mosquitto() or "mosquitto", "-c", str(config)]

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                self._reap()
                raise StartError(f"{self.kind} ended at once; its log says:\n{self._log_tail()}")
            if time.monotonic() > until:
                self.kill()
                raise StartError(f"{self.kind} does not answer after {_START_S:g} s; {self._log_tail()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.host, self.port)) == 0

    def _log_tail(self, n_lines: int = 10) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-n_lines:]) or "nothing"

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None


def _choose(prefer: Kind | None) -> Kind:
    if prefer != "amqtt" and find_mosquitto() is not None:
        return "mosquitto"
    if prefer == "mosquitto":
        raise StartError("mosquitto is not installed; `apt install mosquitto` brings it")
    if importlib.util.find_spec("amqtt") is None:
        raise StartError("no broker is installed: `apt install mosquitto` or `pip install amqtt` brings one")
    return "amqtt"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((EmbeddedBroker.host, 0))
        port: int = probe.getsockname()[1]
        return port


async def _serve_amqtt(port: int) -> None:
    """Run amqtt until killed. In the child only."""
    from amqtt.broker import Broker  # the one import of amqtt, and only where it is wanted

    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"{EmbeddedBroker.host}:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    await Broker(config).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_serve_amqtt(int(sys.argv[1])))
