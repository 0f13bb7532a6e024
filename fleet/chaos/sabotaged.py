"""A role with one of its safeguards taken out, as a process (`sabotage.py`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fleet.chaos.sabotage import SABOTAGE
from fleet.cli import main as fedge


def main(arguments: Sequence[str]) -> int:
    """Take out what the first argument names, and run the rest as `fedge` does."""
    SABOTAGE[arguments[0]].take_out()
    return fedge(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
