"""A process that stands for many: it is told a word a line on its standard input, and answers each in JSON."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from broker.embedded import on_leash
from runtime.children import environment


class SilentError(RuntimeError):
    """The process has ended, and does not answer; the message has what it said last."""


class Told:
    """Runs `python -m MODULE ARGUMENTS…` for the length of a block; it ends when its input does."""

    def __init__(self, module: str, arguments: Sequence[object], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                on_leash([sys.executable, "-m", module, *map(str, arguments)]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(OPENBLAS_NUM_THREADS="1"),
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, word: str) -> Any:
        """Return what it answers to a word. Raises SilentError."""
        ours, theirs = self._process.stdin, self._process.stdout
        assert ours is not None
        assert theirs is not None
        try:
            ours.write(f"{word}\n".encode())
            ours.flush()
            line = theirs.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise SilentError(f"no answer to {word!r}: {self._log.read_text(encoding='utf-8')[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()


def heard(timeout_s: float) -> str | None:
    """Return the word that this process is told next; "" where none comes in time, None when there is no more."""
    if not select.select([sys.stdin.fileno()], [], [], timeout_s)[0]:
        return ""
    return sys.stdin.readline().strip() or None


def answer(**what: object) -> None:
    """Answer the last word."""
    print(json.dumps(what), flush=True)
