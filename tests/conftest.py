"""Brokers on loopback for whoever speaks MQTT. Each test gets one of its own, on a free port.

An example of Hypothesis may take as long as it takes: a busy machine is no fault of the code. Of several workers each
rewrites the asserts of its share of the files and keeps them, before it reads all: else each would rewrite all of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from hypothesis import HealthCheck, settings

from broker.embedded import EmbeddedBroker, start_broker

settings.register_profile(
    "unhurried", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_sessionstart(session: pytest.Session) -> None:
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if n_workers == 1 or sys.dont_write_bytecode:
        return
    first = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    state = session.config.stash[rewrite.assertstate_key]
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[first::n_workers]:
        kept = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
        if rewrite._read_pyc(path, kept) is None:
            with contextlib.suppress(SyntaxError, OSError):  # who reads the file says so
                stat, code = rewrite._rewrite_test(path, session.config)
                kept.parent.mkdir(exist_ok=True)
                rewrite._write_pyc(state, code, stat, kept)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "mosquitto", prefer="mosquitto") as broker:
        yield broker


@pytest.fixture
def amqtt(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with start_broker(tmp_path / "amqtt", prefer="amqtt") as broker:
        yield broker
