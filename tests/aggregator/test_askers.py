"""What has happened names who has asked for it: a user of the page, or the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from aggregator.askers import MOST, asker, page_of
from broker.messages import Delete, Id, Pause, Quarantine, Release, Resume, RollBack, Stop
from fleet.web.users import UserName
from models.job import JobSpec, RoundsSpec

Fleet = Any
LINE = "operator-0123abcd"
PAGE = f"{page_of('anna.b')}-0123abcd"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", fullmatch=True))
def test_a_user_of_the_page_is_known_by_name_whatever_that_is(name: str) -> None:
    convert(name, UserName)
    client = convert(f"{page_of(name)}-0123abcd", Id)  # raises for what is none
    shown = asker(client).removesuffix(" at the page")
    assert name.startswith(shown)
    assert shown == name or len(client) == len("web--0123abcd") + MOST


@pytest.mark.parametrize("client", ["anna", "web-anna", "operator-anna", "web--0123abcd", "my-operator-0123abcd"])
def test_another_client_is_called_what_it_calls_itself(client: str) -> None:
    assert asker(client) == client


def slowly(fleet: Fleet, holds: Callable[[], object]) -> None:
    """Let everybody do one thing after another until something holds, so that few rounds go by."""
    for _ in range(2000):
        if holds():
            return
        for part in (fleet.aggregator, *fleet.agents.values()):
            part.step(0.0)
        fleet.now += 0.01
    raise AssertionError(fleet.aggregator.doing)


@pytest.mark.parametrize(("client", "who"), [(LINE, "the command line"), (PAGE, "anna.b at the page")])
def test_events_say_who_has_asked(fleet: Fleet, spec: Callable[..., JobSpec], client: str, who: str) -> None:
    rounds = RoundsSpec(quorum=3, min_devices=3, max_rounds=100_000, wait="all", deadline_s=30.0)
    job = fleet.submit(spec(rounds=rounds))
    slowly(fleet, lambda: fleet.aggregator.runs and fleet.job().version.number >= 1)
    asked = {
        "job.paused": (Pause(client, "r1", "toy"), f"{job} was paused by {who} since "),
        "job.resumed": (Resume(client, "r2", "toy"), f"{job} goes on, as {who} asked"),
        "device.quarantined": (Quarantine(client, "r3", "d1", "burnt"), f"d1 was put in quarantine, by {who}: burnt"),
        "device.released": (Release(client, "r4", "d1"), f"d1 was released from quarantine, by {who}"),
        "job.rolled_back": (RollBack(client, "r5", "toy", "0"), f"is version 0 again, as {who} asked"),
        "job.stopped": (Stop(client, "r6", "toy"), f"{job} was stopped: an operator stopped it ({who})"),
        "job.deleted": (Delete(client, "r7", "toy"), f"{job} was deleted, as {who} asked"),
    }
    for kind, (command, text) in asked.items():
        fleet.say(command)
        slowly(fleet, lambda kind=kind: fleet.store.happened(kind=kind))
        assert [text in event.text for event in fleet.store.happened(kind=kind)] == [True], kind
