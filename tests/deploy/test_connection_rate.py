"""deploy/nftables/fedge.nft in a network namespace of its own (apt: nftables): too many connections, and others.

No rate is waited for: a limit "a day" passes its burst and then nothing. That a connection is dropped is read from the
counter of the rule, that one comes about from the connection.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

RULES = Path(__file__).parents[2] / "deploy" / "nftables" / "fedge.nft"
PORT = 8883
WAIT_S = 20.0
COUNTERS = ("one_address", "too_many_open", "all_addresses")


def smaller(rate: int, open_: int, of_all: int) -> str:
    """Return the file with these bursts and numbers, and not a rule else changed."""
    text = RULES.read_text()
    for pattern, replacement, times in (
        (r"20/second burst 2000 packets", f"1/day burst {rate} packets", 2),
        (r"ct count over 10000", f"ct count over {open_}", 2),
        (r"200/second burst 20000 packets", f"1/day burst {of_all} packets", 1),
    ):
        text, n = re.subn(rf"\b{pattern}", replacement, text)
        assert n == times, pattern
    return text


class Network:
    """Inside the namespace: a listener at the broker's port, and whoever connects from any address of loopback."""

    def __init__(self, rules: str) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
        self.open: list[socket.socket] = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listener = socket.socket(family)
            listener.bind((address, PORT))
            listener.listen(200)
            self.open.append(listener)

    def counters(self) -> dict[str, int]:
        answer = subprocess.run(
            ["nft", "-j", "list", "counters", "table", "inet", "fedge"], capture_output=True, check=True
        )
        rows = [row["counter"] for row in json.loads(answer.stdout)["nftables"] if "counter" in row]
        return {row["name"]: row["packets"] for row in rows}

    def connect(self, address: str, *, port: int = PORT) -> str:
        """Return what became of a connection from this address: "" or the counter that dropped it."""
        before = self.counters()
        family, to = (socket.AF_INET6, "::1") if ":" in address else (socket.AF_INET, "127.0.0.1")
        one = socket.socket(family)
        one.bind((address, 0))
        one.setblocking(False)
        one.connect_ex((to, port))
        self.open.append(one)
        with selectors.DefaultSelector() as selector:
            selector.register(one, selectors.EVENT_WRITE)
            for _ in range(int(WAIT_S / 0.02)):
                if selector.select(0.02):
                    return "" if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 else "refused"
                if dropped := [name for name, n in self.counters().items() if n > before[name]]:
                    one.close()
                    return dropped[0]
        raise AssertionError("neither connected nor dropped")

    def hang_up(self, n: int) -> None:
        """End a connection at once."""
        one = self.open.pop(n)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()


def one_address(network: Network) -> Any:
    mine = [network.connect("127.0.0.2") for _ in range(7)]
    return mine, network.connect("127.0.0.3")


def all_addresses(network: Network) -> Any:
    return [network.connect(f"127.0.0.{n}") for n in range(2, 9)]


def too_many_open(network: Network) -> Any:
    """Return what becomes of six of which the second has ended when the fifth comes, and of somebody else."""
    mine = [network.connect("127.0.0.2") for _ in range(4)]
    network.hang_up(3)
    return mine + [network.connect("127.0.0.2") for _ in range(2)], network.connect("127.0.0.3")


def other_ports(network: Network) -> Any:
    return [network.connect("127.0.0.2", port=PORT + 1) for _ in range(7)]


def sixth_version(network: Network) -> Any:
    return [network.connect("::1") for _ in range(7)]


def what_is_there(network: Network) -> Any:
    """Return what becomes of words on a connection while no new one is let in."""
    for _ in range(6):
        network.connect("127.0.0.2")
    first = network.open[2]
    accepted, _ = network.open[0].accept()
    first.setblocking(True)
    first.sendall(b"still here")
    return accepted.recv(20).decode()


CASES: dict[str, tuple[Callable[[Network], Any], tuple[int, int, int], Any]] = {
    "one address": (one_address, (5, 100, 100), [[""] * 5 + ["one_address"] * 2, ""]),
    "all together": (all_addresses, (5, 100, 5), [""] * 5 + ["all_addresses"] * 2),
    "too many open": (too_many_open, (100, 4, 100), [[""] * 5 + ["too_many_open"], ""]),
    "other ports": (other_ports, (5, 100, 100), ["refused"] * 7),
    "IPv6": (sixth_version, (5, 100, 100), [""] * 5 + ["one_address"] * 2),
    "what is there": (what_is_there, (5, 100, 100), "still here"),
}


def inside(*arguments: str) -> str:
    """Run something in a namespace of its own. Needs root, or user namespaces."""
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", *arguments],
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},  # where nft and ip are, for who is not root
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_file_is_read_and_replaces_itself() -> None:
    listed = inside("sh", "-c", f"nft -f {RULES} && nft -f {RULES} && nft list ruleset")
    assert listed.count("chain arriving") == 1
    assert listed.count("counter name") == 5


@pytest.mark.parametrize("name", CASES)
def test_too_many_connections_are_dropped_and_others_are_not(name: str) -> None:
    found = json.loads(inside(sys.executable, "-P", __file__, name))
    assert found == CASES[name][2]


def test_the_ports_are_those_of_the_two_configurations() -> None:
    ports = {
        int(port) for port in cast("re.Match[str]", re.search(r"PORTS = \{(.*)\}", RULES.read_text()))[1].split(",")
    }
    compose = (RULES.parents[1] / "compose.yaml").read_text()
    published = {int(port) for port in re.findall(r'^ +- "(\d+):\d+"$', compose, re.MULTILINE)}
    assert published <= ports
    assert not {1884, 8884} & ports


if __name__ == "__main__":
    _case, _limits, _ = CASES[sys.argv[1]]
    print(json.dumps(_case(Network(smaller(*_limits)))))
