"""How many bytes are worth waking for, while nothing is missed but the broker's answers to packets of ours. Pure.

A broker answers one packet after another, and each answer of four bytes would wake a thread, for nothing but to strike
a packet off a list. So, for a little while after packets have left, what comes wakes it once it is as long as all of
their answers, or as any message of a fleet. (SO_RCVLOWAT, socket(7): Linux and macOS heed it in a poll.)
"""

from __future__ import annotations

ANSWERS_WAIT_S = 0.02
"""After the last packet that has left; on a link that takes longer to answer, every answer is heard by itself."""
ANSWER_BYTES = 4
MOST_BYTES = 32
"""No message to us is shorter, topic and all, but one that clears a topic."""


class AnswerWait:
    """The answers to the packets of one connection."""

    def __init__(self) -> None:
        self.by: float | None = None
        """Until when answers may wait for each other; None: they do not."""
        self._least = 1

    def sent(self, now: float, n_open: int) -> None:
        """Note that packets have left, and how many are not answered."""
        if n_open > 1:
            self.by, self._least = now + ANSWERS_WAIT_S, min(ANSWER_BYTES * n_open, MOST_BYTES)

    def least(self, now: float, *, goes_on: bool) -> int:
        """Return the bytes to wake for. goes_on: whether answers, and nothing else, are missed."""
        if self.by is not None and (now >= self.by or not goes_on):
            self.by = None
        return 1 if self.by is None else self._least
