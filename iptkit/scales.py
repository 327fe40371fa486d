"""How large a run is: `smoke` (proves that everything runs), `lesson` (the course) or `full` (36 tasks).

The numbers live in data/scales.json; a notebook names a scale and everything else follows from it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any

from iptkit import paths
from iptkit.subspace import SubspaceConfig
from iptkit.train import FitConfig


@dataclass(frozen=True)
class Scale:
    """One size of the whole study.

    Attributes:
      backbone, suite: names for backbones.load and tasks.load_suite.
      seen, unseen: task ids; empty = the suite's random split.
      prompt_length: n >= 1.
      dims: intrinsic dimensions d_I.
      main_dim: the d_I that the controls are run at.
      seeds: few-shot samples of prompt tuning and IST.
      test_examples: first so many of each test set.
      prompt, msf, ist: training of prompts, auto-encoder, codes.
      subspace: shape of the auto-encoder (`dims` take the place of its d_I).
      grid: tasks of the start x learning-rate figure.
      beside: task on which LoRA and fine-tuning stand beside prompt tuning.
      fine_tuning_lr, lora_lr: their learning rates.
      context_gib: memory for the keys and values of texts (see engine.Engine), in GiB.
      dtype: for backbones.load.
    """

    name: str
    backbone: str
    suite: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    prompt_length: int
    seeds: tuple[int, ...]
    dims: tuple[int, ...]
    main_dim: int
    test_examples: int
    prompt: FitConfig
    msf: FitConfig
    ist: FitConfig
    subspace: SubspaceConfig
    grid: tuple[str, ...]
    beside: str
    fine_tuning_lr: float = 5e-5
    lora_lr: float = 1e-3
    context_gib: float = 2.5
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.prompt_length < 1 or self.test_examples < 1 or not self.seeds or not self.dims:
            raise ValueError(
                f"scale {self.name!r}: prompt_length and test_examples must be >= 1, seeds and dims not empty"
            )
        if self.main_dim not in self.dims:
            raise ValueError(
                f"scale {self.name!r}: main_dim {self.main_dim} is not among its dims {self.dims}"
            )


def load(name: str = "lesson", **changes: Any) -> Scale:
    """The scale `name`; the environment variable IPTKIT_SCALE, where set, takes the place of `name`.

    Args:
      changes: fields of Scale to replace, e.g. seeds=(0, 1).
    Raises:
      ValueError: unknown scale (lists the known ones).
    Example:
      >>> load("smoke").backbone
      'tiny-causal'
    """
    name = os.environ.get("IPTKIT_SCALE") or name
    known = json.loads((paths.data_dir() / "scales.json").read_text(encoding="utf-8"))
    if name not in known:
        raise ValueError(
            f"scale {name!r} is unknown; choose one of {', '.join(known)} (parameter `scale` or IPTKIT_SCALE)"
        )
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in known[name].items() if k != "about"}
    for key, kind in (
        ("prompt", FitConfig),
        ("msf", FitConfig),
        ("ist", FitConfig),
        ("subspace", SubspaceConfig),
    ):
        fields[key] = kind(**fields[key])
    return replace(Scale(name=name, **fields), **changes)
