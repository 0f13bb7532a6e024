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
