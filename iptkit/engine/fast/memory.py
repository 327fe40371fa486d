"""Memory of the machine, and of this process.

A training step frees and asks for the same gigabyte again and again. glibc hands every large block back to
the kernel at once, which then has to clear each page anew. Two cores lose much of a training step to that.
What is kept for long among such blocks would leave holes of all sizes; it gets pages of its own.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
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


def own_pages(size: int) -> mmap.mmap | None:
    """So many bytes outside of what glibc keeps; None where it keeps nothing, so that any block is as good.

    Its pages go back to the kernel as soon as nobody holds it, and until then no block that comes and goes
    has to find a place around it.
    """
    if not keep_freed_memory():
        return None
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
