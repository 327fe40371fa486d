"""Norm, rotation, SwiGLU and log-softmax with their gradients, in as few passes over memory as can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

ROWS_IN_CACHE = 8  # of logits; a few megabytes
TOKENS_IN_CACHE = 256  # of an MLP's middle; a few megabytes


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMS norm of x [T, d], and 1 / RMS [T, 1] (Zhang & Sennrich 2019, equation 4)."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    rate = (size.square_() / x.shape[-1]).add_(eps).rsqrt_()
    return (x * rate).mul_(weight), rate


def norm_backward(grad: Tensor, d_normed: Tensor, x: Tensor, rate: Tensor, weight: Tensor) -> None:
    """Adds the gradient through `norm` to `grad`; overwrites d_normed."""
    d_normed.mul_(weight)
    along = torch.linalg.vecdot(d_normed, x)[:, None] * rate.pow(3) / -x.shape[-1]
    grad.addcmul_(d_normed, rate).addcmul_(x, along)


Rotation = tuple[Tensor, Tensor, Tensor, Tensor]  # cos and sin of a head's first half, then of its second


def rotate_(flat: Tensor, heads: int, by: Rotation) -> None:
    """Rotary embedding of the first `heads` heads of flat [T, * k], in place (Su et al. 2021, arXiv
    2104.09864, equation 34, with the pairs of Llama: a number and that half a head behind it).
    """
    cos_first, sin_first, cos_second, sin_second = by
    width = 2 * cos_first.shape[-1]
    first, second = flat[:, : heads * width].view(len(flat), heads, width).chunk(2, -1)
    turned = first * sin_second
    first.mul_(cos_first).addcmul_(second, sin_first, value=-1)
    second.mul_(cos_second).add_(turned)


def rotation(cos: Tensor, sin: Tensor) -> Rotation:
    """What `rotate_` takes, [T, 1, k / 2] each, of cos and sin [T, k] of the angles."""
    (cos_first, cos_second), (sin_first, sin_second) = (t[:, None].chunk(2, -1) for t in (cos, sin))
    return cos_first, sin_first, cos_second, sin_second


def rotation_back(by: Rotation) -> Rotation:
    """What sends a gradient back through `rotate_`: the transpose of the same rotation."""
    cos_first, sin_first, cos_second, sin_second = by
    return cos_first, -sin_second, cos_second, -sin_first


def swiglu(gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """silu(gate) * up [T, m] of gate_up [T, 2 m], computed in `dtype`, handed back in gate_up's own
    (Shazeer 2020, arXiv 2002.05202, equation 6, without biases).
    """
    out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    for both, part in _few(TOKENS_IN_CACHE, gate_up, out):
        gate, up = both.to(dtype).chunk(2, -1)
        torch.mul(silu(gate), up, out=part)
    return out


def swiglu_backward(grad: Tensor, gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of gate_up [T, 2 m] from that of `swiglu`, grad [T, m]."""
    out = torch.empty_like(gate_up)
    for inner, both, part in _few(TOKENS_IN_CACHE, grad, gate_up, out):
        inner, (gate, up), (d_gate, d_up) = inner.to(dtype), both.to(dtype).chunk(2, -1), part.chunk(2, -1)
        torch.mul(silu(gate), inner, out=d_up)
        torch.ops.aten.silu_backward.grad_input(inner * up, gate, grad_input=d_gate)
    return out


class _LogProbability(torch.autograd.Function):
    """log softmax(logits)[head, token] whose backward pass writes the gradient of the logits once.

    On a CPU it goes over a few rows of logits at a time, which stay in the cache meanwhile.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, head: Tensor, token: Tensor) -> Tensor:
        total = torch.cat([part.logsumexp(-1) for (part,) in _few(ROWS_IN_CACHE, logits)])
        ctx.save_for_backward(logits, total, head, token)
        return logits[head, token] - total[head]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, total, head, token = ctx.saved_tensors
        of_head = torch.zeros_like(total).index_add_(0, head, grad)
        for part, of, weight in _few(ROWS_IN_CACHE, logits, total[:, None], of_head[:, None].neg_()):
            part.sub_(of).exp_().mul_(weight)  # in their own place: they are large
        return logits.index_put_((head, token), grad, accumulate=True), None, None


def _few(count: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each tensor, `count` at a time on a CPU, where they stay in the cache; else all."""
    if tensors[0].device.type != "cpu":
        count = max(1, len(tensors[0]))
    return zip(*(tensor.split(count) for tensor in tensors), strict=True)


def log_probability(logits: Tensor, head: Tensor, token: Tensor) -> Tensor:
    """Log p [A] of token[a] under logits[head[a]]; logits [M, V] in float32 or float64.

    The backward pass writes over the logits, which nothing else may need by then.
    """
    return _LogProbability.apply(logits, head, token)
