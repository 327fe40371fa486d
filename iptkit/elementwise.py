"""Norm and rotation of flat tokens with their gradients, in as few passes over memory as can be."""

from __future__ import annotations

import torch
from torch import Tensor


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
