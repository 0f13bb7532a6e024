"""Children that hear what is typed at a terminal, wherever these tests were started from."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard(*numbers: signal.Signals) -> Iterator[None]:
    """Have children hear these signals though these tests were started with them ignored, as by `nohup` or `&`."""
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in numbers]
    try:
        yield  # a handler of ours is the default in a child
    finally:
        for number, handler in before:
            signal.signal(number, handler)
