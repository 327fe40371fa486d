"""What a result was made with: versions, commit, device, numbers' type, threads, seed, time."""

from __future__ import annotations

import sys
import time

import iptkit
from iptkit.storage.versions import rows


def stamp(backbone=None, seed: int | None = None) -> None:
    """Print a small table of what this notebook ran with; the last cell of every notebook.

    Args:
      backbone: a loaded backbone, whose name, device and dtype are told.
      seed: the notebook's seed.
    """
    table = [*rows(), *_of_backbone(backbone), *([] if seed is None else [("seed", str(seed))])]
    table += [*_of_steps(), ("wall time", f"{time.time() - iptkit.STARTED:.0f} s since iptkit was imported")]
    print("\n".join(f"{name:<14}{value}" for name, value in table))


def _of_backbone(backbone) -> list[tuple[str, str]]:
    if backbone is None:
        return []
    facts = ((name, getattr(backbone, name, None)) for name in ("name", "device", "dtype"))
    told = [str(value).removeprefix("torch.") for _, value in facts if value is not None]
    return [("model", ", ".join(told) or type(backbone).__name__)]


def _of_steps() -> list[tuple[str, str]]:
    """Tell how many steps of this notebook came from the step cache."""
    store = sys.modules.get("iptkit.storage.step_cache")
    if store is None or not store.HITS:
        return []
    loaded = sum(store.HITS.values())
    return [("steps", f"{loaded} from the step cache, {len(store.HITS) - loaded} computed")]
