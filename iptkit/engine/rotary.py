"""Rotary positions: keys of deep prompts, moved to other positions.

Rotary position embedding (Su et al. 2021, arXiv 2104.09864) turns each pair of entries of a key by an angle
proportional to its position, so a key that stands at one position can be turned to stand at another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iptkit.engine.exact import CLOSE, in_float32
from iptkit.engine.left_memory import observe
from iptkit.engine.sites import find_sites
from iptkit.models.backbone import Backbone

FIXED_ANGLES = ("default", "linear", "llama3", "yarn")  # rope types whose angles do not depend on the text


def turned(keys: Tensor, by: int, backbone: Backbone) -> Tensor:
    """The same keys [..., n, k], `by` positions further on.

    Entries that the model does not turn (partial_rotary_factor) stay. The angles are computed in float64.

    Args:
      keys: as they enter attention.
      by: number of positions, negative towards the beginning.
      backbone: a model of which `cannot_turn` says nothing.
    """
    frequencies = _frequencies(backbone)
    assert frequencies is not None, "no rotary positions; see cannot_turn"
    angle = (by * frequencies.double()).repeat(2).to(keys.device)
    moving, rest = keys.double().split([len(angle), keys.shape[-1] - len(angle)], -1)
    first, second = moving.chunk(2, -1)
    moved = moving * angle.cos() + torch.cat([-second, first], -1) * angle.sin()
    return torch.cat([moved, rest], -1).to(keys.dtype)


def cannot_turn(backbone: Backbone) -> str:
    """The reason why `turned` does not move keys of this model to other positions, "" if it does.

    The model itself is asked: it reads six tokens at two places, and the keys of all its layers are compared.
    """
    rope = getattr(backbone.model.config, "rope_parameters", None) or {}
    if _frequencies(backbone) is None:
        return "its positions are not rotary (GPT-2 and BERT add learned vectors), so keys cannot be moved"
    if rope.get("rope_type", "default") not in FIXED_ANGLES:
        return f"the angles of its rope_type {rope['rope_type']!r} depend on the length of the text"
    if not _turn_alike(backbone):
        return "some of its layers turn keys in another way than Llama's, or not at all"
    return ""


def _frequencies(backbone: Backbone) -> Tensor | None:
    """The angle per position of each pair of entries; None in a model without rotary positions."""
    return next((m.inv_freq for m in backbone.model.modules() if hasattr(m, "inv_freq")), None)


@torch.no_grad()
def _turn_alike(backbone: Backbone, by: int = 7) -> bool:
    """True if the model's own keys, `by` positions further on, are those that `turned` makes."""
    find_sites(backbone.model)  # from here on its keys can be observed
    ids = torch.arange(6, device=backbone.device)[None] % (len(backbone.embedding) - 4) + 4

    def keys_from(start: int) -> list[Tensor]:
        found: list[Tensor] = []
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)[None]
        with in_float32(backbone.model), observe(lambda module, query, key: found.append(key.double())):
            backbone.model(input_ids=ids, position_ids=positions, use_cache=False)
        return found

    pairs = zip(keys_from(0), keys_from(by), strict=True)
    return all((turned(a, by, backbone) - b).norm() <= CLOSE * b.norm() for a, b in pairs)
