"""Norm, rotary embedding, SwiGLU and log-softmax with their gradients, in few passes over memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

ROWS_IN_CACHE = 8  # rows of logits, a few megabytes
TOKENS_IN_CACHE = 256  # tokens in the middle of an MLP, a few megabytes


def norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMS norm of x [T, d], and 1 / RMS [T, 1] (Zhang & Sennrich 2019, arXiv 1910.07467, equation 4)."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    rate = (size.square_() / x.shape[-1]).add_(eps).rsqrt_()
    return (x * rate).mul_(weight), rate


def norm_backward(grad: Tensor, d_normed: Tensor, x: Tensor, rate: Tensor, weight: Tensor) -> None:
    """Add the gradient of x to `grad` in place.

    Args:
      grad: [T, d], gradient that x already has.
      d_normed: [T, d] gradient of the normed x; overwritten.
      x: [T, d] input of `norm`.
      rate: [T, 1] second output of `norm`.
      weight: [d] of the norm.
    """
    d_normed.mul_(weight)
    along = torch.linalg.vecdot(d_normed, x)[:, None] * rate.pow(3) / -x.shape[-1]
    grad.addcmul_(d_normed, rate).addcmul_(x, along)


Rotation = tuple[Tensor, Tensor, Tensor, Tensor]  # cos and sin of a head's first half, then of its second


def rotate_(flat: Tensor, heads: int, by: Rotation) -> None:
    """Rotate the first heads of some tokens in place: rotary position embedding.

    Su et al. 2021 (arXiv 2104.09864), equation 34, with Llama's pairs: element i of a head and i + k / 2.

    Args:
      flat: [T, * k] with at least `heads` heads of width k.
      heads: number of heads to rotate.
      by: cos and sin of the angles, see `rotation`.
    """
    cos_first, sin_first, cos_second, sin_second = by
    width = 2 * cos_first.shape[-1]
    first, second = flat[:, : heads * width].view(len(flat), heads, width).chunk(2, -1)
    turned = first * sin_second
    first.mul_(cos_first).addcmul_(second, sin_first, value=-1)
    second.mul_(cos_second).add_(turned)


def rotation(cos: Tensor, sin: Tensor) -> Rotation:
    """The argument of `rotate_` for cos and sin [T, k] of the angles: four tensors [T, 1, k / 2]."""
    (cos_first, cos_second), (sin_first, sin_second) = (t[:, None].chunk(2, -1) for t in (cos, sin))
    return cos_first, sin_first, cos_second, sin_second


def rotation_back(by: Rotation) -> Rotation:
    """The rotation that turns the gradient of `rotate_`'s output into that of its input: the transpose."""
    cos_first, sin_first, cos_second, sin_second = by
    return cos_first, -sin_second, cos_second, -sin_first


def swiglu(gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv 2002.05202, equation 6, without biases).

    Args:
      gate_up: [T, 2 m].
      dtype: what the product is computed in.
    Returns: [T, m] in the dtype of gate_up.
    """
    out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    for both, part in _few(TOKENS_IN_CACHE, gate_up, out):
        gate, up = both.to(dtype).chunk(2, -1)
        torch.mul(silu(gate), up, out=part)
    return out


def swiglu_backward(grad: Tensor, gate_up: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of gate_up [T, 2 m].

    Args:
      grad: [T, m] gradient of what `swiglu` returned.
      gate_up: as given to `swiglu`.
      dtype: as given to `swiglu`.
    """
    out = torch.empty_like(gate_up)
    for inner, both, part in _few(TOKENS_IN_CACHE, grad, gate_up, out):
        inner, (gate, up), (d_gate, d_up) = inner.to(dtype), both.to(dtype).chunk(2, -1), part.chunk(2, -1)
        torch.mul(silu(gate), inner, out=d_up)
        torch.ops.aten.silu_backward.grad_input(inner * up, gate, grad_input=d_gate)
    return out


class _LogProbability(torch.autograd.Function):
    """log softmax(logits)[row, token], with a backward pass that writes the gradient of the logits once.

    On a CPU it processes a few rows of logits at a time, so that they stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, row: Tensor, token: Tensor) -> Tensor:
        total = torch.cat([part.logsumexp(-1) for (part,) in _few(ROWS_IN_CACHE, logits)])
        ctx.save_for_backward(logits, total, row, token)
        return logits[row, token] - total[row]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, total, row, token = ctx.saved_tensors
        of_row = torch.zeros_like(total).index_add_(0, row, grad)
        for part, of, weight in _few(ROWS_IN_CACHE, logits, total[:, None], of_row[:, None].neg_()):
            part.sub_(of).exp_().mul_(weight)  # in place: the logits are large
        return logits.index_put_((row, token), grad, accumulate=True), None, None


def _few(count: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each tensor: on a CPU `count` at a time, elsewhere all at once."""
    if tensors[0].device.type != "cpu":
        count = max(1, len(tensors[0]))
    return zip(*(tensor.split(count) for tensor in tensors), strict=True)


def log_probability(logits: Tensor, row: Tensor, token: Tensor) -> Tensor:
    """Log p of each token under its row of logits, [A]. The backward pass overwrites the logits.

    Args:
      logits: [M, V] in float32 or float64; no other backward step may need them.
      row: [A] index of each token's row of logits.
      token: [A] token ids.
    """
    return _LogProbability.apply(logits, row, token)
