"""Forward passes of a bfloat16 or "mixed" model with all operations in float32, for comparisons.

Two ways of computing a model's outputs that differ by rounding only then agree to float32's precision; two
that differ by a scale, a cap or an adapter do not. The model itself does not change: a weight is converted
when an operation uses it, and the copy is freed after that operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from iptkit.engine.fast.packed_weights import unpacked
from iptkit.engine.left_memory import observe

CLOSE = 1e-3  # relative; 100 times float32's rounding error in a deep model, below the effect of a layer
LOW = (torch.bfloat16, torch.float16)
aten = torch.ops.aten
PICKING = (aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.gather.default)


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within this context operations on low-precision weights of `model`, and all that follow, use float32.

    A model with float32 or float64 weights computes as usual. No observer is called, and no weight is packed.
    """
    is_low = any(t.dtype in LOW for t in (*model.parameters(), *model.buffers()))
    with observe(None), unpacked(), _Widened() if is_low else contextlib.nullcontext():
        yield


class _Widened(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in LOW:
            kwargs["dtype"] = torch.float32
        if func in PICKING:  # convert only the rows that are read from a table
            return tree_map(_wide, func(*args, **kwargs))
        if func._schema.is_mutable and isinstance(args[0], Tensor) and args[0].dtype in LOW:
            return func(*args, **kwargs)  # an in-place operation keeps the dtype of what it writes to
        args, kwargs = tree_map(_wide, (args, kwargs))
        return func(*args, **kwargs)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in LOW else x
