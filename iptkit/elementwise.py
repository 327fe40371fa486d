"""Norm, rotation and log-softmax with their gradients, in as few passes over memory as can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS_IN_CACHE = 8  # of logits; a few megabytes


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


def rotate_(flat: Tensor, heads: int, cos: Tensor, sin: Tensor) -> None:
    """Rotary embedding of the first `heads` heads of flat [T, * k], in place; cos, sin [T, 1, k]."""
    width = cos.shape[-1]
    x = flat[:, : heads * width].view(len(flat), heads, width)
    first, second = x.split(width // 2, -1)
    low, high = sin.split(width // 2, -1)
    turned = first * high
    first_new = (first * cos[..., : width // 2]).addcmul_(second, low, value=-1)
    second.mul_(cos[..., width // 2 :]).add_(turned)
    first.copy_(first_new)


class _LogProbability(torch.autograd.Function):
    """log softmax(logits)[head, token] whose backward pass writes the gradient of the logits once.

    On a CPU it goes over a few rows of logits at a time, which stay in the cache meanwhile.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, head: Tensor, token: Tensor) -> Tensor:
        total = torch.cat([part.logsumexp(-1) for part in _few_rows(logits)])
        ctx.save_for_backward(logits, total, head, token)
        return logits[head, token] - total[head]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, total, head, token = ctx.saved_tensors
        of_head = torch.zeros_like(total).index_add_(0, head, grad)
        for part, *of in zip(*map(_few_rows, (logits, total[:, None], of_head[:, None].neg_())), strict=True):
            part.sub_(of[0]).exp_().mul_(of[1])  # in their own place: they are large
        return logits.index_put_((head, token), grad, accumulate=True), None, None


def _few_rows(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.split(ROWS_IN_CACHE if tensor.device.type == "cpu" else max(1, len(tensor)))


def log_probability(logits: Tensor, head: Tensor, token: Tensor) -> Tensor:
    """log p [A] of token[a] under logits[head[a]]; logits [M, V] in float32 or float64.

    The backward pass writes over the logits, which nothing else may need by then.
    """
    return _LogProbability.apply(logits, head, token)
