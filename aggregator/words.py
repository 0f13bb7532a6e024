"""Of the store: its term, the claim of its operators, and the small words that the service remembers."""

from __future__ import annotations

import logging
from pathlib import Path

from aggregator import repair
from aggregator.database import REMEDY, DamageError
from aggregator.part import Part
from aggregator.repair import Mended, TakenOver
from broker.ceilings import MOST_CLAIM, MOST_TERM

log = logging.getLogger("aggregator.store")  # a store speaks under one name

TAKE_OVER = "take over"
"""The note of an operator who has said so while no aggregator ran: the next start is one with `--take-over`."""


class Words(Part):
    """What stands in the table `meta`."""

    folder: Path

    @property
    def term(self) -> int:
        """The last term given out; 0 before there is one."""
        found = self._word("term", 0)
        if not isinstance(found, int) or found < 0:
            raise DamageError(f"the state directory is damaged (table meta, term): {found!r:.100}: {REMEDY}")
        if found > MOST_TERM:
            log.error(
                "the state directory has term %d, where %d is the highest: an older fedge has believed what somebody "
                "said; this one leads under a new term, as `fedge aggregator repair` would have it",
                *(found, MOST_TERM),
            )
            return 0
        return found

    def raise_term(self, at_least: int = 0) -> int:
        """Return a term that is higher than any before and not below `at_least`; the highest one has none above."""
        term = min(max(self.term + 1, at_least), MOST_TERM)
        self._set_word("term", term)
        return term

    @property
    def claim(self) -> int:
        """How often operators have said `--take-over`, as far as this store knows; 0 where that is no such number."""
        words = self.note("claim")
        found = int(words) if words.isascii() and words.isdigit() and len(words) < 20 else 0
        return found if found <= MOST_CLAIM else 0

    def note(self, name: str) -> str:
        """Return a small word of the service; "" when there is none."""
        found = self._word(f"note:{name}", "")
        if not isinstance(found, str):
            raise DamageError(f"the state directory is damaged (table meta, {name}): {found!r:.100}: {REMEDY}")
        return found

    def set_note(self, name: str, value: str) -> None:
        """Remember a small word of the service."""
        self._set_word(f"note:{name}", value)

    def repair(self) -> list[Mended]:
        """Put right the numbers that no honest fleet comes to, and return what was (repair.py)."""
        return repair.mend(self._db, self._chance)

    def take_over(self) -> TakenOver:
        """Let the next start from here lead, whoever else does: as an operator says.

        Raises StoreError, or DamageError where the term or the claim has none above.
        """
        before = self.term, self.claim
        term, claim = repair.next_of(*before)
        was_replaced = self.note("replaced") != ""
        with self._db.transaction("an operator's word") as write:
            for name, value in (("term", term), ("note:claim", str(claim)), (f"note:{TAKE_OVER}", "yes")):
                write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
            write("DELETE FROM meta WHERE name = 'note:replaced'")
        return TakenOver(str(self.folder), term, claim, *before, was_replaced)

    def _word(self, name: str, otherwise: object) -> object:
        row = self._db.one("table meta", "SELECT value FROM meta WHERE name = ?", (name,))
        return row[0] if row else otherwise

    def _set_word(self, name: str, value: object) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
