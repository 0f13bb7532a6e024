from __future__ import annotations

from aggregator.refusals import FOR_OPERATOR, reason, told

WHY = "it is longer than any update of this job"


def test_a_device_is_told_what_stands_before_the_part_for_its_operator() -> None:
    assert told(reason(WHY, "70050 bytes where 1511 are let in")) == WHY
    assert told(reason("the job has ended")) == "the job has ended"


def test_a_reason_that_was_cut_for_its_length_tells_a_device_no_more() -> None:
    whole = reason(WHY, "70050 bytes where 1511 are let in")
    assert {told(whole[:n]) for n in range(len(WHY) + len(FOR_OPERATOR), len(whole))} == {WHY}
