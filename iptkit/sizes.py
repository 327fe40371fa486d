"""Sizes of the lessons on discrete prompts, P-tuning and P-Tuning v2; `scales.Scale` holds one of each."""

from __future__ import annotations

from dataclasses import dataclass

from iptkit.ptuning import ENCODERS
from iptkit.search import SearchConfig
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
class AdapterConfig:
    """Sizes of the adapter variant of Intrinsic Prompt Tuning (adapters.py).

    Attributes:
      rank: r of each adapter, >= 1 (the released code: 16).
      up: how small the up-projections are at the start, > 0 (see adapters.HyperAdapters).
      msf: training of the hyper-matrices and the shared z, on all seen tasks.
      ist: training of z, on unseen tasks.
    """

    msf: FitConfig
    ist: FitConfig
    rank: int = 16
    up: float = 0.1

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.up > 0:
            raise ValueError(f"AdapterConfig needs rank >= 1 and up > 0, got {self.rank} and {self.up}")


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
