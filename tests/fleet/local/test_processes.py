"""What a command that runs a whole fleet does when it is told to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from fleet.local.processes import interruptible


@pytest.fixture(autouse=True)
def _dispositions() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_from_outside_is_a_ctrl_c(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, signal.SIGINT],
    ids=["under nohup, the end of the terminal", "behind a script, its Ctrl-C"],
)
def test_what_we_were_started_to_ignore_is_not_ours(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with interruptible():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            pytest.fail("it was heard")
        assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    assert signal.getsignal(number) is signal.SIG_IGN
