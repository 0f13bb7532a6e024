from __future__ import annotations

import socket
import threading

from broker.sockets import linger, tune


def test_lingering_ends_when_the_other_side_hangs_up_and_reads_what_it_still_said() -> None:
    ours, theirs = socket.socketpair()
    asked = 0

    def left_s() -> float:
        nonlocal asked
        asked += 1
        return 10.0

    def hang_up() -> None:
        assert theirs.recv(10) == b""  # we have said our last word
        theirs.sendall(bytes(100_000))
        theirs.close()

    with ours:
        other_side = threading.Thread(target=hang_up)
        other_side.start()
        linger(ours, left_s)
        other_side.join()
        assert ours.recv(10) == b""
    assert asked >= 2


def test_lingering_ends_when_no_time_is_left_though_nobody_hangs_up() -> None:
    ours, theirs = socket.socketpair()
    left = iter([0.001, 0.001, 0.0])
    with ours, theirs:
        linger(ours, lambda: next(left))
    assert next(left, "asked until there was none") == "asked until there was none"


def test_lingering_on_a_lost_connection_does_nothing() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    linger(ours, lambda: 10.0)


def test_small_packets_leave_a_tuned_socket_at_once() -> None:
    with socket.socket() as sock:
        tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
