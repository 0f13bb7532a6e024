"""The server optimizer's state. What its arrays mean only the strategy's own file knows; for all others it is bytes.

    parts     the name of its form (ASCII), then each array, int64 little-endian, in C order

The form names the strategy and counts its layouts: who finds another one than its own refuses the state by name. The
very first layout, of federated averaging with momentum, is from before that, and has no name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.integers import Int64
from models.params import Spec

MOST_FORM = 64
"""Characters of a name that is repeated in an error."""


class StateError(ValueError):
    """Stored bytes that are not the state of this strategy for this net."""


@dataclass(frozen=True, eq=False)
class State:
    """A strategy's state: it is passed in and returned, and never changed. False where there is none.

    A version without one has that which the strategy begins with (`Strategy.init`), as version 0 does.
    """

    arrays: tuple[Int64, ...] = ()
    form: str = ""

    def __bool__(self) -> bool:
        """Return whether there is one."""
        return bool(self.arrays)

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        if not isinstance(other, State) or (self.form, len(self.arrays)) != (other.form, len(other.arrays)):
            return False
        return all(map(np.array_equal, self.arrays, other.arrays))

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(tuple(self.digested()))

    @property
    def n_bytes(self) -> int:
        """Bytes that it takes in memory."""
        return sum(array.nbytes for array in self.arrays)

    def freeze(self) -> None:
        """Let nobody write to its arrays any more: several hold it."""
        for array in self.arrays:
            array.flags.writeable = False

    def digested(self) -> Iterator[bytes]:
        """Return what the SHA-256 of a version is over, beside the model: the arrays."""
        return (array.astype("<i8", copy=False).tobytes() for array in self.arrays)

    def parts(self) -> list[bytes]:
        """Serialise; `read` has the arrays back. Empty where there is none."""
        return [*([self.form.encode("ascii")] if self.form and self.arrays else []), *self.digested()]


def read(parts: Sequence[bytes], spec: Spec, *, form: str, rows: int, what: str) -> State:
    """Read what `State.parts` wrote of a state of this form, of `rows` arrays of each tensor's shape.

    what: names it in an error. Raises StateError for anything else.
    """
    if not parts:
        return State()
    if form:
        if parts[0] != form.encode("ascii"):
            found = parts[0][:MOST_FORM].decode("ascii", "replace")
            raise StateError(f'its {what} is of the form "{found}", where this fedge reads "{form}"')
        parts = parts[1:]
    tensors = spec * rows
    if [len(raw) for raw in parts] != [8 * tensor.size for tensor in tensors]:
        raise StateError(f"its {what} has other shapes than the net")
    pairs = zip(parts, tensors, strict=True)
    return State(tuple(np.frombuffer(raw, "<i8").astype(np.int64).reshape(t.shape) for raw, t in pairs), form)
