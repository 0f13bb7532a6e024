"""How commands say what went wrong, and what they have looked at."""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.settings import SettingsError

if TYPE_CHECKING:
    from fleet.console.check import CheckReport

READER_MS = 1000
"""How often it is asked whether what is printed comes to its end; that nobody reads it is heard at once."""
_OURS = ("runtime", "identity", "broker", "models", "aggregator", "edge_agent", "fleet")
_OF_A_SOURCE = ("beside its path", "beside the path", "source's table", "needs the key")


def complain(error: Exception) -> None:
    """Print what went wrong, in one line."""
    name = type(error).__name__
    expected = name.endswith("Error") and type(error).__module__.split(".")[0] in _OURS
    print(
        f"fedge: {error}" if expected else f"fedge: {name}: {error} (FEDGE_LOG=debug shows the trace)", file=sys.stderr
    )


@contextmanager
def source_on_the_line() -> Iterator[None]:
    """Say of a file that wants more keys in its source's table how this command line gives them."""
    from models.data.dataset import DatasetError

    try:
        yield
    except DatasetError as error:
        if not any(words in (told := str(error)) for words in _OF_A_SOURCE):
            raise
        said = re.search(r'\b\w+ = "[^"]*"', told)
        key = said[0] if said else "KEY = VALUE"
        raise DatasetError(f"{told}; here with --source '{key}'", cell=error.cell) from error


def say_as_it_comes(lines: Iterable[str]) -> int:
    """Print lines until there are no more, until Ctrl-C or SIGTERM, or until nobody reads them: all of that is 0.

    That nobody reads is seen where there is nothing to print as well: a shell waits for all of `… | head -1`.
    """
    from fleet.local.processes import interruptible

    with interruptible(), _ended_with_its_reader():
        try:
            for line in lines:
                print(line, flush=True)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            forget_output()
    return 0


@contextmanager
def _ended_with_its_reader() -> Iterator[None]:
    """Have the main thread hear SIGTERM once nobody reads standard output any more."""
    poll, is_over = select.poll(), threading.Event()
    try:
        poll.register(sys.stdout.fileno(), 0)  # POLLERR and POLLHUP are told unasked
    except (AttributeError, OSError, ValueError):  # it is no file, or closed
        yield
        return

    def look() -> None:
        while not is_over.is_set():
            if poll.poll(READER_MS) and not is_over.is_set():
                signal.pthread_kill(main, signal.SIGTERM)
                return

    main = threading.get_ident()
    looking = threading.Thread(target=look, name="reader", daemon=True)
    looking.start()
    try:
        yield
    finally:
        is_over.set()


def forget_output() -> None:
    """Have what is written from now on, and what waits to be, go nowhere: who was to read it has gone.

    Else Python tries again as it ends, and complains.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def refuse_json(arguments: argparse.Namespace) -> None:
    """Raise SettingsError where JSON is asked for of what only does."""
    if arguments.json:
        raise SettingsError("--json goes with --check")


def tell(look: Callable[..., CheckReport], arguments: argparse.Namespace, *files: Path) -> int:
    """Say what `--check` has found; 2 where something is wrong."""
    from fleet.console.check import CheckReport
    from fleet.console.operator import as_json

    try:
        report = look(*files)
    except SettingsError as error:
        report = CheckReport(str(files[0]), good=False, errors=[str(error)])
    if arguments.json:
        print(as_json(report))
    else:
        for line in report.lines:
            print(f"{line.where} {line.text}")
        if report.good:
            print(f"{report.file}: good")
    for text in report.errors:
        print(f"fedge: {text}", file=sys.stderr)
    return 0 if report.good else 2
