"""A version that waits for rows before it goes into the slot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from broker.messages import Head, Version
from edge_agent.card import Release
from edge_agent.deployer import Deployer
from edge_agent.reading import Readings
from edge_agent.slots import Calibrate, Install
from edge_agent.workspace import Out, Rows
from models.data.dataset import Dataset, DatasetError
from models.job import JobSpec, ModelSpec
from models.trail import Trail
from runtime.faults import Marks

SPEC = JobSpec("j", ModelSpec(inputs=3, outputs=2), quantise="int8", quantise_max_loss=0.03)


class Job(Deployer):
    """A job whose rows are read when the test says so."""

    def __init__(self, folder: Path, n: int = 100) -> None:
        self.begun: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.job, self.spec, self._device, self._n = "j-1", SPEC, "d", n
        self._waiting, self._last, self._calibrated = None, None, None
        self._readings = Readings(self._start, Marks(folder))

    def deploy(self, number: int) -> list[Out]:
        return list(self._deploy(Version(1, number), None))  # type: ignore[arg-type]  # it is not looked at

    def go_on(self) -> list[Out]:
        return list(self._deploy_waiting())

    def end_reading(self, error: Exception | None = None) -> None:
        future, read = self.begun[-1]
        future.set_result(read()) if error is None else future.set_exception(error)
        assert self._readings.ended() == ["j-1"]

    def _start(self, future: Future[Any], read: Callable[[], Any]) -> threading.Thread:
        self.begun.append((future, read))
        return threading.Thread()

    def _deployed(self, version: Version, trail: Trail) -> Install:  # noqa: ARG002
        return Install("j", Release(self.job, version.generation, version.number, ""), SPEC.model, {})

    def _read(self) -> Rows:
        return Rows(Dataset(np.zeros((self._n, 3), np.float32), np.zeros(self._n, np.int64)), 0)


def only(found: list[Out]) -> Install:
    [install] = found
    assert isinstance(install, Install)
    return install


def test_versions_that_come_faster_than_rows_are_read_go_by_one_reading(tmp_path: Path) -> None:
    job = Job(tmp_path)
    for number in range(1, 6):
        assert job.deploy(number) == job.go_on() == []
    job.end_reading()
    install = only(job.go_on())
    assert (install.release.number, len(job.begun)) == (5, 1)
    assert install.wish is not None
    assert install.wish.sample is not None
    assert install.wish.max_loss == 0.03
    assert job.go_on() == []
    assert job.deploy(6) == []
    assert len(job.begun) == 2


@pytest.mark.parametrize("error", [DatasetError("rows.csv is gone"), MemoryError(), RuntimeError("a factory")])
def test_one_whose_rows_cannot_be_read_goes_in_as_it_is_and_says_why(tmp_path: Path, error: Exception) -> None:
    job = Job(tmp_path)
    job.deploy(1)
    job.end_reading(error)
    install = only(job.go_on())
    assert install.wish is not None
    assert install.wish.sample is None
    assert "cannot be read" in install.wish.why_not


def test_what_is_forgotten_is_asked_for_again(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.deploy(1)
    job._readings.forget(job.job)
    job._ask_again()
    job.end_reading()
    job.end_reading()
    assert only(job.go_on()).release.number == 1


def test_one_of_few_rows_says_so(tmp_path: Path) -> None:
    job = Job(tmp_path, n=39)
    job.deploy(1)
    job.end_reading()
    install = only(job.go_on())
    assert install.wish is not None
    assert (install.wish.sample, install.wish.why_not) == (None, "")


def announced(job: Job, threshold: float) -> list[Out]:
    """Let its head say a threshold of version 7, which is in the slot."""
    V7 = Version(1, 7)
    head = Head(job.job, 1, V7, "0" * 32, "running", threshold=threshold)
    said: Any = SimpleNamespace(
        announced=SimpleNamespace(head=head), deployment=SimpleNamespace(deployed=V7), calibrates=True
    )
    job.participant = said
    return job._calibrate()


def test_a_threshold_too_comes_with_rows_so_that_what_is_in_int8_stays_so(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert announced(job, 0.5) == announced(job, 0.6) == job.go_on() == []
    job.end_reading()
    [asked] = job.go_on()
    assert isinstance(asked, Calibrate)
    assert (asked.threshold, len(job.begun)) == (0.6, 1)
    assert asked.wish is not None
    assert asked.wish.sample is not None


def test_a_threshold_does_not_come_before_a_version_that_waits(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.deploy(8)
    assert announced(job, 0.5) == []
    job.end_reading()
    assert only(job.go_on()).release.number == 8
