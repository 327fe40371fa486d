"""Products with frozen weights, brought beforehand into the order that the CPU's vector units want.

A product of few tokens spends as long on reordering its weight as on multiplying. A frozen weight can be
reordered once: oneDNN's packed linear layer, which torch offers under `torch.ops.mkldnn` (its compiler takes
it for frozen bfloat16 models). The same sums in another order. Elsewhere (GPU, float64, other kinds of CPU, a
model that is large beside the memory) the products are torch's usual ones.
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

SHARE = 1 / 8  # of the memory, the most that all packed weights of a model may take

_AS_THEY_ARE: ContextVar[bool] = ContextVar("iptkit_as_they_are", default=False)


@contextlib.contextmanager
def as_they_are() -> Iterator[None]:
    """Within this context products use the weights themselves, and nothing is packed."""
    token = _AS_THEY_ARE.set(True)
    try:
        yield
    finally:
        _AS_THEY_ARE.reset(token)


class Frozen:
    """A frozen weight W [out, in]. Made by `frozen`.

    W may be written to in place by torch's own operations; whoever writes through `.data`, or puts another
    tensor in W's place, makes a new engine.

    Attributes:
      weight: W itself.
      is_packed: are its products packed?
    """

    def __init__(self, weight: Tensor, is_packed: bool):
        self.weight, self.is_packed = weight, is_packed
        self.renew()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sides": [None, None]}  # packed tensors cannot be copied

    def renew(self) -> None:
        """Forget what was packed; the next product packs again."""
        self._version, self._sides = _version(self.weight), [None, None]

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """X W^T + bias, for x [..., in] and bias [out] in W's dtype."""
        if not self._is_packed_now:
            return nn.functional.linear(x, self.weight, bias)
        return _packed(x, self._side(0), bias)

    def back(self, grad: Tensor) -> Tensor:
        """Grad W, for grad [..., out] in W's dtype: the gradient of x."""
        return _packed(grad, self._side(1), None) if self._is_packed_now else grad @ self.weight

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """X + y W^T in one product, for y [T, in] and x [T, out] in W's dtype."""
        if not self._is_packed_now:
            return torch.addmm(x, y, self.weight.t())
        return torch.ops.mkldnn._linear_pointwise.binary(y, x, self._side(0), None, "add")

    @property
    def packed_bytes(self) -> int:
        """What its packed forms take beside W."""
        return sum(side.numel() * side.element_size() for side in self._sides if side is not None)

    @property
    def _is_packed_now(self) -> bool:
        return self.is_packed and not _AS_THEY_ARE.get()

    @torch.no_grad()
    def _side(self, side: int) -> Tensor:
        """W or its transpose, packed when first asked for, and again if W was written to since."""
        if self._version != _version(self.weight):
            self.renew()
        if self._sides[side] is None:
            plain = self.weight.t() if side else self.weight
            self._sides[side] = torch.ops.mkldnn._reorder_linear_weight(plain.contiguous())
        return self._sides[side]


_KNOWN: WeakValueDictionary[Any, Frozen] = WeakValueDictionary()


def frozen(weight: Tensor, is_packed: bool) -> Frozen:
    """The Frozen of a weight. Engines around the same model share them; each new one has them packed anew."""
    weight = weight.detach()
    key = (weight.data_ptr(), weight.shape, weight.stride(), weight.dtype, weight.device, is_packed)
    found = _KNOWN.get(key)
    if found is None or found.weight.data_ptr() != weight.data_ptr():
        found = _KNOWN[key] = Frozen(weight, is_packed)
    found.renew()
    return found


def packed_bytes() -> int:
    """What all packed weights of this process take."""
    return sum(one.packed_bytes for one in _KNOWN.values())


def packs(weights: Iterable[Tensor]) -> bool:
    """Can and should these weights be packed here, in both directions?"""
    unique = {weight.data_ptr(): weight for weight in weights}.values()  # a tied weight stands there twice
    kinds = {(weight.device.type, weight.dtype) for weight in unique}
    known = {("cpu", torch.float32), ("cpu", torch.bfloat16)}
    if not kinds <= known or not all(_works(dtype) for _, dtype in kinds):
        return False
    return 2 * sum(weight.nbytes for weight in unique) <= SHARE * machine_memory()


def linear(x: Tensor, weight: Frozen, bias: Tensor | None = None) -> Tensor:
    """X W^T + bias, handed back in x's dtype; gradients flow into x [..., in] only.

    A float32 x is multiplied in bfloat16 by a bfloat16 W ("mixed"); else both have one dtype.
    """
    is_mixed = (x.dtype, weight.weight.dtype) == (torch.float32, torch.bfloat16)
    return _Linear.apply(x.to(weight.weight.dtype) if is_mixed else x, weight, bias).to(x.dtype)


@functools.cache
def _works(dtype: torch.dtype) -> bool:
    """Does a packed product come out right in this dtype?"""
    if platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(2, 16, dtype=dtype), torch.arange(512.0).view(32, 16).to(dtype) / 512
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        made = Frozen(weight, True)
        found = made.times(x), made.plus(torch.ones(2, 32, dtype=dtype), x)
    except (AttributeError, NotImplementedError, RuntimeError):  # torch was built without them
        return False
    expected = x @ weight.t()
    return all(torch.allclose(a, b, rtol=0.02) for a, b in zip(found, (expected, 1 + expected), strict=True))


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Frozen, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return weight.times(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Back.apply(grad, ctx.weight), None, None


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Frozen) -> Tensor:
        ctx.weight = weight
        return weight.back(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Linear.apply(grad, ctx.weight, None), None
