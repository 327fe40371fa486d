"""What a study starts from: its model, its seen and unseen tasks, and the keys of its steps."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import torch

from iptkit.engine import layouts
from iptkit.engine.engine import Engine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import PromptSource
from iptkit.engine.sites import find_sites
from iptkit.methods import prompt_tuning
from iptkit.models import backbone
from iptkit.models.devices import resolve_device
from iptkit.scores import evaluation
from iptkit.storage import digests
from iptkit.studies.scales import Scale
from iptkit.tasks import examples, fewshot, suites

MOST_RUNS = 128  # in one `fit`; with more, the keys and values of the texts take too much memory


class StudyInputs:
    """The base of `study.Study`, which describes the arguments.

    Attributes:
      seen, unseen: ids of the tasks of either side; `ids` has both, seen ones first. A study with folds has
        all tasks on the seen side, and its `study.Study.parts` have sides of their own.
      judged: ids of the tasks that methods in a subspace are scored on: seen ones (see `tasks.Split.scored`),
        then all unseen ones.
      seeds: of the few-shot samples, counted from `seed`.
      layout_engines: engines for layouts other than the study's own.
    """

    def __init__(self, scale: Scale, device: str = "cpu", seed: int = 0, models: StudyInputs | None = None):
        self.scale, self.device, self.seed, self._models = scale, device, seed, models
        if models and models.model_settings() != self.model_settings():
            raise ValueError(
                f"`models` is a study with the model {models.model_settings()} (backbone, dtype, device, "
                f"layout, deep prompts and their length), but this one needs {self.model_settings()}; leave "
                "it out"
            )
        self.layout_engines: dict[Any, Engine] = {}
        self._tasks: dict[int, list[examples.Task]] = {}
        self._digests: dict[int, str] = {}
        if scale.folds:
            sides = suites.Split(tuple(card.id for card in suites.list_cards(scale.suite)), ())
        else:
            sides = suites.sides(scale.suite, scale.seen, scale.unseen, scale.split)
        self.seen, self.unseen = sides.seen, sides.unseen
        self.ids = (*self.seen, *self.unseen)
        self.judged = (*(sides.scored or self.seen), *self.unseen)
        self.seeds = tuple(seed + s for s in scale.seeds)

    @functools.cached_property
    def backbone(self) -> backbone.Backbone:
        """The frozen model."""
        if self._models:
            return self._models.backbone
        return backbone.load(self.scale.backbone, self.device, self.scale.dtype)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that scores rows in the frozen model."""
        if self._models:
            return self._models.engine
        if not self.scale.deep:
            return Engine(self.backbone, self.scale.layout, context_bytes=int(self.scale.context_gib * 2**30))
        tokens = prompt_tuning.word_tokens(self.backbone, self.scale.prompt_length)
        layout = (layouts.PROMPT, layouts.TEXT, self.backbone.tokenizer.decode(tokens))
        return Engine(self.backbone, layout, sites=find_sites(self.backbone.model))

    @functools.cached_property
    def whole(self) -> Self:
        """The study of the whole suite, whose zero-shot scores and prompts all splits share.

        If the scale itself names the tasks of both sides, or has folds, this is the study itself.
        """
        if self.scale.seen or self.scale.folds:
            return self
        if self.scale.fold and isinstance(self._models, type(self)):
            return self._models
        of_suite = tuple(card.id for card in suites.list_cards(self.scale.suite))
        return type(self)(replace(self.scale, seen=of_suite), self.device, self.seed, self)

    def tasks(self, seed: int) -> list[examples.Task]:
        """All tasks with the few-shot sets of `seed`, seen ones first."""
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
        """The task `task_id` with the few-shot sets of `seed`."""
        return next(t for t in self.tasks(seed) if t.id == task_id)

    def judged_tasks(self, seed: int, only: str = "") -> list[examples.Task]:
        """The tasks that are scored in a subspace, seen ones first; `only`: those of one side."""
        by_id = {task.id: task for task in self.tasks(seed)}
        sides = {"seen": self.seen, "unseen": self.unseen, "": self.ids}
        return [by_id[name] for name in self.judged if name in sides[only]]

    def side(self, task_id: str) -> str:
        """The side of a task, "seen" or "unseen"; "both" in a study with folds, which take turns."""
        if self.scale.folds:
            return "both"
        return "seen" if task_id in self.seen else "unseen"

    def seen_tasks(self, seed: int) -> list[examples.Task]:
        """The seen tasks with the few-shot sets of `seed`."""
        return self.tasks(seed)[: len(self.seen)]

    def unseen_tasks(self, seed: int) -> list[examples.Task]:
        """The unseen tasks with the few-shot sets of `seed`."""
        return self.tasks(seed)[len(self.seen) :]

    def fresh_tasks(self, seed: int) -> list[examples.Task]:
        """The tasks that are scored in a subspace, for IST on new data, seen ones first.

        Seen tasks leave out the examples that their trained prompts were trained on and selected by.
        """
        dev, first = self.scale.prompt.dev_examples, self.judged_tasks(self.seeds[0], "seen")
        seen = [
            fewshot.leave_out(t, known, dev)
            for t, known in zip(self.judged_tasks(seed, "seen"), first, strict=True)
        ]
        unseen = self.judged_tasks(seed, "unseen")  # the auto-encoder has seen nothing of them
        return [*seen, *(fewshot.leave_out(t, t) for t in unseen)]

    # ---- what steps are made of --------------------------------------------------------------------
    def outcomes(
        self,
        source: PromptSource,
        on: Sequence[examples.Task],
        label: str,
        engine: PromptEngine | None = None,
    ) -> list[evaluation.Outcome]:
        """Test score and log-likelihood of each row of a prompt source on its task.

        Args:
          source: has one row for each task.
          on: the tasks.
          label: shown on the progress bar.
          engine: another one than the study's.
        """
        limit = self.scale.test_examples
        return evaluation.outcomes(engine or self.engine, source, on, limit=limit, label=label)

    def key(self, *parts: Any, seeds: Sequence[int] | None = None) -> list[Any]:
        """All that determines a step: model, words, the examples themselves, sizes and `parts`.

        Args:
          parts: what only this step depends on.
          seeds: those whose few-shot sets the step uses (default: all of the study).
        """
        scale, seeds = self.scale, self.seeds if seeds is None else seeds
        return [
            *self.model_key(),
            scale.name,  # in every row
            prompt_tuning.WORDS,
            *(["deep"] if scale.deep else []),
            *([scale.fold] if scale.fold else []),
            [[seed, self._digest(seed)] for seed in seeds],
            len(self.seen),
            len(self.judged),
            scale.prompt_length,
            scale.test_examples,
            self.seed,
            *parts,
        ]

    def key_of(self, read: Sequence[tuple[examples.Task, examples.Card]], *parts: Any) -> list[Any]:
        """All that determines a step on tasks that are not the study's: model, examples and `parts`."""
        return [*self.model_key(), self.scale.name, digest_of([task for task, _ in read]), *parts]

    def model_key(self) -> list[str]:
        """All that determines what the model computes."""
        name = self.scale.backbone
        return [
            backbone.identity(name, lambda: self.backbone),
            backbone.resolve_dtype(name, self.device, self.scale.dtype),
            *([] if self.scale.layout == layouts.LAYOUTS[0] else [self.scale.layout]),
            *self.device_key(),
        ]

    def device_key(self) -> list[str]:
        """The kind of device unless it is a CPU: it rounds differently, and rows name it."""
        kind = resolve_device(self.device).type
        return [] if kind == "cpu" else [kind]

    def model_settings(self) -> tuple[Any, ...]:
        """The settings that two studies must agree on to share a model and its engine."""
        scale, device = self.scale, str(resolve_device(self.device))
        length = scale.prompt_length if scale.deep else 0
        return scale.backbone, scale.dtype, device, scale.layout, scale.deep, length

    def _digest(self, seed: int) -> str:
        if seed not in self._digests:
            self._digests[seed] = digest_of(self.tasks(seed))
        return self._digests[seed]

    def groups(self) -> list[tuple[int, ...]]:
        """The seeds in groups that train together, each of at most MOST_RUNS runs or of a single seed."""
        count = self.seeds_together()
        return [self.seeds[i : i + count] for i in range(0, len(self.seeds), count)]

    def seeds_together(self) -> int:
        """How many seeds train in one `fit`; at least one."""
        return max(1, MOST_RUNS // len(self.whole.ids))

    def named(self, name: str) -> str:
        """The name of a step: with the fold, if the study is one of several folds."""
        return f"{name}-{self.scale.fold}" if self.scale.fold else name

    def generator(self) -> torch.Generator:
        """Draws the weights that a subspace starts from, and random subspaces; another one for each fold."""
        seed = (
            random.Random(f"{self.seed}/{self.scale.fold}").getrandbits(32) if self.scale.fold else self.seed
        )
        return torch.Generator().manual_seed(seed)


def digest_of(some: Sequence[examples.Task]) -> str:
    """A digest of all that is read of tasks: every example, metrics and labels."""
    names = ("id", "category", "group", "metric", "labels", "train", "train_new", "dev", "test")
    return digests.digest([[getattr(task, name) for name in names] for task in some])
