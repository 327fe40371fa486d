"""Controls for the learned subspace: the prompts' principal components, and random directions (Fastfood).

Each is a `subspace.PromptDecoder` for IntrinsicPrompt: `decode` maps z [B, d_I] to prompts [B, n, d], and the
mean and standard deviation of `codes` are the start of z and its unit.

    principal components   p* = mean + z V               V [d_I, D], orthonormal rows
    Fastfood               p* = start + std sqrt(D) M z  M [D, d_I], random (Le et al. 2013, arXiv 1408.3060)
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Kind, check_numbers
from iptkit.methods.subspace import check_bank

BLOCK = 32  # a Walsh-Hadamard transform of length 2^k is k / 5 products with a 32 x 32 matrix


class PrincipalComponents(nn.Module):
    """The plane through the mean of a bank of prompts along its d_I principal components.

    Args:
      bank: [T, n, d] trained prompts; for another kind [T, S, 2, h, n, k] or [T, N, 2, d, r].
      intrinsic_dim: d_I, 1 to T - 1, the most components that T prompts have.
      kind: of the prompts, see `SoftPrompt`.

    Raises:
      ValueError: d_I is out of range, or the bank has the wrong shape or a missing prompt.
    """

    mean: Tensor  # [D]
    directions: Tensor  # [d_I, D], orthonormal
    of_bank: Tensor  # [T, d_I]

    def __init__(self, bank: Tensor, intrinsic_dim: int, kind: Kind = "embeds"):
        super().__init__()
        check_bank(bank, kind)
        self.kind = kind
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
        self.register_buffer("directions", directions)
        self.register_buffer("of_bank", centred @ directions.t())

    def codes(self) -> Tensor:
        """[T, d_I] the coordinates of the bank."""
        return self.of_bank

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, n, d]."""
        return (self.mean + z @ self.directions).view(-1, *self.shape)


class Fastfood(nn.Module):
    """The product with a random matrix M [D, d_I] that is never stored: H G Π H B (Le et al. 2013).

    B has random signs, H is the Walsh-Hadamard matrix, Π a permutation, and G has normal draws. All are of
    size L, the next power of two from max(D, d_I); the first D rows and d_I columns are used. The scale makes
    |M v| about |v|. Aghajanyan et al. 2020 (arXiv 2012.13255, section 3) use it to measure
    intrinsic dimensions.

    Args:
      intrinsic_dim: d_I >= 1.
      size: D >= 1.
      generator: draws B, Π and G.

    Raises:
      ValueError: a size below 1.
    """

    signs: Tensor  # [L] B
    order: Tensor  # [L] Π
    gauss: Tensor  # [L] G

    def __init__(self, intrinsic_dim: int, size: int, generator: torch.Generator):
        super().__init__()
        if intrinsic_dim < 1 or size < 1:
            raise ValueError(
                f"Fastfood needs intrinsic_dim >= 1 and size >= 1, got {intrinsic_dim} and {size}"
            )
        self.intrinsic_dim, self.size = intrinsic_dim, size
        length = 1 << max(0, math.ceil(math.log2(max(size, intrinsic_dim))))
        device = generator.device
        bits = torch.randint(0, 2, (length,), generator=generator, device=device)
        self.register_buffer("signs", bits * 2.0 - 1)
        self.register_buffer("order", torch.randperm(length, generator=generator, device=device))
        self.register_buffer("gauss", torch.randn(length, generator=generator, device=device))

    def forward(self, v: Tensor) -> Tensor:
        """v: [..., d_I] -> M v [..., D]."""
        length = len(self.signs)
        padded = nn.functional.pad(v, (0, length - self.intrinsic_dim)) * self.signs
        mixed = walsh_hadamard(padded).index_select(-1, self.order) * self.gauss
        return walsh_hadamard(mixed)[..., : self.size] * (length * self.size) ** -0.5


class FastfoodPrompt(nn.Module):
    """Prompts in a random subspace around one prompt: start + std * sqrt(D) * M z.

    Args:
      start: [n, d], or one prompt of another kind.
      std: root mean square of the changes to a prompt's entries for a z of length 1, > 0.
      intrinsic_dim: d_I >= 1.
      generator: draws M.
      kind: of the prompts, see `SoftPrompt`.

    Raises:
      ValueError: std <= 0, d_I < 1, or `start` has the wrong shape for its kind.
    """

    start: Tensor

    def __init__(
        self,
        start: Tensor,
        std: float,
        intrinsic_dim: int,
        generator: torch.Generator,
        kind: Kind = "embeds",
    ):
        super().__init__()
        check_numbers(start[None], "start[None]", kind)
        if not std > 0:
            raise ValueError(f"FastfoodPrompt.std is {std}; give a number > 0")
        self.kind = kind
        self.register_buffer("start", start.detach().float())
        self.step = std * start.numel() ** 0.5
        self.project = Fastfood(intrinsic_dim, start.numel(), generator).to(start.device)

    def codes(self) -> Tensor:
        """[2, d_I] two codes with mean 0 and standard deviation 1, because there is no bank."""
        ones = torch.ones(1, self.project.intrinsic_dim, device=self.start.device) * 0.5**0.5
        return torch.cat([ones, -ones])

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, n, d]."""
        return self.start + self.step * self.project(z).view(-1, *self.start.shape)


def walsh_hadamard(x: Tensor) -> Tensor:
    """The product of x [..., 2^k] with the Walsh-Hadamard matrix of +1 and -1.

    The matrix is its own inverse up to the factor 2^k.

    Raises: ValueError if the last dimension is no power of two.
    """
    length = x.shape[-1]
    if length & (length - 1):
        raise ValueError(f"walsh_hadamard needs a power of two in the last dimension, got {length}")
    out, left = x, length
    while left > 1:  # each pass transforms some bits of the index and moves them to the front
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
