"""The measurements of lesson 04, each a step of a `Study`: P-Tuning v2, its neighbours, its ablations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iptkit import backbones, deep, evaluate, prompts, references, store, tasks
from iptkit.deep import DeepPrompt, Site
from iptkit.encoders import HeadEngine
from iptkit.experiments import digest_of
from iptkit.heads import SharedPrompt, WithHead
from iptkit.prompts import SoftPrompt
from iptkit.tasks import Task
from iptkit.train import Fit, FitConfig, Run, fit

if TYPE_CHECKING:
    from iptkit.experiments import Study

Made = tuple[dict[str, Tensor], dict[str, Any]]
METHODS = ("linear probe", "prompt tuning", "P-Tuning v2", "MPT-2", "fine-tuning")


def compared(study: Study) -> list[dict[str, Any]]:
    """The main table: every method on its tasks and all seeds.

    Returns: rows with task, seed, method, score, numbers (trained for one task), share (of the encoder's
      numbers) and seconds (of the method's step, divided by its runs).
    """
    steps = [trained(study, method) for method in METHODS[:3]]
    steps += [multi_task(study), fine_tuned(study)]
    rows = []
    for step in steps:
        seconds = step.seconds / len(step.values["rows"])
        rows += [row | {"seconds": seconds} for row in step.values["rows"]]
    return rows


def trained(study: Study, method: str, only: Sequence[str] = (), **changes: Any) -> store.Step:
    """One method on tasks and seeds, all runs in one fit: values["rows"].

    Args:
      method: one of the first three of METHODS.
      only: ids of the tasks, () for all.
      changes: of a deep prompt: layers, prompt_length, form, dropout.
    """
    config = study.scale.encoders
    read = _tasks(study, only or config.tasks)

    def make(checkpoint: Path) -> Made:
        room = _Room(study)
        source, sites = room.source(method, read, **changes)
        label = f"{method}, {len(read)} runs"
        scores, _ = room.run(source, sites, read, method, checkpoint, label)
        return {}, {"rows": room.rows(read, scores, method, source)}

    parts = [method, sorted(changes.items()), config.rates[method], config.fit]
    name = f"encoder-{method.replace(' ', '-')}"
    return store.step(name, _key(study, read, *parts, *_sizes(study)), make)


def train(
    study: Study, method: str, seed: int, rates: Sequence[float], config: FitConfig
) -> tuple[list[Run], Fit]:
    """One method on all tasks of a seed at every rate, in one fit, to compare rates on dev.

    Returns: the runs, rates x tasks, and their fit.
    """
    room = _Room(study)
    read = [task for task in _tasks(study, study.scale.encoders.tasks) if task.seed == seed]
    runs = [Run(task, seed, lr=lr) for lr in rates for task in read]
    source, sites = room.source(method, [run.task for run in runs])
    label = f"{method}, {len(runs)} runs"
    return runs, fit(HeadEngine(room.backbone, sites), source, runs, config, label=label)


def multi_task(study: Study) -> store.Step:
    """MPT-2: one deep prompt for several data sets, then each data set on its own from there, per seed.

    Both stages together take as many steps as the other methods take.
    """
    config = study.scale.encoders
    read = _tasks(study, config.shared)
    half = replace(config.fit, steps=config.fit.steps // 2)

    def make(_: Path) -> Made:
        room, starts, heads = _Room(study), [], []
        seeds = list(dict.fromkeys(task.seed for task in read))
        for seed in seeds:
            mine = [task for task in read if task.seed == seed]
            prompt = room.deep(1)
            shared = SharedPrompt(prompt, len(mine), room.width, _classes(mine), room.generator())
            room.run(shared, prompt.sites, mine, "MPT-2", None, f"MPT-2, seed {seed}", half)
            starts.append(prompt.P.detach().expand(len(mine), -1, -1))
            heads.append(shared.inner.head.detach())
        source, sites = room.source("P-Tuning v2", read)
        with torch.no_grad():
            source.prompt.P.copy_(torch.cat(starts))
            source.head[:, : heads[0].shape[1]].copy_(torch.cat(heads))
        scores, _ = room.run(source, sites, read, "MPT-2", None, "MPT-2, each data set", half)
        return {}, {"rows": room.rows(read, scores, "MPT-2", source)}

    return store.step("encoder-MPT-2", _key(study, read, config.rates["MPT-2"], half, *_sizes(study)), make)


def fine_tuned(study: Study) -> store.Step:
    """Full fine-tuning, run by run, through transformers' Trainer."""
    config = study.scale.encoders
    read = _tasks(study, config.tuned)
    lr, steps, batch = config.rates["fine-tuning"], config.fit.steps, config.fit.rows_per_run

    def make(_: Path) -> Made:
        room, rows = _Room(study), []
        for task in read:
            made = references.fine_tune_encoder(
                room.backbone, task, steps, batch, lr, task.seed, config.test_examples
            )
            rows.append(room.row(task, made.score, "fine-tuning", made.numbers))
        return {}, {"rows": rows}

    return store.step("encoder-fine-tuning", _key(study, read, lr, steps, batch), make)


def depths(study: Study) -> list[dict[str, Any]]:
    """P-Tuning v2 with prompts in the first k and in the last k layers: rows with "layers" and "order"."""
    layers = list(range(_encoder(study.scale.encoders.backbone, study.device).num_layers))
    rows = []
    for k in [k for k in layers if k & (k - 1) == 0 and k] + [len(layers)]:
        for order, chosen in (("first", layers[:k]), ("last", layers[-k:])):
            step = trained(study, "P-Tuning v2", study.scale.encoders.ablated, layers=tuple(chosen))
            rows += [row | {"layers": k, "order": order} for row in step.values["rows"]]
    return rows


def lengths(study: Study) -> list[dict[str, Any]]:
    """P-Tuning v2 at several prompt lengths: rows with "length"."""
    config = study.scale.encoders
    made = {n: trained(study, "P-Tuning v2", config.ablated, prompt_length=n) for n in config.lengths}
    return [row | {"length": n} for n, step in made.items() for row in step.values["rows"]]


def forms(study: Study) -> list[dict[str, Any]]:
    """P-Tuning v2 with and without its MLP: rows with "form"."""
    config = study.scale.encoders
    made = {form: trained(study, "P-Tuning v2", config.ablated, form=form) for form in deep.FORMS}
    return [row | {"form": form} for form, step in made.items() for row in step.values["rows"]]


# ---- parts ---------------------------------------------------------------------------------------
class _Room:
    """An encoder with what trainings in it share."""

    def __init__(self, study: Study):
        self.config, self.seed = study.scale.encoders, study.seed
        self.backbone = _encoder(self.config.backbone, study.device)
        self.sites = deep.find_sites(self.backbone.model)
        self.width = self.backbone.width
        self.size = sum(p.numel() for p in self.backbone.model.parameters())

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def deep(
        self, runs: int, layers: Sequence[int] | None = None, prompt_length: int = 0, **options: Any
    ) -> DeepPrompt:
        sites = deep.choose(self.sites, layers)
        n = prompt_length or self.config.prompt_length
        return DeepPrompt(runs, sites, n, self.generator(), std=self.config.std, width=self.width, **options)

    def source(self, method: str, read: Sequence[Task], **changes: Any) -> tuple[WithHead, list[Site]]:
        """A source with a row for each task, and the sites of its deep prompts."""
        prompt: nn.Module | None = None
        if method == "P-Tuning v2":
            prompt = self.deep(len(read), **changes)
        elif method == "prompt tuning":
            words = prompts.from_words(self.backbone, self.config.shallow_length)
            prompt = SoftPrompt(words.expand(len(read), -1, -1))
        source = WithHead(len(read), self.width, _classes(read), self.generator(), prompt)
        return source.to(self.backbone.device), getattr(prompt, "sites", [])

    def run(
        self,
        source: nn.Module,
        sites: Sequence[Site],
        read: Sequence[Task],
        method: str,
        checkpoint: Path | None,
        label: str,
        config: FitConfig | None = None,
    ) -> tuple[list[float], Fit]:
        """Train and test."""
        engine = HeadEngine(self.backbone, sites)
        runs = [Run(task, task.seed, lr=self.config.rates[method]) for task in read]
        source = source.to(self.backbone.device)
        chosen = config or self.config.fit
        if not source.per_run:  # one rate for all that is shared
            chosen = replace(chosen, lr=self.config.rates[method])
        result = fit(engine, source, runs, chosen, checkpoint, label)
        limit = self.config.test_examples
        return evaluate.evaluate(engine, source, read, limit=limit, label=f"test of {label}"), result

    def rows(
        self, read: Sequence[Task], scores: Sequence[float], method: str, source: nn.Module
    ) -> list[dict[str, Any]]:
        prompt = () if source.prompt is None else source.prompt.parameters()
        numbers = sum(p[0].numel() for p in prompt)
        return [
            self.row(task, score, method, numbers + len(task.labels) * (self.width + 1))
            for task, score in zip(read, scores, strict=True)
        ]

    def row(self, task: Task, score: float, method: str, numbers: int) -> dict[str, Any]:
        return {
            "task": task.id,
            "category": task.category,
            "seed": task.seed,
            "method": method,
            "metric": task.metric,
            "score": score,
            "numbers": numbers,
            "share": numbers / self.size,
        }


@functools.cache
def _encoder(name: str, device: str) -> backbones.Backbone:
    return backbones.load(name, device, "float32")


def _tasks(study: Study, ids: Sequence[str]) -> list[Task]:
    """Every task with every seed, the seeds outside."""
    config = study.scale.encoders
    load: Callable[..., list[Task]] = functools.partial(tasks.load_suite, config.suite, full=config.full)
    return [task for seed in study.seeds for task in load(seed=seed, only=list(ids))]


def _classes(read: Sequence[Task]) -> int:
    return max(len(task.labels) for task in read)


def _sizes(study: Study) -> list[Any]:
    config = study.scale.encoders
    return [config.prompt_length, config.shallow_length, config.std, prompts.WORDS]


def _key(study: Study, read: Sequence[Task], *parts: Any) -> list[Any]:
    config = study.scale.encoders
    return [config.backbone, digest_of(read), config.test_examples, study.seed, *parts]
