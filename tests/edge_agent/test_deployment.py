from __future__ import annotations

import pytest

from broker.messages import Version
from edge_agent.deployment import FIRST_REDEPLOY_S, LAST_REDEPLOY_S, Deployment, Policy, policy
from models.job import JobSpec, ModelSpec

V1, V2, V4, V6 = Version(1, 1), Version(1, 2), Version(1, 4), Version(1, 6)


def spec(deploy: str) -> JobSpec:
    return JobSpec("j", ModelSpec(), deploy=deploy)


@pytest.mark.parametrize(
    ("deploy", "found"),
    [
        ("never", Policy()),
        ("final", Policy(0, last=True)),
        ("every 1", Policy(1, last=True)),
        ("every 999999", Policy(999_999, last=True)),
    ],
)
def test_a_job_says_what_is_deployed_and_a_device_without_a_slot_deploys_nothing(deploy: str, found: Policy) -> None:
    assert policy(spec(deploy), has_slot=True) == found
    assert policy(spec(deploy), has_slot=False) == Policy()


@pytest.mark.parametrize(
    ("deploy", "numbers"), [("never", []), ("final", [5]), ("every 1", [1, 2, 3, 4, 5]), ("every 2", [2, 4, 5])]
)
def test_so_many_versions_of_a_job_that_ends_with_the_fifth_are_deployed(deploy: str, numbers: list[int]) -> None:
    one, last = policy(spec(deploy), has_slot=True), Version(1, 5)
    assert [n for n in range(6) if one.covers(Version(1, n), last if n == 5 else None)] == numbers


def deployment(deployed: Version | None = None) -> Deployment:
    return Deployment(Policy(2, last=True), deployed)


def test_what_is_in_the_slot_or_on_its_way_there_is_not_wanted_again() -> None:
    one = deployment(V2)
    assert not one.wants(V2, None)
    assert one.wants(V4, None)
    one.begin(V4)
    assert not one.wants(V4, None)
    one.end(V4)
    assert (one.deployed, one.wants(V4, None), one.wants(V6, V6)) == (V4, False, True)


def test_a_version_before_the_one_in_the_slot_is_not_wanted_but_one_of_a_later_generation_is() -> None:
    one = deployment(V4)
    assert not one.wants(V2, None)
    assert not one.wants(V1, V1)
    assert one.wants(Version(2, 2), None)


def test_a_version_that_fails_is_tried_again_with_growing_pauses() -> None:
    one, now, found = deployment(), 0.0, []
    for _ in range(8):
        one.begin(V2)
        one.fail(V2, now)
        assert not one.wants(V2, None)
        assert one.deadline is not None
        found.append(one.deadline - now)
        now = one.deadline
        one.pass_time(now - 0.1)
        assert not one.wants(V2, None)
        one.pass_time(now)
        assert one.deadline is None
        assert one.wants(V2, None)
    assert found == [min(FIRST_REDEPLOY_S * 2**n, LAST_REDEPLOY_S) for n in range(8)]
    one.begin(V2)
    one.end(V2)
    one.begin(V4)
    one.fail(V4, 0.0)
    assert one.deadline == FIRST_REDEPLOY_S, "from the beginning, after one that went well"


def test_word_of_another_version_than_the_one_under_way_changes_no_pause() -> None:
    one = deployment()
    one.begin(V4)
    one.fail(V2, 0.0)
    assert one.deadline is None
    one.end(V2)
    assert one.deployed == V2
    assert not one.wants(V4, None), "it is still under way"
