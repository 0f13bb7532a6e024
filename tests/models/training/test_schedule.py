from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.job import TrainSpec
from models.training.schedule import SCHEDULES, factor


def all_of(n: int, **keys: Any) -> list[float]:
    return [factor(TrainSpec(**keys), step, n) for step in range(n)]


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_without_warmup_it_is_torchs(name: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if name == "linear":
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 7)
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
    theirs = []
    for _ in range(7):
        theirs.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert all_of(7, schedule=name) == pytest.approx(theirs)


def test_the_first_steps_rise_evenly_to_the_whole_rate() -> None:
    assert all_of(10, warmup=0.4) == [0.25, 0.5, 0.75, *[1.0] * 7]
    assert all_of(10, warmup=0.4, schedule="linear") == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    )
    assert all_of(4, warmup=1.0, schedule="cosine") == [0.25, 0.5, 0.75, 1.0]


def test_a_job_that_says_nothing_has_the_very_rate() -> None:
    assert set(all_of(5)) == {1.0}


@given(
    n=st.integers(1, 10_000_000), at=st.floats(0, 1), warmup=st.floats(0, 1), name=st.sampled_from(sorted(SCHEDULES))
)
def test_it_is_never_0_and_never_beyond_1(n: int, at: float, warmup: float, name: str) -> None:
    train = TrainSpec(warmup=warmup, schedule=name)  # type: ignore[arg-type]
    assert 0 < factor(train, min(n - 1, int(at * n)), n) <= 1
