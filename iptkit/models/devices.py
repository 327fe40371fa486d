"""Devices and dtypes: which ones are available, and how fast they are."""

from __future__ import annotations

import functools
import re
import time
from typing import Any

import torch
from torch import Tensor

DTYPES = ("float64", "float32", "bfloat16", "mixed")


def resolve_device(name: str = "auto") -> torch.device:
    """The device `name`: "cpu", "cuda", "cuda:1" ..., or for "auto" a GPU if there is one.

    Raises: ValueError if the name is unknown or there is no such device.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device {name!r} is unknown; choose auto, cpu, cuda, cuda:0, cuda:1 ...")
    device = torch.device(name)
    count = torch.cuda.device_count() if has_gpu else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees {count} GPU(s); "
            "choose cpu or auto"
        )
    return device


def native_dtype(device: torch.device) -> str:
    """The dtype that `load` chooses for a device: "mixed" where bf16 is much faster, else "float32".

    On GPUs with bf16 it is. A CPU with bf16 instructions is measured (`bf16_gain`), because these may be
    slower than float32, or oneDNN may be told not to use them (ONEDNN_MAX_CPU_ISA) although torch sees them.
    """
    if device.type == "cuda":
        return "mixed" if torch.cuda.is_bf16_supported() else "float32"
    found = torch.cpu.get_capabilities()
    has_units = found.get("amx_bf16") or found.get("avx512_bf16")
    return "mixed" if has_units and bf16_gain() >= 1.5 else "float32"


@functools.cache
def bf16_gain() -> float:
    """The speed of this CPU's bf16 matrix products relative to float32, measured in about 0.1 s."""
    sizes, fastest = ((512, 576), (576, 1536)), {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    pairs = {dtype: [torch.ones(size, dtype=dtype) for size in sizes] for dtype in fastest}
    for _ in range(8):
        for dtype, (left, right) in pairs.items():
            begun = time.perf_counter()
            _ = left @ right
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - begun)
    return fastest[torch.float32] / fastest[torch.bfloat16]


def to_device(values: Any, device: torch.device) -> Tensor:
    """A list or CPU tensor as a tensor on `device`, without waiting for a GPU."""
    return torch.as_tensor(values).to(device, non_blocking=True)


def matmul_speed(device: str = "cpu", seconds: float = 0.3) -> float:
    """The measured speed of matrix products of a small model's sizes, in the dtype of `native_dtype`.

    Args:
      device: to measure.
      seconds: duration of the measurement.
    Returns: TFLOP/s, the best of several short measurements.
    """
    place = torch.device(device)
    dtype = torch.bfloat16 if native_dtype(place) == "mixed" else torch.float32
    left, right = (torch.ones(size, dtype=dtype, device=place) for size in ((1024, 576), (576, 1536)))
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(4):
            product = left @ right
        product[0, 0].item()  # waits for a GPU
        fastest = min(fastest, time.perf_counter() - begun)
    return 4 * 2 * 1024 * 576 * 1536 / fastest / 1e12
