"""The methods of lesson 04 on an encoder, each a step: a probe, prompts at the input and at every layer,
MPT-2, fine-tuning. Which of them make which figure: deep_studies.py.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.sites import Site, choose, find_sites
from iptkit.methods import fine_tuning, p_tuning_v2, prompt_tuning
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models import backbone
from iptkit.scores import evaluation, metrics
from iptkit.storage import progress, step_cache
from iptkit.studies.base import digest_of
from iptkit.studies.steps import StudySteps
from iptkit.tasks import suites
from iptkit.tasks.examples import Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

Made = tuple[dict[str, Tensor], dict[str, Any]]
METHODS = ("linear probe", "prompt tuning", "P-Tuning v2", "MPT-2", "fine-tuning")
COMMONEST = "commonest answer"


def trained(
    study: StudySteps, method: str, only: Sequence[str] = (), data: str = "", **changes: Any
) -> step_cache.Step:
    """One method on tasks and seeds, all runs in one fit: values["rows"].

    Args:
      method: one of the first three of METHODS.
      only: ids of the tasks, () for all.
      data: one of sizes.DATA, "" for the scale's last.
      changes: of a deep prompt: layers, prompt_length, form, dropout.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, form = _tasks(study, only or config.tasks, data), changes.get("form", p_tuning_v2.FORMS[0])
    rate = config.rates[f"{method}, {form}" if form != p_tuning_v2.FORMS[0] else method]

    def make(checkpoint: Path) -> Made:
        room = Room(study)
        source, sites = room.source(method, read, **changes)
        label = f"{method}, {len(read)} runs"
        room.run(source, sites, read, rate, config.fits[data], label, checkpoint)
        scores = room.test(source, sites, read, label)
        return {}, {"rows": room.rows(read, scores, method, source, data)}

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
    """One method on all tasks of a seed at every rate, in one fit, to compare rates on dev.

    Returns: the runs, rates x tasks, and their fit.
    """
    room, encoders = Room(study), study.scale.encoders
    read = [task for task in _tasks(study, encoders.tasks, encoders.data) if task.seed == seed]
    runs = [Run(task, seed, lr=lr) for lr in rates for task in read]
    changes = {} if form == p_tuning_v2.FORMS[0] else {"form": form}
    source, sites = room.source(method, [run.task for run in runs], **changes)
    label = f"{method}, {len(runs)} runs"
    return runs, fit(HeadEngine(room.backbone, sites), source, runs, config, label=label)


def fine_tuning_scores(study: StudySteps, seed: int, lr: float) -> list[float]:
    """Dev scores of full fine-tuning of a seed's tasks, to compare learning rates."""
    config, room = study.scale.encoders, Room(study)
    plan = config.fits[config.data]
    read = [task for task in _tasks(study, config.tuned, config.data) if task.seed == seed]
    steps, batch, limit = plan.steps, plan.rows_per_run, len(read[0].dev)
    return [
        fine_tuning.fine_tune_encoder(room.backbone, t, steps, batch, lr, seed, limit, "dev").score
        for t in read
    ]


def multi_task(study: StudySteps, data: str = "") -> step_cache.Step:
    """MPT-2: one deep prompt for several data sets, then each data set on its own from there, per seed.

    Both stages together take as many steps as the other methods take.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, rate, whole = _tasks(study, config.shared, data), config.rates["MPT-2"], config.fits[data]
    half = replace(whole, steps=whole.steps // 2)
    rest = replace(whole, steps=whole.steps - half.steps)

    def make(_: Path) -> Made:
        room, starts, heads = Room(study), [], []
        seeds = list(dict.fromkeys(task.seed for task in read))
        for seed in seeds:
            mine = [task for task in read if task.seed == seed]
            prompt = room.deep(1)
            shared = SharedPrompt(prompt, len(mine), room.width, classes(mine), room.generator())
            room.run(shared, prompt.sites, mine, rate, half, f"MPT-2, seed {seed}")
            starts.append(prompt.P.detach().expand(len(mine), -1, -1))
            heads.append(shared.inner.head.detach())
        source, sites = room.source("P-Tuning v2", read)
        with torch.no_grad():
            source.prompt.P.copy_(torch.cat(starts))
            source.head[:, : heads[0].shape[1]].copy_(torch.cat(heads))
        drawn = half.steps * half.rows_per_run  # what the first stage has seen; the second goes on from there
        room.run(source, sites, read, rate, rest, "MPT-2, each data set", skip=drawn)
        scores = room.test(source, sites, read, "MPT-2")
        return {}, {"rows": room.rows(read, scores, "MPT-2", source, data)}

    return step_cache.step("encoder-MPT-2", _key(study, read, rate, half, rest, *_sizes(study)), make)


def fine_tuned(study: StudySteps, data: str = "") -> step_cache.Step:
    """Full fine-tuning, run by run, through transformers' Trainer."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, lr = _tasks(study, config.tuned, data), config.rates["fine-tuning"]
    steps, batch = config.fits[data].steps, config.fits[data].rows_per_run

    def make(_: Path) -> Made:
        room, rows = Room(study), []
        with progress.track("fine-tuning", total=len(read), unit="run") as bar:
            for task in read:
                made = fine_tuning.fine_tune_encoder(
                    room.backbone, task, steps, batch, lr, task.seed, config.test_examples
                )
                rows.append(room.row(task, made.score, "fine-tuning", made.num_parameters, data))
                bar.update(1, note=task.id)
        return {}, {"rows": rows}

    return step_cache.step("encoder-fine-tuning", _key(study, read, lr, steps, batch), make)


