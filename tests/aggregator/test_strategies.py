from __future__ import annotations

import numpy as np

from aggregator.strategies import STRATEGIES, fedavg
from models.job import AggregateSpec

MEAN = [np.array([[1.0, -2.0]]), np.array([4.0])]


def test_federated_averaging_steps_by_the_mean() -> None:
    step, velocity = fedavg(MEAN, (), AggregateSpec())
    assert [s.tolist() for s in step] == [[[1.0, -2.0]], [4.0]]
    assert velocity == ()


def test_the_servers_learning_rate_scales_the_step() -> None:
    step, _ = fedavg(MEAN, (), AggregateSpec(server_learning_rate=0.5))
    assert step[0].tolist() == [[0.5, -1.0]]


def test_momentum_remembers_the_steps_before() -> None:
    rules = AggregateSpec(server_momentum=0.5, server_learning_rate=2.0)
    _, velocity = fedavg(MEAN, (), rules)
    step, velocity = fedavg(MEAN, velocity, rules)
    assert [v.tolist() for v in velocity] == [[[1.5, -3.0]], [6.0]]
    assert step[1].tolist() == [12.0]


def test_a_strategy_changes_nothing_that_it_is_given() -> None:
    mean = [np.array([1.0])]
    velocity = (np.array([3.0]),)
    fedavg(mean, velocity, AggregateSpec(server_momentum=0.9))
    assert (mean[0].tolist(), velocity[0].tolist()) == ([1.0], [3.0])


def test_every_strategy_of_a_job_is_there() -> None:
    assert STRATEGIES[AggregateSpec().strategy] is fedavg
