"""The methods of lesson 04 on an encoder, each a step with values["rows"].

They are a linear probe, prompt tuning, P-Tuning v2, MPT-2, fine-tuning and, without a model, the commonest
answer. `lesson04` says which figure is made from which of them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.prompt import PromptSource
from iptkit.engine.sites import choose, find_sites
from iptkit.methods import fine_tuning, p_tuning_v2, prompt_tuning
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models import backbone
from iptkit.scores import evaluation, metrics
from iptkit.scores.evaluation import Outcome
from iptkit.storage import progress, step_cache
from iptkit.studies import score_rows
from iptkit.studies.base import digest_of
from iptkit.studies.score_rows import Row
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, TaggedExample, Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

METHODS = ("linear probe", "prompt tuning", "P-Tuning v2", "MPT-2", "fine-tuning")
COMMONEST = "commonest answer"
MEASURES = ("score", "log_likelihood")  # of each row that a method has; the second is None without a model


def trained(
    study: StudySteps, method: str, only: Sequence[str] = (), data: str = "", **changes: Any
) -> step_cache.Step:
    """One method on its tasks and all seeds, all runs in one fit.

    Args:
      study: of a scale with `encoders`.
      method: one of the first three of METHODS.
      only: ids of the tasks, () for all.
      data: what to train on, one of `scales.DATA`; "" for the last one of the scale.
      changes: arguments of the deep prompt that differ: layers, prompt_length, form, dropout.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, form = _tasks(study, only or config.tasks, data), changes.get("form", p_tuning_v2.FORMS[0])
    rate = config.rates[f"{method}, {form}" if form != p_tuning_v2.FORMS[0] else method]

    def make(checkpoint: Path) -> Made:
        lab = lab_of(study)
        source = lab.source(method, read, **changes)
        label = f"{method}, {len(read)} runs"
        lab.train(source, read, rate, config.fits[data], label, checkpoint)
        found = lab.test(source, read, label)
        return {}, {"rows": lab.rows(read, found, method, source, data)}

    parts = [method, sorted(changes.items()), rate, config.fits[data]]
    parts += [p_tuning_v2.MLP_STD, p_tuning_v2.MLP_INNER] if form == "mlp" else []
    name = f"encoder-{method.replace(' ', '-')}"
    return step_cache.step(name, _key(study, read, *parts, *_sizes(study)), make)


def train(
    study: StudySteps,
    method: str,
    seed: int,
    rates: Sequence[float],
    config: FitConfig,
    form: str = p_tuning_v2.FORMS[0],
) -> tuple[list[Run], Fit]:
    """One method on all tasks of a seed at every learning rate, in one fit, to compare the rates on dev.

    Args:
      study: of a scale with `encoders`.
      method: one of the first three of METHODS.
      seed: of the few-shot samples.
      rates: learning rates.
      config: how to train.
      form: of a deep prompt, one of `p_tuning_v2.FORMS`.
    Returns: the runs, rates x tasks, and their fit.
    """
    lab, encoders = lab_of(study), study.scale.encoders
    read = [task for task in _tasks(study, encoders.tasks, encoders.data) if task.seed == seed]
    runs = [Run(task, seed, lr=lr) for lr in rates for task in read]
    changes = {} if form == p_tuning_v2.FORMS[0] else {"form": form}
    source = lab.source(method, [run.task for run in runs], **changes)
    label = f"{method}, {len(runs)} runs"
    return runs, fit(lab.engine(source), source, runs, config, label=label)


def fine_tuning_scores(study: StudySteps, seed: int, lr: float) -> list[float]:
    """Dev scores of full fine-tuning on the tasks of a seed, to compare learning rates."""
    config, lab = study.scale.encoders, lab_of(study)
    plan = config.fits[config.data]
    read = [task for task in _tasks(study, config.tuned, config.data) if task.seed == seed]
    steps, batch, limit = plan.steps, plan.rows_per_run, len(read[0].dev)
    return [
        fine_tuning.fine_tune_encoder(lab.backbone, t, steps, batch, lr, seed, limit, "dev").score
        for t in read
    ]


