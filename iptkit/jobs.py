"""A study as a list of jobs: which are done, and about how long the others will take.

The estimate counts the FLOPs of the linear layers (2 per weight and token forward, as many again backward to
the input; frozen weights get no gradient) for all tokens that a job trains, reads and scores, and divides by
what this machine's matrix products reach. Texts that one job leaves in memory for the next are counted again,
so it is rather too long than too short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from iptkit import store
from iptkit.examples import Example
from iptkit.tasks import Task
from iptkit.train import FitConfig

if TYPE_CHECKING:
    from iptkit.experiments import Study

SAMPLED = 16  # examples of a set whose lengths stand for all
OF_PEAK = 0.5  # of the speed of large matrix products, that a job as a whole reaches (benchmarks/README.md)


@dataclass(frozen=True)
class Job:
    """One step of a study.

    Attributes:
      name: of its folder in the step cache, before the hash.
      make: makes it, or finds it in the step cache.
      flops: what making it takes, about.
    """

    name: str
    make: Callable[[], store.Step]
    flops: float = 0.0

    @property
    def is_done(self) -> bool:
        """Is it in the step cache, as is all that it builds on?"""
        with store.only_finished():
            try:
                self.make()
            except store.NotFinishedError:
                return False
        return True

    def seconds(self, speed: float) -> float:
        """About how long it takes where large matrix products reach `speed` FLOP/s."""
        return self.flops / (OF_PEAK * speed)


class Costs:
    """FLOPs of the parts of jobs of a study."""

    def __init__(self, study: Study):
        self.scale, backbone = study.scale, study.backbone
        self.tokenizer, self.head = backbone.tokenizer, backbone.embedding.numel()
        linear = [p for p in backbone.model.base_model.parameters() if p.dim() == 2]
        self.layers = sum(p.numel() for p in linear) - self.head
        self.lengths: dict[tuple[str, int], tuple[float, float, float]] = {}

    def fit(self, on: Sequence[Task], config: FitConfig) -> float:
        """Of training a prompt on each task: reading its texts, the steps, the evaluations on dev."""
        total, n = 0.0, self.scale.prompt_length
        for task in on:
            text, answer, options = self._lengths(task)
            rows = config.steps * config.rows_per_run
            dev = min(config.dev_examples, len(task.dev))
            read = min(rows, len(task.train)) + dev
            total += 2 * self.layers * text * read
            total += 2 * rows * self._prompted(n, answer)
            total += config.evaluations * dev * self._prompted(n, options)
        return total

    def score(self, on: Sequence[Task], prompts: int = 1) -> float:
        """Of scoring the test examples of each task under so many prompts."""
        total = 0.0
        for task in on:
            text, _, options = self._lengths(task)
            count = min(self.scale.test_examples, len(task.test))
            total += count * 2 * self.layers * text
            total += count * prompts * self._prompted(self.scale.prompt_length, options)
        return total

    def _prompted(self, n: int, answer: float) -> float:
        """Forward over a prompt and the tokens to be scored after it."""
        return 2 * self.layers * (n + answer) + 2 * self.head * answer

    def _lengths(self, task: Task) -> tuple[float, float, float]:
        """Mean tokens of a text, of an answer, and of all options (of the answer where there are none)."""
        key = task.id, task.seed
        if key not in self.lengths:
            sample = task.train[:SAMPLED]
            text = self._mean([[e.input] for e in sample])
            answer = self._mean([e.targets[:1] for e in sample])
            self.lengths[key] = text, answer, self._mean([_said(e) for e in sample])
        return self.lengths[key]

    def _mean(self, texts: Sequence[Sequence[str]]) -> float:
        flat = self.tokenizer([t for group in texts for t in group], add_special_tokens=False).input_ids
        return mean(map(len, flat)) * sum(map(len, texts)) / len(texts)


def _said(example: Example) -> Sequence[str]:
    return example.options or example.targets[:1]
