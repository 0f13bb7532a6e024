"""A peer of the floor: the same bytes as a round's, by bare paho, and nothing done with them.

    python -m benchmarks.overhead.floor_role server PORT AGENTS ROUNDS UP DOWN REPORT
    python -m benchmarks.overhead.floor_role client PORT NAME UP DOWN

The server publishes DOWN bytes, every client answers with UP bytes once it has all of them, and the server goes on once
all have answered. In pieces of the size that ours have, at QoS 1.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import paho.mqtt.client as mqtt

from broker.messages import CHUNK_BYTES


def _pieces(n_bytes: int) -> list[bytes]:
    return [bytes(min(CHUNK_BYTES, n_bytes - at)) for at in range(0, n_bytes, CHUNK_BYTES)] or [b"\0"]


def _client(name: str, port: str) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
    client.max_inflight_messages = 32
    client.on_socket_open = lambda _client, _data, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect("127.0.0.1", int(port))
    return client


def serve(port: str, n_agents: str, rounds: str, up: str, down: str, report: str) -> None:
    """Serve so many rounds, then stay until killed: who ends a process takes its figures along."""
    client, pieces = _client("server", port), _pieces(int(down))
    expected, left = int(n_agents) * len(_pieces(int(up))), int(rounds)
    seen, here = 0, set[str]()

    def begin() -> None:
        for piece in pieces:
            client.publish("down", piece, 1)

    def hear(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        nonlocal seen, left
        if message.topic == "here":
            here.add(message.payload.decode())
            if len(here) == int(n_agents):
                begin()
            return
        seen += 1
        if seen == expected:
            seen, left = 0, left - 1
            with Path(report).open("a") as file:
                file.write("round\n")
            if left:
                begin()

    client.on_message = hear
    client.subscribe([("up", 1), ("here", 1)])
    Path(report).touch()
    client.loop_forever()


def take_part(port: str, name: str, up: str, down: str) -> None:
    """Be a client until killed."""
    client, pieces, n_down = _client(name, port), _pieces(int(up)), len(_pieces(int(down)))
    seen = 0

    def hear(_client: mqtt.Client, _data: object, _message: mqtt.MQTTMessage) -> None:
        nonlocal seen
        seen += 1
        if seen == n_down:
            seen = 0
            for piece in pieces:
                client.publish("up", piece, 1)

    client.on_message = hear
    client.on_subscribe = lambda *_: client.publish("here", name, 1)
    client.subscribe("down", 1)
    client.loop_forever()


if __name__ == "__main__":
    {"server": serve, "client": take_part}[sys.argv[1]](*sys.argv[2:])
