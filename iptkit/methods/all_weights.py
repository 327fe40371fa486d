"""DID: all weights of a model move along d_I random directions (direct intrinsic dimension).

Aghajanyan et al. 2020, "Intrinsic Dimensionality Explains the Effectiveness of Language Model Fine-Tuning"
(arXiv 2012.13255), section 3; here with one Fastfood matrix M per tensor and no scale per layer:

    theta = theta_0 + M v          theta [D], M [D, d_I], v [d_I] trains
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.methods.baselines import Fastfood


class _Shifted(nn.Module):
    """A weight as theta_0 + M v, with v shared by all weights; for torch.nn.utils.parametrize.

    `project` is the product with M: a Fastfood, or M^T [d_I, D] itself.
    """

    rows: Tensor | None

    def __init__(self, v: nn.Parameter, project: Fastfood | Tensor):
        super().__init__()
        self._v: Callable[[], nn.Parameter] = lambda: v  # a closure, so that v is not registered here
        self.register_buffer("rows", project if isinstance(project, Tensor) else None)
        self.project = None if isinstance(project, Tensor) else project

    def forward(self, weight: Tensor) -> Tensor:
        v = self._v()
        if self.project is not None:
            moved = self.project(v)
        else:
            assert self.rows is not None
            moved = v @ self.rows
        return weight + moved.view(weight.shape).to(weight)


_MADE: dict[tuple[Any, ...], tuple[Tensor, ...]] = {}  # the latest result of `directions`


def directions(
    sizes: tuple[int, ...], intrinsic_dim: int, seed: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The Fastfood matrices of `shift_all_weights` in full, M^T [d_I, D] for each D of `sizes`.

    They take long to make, so the latest ones stay in memory for the next task until other ones are made or
    `forget_directions` is called: d_I times the model's size, 2.7 GB for 135 million weights and d_I = 5.
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
    """Free the memory of the latest `directions`."""
    _MADE.clear()


def shift_all_weights(
    model: nn.Module, intrinsic_dim: int, seed: int, is_dense: bool = False
) -> nn.Parameter:
    """The vector v of a model whose weights now are theta_0 + M v; v is all that trains.

    Weights that the model ties stay tied. theta_0 is frozen.

    Args:
      model: changed in place.
      intrinsic_dim: d_I.
      seed: draws the matrices.
      is_dense: store M in full (see `directions`). This takes d_I times the memory of the model in float32
        and is faster for a small d_I; the results are the same.
    Returns: v [d_I], zeros, registered with the model as `intrinsic`.
    """
    from torch.nn.utils import parametrize

    model.requires_grad_(False)
    first = next(model.parameters())
    dtype = torch.promote_types(first.dtype, torch.float32)  # at least float32, also for bfloat16 weights
    v = nn.Parameter(torch.zeros(intrinsic_dim, dtype=dtype, device=first.device))
    places = [(m, name, p) for m in model.modules() for name, p in m.named_parameters(recurse=False)]
    weights = list({id(p): p for _, _, p in places}.values())
    sizes, generator = tuple(p.numel() for p in weights), torch.Generator().manual_seed(seed)
    made: Sequence[Fastfood | Tensor] = (
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
    """Make the weights that `shift_all_weights` and training gave permanent, and remove the subspace."""
    from torch.nn.utils import parametrize

    places = [
        (module, name, parametrizations[name].get_parameter("original"))
        for module in model.modules()
        if isinstance(parametrizations := getattr(module, "parametrizations", None), nn.ModuleDict)
        for name in parametrizations
    ]
    moved = {id(weight): getattr(module, name).clone() for module, name, weight in places}
    for module, name, weight in places:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        weight.copy_(moved[id(weight)])  # a tied weight is at two places and was moved once
    del model.intrinsic
