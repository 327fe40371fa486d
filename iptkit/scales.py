"""How large a run is: `smoke` (all runs), `lesson` (the course), `full` (36 tasks) or `ipt120` (120 tasks).

The numbers live in data/scales.json; a notebook names a scale and everything else follows from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from iptkit import paths, tasks
from iptkit.ptuning import ENCODERS
from iptkit.search import SearchConfig
from iptkit.subspace import SubspaceConfig
from iptkit.train import FitConfig

DATA = ("few-shot", "full")  # what an encoder's methods train on: a few examples, or all


@dataclass(frozen=True)
class DiscreteConfig:
    """Sizes of lesson 01 (discrete prompts).

    Attributes:
      tasks: classifications that are asked in several wordings.
      test_examples: first so many of each test set, also of facts, >= 1.
      shots: solved examples before a question (in-context learning), >= 1.
      search_tasks: tasks for which prompt words are searched.
      search: how to search.
      relations: fact relations.
    """

    tasks: tuple[str, ...]
    search_tasks: tuple[str, ...]
    relations: tuple[str, ...]
    test_examples: int = 40
    shots: int = 4
    search: SearchConfig = SearchConfig()

    def __post_init__(self) -> None:
        if self.test_examples < 1 or self.shots < 1:
            given = f"{self.test_examples} and {self.shots}"
            raise ValueError(f"DiscreteConfig needs test_examples >= 1 and shots >= 1, got {given}")


@dataclass(frozen=True)
class PTuningConfig:
    """Sizes of lesson 03 (P-tuning).

    Attributes:
      tasks: classifications with wordings; relations: fact relations, asked by their bare subject.
      layout, relation_layout: pieces of a layouts.Layout.
      seeds: few-shot samples, >= 2 to see a spread.
      fit: how to train; `rates` take the place of its lr.
      rates, relation_rates: learning rate of each of ptuning.ENCODERS on tasks and on relations.
      test_examples: first so many of each test set, >= 1.
    """

    tasks: tuple[str, ...]
    relations: tuple[str, ...]
    layout: tuple[int | str, ...]
    relation_layout: tuple[int | str, ...]
    seeds: tuple[int, ...]
    fit: FitConfig
    rates: dict[str, float]
    relation_rates: dict[str, float]
    test_examples: int = 24

    def __post_init__(self) -> None:
        for rates in (self.rates, self.relation_rates):
            if set(rates) != set(ENCODERS):
                raise ValueError(f"PTuningConfig.rates names {list(rates)}; give one for each of {ENCODERS}")
        if len(self.seeds) < 2 or self.test_examples < 1:
            given = f"{self.seeds} and {self.test_examples}"
            raise ValueError(f"PTuningConfig needs at least 2 seeds and test_examples >= 1, got {given}")


@dataclass(frozen=True)
class HeadsConfig:
    """Sizes of the comparison of heads on the causal model (lesson 04).

    Attributes:
      tasks: classifications of the scale's suite.
      prompt_length: n >= 1.
      fit: how to train; `rates` (by head, see deep_studies.HEADS) take the place of its lr.
      test_examples: first so many of each test set, >= 1.
    """

    tasks: tuple[str, ...]
    prompt_length: int
    fit: FitConfig
    rates: dict[str, float]
    test_examples: int = 64

    def __post_init__(self) -> None:
        if self.prompt_length < 1 or self.test_examples < 1:
            given = f"{self.prompt_length} and {self.test_examples}"
            raise ValueError(f"HeadsConfig needs prompt_length >= 1 and test_examples >= 1, got {given}")


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of lesson 04 (P-Tuning v2).

    Attributes:
      backbone, suite: an encoder, and a suite of sentences to classify and words to tag.
      tasks: ids of the suite.
      shared: those of them that MPT-2 trains one prompt for.
      tuned: those of them that full fine-tuning is run on.
      ablated: those of them that depth, length and form are varied on.
      prompt_length, shallow_length: n of deep and of shallow prompts.
      depths: values of k, for prompts in the first and the last k layers.
      lengths: values of n for the figure.
      fits: how to train on each of some of DATA; ablations use the last.
      rates: by method (see deep_methods.METHODS), in place of the fits' lr.
      std: spread of a deep prompt's start.
      test_examples: first so many of each test set, >= 1.
      heads: the comparison of heads, or None.
    """

    backbone: str
    suite: str
    tasks: tuple[str, ...]
    shared: tuple[str, ...]
    tuned: tuple[str, ...]
    ablated: tuple[str, ...]
    prompt_length: int
    shallow_length: int
    depths: tuple[int, ...]
    lengths: tuple[int, ...]
    fits: dict[str, FitConfig]
    rates: dict[str, float]
    std: float = 0.5
    test_examples: int = 64
    heads: HeadsConfig | None = None

    def __post_init__(self) -> None:
        for name in ("shared", "tuned", "ablated"):
            unknown = set(getattr(self, name)) - set(self.tasks)
            if unknown:
                told = f"EncoderConfig.{name} names {', '.join(sorted(unknown))}"
                raise ValueError(f"{told}, not among its tasks {', '.join(self.tasks)}")
        if not self.fits or set(self.fits) - set(DATA):
            raise ValueError(
                f"EncoderConfig.fits is for {list(self.fits)}; give one for each of some of {DATA}"
            )
        if min(self.prompt_length, self.shallow_length, self.test_examples, *self.lengths, *self.depths) < 1:
            raise ValueError("EncoderConfig: depths, prompt lengths and test_examples must be at least 1")

    @property
    def data(self) -> str:
        """What ablations train on: the last of `fits`."""
        return list(self.fits)[-1]


