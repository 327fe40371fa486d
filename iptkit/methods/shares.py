"""How much of a trained prompt a subspace gives back, and how much of that is memory.

T prompts span at most T - 1 dimensions around their mean, so a subspace found on them can hold them all
without any shared structure. What it holds of prompts that it was not found on is what tasks share. Prompts
are taken from the bank's mean here: a share of 1 gives a prompt back whole, 0 no more than the mean prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.methods.subspace import AutoEncoder, check_bank


def in_plane(bank: Tensor, prompts: Tensor, dims: Sequence[int]) -> Tensor:
    """Share of each prompt's squared distance to the bank's mean that lies in the bank's principal plane.

    Args:
      bank: [T, ...] trained prompts that the plane is laid through.
      prompts: [M, ...] prompts of the same shape, of the bank or not.
      dims: numbers of principal components, 1 to T - 1.
    Returns: [len(dims), M], in float64, each 0 to 1.
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
            f"prompts are {list(prompts.shape[1:])} each, those of the bank {list(bank.shape[1:])}"
        )
    flat = bank.double().flatten(1)
    mean = flat.mean(0)
    directions = torch.linalg.svd(flat - mean, full_matrices=False).Vh[: max(dims)]
    centred = prompts.double().flatten(1) - mean
    inside = (centred @ directions.t()).square().cumsum(1)  # [M, components]
    return (inside / centred.square().sum(1, keepdim=True)).t()[torch.tensor(dims) - 1]


def without_family(bank: Tensor, families: Sequence[str], dims: Sequence[int]) -> Tensor:
    """`in_plane` of each prompt of a bank, the plane laid through the prompts of all other families.

    Args:
      families: of each of the T prompts.
      dims: numbers of components, fewer than the prompts that are left.
    Returns: [len(dims), T].
    Raises: ValueError unless every prompt has its family.
    """
    if len(families) != len(bank):
        raise ValueError(f"{len(bank)} prompts have {len(families)} families; give one for each")
    shares = torch.zeros(len(dims), len(bank), dtype=torch.float64, device=bank.device)
    for family in dict.fromkeys(families):
        mine = torch.tensor([name == family for name in families])
        shares[:, mine] = in_plane(bank[~mine], bank[mine], dims)
    return shares


@torch.no_grad()
def rebuilt(autoencoder: AutoEncoder, prompts: Tensor) -> Tensor:
    """Share of each prompt's squared distance to the mean that the auto-encoder of MSF gives back.

    1 - |p* - p|^2 / |p - mean|^2; below 0 where p* lies further from p than the mean does.

    Args:
      prompts: [M, ...] of the auto-encoder's shape.
    Returns: [M], in float64.
    """
    flat = prompts.double().flatten(1)
    away = autoencoder.decode(autoencoder.encode(prompts)).double().flatten(1) - flat
    return 1 - away.square().sum(1) / (flat - autoencoder.mean.double()).square().sum(1)


def by_chance(dim: int, size: int) -> float:
    """Mean share of a prompt of `size` numbers in a plane of random directions: d / D."""
    return dim / size
