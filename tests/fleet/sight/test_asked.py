"""What the aggregator answers, as facts."""

from __future__ import annotations

import pytest

from broker.messages import Version
from fleet.console.operator import RoundLine
from fleet.sight.asked import version_of, with_round
from fleet.sight.facts import JobFacts, OpenAttempt

FACTS = JobFacts("j-1", "j", Version(1, 3))
FATES = {
    "a": "counted",
    "b": "counted late: its update was to version 1.2",
    "c": "refused: too large",
    "d": "awaited: nothing has arrived yet",
}


def line(attempt: int, outcome: str, fates: dict[str, str]) -> RoundLine:
    return RoundLine(attempt, "1.3", outcome, "", "2026-01-01 00:00:00", None, 2, fates)


def test_the_open_attempt_says_who_is_drawn_counted_and_refused() -> None:
    found = with_round(FACTS, [line(1, "abandoned", {"x": "counted"}), line(2, "open", FATES)])
    assert found.attempt == OpenAttempt(Version(1, 3), 2, frozenset("abcd"), 2)
    assert (found.counted, found.refused) == ({"a", "b"}, {"c": "too large"})
    assert with_round(FACTS, [line(1, "committed", FATES)]) == FACTS


@pytest.mark.parametrize(
    ("text", "version"), [("1.3", Version(1, 3)), ("", Version(0, 0)), ("x.3", Version(0, 0)), ("1.³", Version(0, 0))]
)
def test_a_version_is_read_from_what_is_shown_of_it(text: str, version: Version) -> None:
    assert version_of(text) == version
