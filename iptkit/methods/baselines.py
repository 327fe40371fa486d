"""Controls for the learned subspace: principal components, random directions and Fastfood.

Each is a `subspace.PromptDecoder` for IntrinsicPrompt: `decode` maps z [B, d_I] to prompts [B, n, d], and the
mean and standard deviation of `codes` are the start of z and its unit.

    principal components   p* = mean + z V               V [d_I, D], orthonormal rows
    Fastfood               p* = start + std sqrt(D) M z  M [D, d_I], random (Le et al. 2013, arXiv 1408.3060)

These start at other prompts than IST does, so that a difference between them and IST may come from the start
as well as from the directions. The controls around a found decoder have its start, the prompt of its mean
code, and steps of its size (`step_length`); they differ from IST in their directions only:

    random_around       p* = start + step z Q            Q [d_I, D], random orthonormal rows
    components_around   p* = start + step z W            W [d_I, D], principal components of a bank
    fastfood_around     p* = start + step M z            M as above
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Kind, check_numbers
from iptkit.methods.subspace import PromptDecoder, check_bank, check_dim, code_statistics

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


# ---- controls that start where IST starts ----------------------------------------------------------
class Around(nn.Module):
    """Prompts along given directions around one prompt: start + z @ directions.

    The codes have mean 0 and standard deviation 1, so z is the u that IST trains, and the start is the prompt
    of u = 0.

    Args:
      start: [n, d], or one prompt of another kind.
      directions: [d_I, D], what a change of 1 in each coordinate adds to the flattened prompt.
      kind: of the prompts, see `SoftPrompt`.

    Raises:
      ValueError: `start` has the wrong shape for its kind, or `directions` is not [d_I, D] or not finite.

    Example:
      >>> around = Around(torch.zeros(4, 8), torch.ones(2, 32))
      >>> around.decode(torch.tensor([[1.0, -3.0]])).unique().tolist()
      [-2.0]
    """

    start: Tensor
    directions: Tensor

    def __init__(self, start: Tensor, directions: Tensor, kind: Kind = "embeds"):
        super().__init__()
        check_numbers(start[None], "start[None]", kind)
        if directions.dim() != 2 or directions.shape[1] != start.numel() or not directions.isfinite().all():
            raise ValueError(
                f"directions has shape {tuple(directions.shape)}; give [d_I, {start.numel()}], all finite"
            )
        self.kind = kind
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("directions", directions.detach().to(start))

    def codes(self) -> Tensor:
        """[3, d_I] three codes with mean 0 and standard deviation 1, because there is no bank."""
        return self.start.new_tensor([[1.0], [0.0], [-1.0]]).expand(3, len(self.directions))

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, n, d]."""
        return self.start + (z.to(self.directions) @ self.directions).view(-1, *self.start.shape)


@torch.no_grad()
def start_of(decoder: PromptDecoder) -> Tensor:
    """[n, d], or one prompt of another kind: that of the mean code, where IST starts (u = 0)."""
    return decoder.decode(code_statistics(decoder)[0][None])[0]


@torch.no_grad()
def step_length(decoder: PromptDecoder) -> float:
    """The Euclidean distance that u_i = 1 or -1 moves a decoder's prompt from its start.

    It is the root mean square of |decode(center + scale * u) - decode(center)| over i = 1 ... d_I and both
    signs (see `IntrinsicPrompt` for center and scale).

    Args:
      decoder: a trained AutoEncoder, or another decoder.

    Raises:
      ValueError: the prompt does not move, or not by a finite distance.

    Example:
      >>> step_length(Around(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])))
      5.0
    """
    center, scale = code_statistics(decoder)
    start, units = start_of(decoder), torch.cat([torch.diag(scale), -torch.diag(scale)])
    moves = (decoder.decode(center + some).double() - start for some in units.split(16))
    step = float(torch.cat([move.flatten(1).square().sum(1) for move in moves]).mean().sqrt())
    if not 0 < step < math.inf:
        raise ValueError(
            f"a change of 1 in u moves the prompts of this {type(decoder).__name__} by {step}; give a "
            "trained decoder, whose prompts depend on u"
        )
    return step


def random_around(found: PromptDecoder, generator: torch.Generator) -> Around:
    """Random directions around the mean code of a found decoder.

    As many directions as the decoder has dimensions, orthogonal to each other, each as long as the decoder's
    step. They are the Q of a Gaussian matrix, uniformly distributed up to their signs (Stewart 1980, doi
    10.1137/0717034).

    Args:
      found: a trained AutoEncoder, or another decoder: d_I dimensions, prompts of size D >= d_I.
      generator: draws the directions.

    Raises:
      ValueError: d_I is larger than D, or the decoder does not move its prompt.
    """
    start, dim = start_of(found), found.codes().shape[1]
    check_dim(dim, start.numel())
    shape, device = (start.numel(), dim), generator.device
    drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
    return Around(start, step_length(found) * torch.linalg.qr(drawn).Q.t(), found.kind)


def components_around(found: PromptDecoder, bank: Tensor) -> Around:
    """The principal components of a bank of prompts, around the mean code of a found decoder.

    The best plane for the trained prompts themselves (see `PrincipalComponents`), moved to IST's start. With
    sigma_i the standard deviation of the bank along component i, direction i has the length
    step * sqrt(d_I) * sigma_i / sqrt(sum of sigma^2): the root mean square of the lengths is the decoder's
    step. The largest entry of each direction is positive, so that a code means the same on every machine.

    Args:
      found: a trained AutoEncoder, or another decoder: d_I dimensions.
      bank: [T, n, d] trained prompts, T > d_I; for another kind [T, S, 2, h, n, k] or [T, N, 2, d, r].

    Raises:
      ValueError: T is too small, the bank has another shape than the decoder's prompts or a missing prompt,
        all its prompts are equal, or the decoder does not move its prompt.
    """
    start, dim = start_of(found), found.codes().shape[1]
    if bank.shape[1:] != start.shape:
        raise ValueError(
            f"bank has prompts of shape {tuple(bank.shape[1:])}, but the decoder makes {tuple(start.shape)}; "
            "give the prompts that it was found with"
        )
    plane = PrincipalComponents(bank, dim, found.kind)
    spread = plane.of_bank.double().norm(dim=0)  # [d_I], sqrt(T - 1) * sigma
    if not spread.any():
        raise ValueError("all prompts of the bank are equal, so it has no principal components")
    lengths = step_length(found) * dim**0.5 * spread / spread.norm()
    largest = plane.directions.gather(1, plane.directions.abs().argmax(1, keepdim=True))  # [d_I, 1]
    return Around(start, lengths[:, None] * largest.sign() * plane.directions, found.kind)


@torch.no_grad()
def fastfood_around(found: PromptDecoder, generator: torch.Generator) -> FastfoodPrompt:
    """Fastfood's random directions (Le et al. 2013) around the mean code of a found decoder.

    G is rescaled so that the step is the decoder's for this draw, not only on average over draws.

    Args:
      found: a trained AutoEncoder, or another decoder: d_I dimensions.
      generator: draws M.

    Raises:
      ValueError: the decoder does not move its prompt.
    """
    start, step, dim = start_of(found), step_length(found), found.codes().shape[1]
    around = FastfoodPrompt(start, step * start.numel() ** -0.5, dim, generator, found.kind).to(start)
    around.start = start
    around.project.gauss.mul_(step / step_length(around))
    return around


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
