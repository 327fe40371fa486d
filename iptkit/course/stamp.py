"""The last cell of a notebook: versions, commit, device, data type, threads, seed and time of its results."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import iptkit
from iptkit.storage import versions

if TYPE_CHECKING:
    from iptkit.models.backbone import Backbone


def stamp(backbone: Backbone | None = None, seed: int | None = None) -> None:
    """Print a small table of what this notebook ran with.

    Args:
      backbone: the notebook's model; its name, device and dtype are printed.
      seed: the notebook's seed.
    """
    table = [*versions.rows(), *_of_backbone(backbone), *([] if seed is None else [("seed", str(seed))])]
    table += [*_of_steps(), ("wall time", f"{time.time() - iptkit.STARTED:.0f} s since iptkit was imported")]
    print("\n".join(f"{name:<14}{value}" for name, value in table))


def _of_backbone(backbone: Backbone | None) -> list[tuple[str, str]]:
    if backbone is None:
        return []
    facts = (getattr(backbone, name, None) for name in ("name", "device", "dtype"))
    known = [str(value).removeprefix("torch.") for value in facts if value is not None]
    return [("model", ", ".join(known) or type(backbone).__name__)]


def _of_steps() -> list[tuple[str, str]]:
    """How many steps of this notebook came from the step cache."""
    step_cache = sys.modules.get("iptkit.storage.step_cache")
    if step_cache is None or not step_cache.HITS:
        return []
    loaded = sum(step_cache.HITS.values())
    return [("steps", f"{loaded} from the step cache, {len(step_cache.HITS) - loaded} computed")]