@dataclass(frozen=True)
class Scale:
    """One size of the whole study.

    Attributes:
      backbone, suite: names for backbones.load and tasks.load_suite.
      seen, unseen: task ids; empty = those of `split`.
      split: a name for tasks.split.
      prompt_length: n >= 1.
      dims: intrinsic dimensions d_I.
      main_dim: the d_I that the controls are run at.
      seeds: few-shot samples of prompt tuning and IST.
      test_examples: first so many of each test set.
      prompt, msf, ist: training of prompts, auto-encoder, codes.
      subspace: shape of the auto-encoder (`dims` take the place of its d_I).
      grid: tasks of the start x learning-rate figure.
      beside: task on which LoRA and fine-tuning stand beside prompt tuning.
      discrete, ptuning, encoders: lessons 01, 03 and 04.
      fine_tuning_lr, lora_lr: their learning rates.
      context_gib: memory for the keys and values of texts (see engine.Engine), in GiB.
      dtype: for backbones.load.
      same_data: also IST on seen tasks with the data of their prompts (the paper's setting T_train^same).
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
    discrete: DiscreteConfig
    ptuning: PTuningConfig
    encoders: EncoderConfig
    fine_tuning_lr: float = 5e-5
    lora_lr: float = 1e-3
    context_gib: float = 2.5
    dtype: str = "auto"
    split: str = "random"
    same_data: bool = False

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
    known = _stored()
    if name not in known:
        raise ValueError(
            f"scale {name!r} is unknown; choose one of {', '.join(known)} (parameter `scale` or IPTKIT_SCALE)"
        )
    fields = {k: _built(k, v) for k, v in known[name].items() if k != "about"}
    return replace(Scale(name=name, **fields), **changes)


def of_suite(suite: str | None) -> str:
    """The scale that `iptkit study` takes: that with the name of the suite if there is one, else "full"."""
    return suite if suite in _stored() else "full"


def _stored() -> dict[str, dict[str, Any]]:
    """The scales of data/scales.json; one may be `like` another but for some fields or parts of them."""
    known = json.loads((paths.data_dir() / "scales.json").read_text(encoding="utf-8"))
    for fields in known.values():
        for key, value in known.get(fields.pop("like", None), {}).items():
            is_part = isinstance(value, dict) and key in fields
            fields[key] = {**value, **fields[key]} if is_part else fields.get(key, value)
    return known


def variant(
    name: str,
    suite: str | None = None,
    split: str | None = None,
    dims: Sequence[int] = (),
    num_seeds: int | None = None,
) -> Scale:
    """The scale `name` on other tasks, with other intrinsic dimensions or seeds; what is not given stays.

    Args:
      suite, split: names for tasks.load_suite and tasks.split; either replaces the scale's own tasks.
      dims: values of d_I; the controls are run at the scale's main one, or at the first if it is not there.
      num_seeds: >= 1; the seeds are 0, 1, ...
    Raises: ValueError for an unknown scale, suite or split, a d_I below 1, no seed.
    """
    scale = load(name)
    changes: dict[str, Any] = {}
    if suite or split:
        changes = {"suite": suite or scale.suite, "split": split or "random", "seen": (), "unseen": ()}
        tasks.split(changes["split"], changes["suite"])
    if dims:
        if min(dims) < 1 or len(set(dims)) < len(dims):
            raise ValueError(f"dims are {', '.join(map(str, dims))}; give numbers from 1 on, each once")
        changes |= {"dims": tuple(dims), "main_dim": scale.main_dim if scale.main_dim in dims else dims[0]}
    if num_seeds is not None:
        changes["seeds"] = tuple(range(num_seeds))
    return replace(scale, **changes)


def _built(key: str, value: Any) -> Any:
    """A JSON value as the dataclass or tuple that it stands for."""
    if isinstance(value, dict):
        fields = {k: _built(k, v) for k, v in value.items()}
        return fields if CONFIGS[key] is dict else CONFIGS[key](**fields)
    return tuple(value) if isinstance(value, list) else value


CONFIGS = {
    "prompt": FitConfig,
    "msf": FitConfig,
    "ist": FitConfig,
    "subspace": SubspaceConfig,
    "discrete": DiscreteConfig,
    "search": SearchConfig,
    "ptuning": PTuningConfig,
    "encoders": EncoderConfig,
    "heads": HeadsConfig,
    "fit": FitConfig,
    "fits": dict,
    **dict.fromkeys(DATA, FitConfig),
    "rates": dict,
    "relation_rates": dict,
}
