"""Keep freed memory in the process: a training step frees and asks for the same gigabyte again and again.

glibc hands every large block back to the kernel at once, which then has to clear each page anew. Two
cores lose much of a training step to that.
"""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to keep blocks below 1 GiB (old ones: 32 MiB); returns whether it did, elsewhere False."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in (1 << 30, 32 << 20))
    return all([is_kept, mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1), mallopt(M_TOP_PAD, 1 << 26)])
