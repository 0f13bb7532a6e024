"""When the update at hand is offered, and offered again (law 10 at the top of participant.py). Pure."""

from __future__ import annotations

from typing import Protocol

from broker.messages import Offer, Version

FIRST_RESEND_S = 4.0
"""No offer is repeated sooner than about this; where each is answered, that is when it is."""
LAST_RESEND_S = 120.0
"""Pauses do not grow beyond this, and are longer only in a round that lasts longer."""
WAITS = 5
"""Waits for the next base that are remembered."""
PATIENCE = 1.5
"""Times the longest of them before an offer is repeated."""
ALWAYS_INLINE_BYTES = 2048
"""A body up to this size goes along at every resend; a larger one only the first time, then it is asked for."""


class Jitter(Protocol):
    """Where the jitter of pauses comes from: a random.Random, or what gives such numbers in less room."""

    def random(self) -> float:
        """Return the next number, from 0 up to 1."""


def up_to(rng: Jitter, most_s: float) -> float:
    """Return the next number times this. Where that is nothing the number is passed over, which may cost less."""
    if most_s:
        return rng.random() * most_s
    getattr(rng, "skip", rng.random)()
    return 0.0


class Resend:
    """The timing of one device's offers to one job. folds: every offer of the job is answered."""

    __slots__ = ("_backoff_s", "_folds", "_offered", "_rng", "_waits", "_window_s", "at", "has_sent_body")

    def __init__(self, rng: Jitter, now: float, *, folds: bool) -> None:
        self._rng = rng
        self._folds = folds
        self.at = now
        """When the update at hand is offered next."""
        self.has_sent_body = False
        """Whether the update at hand has been offered with its body."""
        self._window_s = FIRST_RESEND_S
        """Over which devices that all hear one word spread what they say."""
        self._backoff_s: float | None = None
        """How long to wait after the next offer; None for the first time."""
        self._offered: tuple[Version, float] | None = None
        """A base that was offered to, and since when the next one is waited for; None after an outage."""
        self._waits: tuple[float, ...] = ()
        """The last few waits from an offer to the next base."""

    @property
    def awaits(self) -> Version | None:
        """The base that was offered to, while it is timed how long its end takes."""
        return None if self._offered is None else self._offered[0]

    def hold(self, base: Version, now: float, *, online: bool) -> None:
        """Offer an update to a base at once, for the first time."""
        self.has_sent_body, self._backoff_s, self.at = False, None, now
        self._offered = (base, now) if online else None

    def rename(self, now: float) -> None:
        """Offer it soon under another name, as if for the first time."""
        self.has_sent_body = False
        self._hurry(now)

    def be_drawn_again(self, now: float) -> None:
        """Offer again soon, if it was offered: a further attempt draws this device, so it may not have been heard."""
        if self.has_sent_body:
            self._hurry(now)

    def _hurry(self, now: float) -> None:
        self._backoff_s = None
        self.at = min(self.at, now + self._window_s * self._rng.random())

    def connected(self, spread_s: float, now: float) -> None:
        """Offer again at once, spread over this window: the connection is a new one, of either side."""
        self._backoff_s, self._window_s = None, max(FIRST_RESEND_S, spread_s)
        self.at = now + up_to(self._rng, spread_s)

    def disconnected(self) -> None:
        """Measure no wait through an outage."""
        self._offered = None

    def end_wait(self, now: float) -> None:
        """Note how long it took until the base that was offered to was left."""
        if self._offered is not None:
            self._waits = (*self._waits, now - self._offered[1])[-WAITS:]
            self._offered = None

    def send(self, offer: Offer, now: float, left_s: float) -> bool:
        """Put off the next offer, and return whether the body goes along with this one. left_s: of the round."""
        with_body = not self.has_sent_body or len(offer.body) <= ALWAYS_INLINE_BYTES
        self.has_sent_body = True
        self._pause(now, self._patience(left_s) if self._backoff_s is None else self._backoff_s)
        return with_body

    def be_asked(self, now: float, left_s: float) -> None:
        """Put off the next offer: the body is asked for, so this one has been heard."""
        self._pause(now, self._patience(left_s))

    def _pause(self, now: float, pause_s: float) -> None:
        """Offer again after about this long, and then after ever longer."""
        self.at = now + pause_s * (0.75 + 0.5 * self._rng.random())
        self._backoff_s = min(2 * pause_s, max(pause_s, LAST_RESEND_S))

    def _patience(self, left_s: float) -> float:
        """Return how long no word may come on an update that has just been offered."""
        if self._folds:
            return FIRST_RESEND_S
        if not self._waits:
            return min(max(left_s / 2, FIRST_RESEND_S), LAST_RESEND_S)
        return min(max(PATIENCE * max(self._waits), FIRST_RESEND_S), max(left_s, LAST_RESEND_S))
