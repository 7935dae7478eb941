"""Lets malloc keep freed memory for the next use, so that it does not return it to the kernel each time."""

from __future__ import annotations

_BLOCK = 4 * 1024 * 1024
"""The largest block that is kept from now on; and up to twice as much of the heap's end stays when freed."""


def keep_freed_memory() -> None:
    """Raise the thresholds from which glibc's malloc returns freed memory to the kernel.

    At the default of 128 KiB, each large read and each large body takes fresh pages from the kernel, which
    has to clear them: that costs more than all else that is done with the bytes. glibc raises both
    thresholds by itself once a larger block is freed (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD,
    "dynamic"). So one is allocated here and freed. Its pages are never touched, and cost no memory.
    Thresholds that are set in the environment (MALLOC_TRIM_THRESHOLD_) stay; other C libraries and allocators
    are not changed.
    """
    bytes(_BLOCK)
