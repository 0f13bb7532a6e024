from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from aggregator.config import AggregatorConfig
from aggregator.evaluation import Scorer
from aggregator.executor import Kind, ThrownError, of_kind
from models.data.source import DataSource
from models.job import JobSpec, ModelSpec
from models.lattice import initial

KINDS = get_args(Kind)


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = of_kind(request.param)
    yield made
    made.shutdown(cancel_futures=True)


def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def fail() -> None:
    raise ValueError("the job's own")


def exits() -> None:
    raise SystemExit(3)


class OddError(Exception):
    """What pickles and cannot be unpickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class OddInterrupt(BaseException):
    """The same for what no boundary holds."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def throws_odd() -> None:
    raise OddError(1, 2)


def interrupts() -> None:
    raise OddInterrupt(1, 2)


def lingers(until: Path) -> int:
    while not until.exists():
        time.sleep(0.01)
    return os.getpid()


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


PARENT = """
import os, time
from aggregator.executor import of_kind
print(of_kind("processes").submit(os.getpid).result(), flush=True)
time.sleep(60)
"""


def test_each_works_where_it_says() -> None:
    found = {}
    for kind in KINDS:
        with of_kind(kind) as executor:
            found[kind] = executor.submit(where).result()
    here = where()
    assert found["inline"] == here
    assert found["threads"][0] == here[0]
    assert found["threads"][1] != here[1]
    assert found["processes"][0] != here[0]


def test_a_version_scores_the_same_wherever_it_is_evaluated(executor: Executor, tmp_path: Path) -> None:
    model = ModelSpec(inputs=5, hidden=(7,), outputs=3)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "test.npz", X=rng.standard_normal((50, 5)), y=rng.integers(0, 3, 50))
    config = AggregatorConfig("f", tests={"toy": DataSource(str(tmp_path / "test.npz"))})
    scorer = Scorer(JobSpec("toy", model), config)
    version = initial(scorer.net.spec, 1)
    assert {"loss", "accuracy", "macro_f1", "auc"} <= set(scorer(version))
    assert executor.submit(scorer, version).result() == scorer(version)


def test_a_test_split_that_was_replaced_is_read_again_elsewhere(tmp_path: Path) -> None:
    model = ModelSpec(inputs=2, hidden=(), outputs=2)
    config = AggregatorConfig("f", tests={"toy": DataSource(str(tmp_path / "test.npz"))})

    def scores(executor: Executor, n: int) -> tuple[dict[str, float], dict[str, float]]:
        np.savez(tmp_path / "test.npz", X=np.full((n, 2), n, np.float32), y=np.zeros(n, np.int64))
        scorer = Scorer(JobSpec("toy", model), config)
        version = initial(scorer.net.spec, 1)
        return executor.submit(scorer, version).result(), scorer(version)

    with of_kind("processes") as executor:
        for n in (3, 4):
            there, here = scores(executor, n)
            assert there == here


def test_what_is_thrown_is_the_futures(executor: Executor) -> None:
    with pytest.raises((ValueError, ThrownError), match="the job's own"):
        executor.submit(fail).result()
    assert executor.submit(where).result()


def test_code_that_wants_to_end_the_process_ends_nothing() -> None:
    with of_kind("inline") as executor, pytest.raises(SystemExit):
        executor.submit(exits).result()


def test_a_child_that_dies_is_replaced() -> None:
    with of_kind("processes") as executor:
        first = executor.submit(where).result()[0]
        with pytest.raises(BrokenExecutor):
            executor.submit(dies).result()
        assert executor.submit(where).result()[0] not in (first, os.getpid())


def test_a_child_that_dies_takes_the_call_along_that_it_was_at_and_no_other(tmp_path: Path) -> None:
    end = tmp_path / "end"
    with of_kind("processes") as executor:
        first, deadly = executor.submit(lingers, end), executor.submit(dies)
        second, again = executor.submit(lingers, end), executor.submit(dies)
        third = executor.submit(lingers, end)
        end.touch()
        for broken in (deadly, again):
            with pytest.raises(BrokenExecutor):
                broken.result()
        assert len({os.getpid(), first.result(), second.result(), third.result()}) == 4


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (throws_odd, r"OddError: 1 and 2 \(test_executor.py, line"),
        (interrupts, "OddInterrupt: 1 and 2"),
        (exits, "SystemExit: 3"),
        (fail, r"ValueError: the job's own \(test_executor.py, line"),
    ],
)
def test_what_is_thrown_in_a_child_comes_as_words_and_the_child_lives(call: Callable[[], None], why: str) -> None:
    with of_kind("processes") as executor:
        child = executor.submit(where)
        thrown, after = executor.submit(call), executor.submit(where)
        with pytest.raises(ThrownError, match=why):
            thrown.result()
        assert after.result() == child.result()


def test_what_waits_for_a_child_is_cancelled_at_a_shutdown_that_says_so_and_done_at_another(tmp_path: Path) -> None:
    for cancel in (True, False):
        end = tmp_path / f"end-{cancel}"
        executor = of_kind("processes")
        executor.submit(where).result()
        first, second = executor.submit(lingers, end), executor.submit(lingers, end)
        while not first.running():
            time.sleep(0.01)
        if cancel:
            executor.shutdown(wait=False, cancel_futures=True)
            end.touch()
            with pytest.raises(CancelledError):
                second.result()
        else:
            threading.Timer(0.2, end.touch).start()
            executor.shutdown()
            assert second.result() == first.result()


def test_the_child_does_not_outlive_us() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until = time.monotonic() + 120.0
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.01)
    parent.stdout.close()
