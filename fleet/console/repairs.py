"""`fedge aggregator take-over` and `repair` as commands: what they change in a state directory that nobody uses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from aggregator.config import AggregatorConfig
from aggregator.repair import Mended
from aggregator.store import FILE, Store
from fleet.console.display import Display
from fleet.console.operator import as_json
from runtime.settings import SettingsError, load


class Repaired(Struct, frozen=True):
    """What a repair has put right: nothing, as a rule."""

    state_dir: str
    mended: list[Mended]


def take_over(arguments: argparse.Namespace) -> int:
    """Note that the next start of an aggregator leads, whoever else does. Raises SettingsError or StoreError."""
    with _store(arguments.config) as store:
        done = store.take_over()
    line = (
        f"{done.state_dir}: claim {done.claim} (it was {done.claim_before}), term {done.term} (it was "
        f"{done.term_before}): the next `fedge aggregator run` leads, and whoever else does stands by"
    )
    if done.was_replaced:
        line += "; another aggregator had taken its place: versions that only that one has made are not in this store"
    Display(sys.stdout).line(as_json(done) if arguments.json else line)
    return 0


def repair(arguments: argparse.Namespace) -> int:
    """Put right the numbers of a store that no honest fleet comes to. Raises SettingsError or StoreError."""
    with _store(arguments.config) as store:
        done = Repaired(str(store.folder), store.repair())
    screen = Display(sys.stdout)
    if arguments.json:
        screen.line(as_json(done))
        return 0
    for one in done.mended:
        screen.line(f"{done.state_dir}: {one}")
    if not done.mended:
        screen.line(f"{done.state_dir}: every number is in range, and nothing was changed")
    return 0


@contextmanager
def _store(config: Path) -> Iterator[Store]:
    """Open the state directory of an aggregator that does not run. Raises SettingsError or StoreError."""
    folder = Path(load(config, AggregatorConfig).state_dir)
    if not (folder / FILE).exists():
        raise SettingsError(f"{folder} has no {FILE}: no aggregator has run there (state_dir of {config})")
    with closing(Store(folder)) as store:
        yield store
