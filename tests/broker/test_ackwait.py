from broker.ackwait import AckWait
from broker.mailbox import ACK_WAITS_S, ACKS_AT_ONCE


def test_a_wait_begins_with_a_packet_and_ends_once() -> None:
    wait = AckWait()
    assert not wait.end(0.0, 0)
    wait.came(1.0)
    wait.came(1.01)
    assert wait.by == 1.0 + ACK_WAITS_S
    assert not wait.end(1.0, 1)
    assert wait.end(1.0 + ACK_WAITS_S, 1)
    assert not wait.end(9.0, 1)
    wait.came(10.0)
    assert wait.by == 10.0 + ACK_WAITS_S


def waits_for_window(window: int, n_packets: int) -> int:
    """Return how many waits come to their end where a broker lets so many packets be open, and we take each at once."""
    wait, now, n_ended, sent, waiting = AckWait(), 0.0, 0, 0, 0
    while sent < n_packets:
        while sent < n_packets and waiting < window:
            wait.came(now)
            sent, waiting = sent + 1, waiting + 1
            if waiting >= wait.at_once:
                wait.said(waiting)
                waiting = 0
        if waiting and sent < n_packets:
            now = wait.by or now
            n_ended += wait.end(now, waiting)
            wait.said(waiting)
            waiting = 0
    return n_ended


def test_a_broker_that_lets_few_packets_be_open_is_kept_waiting_once() -> None:
    assert [waits_for_window(window, 100) for window in range(1, ACKS_AT_ONCE)] == [1] * (ACKS_AT_ONCE - 1)
    assert [waits_for_window(window, 100) for window in (ACKS_AT_ONCE, 20, 64)] == [0, 0, 0]


def test_a_packet_that_comes_later_has_waited_for_nothing() -> None:
    wait = AckWait()
    for now in (1.0, 2.0, 3.0):
        wait.came(now)
        assert wait.end(now + ACK_WAITS_S, 1)
        wait.said(1)
    assert wait.at_once == ACKS_AT_ONCE


def test_a_wait_without_acknowledgements_has_kept_nobody_waiting() -> None:
    wait = AckWait()
    wait.came(1.0)
    assert wait.end(1.0 + ACK_WAITS_S, 0)
    wait.said(1)
    wait.came(1.0 + ACK_WAITS_S)
    assert wait.at_once == ACKS_AT_ONCE


def test_who_lets_more_be_open_than_was_thought_is_waited_with_for_more() -> None:
    wait = AckWait()
    wait.came(1.0)
    assert wait.end(1.0 + ACK_WAITS_S, 1)
    wait.said(1)
    wait.came(1.0 + ACK_WAITS_S)
    assert wait.at_once == 1
    for n in range(2, 20):
        wait.came(2.0)
        assert wait.at_once == min(n, ACKS_AT_ONCE)
    wait.said(100)
    wait.came(3.0)
    assert wait.at_once == ACKS_AT_ONCE
