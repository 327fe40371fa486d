"""The measurements of lesson 04, each a step of a `Study`: P-Tuning v2, its neighbours, its ablations.

Everything runs on the scale's encoder and its `fits`: training on a few examples ("few-shot"), on all
("full"), or on both in turn. Ablations use the last of them. Heads are compared on the causal model.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iptkit import backbones, deep, evaluate, progress, prompts, references, results, store, tasks
from iptkit.deep import DeepPrompt, Site
from iptkit.encoders import HeadEngine
from iptkit.engine import Engine
from iptkit.experiments import digest_of
from iptkit.heads import SharedPrompt, WithHead
from iptkit.layouts import PROMPT, TEXT
from iptkit.prompts import SoftPrompt
from iptkit.tasks import Task
from iptkit.train import Fit, FitConfig, Run, fit

if TYPE_CHECKING:
    from iptkit.experiments import Study

Made = tuple[dict[str, Tensor], dict[str, Any]]
Measured = Iterator[tuple[store.Step, dict[str, Any]]]  # steps, and what their rows are told apart by
METHODS = ("linear probe", "prompt tuning", "P-Tuning v2", "MPT-2", "fine-tuning")
COMMONEST = "commonest answer"
HEADS = ("linear", "LM head")


def rows(study: Study, part: str) -> list[dict[str, Any]]:
    """All rows of one of PARTS, each with its "part" and its "seconds": its step's, divided by their rows."""
    return [row for step, what in PARTS[part](study) for row in _rows_of(step, {"part": part} | what)]


def write(study: Study, path: Path) -> int:
    """Measure what is missing of all PARTS and write the rows, each with its "part"; see `results.keep`.

    Returns: the number of rows.
    """
    measured = [(part, *pair) for part, measure in PARTS.items() for pair in measure(study)]
    found = [row for part, step, what in measured for row in _rows_of(step, {"part": part} | what)]
    return results.keep(study, path, found, list({id(step): step for _, step, _ in measured}.values()))


def compared(study: Study) -> Measured:
    """The main table: every method on its tasks, all seeds and all training data of the scale.

    Its rows hold task, seed, data, method (one of METHODS or COMMONEST), score, numbers (trained for one
    task), share (of the encoder's numbers) and seconds (of the method's step,
    divided by its runs).
    """
    for data in study.scale.encoders.fits:
        for method in METHODS[:3]:
            yield trained(study, method, data=data), {}
        yield multi_task(study, data), {}
        yield fine_tuned(study, data), {}
        yield commonest(study, data), {}


def trained(
    study: Study, method: str, only: Sequence[str] = (), data: str = "", **changes: Any
) -> store.Step:
    """One method on tasks and seeds, all runs in one fit: values["rows"].

    Args:
      method: one of the first three of METHODS.
      only: ids of the tasks, () for all.
      data: one of scales.DATA, "" for the scale's last.
      changes: of a deep prompt: layers, prompt_length, form, dropout.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, form = _tasks(study, only or config.tasks, data), changes.get("form", deep.FORMS[0])
    rate = config.rates[f"{method}, {form}" if form != deep.FORMS[0] else method]

    def make(checkpoint: Path) -> Made:
        room = _Room(study)
        source, sites = room.source(method, read, **changes)
        label = f"{method}, {len(read)} runs"
        room.run(source, sites, read, rate, config.fits[data], label, checkpoint)
        scores = room.test(source, sites, read, label)
        return {}, {"rows": room.rows(read, scores, method, source, data)}

    parts = [method, sorted(changes.items()), rate, config.fits[data]]
    parts += [deep.MLP_STD, deep.MLP_INNER] if form == "mlp" else []
    name = f"encoder-{method.replace(' ', '-')}"
    return store.step(name, _key(study, read, *parts, *_sizes(study)), make)


def train(
    study: Study, method: str, seed: int, rates: Sequence[float], config: FitConfig, form: str = deep.FORMS[0]
) -> tuple[list[Run], Fit]:
    """One method on all tasks of a seed at every rate, in one fit, to compare rates on dev.

    Returns: the runs, rates x tasks, and their fit.
    """
    room, encoders = _Room(study), study.scale.encoders
    read = [task for task in _tasks(study, encoders.tasks, encoders.data) if task.seed == seed]
    runs = [Run(task, seed, lr=lr) for lr in rates for task in read]
    changes = {} if form == deep.FORMS[0] else {"form": form}
    source, sites = room.source(method, [run.task for run in runs], **changes)
    label = f"{method}, {len(runs)} runs"
    return runs, fit(HeadEngine(room.backbone, sites), source, runs, config, label=label)


def fine_tuning_scores(study: Study, seed: int, lr: float) -> list[float]:
    """Dev scores of full fine-tuning of a seed's tasks, to compare learning rates."""
    config, room = study.scale.encoders, _Room(study)
    plan = config.fits[config.data]
    read = [task for task in _tasks(study, config.tuned, config.data) if task.seed == seed]
    steps, batch, limit = plan.steps, plan.rows_per_run, len(read[0].dev)
    return [
        references.fine_tune_encoder(room.backbone, t, steps, batch, lr, seed, limit, "dev").score
        for t in read
    ]


