"""The time and memory that work takes, the speed of matrix products on this machine, and result files."""

from __future__ import annotations

import ctypes
import gc
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.models.backbone import Backbone
from iptkit.storage import files
from iptkit.storage.versions import rows


def keep(file: Path | None, about: dict[str, Any], **found: Any) -> None:
    """Write results with versions, machine and settings (`about`) to a file; do nothing if there is none."""
    if file is not None:
        told = {**dict(rows()), "threads": torch.get_num_threads(), **about}
        files.write_json(file, {"about": json.loads(json.dumps(told, default=str)), **found})


def now(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    """Return the seconds that work takes."""
    begun = now(device)
    work()
    return now(device) - begun


def peak_bytes() -> int:
    """Return the peak memory of this process since `forget_peak` (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def give_back() -> None:
    """Return freed memory to the system, because it would hide the next allocations (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Start measuring the peak memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _in_child(work: Callable[..., Any], given: tuple[Any, ...], pipe: Any) -> None:
    pipe.send(work(*given))


def alone(work: Callable[..., Any], *given: Any) -> Any:
    """Return work(*given), computed in a new process.

    Raises: RuntimeError if the process ends without a result.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(work, given, theirs))
    child.start()
    theirs.close()
    try:
        found = mine.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the process of {given} ended with exit status {child.exitcode}") from None
    child.join()
    return found


def linear_shapes(backbone: Backbone) -> tuple[Counter, int]:
    """Return the number of linear layers of each shape [K, N], and the number of weights in the head."""
    head = backbone.model.get_output_embeddings()
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Linear) and m is not head]
    return Counter((m.in_features, m.out_features) for m in layers), head.weight.numel() if head else 0


def matmul_peak(backbone: Backbone, tokens: int, rounds: int) -> float:
    """Return the FLOP/s of the layers' products: [M, K] by [K, N] forward, [M, N] by [N, K] backward."""
    dtype = torch.bfloat16 if backbone.dtype == "mixed" else getattr(torch, backbone.dtype)
    shapes, _ = linear_shapes(backbone)
    seconds, total = 0.0, 0.0
    for (k, n), count in shapes.items():
        x, gradient, weight = (
            torch.randn(s, device=backbone.device).to(dtype) for s in ((tokens, k), (tokens, n), (n, k))
        )

        def both(x: Tensor = x, gradient: Tensor = gradient, weight: Tensor = weight) -> None:
            nn.functional.linear(x, weight)
            gradient @ weight

        both()
        seconds += count * min(timed(backbone.device, both) for _ in range(max(3, rounds)))
        total += count * 4.0 * tokens * k * n
    return total / seconds