def commonest(study: StudySteps, data: str = "") -> step_cache.Step:
    """What needs no model: the commonest class or tag of the training examples, everywhere."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, limit = _tasks(study, config.tasks, data), config.test_examples

    def make(_: Path) -> Made:
        room, rows = Room(study), []
        for task in read:
            parts = (lambda e: [e.targets[0]]) if task.category == "cls" else (lambda e: e.tags)
            answer, _ = Counter(part for e in task.train for part in parts(e)).most_common(1)[0]
            said = [" ".join([answer] * len(parts(e))) for e in task.test[:limit]]
            score = metrics.METRICS[task.metric](said, task.test[:limit], task)
            rows.append(room.row(task, score, COMMONEST, 0, data))
        return {}, {"rows": rows}

    return step_cache.step("encoder-commonest", _key(study, read), make)


# ---- parts ---------------------------------------------------------------------------------------
class Room:
    """A frozen model with what trainings in it share."""

    def __init__(self, study: StudySteps, backbone: backbone.Backbone | None = None):
        self.config, self.seed = study.scale.encoders, study.seed
        self.backbone = backbone or encoder(self.config.backbone, study.device)
        self.sites = find_sites(self.backbone.model)
        self.width = self.backbone.width
        self.size = sum(p.numel() for p in self.backbone.model.parameters())

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def deep(
        self, runs: int, layers: Sequence[int] | None = None, prompt_length: int = 0, **options: Any
    ) -> DeepPrompt:
        sites = choose(self.sites, layers)
        n = prompt_length or self.config.prompt_length
        std = self.config.std if options.get("form") != "mlp" else p_tuning_v2.MLP_STD
        return DeepPrompt(runs, sites, n, self.generator(), std=std, width=self.width, **options)

    def source(self, method: str, read: Sequence[Task], **changes: Any) -> tuple[WithHead, list[Site]]:
        """A source with a row for each task, and the sites of its deep prompts."""
        prompt: nn.Module | None = None
        if method == "P-Tuning v2":
            prompt = self.deep(len(read), **changes)
        elif method == "prompt tuning":
            words = prompt_tuning.from_words(self.backbone, self.config.shallow_length)
            prompt = SoftPrompt(words.expand(len(read), -1, -1))
        source = WithHead(len(read), self.width, classes(read), self.generator(), prompt)
        return source.to(self.backbone.device), getattr(prompt, "sites", [])

    def run(
        self,
        source: nn.Module,
        sites: Sequence[Site],
        read: Sequence[Task],
        rate: float,
        config: FitConfig,
        label: str,
        checkpoint: str | Path | None = None,
        skip: int = 0,
    ) -> Fit:
        """Train; `skip`: see train.Run."""
        runs = [Run(task, task.seed, lr=rate, skip=skip) for task in read]
        source.to(self.backbone.device)
        engine = HeadEngine(self.backbone, sites)
        return fit(engine, source, runs, replace(config, lr=rate), checkpoint, label)

    def test(self, source: nn.Module, sites: Sequence[Site], read: Sequence[Task], label: str) -> list[float]:
        """Test scores."""
        engine, limit = HeadEngine(self.backbone, sites), self.config.test_examples
        return evaluation.evaluate(engine, source, read, limit=limit, label=f"test of {label}")

    def rows(
        self, read: Sequence[Task], scores: Sequence[float], method: str, source: nn.Module, data: str
    ) -> list[dict[str, Any]]:
        prompt = () if source.prompt is None else source.prompt.parameters()
        numbers = sum(p[0].numel() for p in prompt)
        return [
            self.row(task, score, method, numbers + len(task.labels) * (self.width + 1), data)
            for task, score in zip(read, scores, strict=True)
        ]

    def row(self, task: Task, score: float, method: str, numbers: int, data: str) -> dict[str, Any]:
        return {
            "task": task.id,
            "category": task.category,
            "group": task.group,
            "seed": task.seed,
            "data": data,
            "method": method,
            "metric": task.metric,
            "score": score,
            "n_test": min(len(task.test), self.config.test_examples),
            "numbers": numbers,
            "share": numbers / self.size,
            "backbone": self.backbone.name,
        }


@functools.cache
def encoder(name: str, device: str) -> backbone.Backbone:
    """An encoder, loaded once."""
    return backbone.load(name, device, "float32")


def _tasks(study: StudySteps, ids: Sequence[str], data: str) -> list[Task]:
    """Every task with every seed, the seeds outside."""
    suite, is_full = study.scale.encoders.suite, data == "full"
    loaded = [suites.load_suite(suite, seed, list(ids), full=is_full) for seed in study.seeds]
    return [task for of_seed in loaded for task in of_seed]


def classes(read: Sequence[Task]) -> int:
    """The most classes that one of the tasks has."""
    return max(len(task.labels) for task in read)


def _sizes(study: StudySteps) -> list[Any]:
    config = study.scale.encoders
    return [config.prompt_length, config.shallow_length, config.std, prompt_tuning.WORDS]


def _key(study: StudySteps, read: Sequence[Task], *parts: Any) -> list[Any]:
    config = study.scale.encoders
    model = backbone.identity(config.backbone, lambda: encoder(config.backbone, study.device))
    return [model, *study.device_key(), digest_of(read), config.test_examples, study.seed, *parts]
