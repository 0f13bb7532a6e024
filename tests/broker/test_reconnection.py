from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from broker.goodbye import Goodbye
from broker.mailbox import ClientLimits, Mailbox
from broker.reconnection import Ended, Reconnection
from broker.transport import Offline, SessionTakenOver, TransportEvent
from broker.version import Connect, ConnectAnswer

LOST = Ended("lost", ConnectAnswer.ACCEPTED)


class Bench:
    """A loop whose connections end as a list says, on a clock that stands still but for their length."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Connect] = []
        self.rests: list[int] = []
        self.now = 0.0
        self.mailbox, self.goodbye = Mailbox(ClientLimits()), Goodbye(None)
        monkeypatch.setattr("broker.reconnection.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("broker.reconnection.backoff_s", self._rest)

    def run(self, *endings: Ended, lasting_s: float = 0.0) -> list[TransportEvent]:
        left = iter(endings)

        def connect(how: Connect) -> Ended:
            self.asked.append(how)
            self.now += lasting_s
            ended = next(left)
            if len(self.asked) == len(endings):
                self.goodbye.close(0.0)
            return ended

        Reconnection(connect, self.mailbox, self.goodbye, protocol="auto", retry_s=(1.0, 120.0), name="me").run()
        return list(self._heard())

    def _rest(self, failures: int, first_s: float, last_s: float, chance: float) -> float:
        assert (first_s, last_s) == (1.0, 120.0)
        assert 0.0 <= chance < 1.0
        self.rests.append(failures)
        return 0.0

    def _heard(self) -> Iterator[TransportEvent]:
        while (event := self.mailbox.take(0.0)) is not None:
            yield event


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_failures_count_up_and_the_same_reason_is_told_once(bench: Bench) -> None:
    assert bench.run(LOST, LOST, LOST, LOST) == [Offline("lost")]
    assert bench.rests == [1, 2, 3, 4]


def test_a_connection_that_lasted_ends_a_series_of_failures(bench: Bench) -> None:
    bench.run(LOST, LOST, LOST, lasting_s=31.0)
    assert bench.rests == [1, 1, 1]


def test_a_connection_left_for_another_will_is_told_but_is_no_failure_and_ends_no_series(bench: Bench) -> None:
    renewed = Ended("another will", ConnectAnswer.ACCEPTED, renewed=True)
    assert bench.run(LOST, renewed, renewed, LOST, LOST)[:2] == [Offline("lost"), Offline("another will")]
    assert bench.rests == [1, 2, 3]


def test_who_is_taken_over_stops_for_good(bench: Bench) -> None:
    taken_over = Ended("taken over", ConnectAnswer.ACCEPTED, taken_over=True)
    assert bench.run(LOST, taken_over, LOST) == [Offline("lost"), SessionTakenOver()]
    assert len(bench.asked) == 2


def test_the_version_is_asked_for_at_once_and_without_a_rest(bench: Bench) -> None:
    refused, silent = Ended("too new", ConnectAnswer.VERSION_REFUSED), Ended("silence", ConnectAnswer.SILENCE)
    bench.run(silent, silent, refused, LOST, LOST)
    assert bench.asked == [Connect.NEWER, Connect.NEWER, Connect.BARE, Connect.OLDER, Connect.OLDER]
    assert bench.rests == [1, 2, 3]


def test_whoever_closes_is_not_asked_for_more(bench: Bench) -> None:
    assert bench.run(Ended("too new", ConnectAnswer.VERSION_REFUSED)) == []
    assert bench.asked == [Connect.NEWER]
