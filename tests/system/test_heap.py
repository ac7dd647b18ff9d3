"""Freed memory that malloc keeps. Oracle: the system's count of page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from octoscale.system.heap import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def step():
    torch.zeros(16 << 20, dtype=torch.float32)  # 64 MiB: 16,384 pages
for _ in range(20):  # the heap finds its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_tensor_made_again_faults_no_page():
    faults = {
        keep: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True
            ).stdout
        )
        for keep in (True, False)
    }
    assert faults[True] < 100
    assert faults[False] > 1000  # with huge pages, fewer than 163,840
