"""A site whose broker has the listener for tokens, `fedge ca serve` as a process, and devices that ask."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.locked import MOSQUITTO
from tests.fleet.authority.conftest import CONFIGURATION, Site, free_ports
from tests.terminal import heard

LISTENER = """\
listener {enroll_port} 127.0.0.1
acl_file {files}/acl.tokens
password_file {files}/tokens
certfile {files}/server-chain.crt
keyfile {files}/server.key
tls_version tlsv1.3
require_certificate false
allow_anonymous false
use_username_as_clientid true
allow_zero_length_clientid false
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "FEDGE_LOG": "info"}


class TokenSite(Site):
    """A site that takes tokens. `capsys` is the test's, by which it reads what commands say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder)
        self.capsys = capsys
        self.enroll_port = free_ports(1)[0]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.set_up()
        self.fedge("ca", "acl", self.ca, "--template", MOSQUITTO / "acl", code=1)  # no broker yet
        self.configuration = CONFIGURATION + LISTENER.replace("{enroll_port}", str(self.enroll_port))

    def set_up(self, more: str = "") -> None:
        """Write authority.toml."""
        ports = f"port = {self.port}\ninner_port = {self.inner_port}\nenroll_port = {self.enroll_port}\n"
        (self.ca / "authority.toml").write_text(f'[broker]\n{ports}pid_file = "{self.folder}/pid"\n{more}')

    def told(self, *arguments: object, code: int = 0) -> Any:
        """Return what a command says in JSON."""
        self.capsys.readouterr()
        self.fedge(*arguments, "--json", code=code)
        return json.loads(self.capsys.readouterr().out)

    def token(self, *more: object) -> str:
        line: str = self.told("ca", "token", self.ca, *more)["line"]
        return line

    def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.told("ca", "requests", self.ca)["requests"]
        return found

    def waiting(self) -> str:
        """Return the fingerprint of the one request that waits, once there is one."""
        self.until(lambda: any(r["state"] == "waiting" for r in self.requests()), "somebody asks")
        (one,) = [r["fingerprint"] for r in self.requests() if r["state"] == "waiting"]
        return str(one)

    def known_tokens(self) -> list[str]:
        """Return the tokens that the broker knows."""
        return re.findall(r"(?m)^(token\.\w+):", (self.ca / "broker" / "tokens").read_text())

    def start(self, name: str, *command: object) -> subprocess.Popen[bytes]:
        """Start a process whose output is NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log, heard(signal.SIGINT):
            words = [sys.executable, *map(str, command)]
            self.processes.append(subprocess.Popen(words, stdout=log, stderr=log, env=ENVIRONMENT))
        return self.processes[-1]

    def serve(self, *patch: str) -> subprocess.Popen[bytes]:
        """Start `fedge ca serve`. patch: Python that is run before, in its process."""
        code = "\n".join((*patch, "import sys", "from fleet.cli import main", "sys.exit(main(sys.argv[1:]))"))
        before = self.said("serve").count(" online")
        process = self.start("serve", "-c", code, "ca", "serve", self.ca)
        if not patch:
            self.until(lambda: self.said("serve").count(" online") > before, "it serves")
        return process

    def ask(self, name: str, line: str, *more: object) -> subprocess.Popen[bytes]:
        """Start `fedge agent enroll`; its files go to NAME."""
        return self.start(name, "-m", "fleet.cli", "agent", "enroll", line, "--etc", self.folder / name, *more)

    def said(self, name: str) -> str:
        file = self.folder / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def ended(self, process: subprocess.Popen[bytes], name: str) -> int:
        self.until(lambda: process.poll() is not None, f"{name} ends: {self.said(name)}")
        assert process.returncode is not None
        return process.returncode

    def enrolled(self, name: str, *more: object, device: str | None = None) -> Path:
        """Enroll by a token, in a window, and return the folder of its configuration."""
        self.fedge("ca", "window", self.ca)
        asking = self.ask(name, self.token("--device", device or name, *more))
        assert self.ended(asking, name) == 0, self.said(name) + self.said("serve")
        self.fedge("ca", "window", self.ca, "--minutes", 0)
        return self.folder / name

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(120)
        self.stop_broker()


def secret_of(line: str) -> tuple[str, str]:
    """Return a token's user name and its secret."""
    found = re.fullmatch(r"fedge-token://([^:]+):([^@]+)@.*", line)
    assert found is not None
    return found[1], found[2]
