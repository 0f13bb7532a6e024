"""The `fedge` command.

Exit codes: 0 done, or asked to stop; 2 a bad configuration or command line; 3 replaced by another aggregator, where
that was asked for; 1 anything else.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from fleet.heap import keep_freed_memory
from fleet.lines.saying import complain, forget_output
from fleet.parser import parser
from runtime.settings import SettingsError

log = logging.getLogger("fedge")

# Small products on several threads are slower than on one, and end in other bits; set before NumPy is imported.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give the exit code."""
    line = sys.argv[1:] if argv is None else argv
    arguments = parser(line).parse_args(line)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # words of devices must not end a command where there is only ASCII
    _start_log(arguments)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        code = command(arguments)
        sys.stdout.flush()  # here, where somebody hears that nobody reads it
        return code
    except SettingsError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        forget_output()
        return 1
    except Exception as error:
        log.debug("the trace of what follows", exc_info=True)
        complain(error)
        return 1


def _start_log(arguments: argparse.Namespace) -> None:
    level = os.environ.get("FEDGE_LOG", "info" if getattr(arguments, "logs", False) else "warning").upper()
    known = logging.getLevelNamesMapping()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLine(_LOG_LINE, _LOG_TIME))
    logging.basicConfig(level=known.get(level, logging.INFO), handlers=[handler])
    # A line costs half without what no line of ours shows (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


_LOG_LINE = "%(asctime)s %(levelname).1s %(name)s %(message)s"
_LOG_TIME = "%Y-%m-%dT%H:%M:%SZ"


class _LogLine(logging.Formatter):
    """Dates, because devices run for years; in UTC, because a fleet has many time zones and they have summers."""

    converter = staticmethod(time.gmtime)
    _second = -1
    _time = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 -- the library's
        """Return when it was, as it was said already for others of the same second."""
        if int(record.created) != self._second:
            self._second, self._time = int(record.created), super().formatTime(record, datefmt)
        return self._time


if __name__ == "__main__":
    sys.exit(main())
