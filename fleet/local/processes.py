"""Child processes that never outlive us: the demo's aggregator and agents.

Each writes to a log of its own and is a process group of its own, so that Ctrl-C in a terminal comes to us alone and
we end them in order. If we are killed before we can, the kernel ends them (`broker.embedded.on_leash`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import NamedTuple

from broker.embedded import on_leash
from runtime.children import environment as of_child

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""There are many of them."""
FEDGE = (sys.executable, "-P", "-m", "fleet.cli")
"""-P: the working directory is not searched, where somebody else's `models` may lie."""
PATIENCE_S = 8.0
"""How long children may take to end of themselves."""
TAIL_LINES = 15


class ChildDiedError(RuntimeError):
    """A child has ended by itself; the message has the end of its log."""


class Child(NamedTuple):
    """One process. name: for people."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]


class Children:
    """Starts processes, looks whether they live, and ends them at the end of the block. One owner thread."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def start(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Child:
        """Start a program, its output going to `log`, with these variables beside ours. Raises OSError."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                on_leash(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=of_child(**ONE_THREAD) | dict(environment),
                process_group=0,
            )
        child = Child(name, log, process)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise ChildDiedError if one has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise ChildDiedError(f"{child.name} {how}; the end of {child.log}:\n{tail(child.log)}")

    def stop(self) -> None:
        """Ask all to end, the last one started first, and kill those that do not."""
        for child in reversed(self._children):
            child.process.terminate()
        until = time.monotonic() + PATIENCE_S
        for child in self._children:
            try:
                child.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._children.clear()

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM and SIGHUP (the terminal is closed) do as Ctrl-C does: KeyboardInterrupt, blocks unwind.

    What we were started to ignore stays ignored: SIGHUP under `nohup`, so that we outlive the terminal, and SIGINT
    behind a script (`&`), where Ctrl-C is meant for whoever is in front; Python leaves that one alone by itself.
    SIGTERM is always heard.
    """

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def tail(log: Path, n_lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    return "\n".join(f"  {line}" for line in lines[-n_lines:]) or "  (nothing)"
