"""Topics between devices and the authority that certifies them: apart from those of the fleet, which say nothing of it.

    fedge-ca/1/<fleet>/enroll/<token>     a token asks for its device; fedge-ca/1/<fleet>/issued/<token> answers it
    fedge-ca/1/<fleet>/renew/<device>     a device asks for its next certificate; …/renewed/<device> answers it

Nothing is retained. Who may write what says the broker's access list: a token has the first pair of its own, a device
the second, the authority all. What is said there is in identity/asking.py.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Errand = Literal["enroll", "renew"]

_ANSWERS: dict[Errand, str] = {"enroll": "issued", "renew": "renewed"}
_PREFIX = ("fedge-ca", "1")
_WHO: dict[str, re.Pattern[str]] = {
    "enroll": re.compile(r"token\.[a-z2-7]{16}"),
    "renew": re.compile(r"[A-Za-z0-9_-]{1,64}"),
}


class Asker(NamedTuple):
    """Who asks, going by the topic, and for what."""

    errand: Errand
    who: str


def asks(fleet: str, errand: Errand, who: str = "+") -> str:
    """Return where it is asked; who: a token or a device, or all of them."""
    return "/".join((*_PREFIX, fleet, errand, who))


def answers(fleet: str, errand: Errand, who: str) -> str:
    """Return where it is answered."""
    return "/".join((*_PREFIX, fleet, _ANSWERS[errand], who))


def asker(topic: str, fleet: str) -> Asker | None:
    """Return who asks on a topic; None where nobody of this fleet does."""
    for errand in _ANSWERS:
        head = asks(fleet, errand, "")
        who = topic.removeprefix(head)
        if topic.startswith(head) and _WHO[errand].fullmatch(who):
            return Asker(errand, who)
    return None