def multi_task(study: Study, data: str = "") -> store.Step:
    """MPT-2: one deep prompt for several data sets, then each data set on its own from there, per seed.

    Both stages together take as many steps as the other methods take.
    """
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, rate, whole = _tasks(study, config.shared, data), config.rates["MPT-2"], config.fits[data]
    half = replace(whole, steps=whole.steps // 2)
    rest = replace(whole, steps=whole.steps - half.steps)

    def make(_: Path) -> Made:
        room, starts, heads = _Room(study), [], []
        seeds = list(dict.fromkeys(task.seed for task in read))
        for seed in seeds:
            mine = [task for task in read if task.seed == seed]
            prompt = room.deep(1)
            shared = SharedPrompt(prompt, len(mine), room.width, _classes(mine), room.generator())
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

    return store.step("encoder-MPT-2", _key(study, read, rate, half, rest, *_sizes(study)), make)


def fine_tuned(study: Study, data: str = "") -> store.Step:
    """Full fine-tuning, run by run, through transformers' Trainer."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, lr = _tasks(study, config.tuned, data), config.rates["fine-tuning"]
    steps, batch = config.fits[data].steps, config.fits[data].rows_per_run

    def make(_: Path) -> Made:
        room, rows = _Room(study), []
        with progress.track("fine-tuning", total=len(read), unit="run") as bar:
            for task in read:
                made = references.fine_tune_encoder(
                    room.backbone, task, steps, batch, lr, task.seed, config.test_examples
                )
                rows.append(room.row(task, made.score, "fine-tuning", made.numbers, data))
                bar.update(1, note=task.id)
        return {}, {"rows": rows}

    return store.step("encoder-fine-tuning", _key(study, read, lr, steps, batch), make)


def commonest(study: Study, data: str = "") -> store.Step:
    """What needs no model: the commonest class or tag of the training examples, everywhere."""
    config, data = study.scale.encoders, data or study.scale.encoders.data
    read, limit = _tasks(study, config.tasks, data), config.test_examples

    def make(_: Path) -> Made:
        room, rows = _Room(study), []
        for task in read:
            answer, _ = Counter(a for e in task.train for a in e.targets[0].split()).most_common(1)[0]
            if task.category == "cls":
                answer, _ = Counter(e.targets[0] for e in task.train).most_common(1)[0]
            said = [" ".join([answer] * len(e.targets[0].split())) for e in task.test[:limit]]
            said = [answer] * len(said) if task.category == "cls" else said
            score = evaluate.METRICS[task.metric](said, task.test[:limit], task)
            rows.append(room.row(task, score, COMMONEST, 0, data))
        return {}, {"rows": rows}

    return store.step("encoder-commonest", _key(study, read), make)


def depths(study: Study) -> Measured:
    """P-Tuning v2 with prompts in the first k and in the last k layers: "layers" and "order"."""
    config = study.scale.encoders
    layers = list(range(_encoder(config.backbone, study.device).num_layers))
    for k in [k for k in config.depths if k < len(layers)] + [len(layers)]:
        for order, chosen in (("first", layers[:k]), ("last", layers[-k:])):
            changes = {} if k == len(layers) else {"layers": tuple(chosen)}
            yield _ablated(study, **changes), {"layers": k, "order": order}


def lengths(study: Study) -> Measured:
    """P-Tuning v2 at several prompt lengths: "length"."""
    for n in study.scale.encoders.lengths:
        changes = {} if n == study.scale.encoders.prompt_length else {"prompt_length": n}
        yield _ablated(study, **changes), {"length": n}


def forms(study: Study) -> Measured:
    """P-Tuning v2 with and without its MLP, each at its own learning rate: "form"."""
    for form in deep.FORMS:
        yield _ablated(study, **({} if form == deep.FORMS[0] else {"form": form})), {"form": form}


def heads(study: Study) -> Measured:
    """Deep prompts in the study's causal model, answered by its own LM head in words or by a linear head.

    The words are the label names after " It was"; the linear head reads the state of the last token.

    Its rows hold "head", one of HEADS; there are none if the scale has no such comparison.
    """
    config = study.scale.encoders.heads
    if config is None:
        return
    limit = config.test_examples
    read = [
        task
        for seed in study.seeds
        for task in tasks.load_suite(study.scale.suite, seed, config.tasks, limit)
    ]

    def make(head: str, checkpoint: Path) -> Made:
        room = _Room(study, study.backbone)
        prompt = room.deep(len(read), prompt_length=config.prompt_length)
        if head == "LM head":
            engine, source = Engine(room.backbone, (PROMPT, TEXT, " It was"), sites=prompt.sites), prompt
        else:
            engine = HeadEngine(room.backbone, prompt.sites)
            source = WithHead(len(read), room.width, _classes(read), room.generator(), prompt)
        source = source.to(room.backbone.device)
        runs = [Run(task, task.seed, lr=config.rates[head]) for task in read]
        fit(engine, source, runs, config.fit, checkpoint, f"{head}, {len(runs)} runs")
        scores = evaluate.evaluate(engine, source, read, label=f"test of {head}")
        numbers = sum(p[0].numel() for p in source.parameters())
        rows = [
            room.row(task, score, "P-Tuning v2", numbers, "few-shot")
            for task, score in zip(read, scores, strict=True)
        ]
        return {}, {"rows": rows}

    for head in HEADS:
        key = [*study.model_key(), digest_of(read), study.seed, head, config, study.scale.encoders.std]
        step = store.step(f"head-{head.replace(' ', '-')}", key, functools.partial(make, head))
        yield step, {"head": head}


PARTS: dict[str, Callable[[Study], Measured]] = {
    part.__name__: part for part in (compared, depths, lengths, forms, heads)
}


# ---- parts ---------------------------------------------------------------------------------------
class _Room:
    """A frozen model with what trainings in it share."""

    def __init__(self, study: Study, backbone: backbones.Backbone | None = None):
        self.config, self.seed = study.scale.encoders, study.seed
        self.backbone = backbone or _encoder(self.config.backbone, study.device)
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
        std = self.config.std if options.get("form") != "mlp" else deep.MLP_STD
        return DeepPrompt(runs, sites, n, self.generator(), std=std, width=self.width, **options)

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
        rate: float,
        config: FitConfig,
        label: str,
        checkpoint: Path | None = None,
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
        return evaluate.evaluate(engine, source, read, limit=limit, label=f"test of {label}")

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
def _encoder(name: str, device: str) -> backbones.Backbone:
    return backbones.load(name, device, "float32")


def _rows_of(step: store.Step, what: dict[str, Any]) -> list[dict[str, Any]]:
    found = step.values["rows"]
    return [row | what | {"seconds": step.seconds / len(found)} for row in found]


def _ablated(study: Study, **changes: Any) -> store.Step:
    """P-Tuning v2 with changes; without any it is that of the main table, with rows of all tasks."""
    only = study.scale.encoders.ablated if changes else ()
    step = trained(study, "P-Tuning v2", only, **changes)
    kept = [row for row in step.values["rows"] if row["task"] in study.scale.encoders.ablated]
    return replace(step, values={"rows": kept}, seconds=step.seconds * len(kept) / len(step.values["rows"]))


def _tasks(study: Study, ids: Sequence[str], data: str) -> list[Task]:
    """Every task with every seed, the seeds outside."""
    suite, is_full = study.scale.encoders.suite, data == "full"
    loaded = [tasks.load_suite(suite, seed, list(ids), full=is_full) for seed in study.seeds]
    return [task for of_seed in loaded for task in of_seed]


def _classes(read: Sequence[Task]) -> int:
    return max(len(task.labels) for task in read)


def _sizes(study: Study) -> list[Any]:
    config = study.scale.encoders
    return [config.prompt_length, config.shallow_length, config.std, prompts.WORDS]


def _key(study: Study, read: Sequence[Task], *parts: Any) -> list[Any]:
    config = study.scale.encoders
    model = backbones.identity(config.backbone, lambda: _encoder(config.backbone, study.device))
    return [model, digest_of(read), config.test_examples, study.seed, *parts]
