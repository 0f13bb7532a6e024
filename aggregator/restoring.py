"""Which versions of a job are kept as it goes on, and how one that is kept is made the next version again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aggregator.convergence import RESTORED, STARTED
from aggregator.kept import Keep, KeptState, outdated
from aggregator.learner import Learner, LearnerError
from aggregator.record import Next
from models.job import RoundsSpec

History = Sequence[Mapping[str, float]]
"""The metrics of every version, version 0 first."""


class RestoreError(RuntimeError):
    """A version that cannot be made the next one; the message says why."""


def keeping(
    left: int,
    best: int | None,
    rounds: RoundsSpec,
    sizes: Mapping[int, int],
    state: Callable[[], KeptState] | None,
) -> Keep:
    """Return what becomes of the kept states of a job in the transaction that makes a version.

    left: the number of the version that is left. best: that of the best one, with the version that is made. sizes: of
    the states that are kept, by number. state: gives that of the version that is left.
    """
    every, sizes, added = rounds.keep_every, dict(sizes), None
    if left > 0 and state is not None and left not in sizes and (left == best or (every and not left % every)):
        added = state()
        sizes[left] = len(added.body)
    going = outdated(sizes, best, every=every, most_bytes=rounds.keep_bytes)
    stays = added is not None and left not in going
    return Keep((added,) if added is not None and stays else (), tuple(number for number in going if number != left))


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