def multi_task(study: StudySteps, data: str = "") -> step_cache.Step:
    """MPT-2: for each seed one deep prompt for several data sets, then each data set alone from there.

    Both stages together take as many steps as the other methods.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, rate, whole = _tasks(study, config.shared, data), config.rates["MPT-2"], config.fits[data]
    half = replace(whole, steps=whole.steps // 2)
    rest = replace(whole, steps=whole.steps - half.steps)

    def make(_: Path) -> Made:
        lab, starts, heads = lab_of(study), [], []
        for seed in dict.fromkeys(task.seed for task in read):
            mine = [task for task in read if task.seed == seed]
            prompt = lab.deep_prompt(1)
            shared = SharedPrompt(prompt, len(mine), lab.width, classes(mine), lab.generator())
            lab.train(shared, mine, rate, half, f"MPT-2, seed {seed}")
            starts.append(prompt.P.detach().expand(len(mine), -1, -1))
            heads.append(shared.inner.head.detach())
        prompt = lab.deep_prompt(len(read))
        source = lab.with_head(read, prompt)
        with torch.no_grad():
            prompt.P.copy_(torch.cat(starts))
            source.head[:, : heads[0].shape[1]].copy_(torch.cat(heads))
        drawn = half.steps * half.rows_per_run  # examples of the first stage; the second continues after them
        lab.train(source, read, rate, rest, "MPT-2, each data set", skip=drawn)
        found = lab.test(source, read, "MPT-2")
        return {}, {"rows": lab.rows(read, found, "MPT-2", source, data)}

    return step_cache.step("encoder-MPT-2", _key(study, read, rate, half, rest, *_sizes(study)), make)


def fine_tuned(study: StudySteps, data: str = "") -> step_cache.Step:
    """Full fine-tuning with transformers' Trainer, one run after the other."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, lr = _tasks(study, config.tuned, data), config.rates["fine-tuning"]
    steps, batch = config.fits[data].steps, config.fits[data].rows_per_run

    def make(_: Path) -> Made:
        lab, rows = lab_of(study), []
        with progress.track("fine-tuning", total=len(read), unit="run") as bar:
            for task in read:
                made = fine_tuning.fine_tune_encoder(
                    lab.backbone, task, steps, batch, lr, task.seed, config.test_examples
                )
                row = lab.row(task, made.score, "fine-tuning", made.num_parameters, data)
                rows.append(row | {"log_likelihood": made.log_likelihood})
                bar.update(1, note=task.id)
        return {}, {"rows": rows}

    return step_cache.step("encoder-fine-tuning", _key(study, read, lr, steps, batch), make)


