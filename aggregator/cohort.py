"""Who is drawn for an attempt to leave a base: pure functions over the lottery of models/draw.py.

The salt belongs to the base, so a further attempt that raises the threshold draws more devices and never others. Where
a job waits for all, the members are fixed at the first attempt; only the places of those that are dropped are filled.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence, Set

from msgspec import structs

from aggregator.effects import Attempt
from broker.messages import Version
from models import draw
from models.job import RoundsSpec


def widen(
    rules: RoundsSpec,
    seed: int,
    base: Version,
    *,
    counted: Set[str],
    able: Set[str],
    again: Attempt | None,
) -> Attempt:
    """Draw afresh for a new base; or, where `again` is the last attempt on this one, more than before.

    counted: devices whose updates count already. able: those that could contribute.
    """
    present: Sequence[str] = sorted(counted | able)
    salt = again.salt if again else draw.salt(seed, base.number)
    wanted = _wanted(rules, len(present))
    k = math.ceil((wanted - len(counted)) * rules.over_selection - 1e-9)
    tickets = {name: draw.ticket(salt, name) for name in present}
    of_able = sorted(tickets[name] for name in able)
    k += bisect.bisect_right(of_able, again.threshold) if again else 0
    threshold = max(draw.kth(of_able, max(k, 1)), again.threshold if again else 0)
    if k >= len(able) and rules.wait == "target":
        threshold = draw.MAX_TICKET  # everybody is wanted: whoever comes while the round is open too
    members = tuple(name for name in present if tickets[name] <= threshold)
    target = None if rules.wait == "all" else wanted
    return Attempt(base, again.number + 1 if again else 1, salt, threshold, target, members)


def repeat(
    rules: RoundsSpec,
    *,
    counted: Set[str],
    able: Set[str],
    again: Attempt,
    dropped: Set[str],
    needed: int,
    absences: Mapping[str, int],
) -> Attempt:
    """Draw the same members once more; as many others as were dropped take their places, where that many are able.

    needed: members without which a round cannot end; where fewer are drawn, and a first attempt would draw more, places
    are filled up, too. absences: member to the attempts running that it was absent throughout.
    """
    stay = [name for name in again.cohort if name not in dropped]
    enough = min(needed, _wanted(rules, len(counted | able)))
    places = max(len(again.cohort), enough) - len(stay)
    others = able - set(again.cohort) if places > 0 else set()
    first = sorted(others, key=lambda name: draw.ticket(again.salt, name))[:places]
    members = tuple(sorted((*stay, *first)))
    threshold = max(again.threshold, *(draw.ticket(again.salt, name) for name in first), 0)
    counts = {name: n for name, n in absences.items() if n and name not in dropped}
    return structs.replace(again, number=again.number + 1, cohort=members, threshold=threshold, absences=counts)


def _wanted(rules: RoundsSpec, n_present: int) -> int:
    """Return how many of these devices a round is to count."""
    wanted = min(rules.target or math.ceil(rules.fraction * n_present - 1e-9), n_present)
    return max(wanted, min(rules.quorum, n_present))
