"""A demo at a terminal, whose page somebody looks at as the job ends: it stays for them, and for nobody else."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.demo.staying import n_looking
from tests.fleet.demo.test_command import job
from tests.terminal import heard

Until = Callable[[Callable[[], bool]], None]
SOON = "import sys, fleet.demo.staying as s, fleet.cli as c; s.GONE_S = 0.5; sys.exit(c.main(sys.argv[1:]))"
STAYS = "the page stays until you close it or press Ctrl-C"


class Demo:
    """A demo whose job goes on until it is stopped. said: by now."""

    def __init__(self, folder: Path, until: Until, *, at_terminal: bool) -> None:
        self._folder, self._until = folder, until
        self._ours, theirs = pty.openpty() if at_terminal else os.pipe()
        words = ["demo", "--devices", "2", "--job", str(job(folder, 100_000, "every 1")), "--out", str(folder / "out")]
        with heard(signal.SIGINT):
            self.process = subprocess.Popen(
                [sys.executable, "-c", SOON, *words],
                stdin=theirs if at_terminal else subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.close(theirs)
        self.said = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that nobody has open any more
            while piece := os.read(self._ours, 4096):
                self.said += piece.decode()

    @property
    def page(self) -> str:
        found = re.findall(r"look at it: http://(\S+?)/", self.said)
        return found[0] if found else ""

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Have its page's stream open."""
        self._until(lambda: bool(self.page))
        host, _, port = self.page.rpartition(":")
        opened: list[socket.socket] = []

        def is_open() -> bool:
            with contextlib.suppress(OSError):
                opened.append(socket.create_connection((host, int(port)), timeout=60))
            return bool(opened)

        self._until(is_open)
        with opened[0] as stream:
            stream.settimeout(None)
            stream.sendall(f"GET /live/ HTTP/1.1\r\nHost: {self.page}\r\n\r\n".encode())
            assert stream.recv(12) == b"HTTP/1.1 200"
            reader = threading.Thread(target=_read_on, args=(stream,))
            reader.start()
            self._until(lambda: n_looking(self.page) == 1)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
                reader.join()

    def stop_job(self) -> None:
        self._until(lambda: re.search(r" 2 +2 +0\.\d", self.said) is not None)
        assert (
            main(["job", "stop", "tumours", "--config", str(self._folder / "out/fleet/aggregator/aggregator.toml")])
            == 0
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._ours)


def _read_on(stream: socket.socket) -> None:
    """Take what a browser would take: who takes nothing is cut off."""
    with contextlib.suppress(OSError):
        while stream.recv(65536):
            pass


@pytest.fixture
def start(tmp_path: Path, until: Until) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def begin(*, at_terminal: bool) -> Demo:
        started.append(Demo(tmp_path, until, at_terminal=at_terminal))
        return started[-1]

    yield begin
    for demo in started:
        demo.close()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("by", ["closing the page", "Ctrl-C"])
def test_it_stays_at_a_terminal_while_somebody_looks(start: Callable[..., Demo], until: Until, by: str) -> None:
    demo = start(at_terminal=True)
    with demo.looked_at():
        demo.stop_job()
        until(lambda: STAYS in demo.said)
        assert "figures " in demo.said, "the results came before"
        assert demo.process.poll() is None
        assert urllib.request.urlopen(f"http://{demo.page}/", timeout=60).status == 200
        if by == "Ctrl-C":
            os.kill(demo.process.pid, signal.SIGINT)
            assert demo.process.wait(120) == 0
    assert demo.process.wait(120) == 0
    assert n_looking(demo.page) == 0


@pytest.mark.slow
def test_it_ends_with_its_job_where_there_is_no_terminal(start: Callable[..., Demo]) -> None:
    demo = start(at_terminal=False)
    with demo.looked_at():
        demo.stop_job()
        assert demo.process.wait(120) == 0
    assert STAYS not in demo.said
