"""Large blocks are not returned to the kernel each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
from ostler.system.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [b"x" * 250_000 for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or platform.python_implementation() != "CPython",
    reason="it is about glibc's malloc",
)
def test_large_blocks_take_no_fresh_pages_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    # Else this test would show nothing. A block has 61 pages, but some find room in what the heap has.
    assert before > 20 * 8 * 10
    assert after < before / 10
