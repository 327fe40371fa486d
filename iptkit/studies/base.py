"""What a study is made of: its model, its tasks on both sides, and the keys that name its steps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iptkit.engine import layouts
from iptkit.engine.engine import Engine
from iptkit.engine.sites import find_sites
from iptkit.methods import prompt_tuning
from iptkit.models import backbone
from iptkit.models.devices import resolve_device
from iptkit.scores import evaluation
from iptkit.storage import digests
from iptkit.studies.scales import Scale
from iptkit.tasks import examples, fewshot, suites

MOST_RUNS = 128  # in one `fit`: with more, the texts' keys and values need too much memory


class StudyInputs:
    """The base of experiments.Study, which tells of its arguments."""

    def __init__(self, scale: Scale, device: str = "cpu", seed: int = 0, models: StudyInputs | None = None):
        self.scale, self.device, self.seed, self._models = scale, device, seed, models
        if models and models.same_model() != self.same_model():
            raise ValueError(
                f"models is a study with the model {models.same_model()}, this one has {self.same_model()} "
                "(backbone, number type, device, deep prompts and their length); leave it out"
            )
        self.layout_engines: dict[Any, Engine] = {}  # for other layouts than the study's
        self._tasks: dict[int, list[examples.Task]] = {}
        self._digests: dict[int, str] = {}
        sides = suites.sides(scale.suite, scale.seen, scale.unseen, scale.split)
        self.seen, self.unseen = sides.seen, sides.unseen
        self.ids = (*self.seen, *self.unseen)
        self.seeds = tuple(seed + s for s in scale.seeds)

    @functools.cached_property
    def backbone(self) -> backbone.Backbone:
        """The frozen model."""
        if self._models:
            return self._models.backbone
        return backbone.load(self.scale.backbone, self.device, self.scale.dtype)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that scores rows in it."""
        if self._models:
            return self._models.engine
        if not self.scale.deep:
            return Engine(self.backbone, context_bytes=int(self.scale.context_gib * 2**30))
        tokens = prompt_tuning.word_tokens(self.backbone, self.scale.prompt_length)
        layout = (layouts.PROMPT, layouts.TEXT, self.backbone.tokenizer.decode(tokens))
        return Engine(self.backbone, layout, sites=find_sites(self.backbone.model))

    @functools.cached_property
    def whole(self) -> StudyInputs:
        """The study of the whole suite, whose zero-shot scores and prompts all its splits share.

        Where the scale itself names the tasks of both sides it is this study.
        """
        if self.scale.seen:
            return self
        of_suite = tuple(card.id for card in suites.list_cards(self.scale.suite))
        return type(self)(replace(self.scale, seen=of_suite), self.device, self.seed, self)

    def tasks(self, seed: int) -> list[examples.Task]:
        """Seen then unseen tasks with the few-shot sets of `seed`."""
        if seed not in self._tasks:
            self._tasks[seed] = self._load_tasks(seed)
        return self._tasks[seed]

    def _load_tasks(self, seed: int) -> list[examples.Task]:
        if self.whole is not self:
            by_id = {task.id: task for task in self.whole.tasks(seed)}
            return [by_id[name] for name in self.ids]
        limit = self.scale.test_examples
        return suites.load_suite(self.scale.suite, seed=seed, only=self.ids, max_test=limit)

    def task(self, task_id: str, seed: int) -> examples.Task:
        """One of them."""
        return next(t for t in self.tasks(seed) if t.id == task_id)

    def seen_tasks(self, seed: int) -> list[examples.Task]:
        """Seen tasks with the few-shot sets of `seed`."""
        return self.tasks(seed)[: len(self.seen)]

    def unseen_tasks(self, seed: int) -> list[examples.Task]:
        """Unseen tasks with the few-shot sets of `seed`."""
        return self.tasks(seed)[len(self.seen) :]

    def fresh_tasks(self, seed: int) -> list[examples.Task]:
        """Tasks for IST: seen ones without what the bank's prompts were trained and selected on."""
        dev, count = self.scale.prompt.dev_examples, len(self.seen)
        mine, first = self.tasks(seed), self.tasks(self.seeds[0])
        seen = [fewshot.leave_out(t, known, dev) for t, known in zip(mine[:count], first, strict=False)]
        return [*seen, *mine[count:]]  # of the unseen ones the auto-encoder knows nothing

    # ---- what steps are made of --------------------------------------------------------------------
    def score(self, source: nn.Module, on: Sequence[examples.Task], label: str) -> list[float]:
        """Test scores of each row of `source` on its task, `label` on the progress bar."""
        return evaluation.evaluate(self.engine, source, on, limit=self.scale.test_examples, label=label)

    def key(self, *parts: Any, seeds: Sequence[int] | None = None) -> list[Any]:
        """All that determines a step: model, words, the examples themselves, sizes and `parts`.

        Args:
          parts: what is particular to the step.
          seeds: those whose few-shot sets it uses (default: all of the study).
        """
        scale, seeds = self.scale, self.seeds if seeds is None else seeds
        return [
            *self.model_key(),
            scale.name,  # in every row
            prompt_tuning.WORDS,
            *(["deep"] if scale.deep else []),
            [[seed, self._digest(seed)] for seed in seeds],
            len(self.seen),
            scale.prompt_length,
            scale.test_examples,
            self.seed,
            *parts,
        ]

    def key_of(self, read: Sequence[tuple[examples.Task, examples.Card]], *parts: Any) -> list[Any]:
        """All that determines a step on other tasks than the study's own: model, examples and `parts`."""
        return [*self.model_key(), self.scale.name, digest_of([task for task, _ in read]), *parts]

    def model_key(self) -> list[str]:
        """What determines the model's numbers."""
        name = self.scale.backbone
        return [
            backbone.identity(name, lambda: self.backbone),
            backbone.resolve_dtype(name, self.device, self.scale.dtype),
            *self.device_key(),
        ]

    def device_key(self) -> list[str]:
        """Kind of device, where it is no CPU: its sums end in other bits, and rows name it."""
        kind = resolve_device(self.device).type
        return [] if kind == "cpu" else [kind]

    def same_model(self) -> tuple[Any, ...]:
        """What two studies must agree on to share a model and its engine."""
        scale, device = self.scale, str(resolve_device(self.device))
        length = scale.prompt_length if scale.deep else 0
        return scale.backbone, scale.dtype, device, scale.deep, length

    def _digest(self, seed: int) -> str:
        if seed not in self._digests:
            self._digests[seed] = digest_of(self.tasks(seed))
        return self._digests[seed]

    def groups(self) -> list[tuple[int, ...]]:
        """Seeds that are trained together: as many as make MOST_RUNS runs, but at least one."""
        count = self.seeds_together()
        return [self.seeds[i : i + count] for i in range(0, len(self.seeds), count)]

    def seeds_together(self) -> int:
        """How many seeds train in one `fit`, at least one."""
        return max(1, MOST_RUNS // len(self.whole.ids))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def digest_of(some: Sequence[examples.Task]) -> str:
    """Names all that is read of tasks: every example, metrics and labels."""
    names = ("id", "category", "group", "metric", "labels", "train", "train_new", "dev", "test")
    return digests.digest([[getattr(task, name) for name in names] for task in some])
