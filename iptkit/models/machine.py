"""Memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

import functools
import os
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # a container's


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
