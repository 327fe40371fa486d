"""Memory of the machine, and of this process.

A training step frees and asks for the same gigabyte again and again. glibc hands every large block back to
the kernel at once, which then has to clear each page anew. Two cores lose much of a training step to that.
What is kept for long among such blocks would leave holes of all sizes; it gets pages of its own.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's


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


@functools.cache
def machine_memory() -> float:
    """Bytes of memory that this machine, or the container around this process, has; 0 where nobody tells."""
    if not hasattr(os, "sysconf"):
        return 0
    sizes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    told = [Path(path).read_text().strip() for path in LIMITS if os.access(path, os.R_OK)]
    return min(sizes + [float(limit) for limit in told if limit.isdigit()])


def free_memory() -> float:
    """Bytes of memory that this machine could give to new processes now; where nobody tells, all it has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return machine_memory()
