import os
import subprocess
import sys

COUNT = """
import resource, sys
import numpy as np
from fleet.heap import keep_freed_memory
if sys.argv[1:]:
    keep_freed_memory()
def work():
    arrays = [np.ones(300_000) for _ in range(4)]
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*keep: str) -> int:
    command = [sys.executable, "-c", COUNT, *keep]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_arrays_that_come_again_are_not_taken_from_the_kernel_again() -> None:
    assert faults("keep") < 0.05 * faults()


GROWTH = """
import threading
from fleet.heap import keep_freed_memory
keep_freed_memory()
def work():
    pieces = [b"x" * 100_000 for _ in range(200)]
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
thread = threading.Thread(target=work)
thread.start()
thread.join()
work()
print(1024 * (peak() - before))
"""


def growth(**environment: str) -> int:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", GROWTH]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=ours | environment).stdout)


def test_what_a_thread_has_freed_another_one_uses() -> None:
    """Twenty megabytes on one thread, then twenty on another."""
    assert growth() < 25_000_000


def test_who_has_set_how_many_heaps_there_are_has_the_last_word() -> None:
    assert growth(MALLOC_ARENA_MAX="8") > 35_000_000
