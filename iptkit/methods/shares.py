"""How much of a trained prompt a subspace reconstructs, and how much of that is memorised.

T prompts span at most T - 1 dimensions around their mean, so a subspace found on them can reconstruct them
all without any structure shared by tasks. Only prompts that it was not found on show shared structure. With m
the mean of the bank, the share of a prompt p that its reconstruction p* keeps is

    1 - |p* - p|^2 / |p - m|^2          1: p* is p; 0: p* is no closer to p than the mean prompt is
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.methods.subspace import AutoEncoder, check_bank


def in_plane(bank: Tensor, prompts: Tensor, dims: Sequence[int]) -> Tensor:
    """The share of each prompt that the principal components of a bank reconstruct.

    Args:
      bank: [T, ...] trained prompts, whose principal components are used.
      prompts: [M, ...] prompts of the same shape, from the bank or not.
      dims: numbers of principal components, each 1 to T - 1.
    Returns: [len(dims), M] in float64, each in [0, 1]; nan for a prompt that is the bank's mean.
    Raises: ValueError for too many components or prompts of another shape.

    Example:
      >>> line = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[4.0, 0.0]]])
      >>> in_plane(line, torch.tensor([[[5.0, 0.0]], [[2.0, 1.0]]]), [1]).round(decimals=3).tolist()
      [[1.0, 0.0]]
    """
    check_bank(bank)
    if not dims or min(dims) < 1 or max(dims) >= len(bank):
        given = ", ".join(map(str, dims)) or "none"
        raise ValueError(f"dims are {given}; {len(bank)} prompts have 1 to {len(bank) - 1} components")
    if prompts.shape[1:] != bank.shape[1:]:
        raise ValueError(
            f"prompts have the shape {list(prompts.shape[1:])}, those of the bank {list(bank.shape[1:])}"
        )
    flat = bank.double().flatten(1)
    mean = flat.mean(0)
    directions = torch.linalg.svd(flat - mean, full_matrices=False).Vh[: max(dims)]
    centred = prompts.double().flatten(1) - mean
    inside = (centred @ directions.t()).square().cumsum(1)  # [M, components]
    return (inside / centred.square().sum(1, keepdim=True)).t()[torch.tensor(dims) - 1]


def without_family(bank: Tensor, families: Sequence[str], dims: Sequence[int]) -> Tensor:
    """The share of each prompt that the principal components of all other families' prompts reconstruct.

    Args:
      bank: [T, ...] trained prompts.
      families: the family of each of the T prompts.
      dims: numbers of components, fewer than the prompts outside any one family.
    Returns: [len(dims), T] in float64, see `in_plane`.
    Raises: ValueError unless every prompt has its family.
    """
    if len(families) != len(bank):
        raise ValueError(f"{len(families)} families were given for {len(bank)} prompts; give one per prompt")
    shares = torch.zeros(len(dims), len(bank), dtype=torch.float64, device=bank.device)
    for family in dict.fromkeys(families):
        mine = torch.tensor([name == family for name in families])
        shares[:, mine] = in_plane(bank[~mine], bank[mine], dims)
    return shares


@torch.no_grad()
def rebuilt(autoencoder: AutoEncoder, prompts: Tensor) -> Tensor:
    """The share of each prompt that the auto-encoder of MSF reconstructs.

    It is below 0 where p* lies further from p than the mean does.

    Args:
      autoencoder: a trained one.
      prompts: [M, ...] in the shape of its prompts.
    Returns: [M] in float64; nan for a prompt that is the mean.
    """
    flat = prompts.double().flatten(1)
    away = autoencoder.decode(autoencoder.encode(prompts)).double().flatten(1) - flat
    return 1 - away.square().sum(1) / (flat - autoencoder.mean.double()).square().sum(1)


def by_chance(dim: int, size: int) -> float:
    """The expected share d_I / D of a prompt of size D that random directions reconstruct."""
    return dim / size
