"""What TLS costs a broker when a fleet comes back: so many connections with client certificates, and without TLS.

    python -m benchmarks.handshakes                    # 1,000 devices, mosquitto; three rounds of each, the median
    python -m benchmarks.handshakes --devices 200 --json handshakes.json

Each device has a key and a certificate of its own on P-256, checked against a list of the revoked; a connection is set
up once the broker has answered its CONNECT, and all stay open. The devices are one process, so the wall time holds
their half of the handshakes too; what it costs the broker is its CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, to_builtins

from benchmarks.connections import limit_files
from benchmarks.memory import cpu_s, peak_mb
from broker.embedded import EmbeddedBroker, start_broker
from broker.errors import StartError
from identity import certificates

AT_ONCE = 50
"""Handshakes that are under way at one time."""
REVOKED = 100
"""Length of the list of the revoked."""
ROUNDS = 3
NAMES = {"": "without TLS", "tlsv1.3": "TLS 1.3, client certificates", "tlsv1.2": "TLS 1.2 or 1.3, client certificates"}


ACCEPTED = b"\x20\2\0\0"
"""The CONNACK of whoever is let in, and has left no session behind."""


class Cost(Struct, frozen=True):
    """For all connections of one kind: seconds of wall time, the broker's seconds of CPU, and MB of its VmHWM."""

    kind: str
    devices: int
    wall_s: float
    broker_cpu_s: float
    broker_mb: float


class Credentials:
    """An authority, and devices that it has certified, as their side of TLS."""

    def __init__(self, folder: Path, n: int) -> None:
        now = dt.datetime.now(dt.UTC)
        self.folder, key = folder, certificates.new_key()
        authority = certificates.new_authority(key, "benchmark", "bench", 2, now)
        revoked = {f"{serial:x}": now for serial in range(1, REVOKED + 1)}
        files = {"ca.crt": authority, "ca.crl": certificates.revocations(authority, key, revoked, 1, 2, now)}
        files["server.key"] = certificates.new_key()
        files["server.crt"] = certificates.issue(
            authority, key, files["server.key"], "broker", 1, now, server=["localhost"]
        )
        for name, content in files.items():
            (folder / name).write_bytes(content)
        self.contexts = []
        for i in range(n):
            own, file = certificates.new_key(), folder / "device.pem"
            file.write_bytes(certificates.issue(authority, key, own, f"device-{i}", 1, now) + own)
            context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
            context.load_cert_chain(file)
            self.contexts.append(context)

    def listener(self, port: int, version: str) -> list[str]:
        """Return the lines of mosquitto's configuration, as in deploy/mosquitto/locked.conf."""
        files = {"cafile": "ca.crt", "crlfile": "ca.crl", "certfile": "server.crt", "keyfile": "server.key"}
        lines = [f"listener {port} 127.0.0.1", *(f"{key} {self.folder / name}" for key, name in files.items())]
        ours = ("require_certificate true", "use_identity_as_username true", "use_username_as_clientid true")
        return [*lines, f"tls_version {version}", *ours]


def measure(folder: Path, credentials: Credentials, version: str) -> Cost:
    """Connect every device once to a broker of its own. version: of TLS; "": without. Raises StartError, OSError."""
    with ExitStack() as stack:
        probe = stack.enter_context(socket.socket())
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        probe.close()
        lines = credentials.listener(port, version) if version else []
        broker = stack.enter_context(start_broker(folder, prefer="mosquitto", config_lines=lines))
        contexts: list[ssl.SSLContext | None] = [*credentials.contexts]
        return asyncio.run(_connect_all(broker, port, contexts, version))


async def _connect_all(broker: EmbeddedBroker, port: int, contexts: list[ssl.SSLContext | None], version: str) -> Cost:
    cpu, began, turn = cpu_s(broker.pid), time.monotonic(), asyncio.Semaphore(AT_ONCE)

    there: list[asyncio.StreamWriter] = []

    async def connect(i: int, context: ssl.SSLContext | None) -> None:
        async with turn:
            where = ("localhost", port, context) if version else ("127.0.0.1", broker.port, None)
            reader, writer = await asyncio.open_connection(*where[:2], ssl=where[2])
            there.append(writer)
            writer.write(_connect_packet(f"device-{i}"))
            if await reader.readexactly(4) != ACCEPTED:
                raise OSError(f"device-{i} is not let in")

    try:
        await asyncio.gather(*(connect(i, context) for i, context in enumerate(contexts)))
        wall_s, cpu_used = time.monotonic() - began, cpu_s(broker.pid) - cpu
        return Cost(NAMES[version], len(contexts), wall_s, cpu_used, peak_mb(broker.pid))
    finally:
        for writer in there:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in there), return_exceptions=True)


def _connect_packet(client_id: str) -> bytes:
    """Return a CONNECT of MQTT 3.1.1, clean, keepalive 60 s (section 3.1)."""
    body = b"\0\4MQTT\4\2\0\x3c" + len(client_id).to_bytes(2, "big") + client_id.encode()
    return bytes([0x10, len(body)]) + body


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all kinds in turn, several times; print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handshakes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, help="write the figures of every round there")
    options = parser.parse_args(arguments)
    limit_files(4 * options.devices + 100)
    found: list[Cost] = []
    try:
        with tempfile.TemporaryDirectory(prefix="fedge-handshakes-") as name:
            credentials = Credentials(Path(name), options.devices)
            for i in range(options.rounds):
                found += [measure(Path(name) / f"{i}{version}", credentials, version) for version in NAMES]
    except (StartError, OSError) as error:
        print(f"benchmarks.handshakes: {error}", file=sys.stderr)
        return 1
    print(f"{options.devices} connections, {AT_ONCE} at once; medians of {options.rounds}")
    for kind in NAMES.values():
        these = [cost for cost in found if cost.kind == kind]
        wall = statistics.median(cost.wall_s for cost in these)
        cpu = statistics.median(cost.broker_cpu_s for cost in these)
        mb = statistics.median(cost.broker_mb for cost in these)
        each = 1000 * cpu / options.devices
        print(f"{kind:<36}{wall:7.2f} s{cpu:8.2f} s of the broker's CPU, {each:5.2f} ms each{mb:8.1f} MB")
    if options.json:
        options.json.write_text(json.dumps(to_builtins(found), indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
