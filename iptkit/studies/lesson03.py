"""The measurements of lesson 03, each a step of a `Study`: the encoders of P-tuning, and the best words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from iptkit.engine.engine import Engine
from iptkit.engine.layouts import LAYOUTS, Layout
from iptkit.methods import p_tuning, prompt_tuning
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.methods.words import label_scores
from iptkit.scores import evaluation
from iptkit.storage import step_cache
from iptkit.studies import lesson01, score_rows
from iptkit.studies.score_rows import Row
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks import suites, wordings
from iptkit.tasks.examples import Card, Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

KINDS = ("tasks", "relations")
WORDS = "best words"  # this method trains nothing; it chooses a wording on dev


def compared(study: StudySteps) -> list[dict[str, Any]]:
    """Rows of the whole lesson: each encoder and the best words, on all tasks, relations and seeds.

    Returns: rows with kind ("tasks" or "relations"), task, group, seed, method (an encoder or WORDS), score,
      log_likelihood (nats per answer token; encoders only), numbers (parameters that one run trains) and
      seconds (of its step, divided by the runs in it).
    """
    rows = []
    for kind in KINDS:
        steps = [best_words(study, kind)]
        for seeds in _together(study, kind):
            steps += [encoded(study, encoder, kind, seeds) for encoder in p_tuning.ENCODERS]
        for step in steps:
            share = step.seconds / len(step.values["rows"])
            rows += [row | {"kind": kind, "seconds": share} for row in step.values["rows"]]
    return rows


def encoded(study: StudySteps, encoder: str, kind: str, seeds: Sequence[int]) -> step_cache.Step:
    """P-tuning of all tasks of a kind with one encoder, all of these seeds in one fit.

    Args:
      study: of a scale with `ptuning`.
      encoder: one of `p_tuning.ENCODERS`.
      kind: one of KINDS.
      seeds: of the few-shot samples.
    Returns: a step with tensors["P"] [S * T, n, d] (what the encoders gave), tensors["losses"] [steps, S * T]
      and values["rows"].
    """
    config = study.scale.ptuning
    read, rate = _load(study, kind, seeds), rate_of(study, encoder, kind)

    def make(checkpoint: Path) -> Made:
        trained = train(study, encoder, kind, seeds, (rate,), config.fit, checkpoint)
        plain, on = trained.source.without_encoder(), [run.task for run in trained.runs]
        label = f"test of P-tuning, {encoder}, {kind}, {len(on)} runs"
        found = evaluation.outcomes(trained.engine, plain, on, label=label)
        numbers = p_tuning.num_parameters(plain.P.shape[1], study.backbone.width, encoder)
        rows = _rows(on, [one.score for one in found], encoder, numbers)
        rows = [row | {"log_likelihood": one.log_likelihood} for row, one in zip(rows, found, strict=True)]
        return {"P": plain.P, "losses": trained.fit.losses.float()}, {"rows": rows}

    key = study.key_of(read, encoder, _layout(study, kind), config.fit, rate, prompt_tuning.WORDS)
    return step_cache.step(f"ptuning-{encoder}-{kind}-{'-'.join(map(str, seeds))}", key, make)


def rate_of(study: StudySteps, encoder: str, kind: str) -> float:
    """The learning rate of an encoder on a kind of tasks."""
    config = study.scale.ptuning
    return (config.rates if kind == "tasks" else config.relation_rates)[encoder]


@dataclass(frozen=True)
class Trained:
    """A training of all tasks of a kind; `runs` and the rows of `source` are rates x seeds x tasks."""

    engine: Engine
    source: EncodedPrompt
    runs: list[Run]
    fit: Fit


def train(
    study: StudySteps,
    encoder: str,
    kind: str,
    seeds: Sequence[int],
    rates: Sequence[float],
    config: FitConfig,
    checkpoint: str | Path | None = None,
) -> Trained:
    """P-tuning of a kind of tasks at every rate and seed, in one fit.

    Args:
      study: of a scale with `ptuning`.
      encoder: one of `p_tuning.ENCODERS`; each seed draws its first weights.
      kind: one of KINDS.
      seeds: of the few-shot samples.
      rates: learning rates.
      config: how to train.
      checkpoint: see `trainer.fit`.
    """
    engine = _engine(study, _layout(study, kind))
    n = Layout.of(engine.layout).prompt_length or study.scale.prompt_length
    words = prompt_tuning.from_words(study.backbone, n)
    runs, parts = [], []
    for lr in rates:
        for seed in seeds:
            mine = [Run(task, seed, lr=lr) for task, _ in _load(study, kind, [seed])]
            generator = torch.Generator().manual_seed(seed)
            parts.append(EncodedPrompt(words.expand(len(mine), -1, -1), encoder, generator))
            runs += mine
    source = p_tuning.concatenate(parts).to(study.backbone.device)
    label = f"P-tuning, {encoder}, {kind}, {len(runs)} runs"
    return Trained(engine, source, runs, fit(engine, source, runs, config, checkpoint, label))


def best_words(study: StudySteps, kind: str) -> step_cache.Step:
    """The test score of the wording that is best on dev, for every task and seed, without training."""
    seeds, limit = study.scale.ptuning.seeds, study.scale.ptuning.fit.dev_examples
    read = _load(study, kind, seeds, bare=False)
    known = {task.id: _wordings(task.id, kind) for task, _ in read}

    def make(_: Path) -> Made:
        engine, scores = Engine(study.backbone, LAYOUTS[1]), []
        on_test: dict[tuple[str, int], float] = {}  # the test set is the same for every seed
        for task, card in read:
            short = replace(task, dev=task.dev[:limit])
            tried = _scores(engine, known[task.id], short, card, kind, "dev")
            best = tried.index(max(tried))
            if (task.id, best) not in on_test:
                found = _scores(engine, [known[task.id][best]], short, card, kind, "test")
                on_test[task.id, best] = found[0]
            scores.append(on_test[task.id, best])
        return {}, {"rows": _rows([task for task, _ in read], scores, WORDS, 0)}

    return step_cache.step(f"best-words-{kind}", study.key_of(read, known, limit), make)


# ---- parts ---------------------------------------------------------------------------------------
def _engine(study: StudySteps, layout: tuple[int | str, ...]) -> Engine:
    """The engine of a layout, one for all encoders and seeds, so that each text is read once."""
    if layout not in study.layout_engines:
        study.layout_engines[layout] = Engine(study.backbone, layout)
    return study.layout_engines[layout]


def _layout(study: StudySteps, kind: str) -> tuple[int | str, ...]:
    config = study.scale.ptuning
    return config.layout if kind == "tasks" else config.relation_layout


def _wordings(task_id: str, kind: str) -> Sequence[Any]:
    return wordings.of_task(task_id) if kind == "tasks" else wordings.of_relation(task_id)


def _scores(
    engine: Engine, asked: Sequence[Any], task: Task, card: Card, kind: str, part: str
) -> list[float]:
    """The score of each wording on "dev" or "test"."""
    if kind == "relations":
        nothing = FixedPrompt(engine.backbone.embedding[:0].expand(len(asked), -1, -1))  # [R, 0, d]
        worded = [wordings.in_words(task, card, template) for template in asked]
        return evaluation.evaluate(engine, nothing, worded, part, label=f"{task.id} in words")
    examples = getattr(task, part)
    slots = [wordings.slots_of(card, e) for e in examples]
    found = label_scores(engine, [(w, s) for w in asked for s in slots], label=f"{task.id} in words")
    by_wording = torch.stack(found).unflatten(0, (len(asked), -1))
    pairs = zip(asked, by_wording, strict=True)
    return [lesson01.accuracy(wording, scores, examples) for wording, scores in pairs]


def _load(study: StudySteps, kind: str, seeds: Sequence[int], bare: bool = True) -> list[tuple[Task, Card]]:
    """The tasks of a kind with their cards; classifications with accuracy, relations as bare subjects."""
    config = study.scale.ptuning
    read = [
        entry
        for seed in seeds
        for entry in suites.with_cards(study.scale.suite, getattr(config, kind), seed, config.test_examples)
    ]
    if kind == "tasks":  # as the words are
        read = [(replace(task, metric="accuracy"), card) for task, card in read]
    if kind == "relations" and bare:
        read = [(wordings.subjects(task, card), card) for task, card in read]
    return read


def _together(study: StudySteps, kind: str) -> list[tuple[int, ...]]:
    """The seeds in groups that train in one fit: all together on relations, one by one on tasks.

    The texts of tasks are longer, so their keys and values take more memory.
    """
    seeds = study.scale.ptuning.seeds
    return [seeds] if kind == "relations" else [(seed,) for seed in seeds]


def _rows(read: Sequence[Task], scores: Sequence[float], method: str, numbers: int) -> list[Row]:
    pairs = zip(read, scores, strict=True)
    return [score_rows.row(task, method, score, numbers=numbers) for task, score in pairs]
