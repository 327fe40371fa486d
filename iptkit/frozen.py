"""Products with frozen weights, brought beforehand into the order that the CPU's vector units want.

A product of few tokens spends as long on reordering its weight as on multiplying. A frozen weight can be
reordered once: oneDNN's packed linear layer, which torch.compile takes for frozen models and torch offers
under `torch.ops.mkldnn`. The sums are the same. Elsewhere (GPU, float64, other kinds of CPU, a model that is
large beside the machine's memory) the products are torch's usual ones.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

SHARE = 1 / 8  # of the machine's memory, the most that all packed weights of a model may take


class Frozen:
    """A frozen weight W [out, in]. Made by `frozen`.

    Attributes:
      weight: W itself.
      is_packed: are its products packed?
    """

    def __init__(self, weight: Tensor, is_packed: bool):
        self.weight, self.is_packed = weight, is_packed
        self._version, self._packed = weight._version, [None, None]

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T + bias, for x [T, in] and bias [out] in W's dtype."""
        if not self.is_packed:
            return nn.functional.linear(x, self.weight, bias)
        return _packed(x, self._side(0), bias)

    def back(self, grad: Tensor) -> Tensor:
        """grad W, for grad [T, out] in W's dtype: the gradient of x."""
        return _packed(grad, self._side(1), None) if self.is_packed else grad @ self.weight

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y W^T in one product, for y [T, in] and x [T, out] in W's dtype."""
        if not self.is_packed:
            return torch.addmm(x, y, self.weight.t())
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, self._side(0), None, "add")

    @torch.no_grad()
    def _side(self, side: int) -> Tensor:
        """W or its transpose, packed when first asked for, and again if W was written to since."""
        if self._version != self.weight._version:
            self._version, self._packed = self.weight._version, [None, None]
        if self._packed[side] is None:
            plain = self.weight.t() if side else self.weight
            self._packed[side] = torch.ops.mkldnn._reorder_linear_weight(plain.contiguous())
        return self._packed[side]


_KNOWN: WeakValueDictionary[Any, Frozen] = WeakValueDictionary()  # a Frozen keeps its memory, so its key


def frozen(weight: Tensor, is_packed: bool) -> Frozen:
    """The Frozen of a weight; engines around the same model share them."""
    weight = weight.detach()
    key = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, weight.device, is_packed)
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = Frozen(weight, is_packed)
    return found


def packs(weights: Iterable[Tensor]) -> bool:
    """Can and should these weights, all of a model's, be packed here?"""
    weights = list(weights)
    dtypes = {(weight.device.type, weight.dtype) for weight in weights}
    if not dtypes <= {("cpu", torch.float32), ("cpu", torch.bfloat16)} or not _has_packed_products():
        return False
    if ("cpu", torch.bfloat16) in dtypes and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2 * sum(weight.nbytes for weight in weights) <= SHARE * memory


def linear(x: Tensor, weight: Frozen, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias in W's dtype, handed back in x's; gradients flow into x [..., in] only."""
    return _Linear.apply(x.to(weight.weight.dtype), weight, bias).to(x.dtype)


def _has_packed_products() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() in ("x86_64", "AMD64")
        and hasattr(os, "sysconf")
        and all(hasattr(torch.ops.mkldnn, n) for n in ("_linear_pointwise", "_reorder_linear_weight"))
    )


def _packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Frozen, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.times(x, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.weight.back(grad), None, None