def commonest(study: StudySteps, data: str = "") -> step_cache.Step:
    """The commonest class or tag of the training examples as the answer to everything, without a model."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, limit = _tasks(study, config.tasks, data), config.test_examples

    def make(_: Path) -> Made:
        lab, rows = lab_of(study), []
        for task in read:
            counts = Counter(label for example in task.train for label in answers_of(example))
            ((answer, _count),) = counts.most_common(1)
            said = [" ".join([answer] * len(answers_of(example))) for example in task.test[:limit]]
            score = metrics.METRICS[task.metric](said, task.test[:limit], task)
            rows.append(lab.row(task, score, COMMONEST, 0, data) | {"log_likelihood": None})
        return {}, {"rows": rows}

    return step_cache.step("encoder-commonest", _key(study, read), make)


# ---- parts ---------------------------------------------------------------------------------------
class Sizes(Protocol):
    """Sizes of the prompts in a `Lab`: those of `scales.EncoderConfig`."""

    @property
    def prompt_length(self) -> int:
        """Return n of deep prompts."""

    @property
    def shallow_length(self) -> int:
        """Return n of shallow prompts."""

    @property
    def std(self) -> float:
        """Return the standard deviation of a deep prompt at the start."""

    @property
    def test_examples(self) -> int:
        """Return the number of test examples per task."""


class Lab:
    """A frozen model in which prompts with heads are made, trained and tested.

    Args:
      config: sizes of the prompts.
      seed: of their start.
      backbone: the model.
    Attributes:
      sites: the attentions of the model that deep prompts can go to.
      width: d of the model.
      size: its number of parameters.
    """

    def __init__(self, config: Sizes, seed: int, backbone: backbone.Backbone):
        self.config, self.seed, self.backbone = config, seed, backbone
        self.sites = find_sites(self.backbone.model)
        self.width = self.backbone.width
        self.size = sum(p.numel() for p in self.backbone.model.parameters())
        self._engines: dict[tuple[int, ...], HeadEngine] = {}

    def generator(self) -> torch.Generator:
        """A generator with the study's seed."""
        return torch.Generator().manual_seed(self.seed)

    def deep_prompt(
        self, runs: int, layers: Sequence[int] | None = None, prompt_length: int = 0, **options: Any
    ) -> DeepPrompt:
        """A deep prompt with the sizes of the scale.

        Args:
          runs: rows.
          layers: numbers of the layers that it goes to (default: all).
          prompt_length: n, 0 for that of the scale.
          options: other arguments of DeepPrompt.
        """
        sites = choose(self.sites, layers)
        n = prompt_length or self.config.prompt_length
        std = self.config.std if options.get("form") != "mlp" else p_tuning_v2.MLP_STD
        return DeepPrompt(runs, sites, n, self.generator(), std=std, width=self.width, **options)

    def source(self, method: str, read: Sequence[Task], **changes: Any) -> WithHead:
        """The prompt source of a method, with a row for each task.

        Args:
          method: one of the first three of METHODS.
          read: the tasks.
          changes: arguments of `deep_prompt`, for P-Tuning v2.
        """
        if method == "P-Tuning v2":
            return self.with_head(read, self.deep_prompt(len(read), **changes))
        if method == "prompt tuning":
            words = prompt_tuning.from_words(self.backbone, self.config.shallow_length)
            return self.with_head(read, SoftPrompt(words.expand(len(read), -1, -1)))
        return self.with_head(read)

    def with_head(self, read: Sequence[Task], prompt: PromptSource | None = None) -> WithHead:
        """A prompt source with a row for each task, and a head on top of it."""
        source = WithHead(len(read), self.width, classes(read), self.generator(), prompt)
        return source.to(self.backbone.device)

    def engine(self, source: PromptSource) -> HeadEngine:
        """The engine for a source, with the sites of its deep prompts; it keeps the rows that it made."""
        deep = [part for part in source.modules() if isinstance(part, DeepPrompt)]
        sites = deep[0].sites if deep else []
        layers = tuple(site.layer for site in sites)
        if layers not in self._engines:
            self._engines[layers] = HeadEngine(self.backbone, sites)
        return self._engines[layers]

    def train(
        self,
        source: PromptSource,
        read: Sequence[Task],
        rate: float,
        config: FitConfig,
        label: str,
        checkpoint: str | Path | None = None,
        skip: int = 0,
    ) -> Fit:
        """Train a source on its tasks.

        Args:
          source: has a row (or a head) for each task.
          read: the tasks.
          rate: learning rate, instead of that of `config`.
          config: how to train.
          label: shown on the progress bar.
          checkpoint: see `trainer.fit`.
          skip: examples to leave out at the start, see `training.runs.Run`.
        """
        runs = [Run(task, task.seed, lr=rate, skip=skip) for task in read]
        source.to(self.backbone.device)
        return fit(self.engine(source), source, runs, replace(config, lr=rate), checkpoint, label)

    def test(self, source: PromptSource, read: Sequence[Task], label: str) -> list[Outcome]:
        """Test scores and log-likelihoods of a source on its tasks."""
        engine, limit = self.engine(source), self.config.test_examples
        return evaluation.outcomes(engine, source, read, limit=limit, label=f"test of {label}")

    def rows(
        self, read: Sequence[Task], found: Sequence[Outcome], method: str, source: WithHead, data: str
    ) -> list[Row]:
        """Result rows of a source, with "log_likelihood"; the other arguments are those of `row`."""
        prompt = 0 if source.prompt is None else sum(p[0].numel() for p in source.prompt.parameters())
        return [
            self.row(task, one.score, method, prompt + len(task.labels) * (self.width + 1), data)
            | {"log_likelihood": one.log_likelihood}
            for task, one in zip(read, found, strict=True)
        ]

    def row(self, task: Task, score: float, method: str, numbers: int, data: str) -> Row:
        """One result row.

        Args:
          task: what was scored.
          score: of the task.
          method: one of METHODS, or COMMONEST.
          numbers: trained parameters.
          data: one of `scales.DATA`.
        """
        return score_rows.row(
            task,
            method,
            score,
            category=task.category,
            data=data,
            metric=task.metric,
            n_test=min(len(task.test), self.config.test_examples),
            numbers=numbers,
            share=numbers / self.size,
            backbone=self.backbone.name,
        )


def lab_of(study: StudySteps, model: backbone.Backbone | None = None) -> Lab:
    """A lab with the sizes of a study's scale, in its encoder unless another model is given."""
    config = study.scale.encoders
    return Lab(config, study.seed, model or encoder(config.backbone, study.device))


@functools.cache
def encoder(name: str, device: str) -> backbone.Backbone:
    """An encoder; it is loaded once."""
    return backbone.load(name, device, "float32")


def _tasks(study: StudySteps, ids: Sequence[str], data: str) -> list[Task]:
    """All tasks with the first seed, then all with the second, and so on."""
    suite, is_full = study.scale.encoders.suite, data == "full"
    loaded = [suites.load_suite(suite, seed, list(ids), full=is_full) for seed in study.seeds]
    return [task for of_seed in loaded for task in of_seed]


def answers_of(example: Example) -> Sequence[str]:
    """The tags of the words, or the one class of the text."""
    return example.tags if isinstance(example, TaggedExample) else example.targets[:1]


def classes(read: Sequence[Task]) -> int:
    """The largest number of classes of any of the tasks."""
    return max(len(task.labels) for task in read)


def _sizes(study: StudySteps) -> list[Any]:
    """What the start of a prompt depends on."""
    config = study.scale.encoders
    return [config.prompt_length, config.shallow_length, config.std, prompt_tuning.WORDS]


def _key(study: StudySteps, read: Sequence[Task], *parts: Any) -> list[Any]:
    """All that determines a step on the encoder."""
    config = study.scale.encoders
    model = backbone.identity(config.backbone, lambda: encoder(config.backbone, study.device))
    return [model, *study.device_key(), digest_of(read), config.test_examples, study.seed, MEASURES, *parts]
