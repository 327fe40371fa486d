"""Products with frozen weights that are reordered once for the CPU's vector units.

A product with few tokens spends as much time on reordering its weight as on multiplying. A frozen weight can
be reordered once, by oneDNN's packed linear layer. torch offers it under `torch.ops.mkldnn`, and its compiler
uses it for frozen bfloat16 models. Results differ from the usual ones by the order of summation only. On a
GPU, in float64, on other kinds of CPU, and for a model that is large compared with the machine's memory,
products are torch's usual ones.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from iptkit.models.machine import machine_memory

SHARE = 1 / 8  # largest share of the machine's memory for the packed weights of a model

_UNPACKED: ContextVar[bool] = ContextVar("iptkit_unpacked", default=False)


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """Within this context products use the original weights, and nothing is packed."""
    token = _UNPACKED.set(True)
    try:
        yield
    finally:
        _UNPACKED.reset(token)


class FrozenWeight:
    """A frozen weight W [out, in], with its packed forms. Made by `frozen_weight`.

    After torch's in-place operations on W it is packed again. After a write through `.data`, or if another
    tensor takes W's place, make a new engine.

    Attributes:
      weight: W itself.
      is_packed: True if its products use packed forms.
    """

    _sides: list[Tensor | None]  # W and its transpose, packed

    def __init__(self, weight: Tensor, is_packed: bool):
        self.weight, self.is_packed = weight, is_packed
        self.renew()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sides": [None, None]}  # packed tensors cannot be copied

    def renew(self) -> None:
        """Drop the packed forms; the next product packs again."""
        self._version, self._sides = _version(self.weight), [None, None]

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """X W^T + bias, [..., out].

        Args:
          x: [..., in] in W's dtype.
          bias: [out] in W's dtype, or None.
        """
        if not self._is_packed_now:
            return nn.functional.linear(x, self.weight, bias)
        return _packed(x, self._side(0), bias)

    def back(self, grad: Tensor) -> Tensor:
        """The gradient of x: grad W, for grad [..., out] in W's dtype."""
        return _packed(grad, self._side(1), None) if self._is_packed_now else grad @ self.weight

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """X + y W^T in one product, [T, out].

        Args:
          x: [T, out] in W's dtype.
          y: [T, in] in W's dtype.
        """
        if not self._is_packed_now:
            return torch.addmm(x, y, self.weight.t())
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, self._side(0), None, "add")

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed forms, which come on top of W."""
        return sum(side.numel() * side.element_size() for side in self._sides if side is not None)

    @property
    def _is_packed_now(self) -> bool:
        return self.is_packed and not _UNPACKED.get()

    @torch.no_grad()
    def _side(self, side: int) -> Tensor:
        """W (0) or its transpose (1), packed at its first use, and again after W was written to."""
        if self._version != _version(self.weight):
            self.renew()
        packed = self._sides[side]
        if packed is None:
            plain = self.weight.t() if side else self.weight
            packed = self._sides[side] = torch.ops.mkldnn._reorder_linear_weight(plain.contiguous())
        return packed


_KNOWN: WeakValueDictionary[Any, FrozenWeight] = WeakValueDictionary()


def frozen_weight(weight: Tensor, is_packed: bool) -> FrozenWeight:
    """The FrozenWeight of a tensor. Engines of one model share it; each new engine has it packed again.

    Args:
      weight: W [out, in].
      is_packed: use packed forms.
    """
    weight = weight.detach()
    key = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, weight.device, is_packed)
    found = _KNOWN.get(key)
    if found is None or found.weight.data_ptr() != weight.data_ptr():
        found = _KNOWN[key] = FrozenWeight(weight, is_packed)
    found.renew()
    return found


def packed_bytes() -> int:
    """Bytes of all packed weights in this process."""
    return sum(one.packed_bytes for one in _KNOWN.values())


def packs(weights: Iterable[Tensor]) -> bool:
    """True if these weights can be packed on this machine, in both directions, and take little memory."""
    unique = {weight.data_ptr(): weight for weight in weights}.values()  # a tied weight occurs twice
    kinds = {(weight.device.type, weight.dtype) for weight in unique}
    known = {("cpu", torch.float32), ("cpu", torch.bfloat16)}
    if not kinds <= known or not all(_works(dtype) for _, dtype in kinds):
        return False
    return 2 * sum(weight.nbytes for weight in unique) <= SHARE * machine_memory()


def linear(x: Tensor, weight: FrozenWeight, bias: Tensor | None = None) -> Tensor:
    """X W^T + bias in the dtype of x; gradients flow into x only.

    Args:
      x: [..., in] in W's dtype; or float32 with a bfloat16 W ("mixed"), and the product is in bfloat16.
      weight: W [out, in].
      bias: [out] in W's dtype, or None.
    """
    is_mixed = (x.dtype, weight.weight.dtype) == (torch.float32, torch.bfloat16)
    return _Linear.apply(x.to(weight.weight.dtype) if is_mixed else x, weight, bias).to(x.dtype)


@functools.cache
def _works(dtype: torch.dtype) -> bool:
    """True if packed products are right in this dtype on this machine."""
    if platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(2, 16, dtype=dtype), torch.arange(512.0).view(32, 16).to(dtype) / 512
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        made = FrozenWeight(weight, True)
        found = made.times(x), made.plus(torch.ones(2, 32, dtype=dtype), x)
    except (AttributeError, NotImplementedError, RuntimeError):  # torch was built without packed products
        return False
    expected = x @ weight.t()
    return all(torch.allclose(a, b, rtol=0.02) for a, b in zip(found, (expected, 1 + expected), strict=True))


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: FrozenWeight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.times(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Back.apply(grad, ctx.weight), None, None


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: FrozenWeight) -> Tensor:
        ctx.weight = weight
        return weight.back(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Linear.apply(grad, ctx.weight, None), None
