"""Estimated FLOPs of the jobs of a study.

Only the linear layers are counted, for all tokens that a job trains on, reads and scores: 2 FLOPs per weight
and token in the forward pass, and 2 in the backward pass to the input (frozen weights get no gradient).
Divided by the speed of this machine's matrix products, that gives seconds. Texts whose keys and values one
job leaves in memory for the next are counted twice, so the estimate tends to be too high.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from iptkit.methods import prompt_tuning
from iptkit.models.devices import bf16_gain
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Task
from iptkit.training.runs import FitConfig

SAMPLED = 16  # examples of a set whose mean lengths are taken for those of all
OF_PEAK = 0.5  # share of the speed of large matrix products that a whole job reaches (benchmarks/README.md)


class Costs:
    """Estimates FLOPs of training and scoring in one study.

    Args:
      study: whose model and sizes count; its model is loaded.
    """

    def __init__(self, study: StudyInputs):
        self.scale, backbone = study.scale, study.backbone
        self.tokenizer, self.head = backbone.tokenizer, backbone.embedding.numel()
        linear = [p for p in backbone.model.base_model.parameters() if p.dim() == 2]
        self.layers = sum(p.numel() for p in linear) - self.head
        is_mixed = backbone.dtype == "mixed" and backbone.device.type == "cpu"
        self.slower = bf16_gain() if is_mixed else 1.0  # what float32 is slower, see `weights`
        self.lengths: dict[tuple[str, int], tuple[float, float, float]] = {}

    def fit(self, on: Sequence[Task], config: FitConfig, runs: int = 1, is_whole: bool = False) -> float:
        """FLOPs of training `runs` prompts on each task: texts, training steps and evaluations on dev.

        Each text is read once. With deep prompts, which every token attends to, or with `is_whole`, every row
        runs as a whole instead, forward and, in training steps, backward.

        Args:
          on: the tasks.
          config: how to train.
          runs: prompts per task.
          is_whole: nothing is cached, as with adapters.
        """
        total, n = 0.0, self.scale.prompt_length
        for task in on:
            text, answer, options = self._lengths(task)
            rows = config.steps * config.rows_per_run
            dev = min(config.dev_examples, len(task.dev))
            read = min(rows, len(task.train)) + dev
            whole = runs * (2 * rows + config.evaluations * dev)
            total += 2 * self.layers * text * (whole if self.scale.deep or is_whole else read)
            total += runs * 2 * rows * self._prompted(n, answer)
            total += runs * config.evaluations * dev * self._prompted(n, options)
        return total

    def weights(self, task: Task, config: FitConfig) -> float:
        """FLOPs of fine-tuning all weights: 6 per weight and token, times the slow-down by float32."""
        text, answer, _ = self._lengths(task)
        words = len(self.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
        tokens = config.steps * config.rows_per_run * (text + words + answer)
        return 6 * (self.layers + self.head) * tokens * self.slower

    def score(self, on: Sequence[Task], prompts: int = 1) -> float:
        """FLOPs of scoring the test examples of each task under `prompts` prompts."""
        total = 0.0
        for task in on:
            text, _, options = self._lengths(task)
            count = min(self.scale.test_examples, len(task.test))
            total += count * (prompts if self.scale.deep else 1) * 2 * self.layers * text
            total += count * prompts * self._prompted(self.scale.prompt_length, options)
        return total

    def _prompted(self, n: int, answer: float) -> float:
        """FLOPs of a forward pass over a prompt and the tokens that are scored after it."""
        return 2 * self.layers * (n + answer) + 2 * self.head * answer

    def _lengths(self, task: Task) -> tuple[float, float, float]:
        """Mean tokens of a text, of an answer, and of all options (or the answer, if there are none)."""
        key = task.id, task.seed
        if key not in self.lengths:
            sample = task.train[:SAMPLED]
            text = self._mean([[e.input] for e in sample])
            answer = self._mean([e.targets[:1] for e in sample])
            self.lengths[key] = text, answer, self._mean([e.options or e.targets[:1] for e in sample])
        return self.lengths[key]

    def _mean(self, texts: Sequence[Sequence[str]]) -> float:
        flat = self.tokenizer([t for group in texts for t in group], add_special_tokens=False).input_ids
        return mean(map(len, flat)) * sum(map(len, texts)) / len(texts)
