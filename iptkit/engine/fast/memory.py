"""How this process holds the machine's memory: freed blocks are kept for the next training step.

A training step frees and requests the same gigabyte again and again. By default glibc returns every large
block to the kernel at once, and the kernel clears each page before it hands it out again. On two cores that
takes a large part of a training step. Long-lived tensors among such blocks would fragment the heap, so they
get pages of their own.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """True if glibc now keeps freed blocks below 1 GiB (old versions: 32 MiB); False on other systems."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    is_kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in (1 << 30, 32 << 20))
    return all([is_kept, mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1), mallopt(M_TOP_PAD, 1 << 26)])


def own_pages(size: int) -> mmap.mmap | None:
    """A block of `size` bytes outside the heap, or None where glibc keeps nothing and any block will do.

    The kernel gets its pages back as soon as nothing refers to them, and they do not fragment the heap.
    """
    if not keep_freed_memory():
        return None
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
