"""The matrix products and attention calls of some work: their FLOPs, and their time without anything else."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from benchmarks.machine import timed


def _flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward_flops(
    gradient: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _packed_flops(x: Sequence[int], *more: Any, **_: Any) -> int:
    weight = more[1] if more[3] == "add" else more[0]  # [out, in]; "add" takes the summand first
    return 2 * math.prod(x) * weight[0]


aten = torch.ops.aten
MORE = {  # torch counts the first two on a GPU only, and products with packed weights nowhere
    aten._scaled_dot_product_flash_attention_for_cpu: _flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    MORE[torch.ops.mkldnn._linear_pointwise] = _packed_flops
COUNTED = {*flop_registry, *MORE}
REPEATS = 3  # repetitions; the fastest counts


class _OneModule(nullcontext):
    """Replaces torch's module tracker, whose hooks may keep the graphs of earlier steps alive."""

    parents = frozenset({"Global"})


def flops_of(work: Callable[[], Any]) -> int:
    """Return the FLOPs of matrix products and attention, padding included."""
    counter = FlopCounterMode(display=False, custom_mapping=MORE)
    counter.mod_tracker = cast(Any, _OneModule())
    with counter:
        work()
    return counter.get_total_flops()


class Products(TorchDispatchMode):
    """Records every product that runs within it, so that the same products can be timed alone.

    The models' weights are kept, so that they are read from memory as in the work itself. Of other tensors
    only shape, strides, type and device are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        parameters = [found for found in gc.get_objects() if isinstance(found, nn.Parameter)]
        self.weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        self.calls: list[tuple[Any, list[Any], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket in COUNTED:
            told = {name: self._told(value) for name, value in kwargs.items()}
            self.calls.append((func, [self._told(value) for value in args], told))
        return func(*args, **kwargs)

    def seconds(self) -> float:
        """Return the seconds of the recorded products with nothing between them; the fastest of REPEATS."""
        made: dict[Any, Tensor] = {}
        calls = [
            (func, [_made(a, made) for a in args], {k: _made(v, made) for k, v in more.items()})
            for func, args, more in self.calls
        ]
        device = next(
            (a.device for _, args, _ in calls for a in args if isinstance(a, Tensor)), torch.device("cpu")
        )
        return min(timed(device, lambda: _run(calls)) for _ in range(REPEATS))

    def _told(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_mkldnn:  # a packed weight
            return value
        value = value.detach()
        is_weight = value.untyped_storage().data_ptr() in self.weights
        return value if is_weight else _Shape(value.shape, value.stride(), value.dtype, value.device)


class _Shape(NamedTuple):
    """The properties of a tensor that is not kept."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def _made(told: Any, made: dict[Any, Tensor]) -> Any:
    """Return the argument; for a _Shape, a random tensor, the same one for equal shapes."""
    if not isinstance(told, _Shape):
        return told
    if told not in made:
        empty = torch.empty_strided(told.shape, told.strides, dtype=told.dtype, device=told.device)
        made[told] = empty.uniform_(-1, 1)
    return made[told]


@torch.no_grad()
def _run(calls: Sequence[tuple[Any, list[Any], dict[str, Any]]]) -> None:
    for func, args, more in calls:
        func(*args, **more)
