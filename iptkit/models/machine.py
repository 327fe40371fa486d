"""The memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

import functools
import os
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


@functools.cache
def machine_memory() -> float:
    """The bytes of memory of this machine or of this process's container; 0 if unknown."""
    if not hasattr(os, "sysconf"):
        return 0
    sizes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    limits = [Path(path).read_text().strip() for path in LIMITS if os.access(path, os.R_OK)]
    return min(sizes + [float(limit) for limit in limits if limit.isdigit()])


def free_memory() -> float:
    """The bytes of memory available to new processes now; `machine_memory` if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return machine_memory()
