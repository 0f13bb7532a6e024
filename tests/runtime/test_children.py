from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.children import environment


def test_a_child_finds_our_modules_and_those_beside_them_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a_factory_of_mine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "beside")
    code = "import os, runtime, broker, a_factory_of_mine; print(runtime.__file__, os.environ['ASKED'])"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd="/", env=environment(ASKED="yes"), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(Path(sys.modules["runtime"].__file__ or "")), "yes"]


CHILD = """
import os, signal, sys, threading
signal.signal(signal.SIGALRM, lambda *_: sys.exit(print("is still here")))
signal.alarm(60)
if sys.argv[1] == "looks":
    sys.modules["ctypes"] = None  # no library can be called
from runtime.children import end_with
end_with(os.getppid())
print(threading.active_count(), flush=True)
while True:
    pass
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.mark.parametrize("how", ["is told", "looks"])
def test_a_child_ends_with_its_parent_also_where_that_is_killed(how: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD, how], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    n_threads = int(parent.stdout.readline())
    assert n_threads == (2 if how == "looks" or sys.platform != "linux" else 1)
    parent.kill()
    parent.wait()
    assert parent.stdout.read() == "", "it has outlived its parent"  # read to the end: until the child has ended
    parent.stdout.close()


def test_a_child_whose_parent_has_ended_before_ends_at_once() -> None:
    code = "from runtime.children import end_with; end_with(1 << 22); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
