from __future__ import annotations

from typing import Any

import pytest

from aggregator.attendance import Attendance
from aggregator.effects import DeviceStatus, Setup
from aggregator.ledger import Ledger
from aggregator.members import Members
from broker.messages import Verdict, Version
from models.job import RoundsSpec

V0, V1 = Version(1, 0), Version(1, 1)


class Field:
    """Devices, what is known of them, and how they stand."""

    def __init__(self, **setup: Any) -> None:
        self.members = Members(7.0, 5.0)
        self.ledger = Ledger(Setup(rules=RoundsSpec(late="fold"), seed=7, **{"base": V0} | setup))
        self.attendance = Attendance(self.members, self.ledger)

    def see(self, device: str, *, online: bool = True, ready: bool = True, failed: Version | None = None) -> bool:
        self.members.see(DeviceStatus(device, online, ready, failed=failed), 0.0)
        return self.refresh(device)

    def judge(self, device: str, base: Version = V0, refused: str = "") -> bool:
        self.ledger.note(Verdict(device, "j", base, "ab" * 4, refused))
        return self.refresh(device)

    def refresh(self, device: str) -> bool:
        settled = self.attendance.refresh(device)
        self.attendance.check()
        return settled


def test_who_is_there_and_ready_is_able_and_present() -> None:
    field = Field()
    assert not field.see("a")
    assert (field.attendance.able, field.attendance.fresh) == ({"a"}, {"a"})
    assert (field.attendance.present, field.attendance.n_present, field.attendance.n_contributing) == ({"a"}, 1, 1)


@pytest.mark.parametrize(("online", "ready"), [(False, True), (True, False)])
def test_who_is_gone_or_not_ready_is_not_able(online: bool, ready: bool) -> None:
    field = Field()
    field.see("a")
    field.see("a", online=online, ready=ready)
    assert field.attendance.able == field.attendance.present == set()


def test_who_counts_is_settled_and_present_wherever_it_is() -> None:
    field = Field()
    field.see("a")
    assert field.judge("a")
    field.see("a", online=False)
    assert (field.attendance.able, field.attendance.spent) == (set(), set())
    assert (field.attendance.present, field.attendance.n_contributing) == ({"a"}, 1)


def test_who_was_refused_or_has_failed_is_spent_and_present_while_it_is_there() -> None:
    field = Field()
    field.see("a")
    assert field.judge("a", refused="absurd")
    assert field.see("b", failed=V0)
    assert field.attendance.spent == field.attendance.idle == field.attendance.present == {"a", "b"}
    assert (field.attendance.n_present, field.attendance.n_contributing) == (2, 0)
    field.see("a", online=False)
    assert field.attendance.present == {"b"}
    assert field.attendance.spent == {"a", "b"}


def test_a_failure_counts_for_the_base_that_it_was_on_under_any_of_its_names() -> None:
    field = Field(base=V1, renames={Version(0, 1): V1})
    field.see("a", failed=V0)
    field.see("b", failed=Version(0, 1))
    assert [field.attendance.has_failed(name) for name in "abc"] == [False, True, False]
    assert [field.attendance.is_settled(name) for name in "abc"] == [False, True, False]
    assert field.attendance.able == {"a"}


def test_who_was_late_with_an_update_counts_and_is_able_all_the_same() -> None:
    field = Field(base=V1)
    field.see("a")
    assert not field.judge("a", base=V0)
    assert (field.attendance.able, field.attendance.fresh) == ({"a"}, set())
    assert field.attendance.n_contributing == 1, "not twice"


def test_everybody_who_is_there_is_able_to_leave_the_next_base() -> None:
    field = Field()
    for device in ("counted", "refused", "fails", "gone"):
        field.see(device, failed=V1 if device == "fails" else None)
    field.judge("counted")
    field.judge("refused", refused="absurd")
    field.see("gone", online=False)
    field.ledger.leave(V1, None)
    field.attendance.begin_base()
    field.attendance.check()
    assert field.attendance.able == field.attendance.fresh == {"counted", "refused"}
    assert field.attendance.spent == field.attendance.idle == {"fails"}, "it has failed on this one before it had it"


@pytest.mark.parametrize("name", ["able", "fresh", "spent", "idle"])
def test_sets_that_do_not_fit_each_other_are_found(name: str) -> None:
    field = Field()
    field.see("a")
    field.see("b", failed=V0)
    getattr(field.attendance, name).symmetric_difference_update({"a", "b"})
    with pytest.raises(AssertionError):
        field.attendance.check()
