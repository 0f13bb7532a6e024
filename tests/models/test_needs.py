"""What a job takes, as a function of what it says. What real processes take is in tests/fleet/test_needs.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.job import JobSpec
from models.needs import TORCH_BYTES, of_aggregator, of_device, of_simulation, together
from models.nets.size import Size

WIDE = {"name": "j", "model": {"inputs": 1000, "hidden": [1000], "outputs": 10}}


def job(**more: Any) -> JobSpec:
    return msgspec.convert(WIDE | more, JobSpec)


def size(n: int, units: int = 10) -> Size:
    return Size(n, n, units)


def test_a_net_far_too_large_is_counted_in_whole_numbers() -> None:
    n = 2**31 * (2**31 + 1)
    needs = of_device(job(), size(n, 2**33))
    assert needs.parameters == n
    assert needs.alone_bytes > 26 * n
    assert of_aggregator(job(), size(n)).alone_bytes > 50 * n


@pytest.mark.parametrize(
    "more",
    [
        {"train": {"momentum": 0.9}},
        {"deploy_average": 4},
        {"aggregate": {"server_momentum": 0.5}},
        {"aggregate": {"strategy": "fedadam", "server_learning_rate": 0.01}},
        {"train": {"optimizer": "adam", "learning_rate": 0.001}},
        {"train": {"batch_size": 2**31 - 1}},
    ],
)
def test_what_a_job_keeps_beside_its_weights_counts_on_a_device(more: dict[str, Any]) -> None:
    of_one = size(10**6, units=10_000)
    assert of_device(job(**more), of_one).alone_bytes > of_device(job(), of_one).alone_bytes


def test_a_job_that_serves_its_model_takes_a_child_process_more_and_disk() -> None:
    serving, never = (of_device(job(deploy=deploy), size(10**6)) for deploy in ("final", "never"))
    assert serving.held_bytes - never.held_bytes > 100_000_000
    assert serving.disk_bytes - never.disk_bytes == 32 * 10**6
    assert of_device(job(), size(10**6), serves=False) == never
    assert of_device(job(), size(10**6), child=False).held_bytes - never.held_bytes == 4 * 10**6


@pytest.mark.parametrize(
    ("inputs", "net", "peak_mb", "disk_mb"),
    [  # of real processes
        (784, Size(1796010, 10**6, 4010), 132.0, 13.2),
        (20_000, Size(1000560, 10**6, 60), 130.0, 21.8),
        (64 * 64 * 3, Size(183242, 163840, 393226), 184.0, 17.8),
        (60 * 6, Size(205200, 120000, 36960), 119.0, 6.6),
    ],
    ids=["dense", "wide rows", "images", "sequences"],
)
def test_the_process_that_puts_a_version_in_int8_counts(inputs: int, net: Size, peak_mb: float, disk_mb: float) -> None:
    model = {"model": {"inputs": inputs, "outputs": 10}}
    in_int8, plain = (of_device(job(**model, quantise=quantise), net) for quantise in ("int8", "none"))
    assert peak_mb <= (in_int8.passing_bytes - plain.passing_bytes) / 1e6 < 2 * peak_mb
    assert in_int8.held_bytes == plain.held_bytes
    assert in_int8.disk_bytes / 1e6 >= disk_mb
    assert of_device(job(**model, quantise="int8"), net, serves=False) == of_device(job(**model), net, serves=False)


def test_a_batch_is_no_larger_than_a_devices_rows() -> None:
    whole = job(train={"batch_size": 2**31 - 1})
    few, many, unknown = (of_device(whole, size(1000, 5000), rows=rows).passing_bytes for rows in (10, 10**6, None))
    assert few < unknown < many


def test_a_median_holds_the_updates_of_a_round() -> None:
    median = {"aggregate": {"strategy": "median"}, "compression": "off"}
    few, many = (of_aggregator(job(**median, rounds={"target": n}), size(10**6)).training_bytes for n in (2, 20))
    assert many - few == 18 * 4 * 10**6
    assert of_aggregator(job(**median, rounds={"target": 100_000}), size(10**6)).training_bytes < 2**29 + 31 * 10**6


def test_the_answers_on_a_test_split_count() -> None:
    small, large = (of_aggregator(job(), size(1000), rows=rows).passing_bytes for rows in (0, 10**6))
    assert large - small > 8 * 10**6 * 10


def test_jobs_together_hold_everything_and_code_one_at_a_time() -> None:
    one, other = of_device(job(), size(10**6)), of_device(job(), size(2 * 10**6))
    held = sum(needs.held_bytes + needs.training_bytes for needs in (one, other))
    assert together([one, other]) == held + other.passing_bytes
    assert together([one], [other]) == held - other.training_bytes + other.passing_bytes
    assert together([]) == 0


def test_torch_counts_once() -> None:
    one = of_device(job(), size(1000), torch=True)
    assert 0 <= together([one, one]) - TORCH_BYTES < 2 * one.alone_bytes
    assert one.alone_bytes > TORCH_BYTES


def test_more_simulated_devices_take_more() -> None:
    few, many = (of_simulation(job(), size(10**6), devices=n, torch=False, rows=100) for n in (10, 1000))
    assert many - few > 990 * 2 * 10**6 // 8


def test_what_a_fleet_agrees_on_counts_where_it_is_made() -> None:
    agreeing = {"contract": {"normalise": "standard"}, "rounds": {"quorum": 100}}
    plain = {"rounds": {"quorum": 100}}
    of_one = size(10**6, units=1000)
    before, after = (of_aggregator(job(**more), of_one) for more in (plain, agreeing))
    assert after.training_bytes - before.training_bytes == 100 * (9 + 22 * 1000)
    assert of_device(job(**agreeing), of_one).passing_bytes > of_device(job(), of_one).passing_bytes


def test_a_net_of_which_few_rows_go_through_at_once_takes_less_where_it_is_evaluated() -> None:
    wide = Size(1000, 1000, 100_000)
    few = wide._replace(at_once=10)
    assert of_device(job(), few).passing_bytes < of_device(job(), wide).passing_bytes
    assert of_aggregator(job(), few).passing_bytes < of_aggregator(job(), wide).passing_bytes / 10
