"""All weights of a model, moved along a few random directions (DID)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.methods.baselines import Fastfood


# ---- all weights of a model ----------------------------------------------------------------------
class _Shifted(nn.Module):
    """A weight as theta_0 + M v, v shared by all weights; for torch.nn.utils.parametrize.

    `project` makes M v: a Fastfood, or M^T [d_I, D] itself.
    """

    def __init__(self, v: nn.Parameter, project: Fastfood | Tensor):
        super().__init__()
        self._v: Callable[[], nn.Parameter] = lambda: v  # not a parameter of its own
        if isinstance(project, Tensor):
            self.register_buffer("rows", project)
        else:
            self.project = project

    def forward(self, weight: Tensor) -> Tensor:
        moved = self._v() @ self.rows if hasattr(self, "rows") else self.project(self._v())
        return weight + moved.view(weight.shape).to(weight)


_MADE: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}  # of `directions`: those made last


def directions(
    sizes: tuple[int, ...], intrinsic_dim: int, seed: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The Fastfood matrices of `shift_all_weights` written out, M^T [d_I, D] for each D of sizes.

    Making them takes long, so those made last are kept for the next task, until others are made or
    `forget_directions`: d_I times the model's size, 2.7 GB for 135 million numbers and d_I = 5.
    """
    key = sizes, intrinsic_dim, seed, dtype
    if key not in _MADE:
        forget_directions()
        generator = torch.Generator().manual_seed(seed)
        basis = torch.eye(intrinsic_dim, dtype=dtype)
        _MADE[key] = tuple(
            torch.stack([project(one) for one in basis])
            for project in (Fastfood(intrinsic_dim, size, generator) for size in sizes)
        )
    return _MADE[key]


def forget_directions() -> None:
    """Give the memory of `directions` back."""
    _MADE.clear()


def shift_all_weights(
    model: nn.Module, intrinsic_dim: int, seed: int, is_dense: bool = False
) -> nn.Parameter:
    """Move all weights of a model inside a random subspace of d_I dimensions: theta = theta_0 + M v.

    This is the paper's DID (direct intrinsic dimension, Aghajanyan et al. 2020), one Fastfood matrix per
    tensor, no scale per layer. Weights that the model ties stay tied. theta_0 is frozen.

    Args:
      seed: draws the matrices.
      is_dense: write M out (see `directions`), which takes d_I times the memory of the model in float32 and
        is faster for a small d_I; the numbers are the same.
    Returns: v [d_I], zeros, registered with the model as `intrinsic`; it is all that trains.
    """
    from torch.nn.utils import parametrize

    model.requires_grad_(False)
    first = next(model.parameters())
    dtype = torch.promote_types(first.dtype, torch.float32)  # v is finer than bfloat16 weights
    v = nn.Parameter(torch.zeros(intrinsic_dim, dtype=dtype, device=first.device))
    places = [(m, name, p) for m in model.modules() for name, p in m.named_parameters(recurse=False)]
    weights = list({id(p): p for _, _, p in places}.values())
    sizes, generator = tuple(p.numel() for p in weights), torch.Generator().manual_seed(seed)
    made = (
        directions(sizes, intrinsic_dim, seed, dtype)
        if is_dense
        else [Fastfood(intrinsic_dim, size, generator) for size in sizes]
    )
    shifts = {id(p): _Shifted(v, m).to(p.device) for p, m in zip(weights, made, strict=True)}
    for module, name, parameter in places:
        parametrize.register_parametrization(module, name, shifts[id(parameter)])
    model.register_parameter("intrinsic", v)
    return v


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Put the weights where `shift_all_weights` and training have moved them, and take the subspace away."""
    from torch.nn.utils import parametrize

    places = [
        (module, name, module.parametrizations[name].original)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for name in module.parametrizations
    ]
    moved = {id(weight): getattr(module, name).clone() for module, name, weight in places}
    for module, name, weight in places:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        weight.copy_(moved[id(weight)])  # a tied weight stands at two places and moves once
    del model.intrinsic
