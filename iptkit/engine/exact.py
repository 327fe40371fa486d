"""A forward of a bfloat16 or "mixed" model whose operations all run in float32, for a moment.

Two ways through a model that differ by rounding alone then agree to float32's precision, and two that
differ by a scale, a cap or an adapter do not. Nothing of the model changes: a weight is widened when an
operation meets it, and given back behind that operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from iptkit.engine.fast.packed_weights import as_they_are
from iptkit.engine.left_memory import observe

CLOSE = 1e-3  # relative: a hundred times float32's rounding in a deep model, less than unknown layers change
LOW = (torch.bfloat16, torch.float16)
aten = torch.ops.aten
PICKING = (aten.embedding.default, aten.index.Tensor, aten.index_select.default, aten.gather.default)


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within this context operations on `model`'s low-precision weights, and all that follow, are float32.

    A model of float32 or float64 weights computes as it always does: what rounds in it is not its type.
    Nobody observes it, and nothing is packed.
    """
    is_low = any(t.dtype in LOW for t in (*model.parameters(), *model.buffers()))
    with observe(None), as_they_are(), _Widened() if is_low else contextlib.nullcontext():
        yield


class _Widened(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in LOW:
            kwargs["dtype"] = torch.float32
        if func in PICKING:  # of a table only what is picked is widened
            return tree_map(_wide, func(*args, **kwargs))
        if func._schema.is_mutable and isinstance(args[0], Tensor) and args[0].dtype in LOW:
            return func(*args, **kwargs)  # what is written to keeps its place, and so its type
        args, kwargs = tree_map(_wide, (args, kwargs))
        return func(*args, **kwargs)


def _wide(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in LOW else x
