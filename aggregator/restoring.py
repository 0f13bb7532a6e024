"""Which versions of a job are kept as it goes on, and how one that is kept is made the next version again. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from aggregator.convergence import RESTORED, STARTED
from aggregator.kept import Keep, KeptState
from aggregator.learner import Learner, LearnerError
from aggregator.record import Next
from models.job import RoundsSpec

History = Sequence[Mapping[str, float]]
"""The metrics of every version, version 0 first."""


class RestoreError(RuntimeError):
    """A version that cannot be made the next one; the message says why."""


class Keeping:
    """Which states of one job are kept: its best version's whatever it weighs, and one in every `keep_every`.

    The latter as far as they fit `keep_bytes` together, the latest first: one that does not fit goes, and an older one
    that does stays. What becomes of them takes as long as what goes, however many stay.
    """

    def __init__(self, rounds: RoundsSpec, sizes: Mapping[int, int]) -> None:
        """Begin with what the store has. sizes: in bytes, of the states that are kept, by number."""
        self._every = rounds.keep_every
        self._most_bytes = rounds.keep_bytes
        self._sizes = dict(sizes)
        self._n_bytes = sum(sizes.values())
        self._regular = sorted(filter(self._is_regular, sizes))
        self._others = {number for number in sizes if not self._is_regular(number)}
        """The best one, most often, or none."""

    def next(self, left: int, best: int | None, state: Callable[[], KeptState]) -> Keep:
        """Return what becomes of the states in the transaction that makes a version; `take` is told once it is durable.

        left: the number of the version that is left, which is not kept yet. best: that of the best one, with the
        version that is made. state: gives that of the version that is left.
        """
        added = state() if left > 0 and (left == best or self._is_regular(left)) else None
        new = {} if added is None else {left: len(added.body)}
        going = self._outdated(best, new)
        return Keep((added,) if added is not None and left not in going else (), tuple(sorted(going - {left})))

    def take(self, change: Keep) -> None:
        """Go on from what has become of them."""
        for number in change.drop:
            self._n_bytes -= self._sizes.pop(number)
            if self._is_regular(number):
                del self._regular[bisect_left(self._regular, number)]
            else:
                self._others.discard(number)
        for one in change.add:
            self._sizes[one.number] = len(one.body)
            self._n_bytes += len(one.body)
            if self._is_regular(one.number):
                insort(self._regular, one.number)
            else:
                self._others.add(one.number)

    def _is_regular(self, number: int) -> bool:
        return self._every is not None and number > 0 and number % self._every == 0

    def _size(self, number: int, new: Mapping[int, int]) -> int:
        return new[number] if number in new else self._sizes.get(number, 0)

    def _outdated(self, best: int | None, new: Mapping[int, int]) -> set[int]:
        """Return the numbers of those that need not be kept. new: what is added, the latest, and its size."""
        going = self._others - {best}
        spared = () if best is None else (best,)
        n_bytes = self._n_bytes + sum(new.values()) - sum(self._size(number, new) for number in (*going, *spared))
        first = list[tuple[int, int]]()
        for number in chain(self._regular, new):
            if n_bytes <= self._most_bytes:
                break
            if number != best:
                first.append((number, self._size(number, new)))
                n_bytes -= first[-1][1]
        for number, size in reversed(first):
            if n_bytes + size <= self._most_bytes:
                n_bytes += size
            else:
                going.add(number)
        return going


def again(learner: Learner, number: int, state: KeptState | None, history: History) -> tuple[Next, dict[str, float]]:
    """Return the next version, which is the one of this number again, and its metrics.

    state: of that version, as it was kept; version 0 needs none. What the fleet has agreed on stays, also where that
    version is from before it: it is for the life of the job, and nobody is asked twice. Raises RestoreError.
    """
    try:
        if state is None and number:
            raise RestoreError(f"version {number} is not kept")
        held = learner.first() if state is None else learner.read_exact(state.body)
        following = learner.jump(held._replace(agreed=held.agreed or learner.now.held.agreed))
    except LearnerError as error:
        raise RestoreError(f"version {number} cannot be made again: {error}") from error
    metrics = {name: value for name, value in history[number].items() if name != STARTED}
    return following, dict(following.metrics) | metrics | {RESTORED: float(number)}


def is_again(history: History) -> int | None:
    """Return the number of the version that the current one is again; None where it is one of its own."""
    number = history[-1].get(RESTORED)
    return None if number is None else int(number)


def named(numbers: Iterable[int], best: int | None, last: int, *, ended: bool = False) -> str:
    """Return in words which versions can be had. last: the current one; of a job that is gone the last one.

    The current one can be had anyway, the last of one that is gone if it is kept.
    """
    there = sorted({*numbers} if ended else {*numbers, last})
    words = {best: "the best", last: "the last" if ended else "the current one"}
    return ", ".join(f"{number} ({words[number]})" if number in words else f"{number}" for number in there) or "none"
