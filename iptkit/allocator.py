"""Keep freed memory in the process: a training step frees and asks for the same gigabyte again and again.

glibc hands every large block back to the kernel at once, which then has to clear each page anew. On two
cores that cost a third of a training step (28 -> 40 rows/s; benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to keep blocks below 1 GiB; returns whether it did (elsewhere nothing changes)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    wishes = ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 1 << 26))
    return mallopt is not None and all(mallopt(*wish) for wish in wishes)
