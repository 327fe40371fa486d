"""What the jobs of a study cost: an estimate of their FLOPs.

It counts the linear layers (2 per weight and token forward, as many again backward to the input; frozen
weights get no gradient) for all tokens that a job trains on, reads and scores. Dividing by the speed of this
machine's matrix products gives seconds. Texts that one job leaves in memory for the next are counted again,
so the estimate is too long rather than too short.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from iptkit.methods import prompt_tuning
from iptkit.models.devices import bf16_gain
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Example, Task
from iptkit.training.runs import FitConfig

SAMPLED = 16  # examples of a set whose lengths stand for all
OF_PEAK = 0.5  # of the speed of large matrix products, that a job as a whole reaches (benchmarks/README.md)


class Costs:
    """FLOPs of the parts of jobs of a study."""

    def __init__(self, study: StudyInputs):
        self.scale, backbone = study.scale, study.backbone
        self.tokenizer, self.head = backbone.tokenizer, backbone.embedding.numel()
        linear = [p for p in backbone.model.base_model.parameters() if p.dim() == 2]
        self.layers = sum(p.numel() for p in linear) - self.head
        is_mixed = backbone.dtype == "mixed" and backbone.device.type == "cpu"
        self.slower = bf16_gain() if is_mixed else 1.0  # float32, see `weights`
        self.lengths: dict[tuple[str, int], tuple[float, float, float]] = {}

    def fit(self, on: Sequence[Task], config: FitConfig, runs: int = 1, is_whole: bool = False) -> float:
        """Of training so many prompts on each task: its texts, the steps, the evaluations on dev.

        Texts are read once. Not so beside deep prompts, which every token sees (or where `is_whole` says
        so): there each row runs whole, forward and in the steps backward.
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
        """Of fine-tuning all weights: 6 a weight and token, times what float32, which it takes, is slower."""
        text, answer, _ = self._lengths(task)
        words = len(self.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
        tokens = config.steps * config.rows_per_run * (text + words + answer)
        return 6 * (self.layers + self.head) * tokens * self.slower

    def score(self, on: Sequence[Task], prompts: int = 1) -> float:
        """Of scoring the test examples of each task under so many prompts."""
        total = 0.0
        for task in on:
            text, _, options = self._lengths(task)
            count = min(self.scale.test_examples, len(task.test))
            total += count * (prompts if self.scale.deep else 1) * 2 * self.layers * text
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
