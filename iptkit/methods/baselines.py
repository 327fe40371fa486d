"""Subspaces that no auto-encoder found: principal components of the prompts, and random ones (Fastfood).

Each maps z [B, d_I] to prompts [B, n, d] like the decoder of MSF and takes its place in IntrinsicPrompt:
`decode`, and `codes`, whose mean and spread are where z starts and its unit.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from iptkit.methods.subspace import check_bank

BLOCK = 32  # a Hadamard product of 2^k numbers is done as k / 5 small matrix products


class PrincipalComponents(nn.Module):
    """The plane through the mean of a bank of prompts along its d_I principal components.

    Args:
      bank: [T, n, d] trained prompts.
      intrinsic_dim: d_I, 1 to T - 1: T prompts span no more.
    """

    def __init__(self, bank: Tensor, intrinsic_dim: int):
        super().__init__()
        check_bank(bank)
        if not 1 <= intrinsic_dim < len(bank):
            raise ValueError(
                f"intrinsic_dim is {intrinsic_dim}, but {len(bank)} prompts have {len(bank) - 1} principal "
                f"components; give 1 to {len(bank) - 1}"
            )
        self.shape = bank.shape[1:]
        flat = bank.detach().float().flatten(1)
        centred = flat - flat.mean(0)
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[:intrinsic_dim]
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("directions", directions)  # [d_I, D], orthonormal
        self.register_buffer("of_bank", centred @ directions.t())

    def codes(self) -> Tensor:
        """[T, d_I] coordinates of the bank."""
        return self.of_bank

    def encode(self, prompts: Tensor) -> Tensor:
        """Prompts [B, n, d] -> z [B, d_I]."""
        return (prompts.float().flatten(1) - self.mean) @ self.directions.t()

    def decode(self, z: Tensor) -> Tensor:
        """Z [B, d_I] -> prompts [B, n, d]."""
        return (self.mean + z @ self.directions).view(-1, *self.shape)


class Fastfood(nn.Module):
    """A random matrix M [D, d_I] that is never written out: H G Π H B (Le et al. 2013).

    B: random signs, H: Walsh-Hadamard, Π: a permutation, G: normal numbers; all of length L, the next power
    of two from max(D, d_I), of which the first D rows and d_I columns are used. Scaled so that |M v| is about
    |v|. Aghajanyan et al. 2020 (arXiv 2012.13255, section 3) take it for their intrinsic dimension.

    Args:
      intrinsic_dim, size: d_I and D, >= 1.
      generator: draws B, Π and G.
    """

    def __init__(self, intrinsic_dim: int, size: int, generator: torch.Generator):
        super().__init__()
        if intrinsic_dim < 1 or size < 1:
            raise ValueError(
                f"Fastfood needs intrinsic_dim >= 1 and size >= 1, got {intrinsic_dim} and {size}"
            )
        self.intrinsic_dim, self.size = intrinsic_dim, size
        length = 1 << max(0, math.ceil(math.log2(max(size, intrinsic_dim))))
        draws = {"generator": generator, "device": generator.device}
        self.register_buffer("signs", torch.randint(0, 2, (length,), **draws) * 2.0 - 1)
        self.register_buffer("order", torch.randperm(length, **draws))
        self.register_buffer("gauss", torch.randn(length, **draws))

    def forward(self, v: Tensor) -> Tensor:
        """V [..., d_I] -> [..., D]."""
        length = len(self.signs)
        padded = nn.functional.pad(v, (0, length - self.intrinsic_dim)) * self.signs
        mixed = walsh_hadamard(padded).index_select(-1, self.order) * self.gauss
        return walsh_hadamard(mixed)[..., : self.size] * (length * self.size) ** -0.5


class FastfoodPrompt(nn.Module):
    """Prompts in a random subspace around one prompt: start + std * sqrt(D) * M z.

    Args:
      start: [n, d].
      std: how far a z of length 1 moves each number, > 0.
      intrinsic_dim: d_I >= 1.  generator: draws M.
    """

    def __init__(self, start: Tensor, std: float, intrinsic_dim: int, generator: torch.Generator):
        super().__init__()
        if not std > 0:
            raise ValueError(f"FastfoodPrompt.std is {std}; give a number > 0")
        self.register_buffer("start", start.detach().float())
        self.step = std * start.numel() ** 0.5
        self.project = Fastfood(intrinsic_dim, start.numel(), generator).to(start.device)

    def codes(self) -> Tensor:
        """[2, d_I] whose mean is 0 and whose spread is 1: there is no bank behind them."""
        ones = torch.ones(1, self.project.intrinsic_dim, device=self.start.device) * 0.5**0.5
        return torch.cat([ones, -ones])

    def decode(self, z: Tensor) -> Tensor:
        """Z [B, d_I] -> prompts [B, n, d]."""
        return self.start + self.step * self.project(z).view(-1, *self.start.shape)


def walsh_hadamard(x: Tensor) -> Tensor:
    """X [..., 2^k] times the Walsh-Hadamard matrix of +1 and -1 (its own inverse but for 2^k).

    Raises: ValueError for another length.
    """
    length = x.shape[-1]
    if length & (length - 1):
        raise ValueError(f"walsh_hadamard needs a power of two in the last dimension, got {length}")
    out, left = x, length
    while left > 1:  # each turn does some of the index bits and puts them first; at the end all are in order
        size = min(BLOCK, left)
        rows = out.reshape(*x.shape[:-1], length // size, size)
        out = (rows @ _hadamard(size, x.dtype, x.device)).transpose(-1, -2).reshape(x.shape)
        left //= size
    return out


@functools.cache
def _hadamard(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
