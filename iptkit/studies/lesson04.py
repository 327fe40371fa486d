"""The table and the figures of lesson 04: the main table, ablations of P-Tuning v2, and heads.

Everything runs on the scale's encoder, for each of its `fits`: training on a few examples ("few-shot"), on
all ("full"), or on both in turn. Ablations use the last of them. Heads are compared on the causal model. The
methods themselves are in `lesson04_methods`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iptkit.engine.engine import Engine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import PROMPT, TEXT
from iptkit.engine.prompt import PromptSource
from iptkit.methods import p_tuning_v2
from iptkit.scores import claims, evaluation
from iptkit.storage import step_cache
from iptkit.studies import provenance, verdicts_ptuning_v2
from iptkit.studies.base import digest_of
from iptkit.studies.lesson04_methods import (
    METHODS,
    commonest,
    encoder,
    fine_tuned,
    lab_of,
    multi_task,
    trained,
)
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks import suites
from iptkit.training.runs import Run
from iptkit.training.trainer import fit

Measured = Iterator[tuple[step_cache.Step, dict[str, Any]]]  # steps, and fields that their rows get
HEADS = ("linear", "LM head")


def rows(study: StudySteps, part: str) -> list[dict[str, Any]]:
    """All rows of one of PARTS, each with its "part" and its share of the step's "seconds"."""
    return [row for step, what in PARTS[part](study) for row in _rows_of(study, part, step, what)]


def write(study: StudySteps, path: str | Path) -> int:
    """Measure what is missing of all PARTS and write the rows, each with its "part".

    The verdicts on claims B3 to B10 are recorded in the results folder (`claims.record`).

    Args:
      study: to be measured.
      path: of the rows (JSON lines), see `provenance.write_rows`.
    Returns: the number of rows.
    """
    path = Path(path)
    measured = [(part, *pair) for part, measure in PARTS.items() for pair in measure(study)]
    found = [row for part, step, what in measured for row in _rows_of(study, part, step, what)]
    once = {step.folder: step for _, step, _ in measured}  # a figure may use a step of another
    count = provenance.write_rows(study, path, found, list(once.values()), "deep")
    claims.record_all(verdicts_ptuning_v2.verdicts(found), study.scale.name)
    return count


def compared(study: StudySteps) -> Measured:
    """The main table: every method on its tasks, with all seeds and all training data of the scale.

    Its rows have task, seed, data, method (one of METHODS or COMMONEST), score, log_likelihood (on the same
    test examples, see `evaluation.Outcome`; None for COMMONEST), numbers (parameters trained for one task),
    share (of the encoder's parameters) and seconds (of the method's step, divided by its runs). MPT-2 and
    fine-tuning are left out if the scale names no tasks for them.
    """
    config = study.scale.encoders
    for data in config.fits:
        for method in METHODS[:3]:
            yield trained(study, method, data=data), {}
        if config.shared:
            yield multi_task(study, data), {}
        if config.tuned:
            yield fine_tuned(study, data), {}
        yield commonest(study, data), {}


def depths(study: StudySteps) -> Measured:
    """P-Tuning v2 with prompts in the first k and in the last k layers; rows have "layers" and "order"."""
    config = study.scale.encoders
    layers = list(range(encoder(config.backbone, study.device).num_layers))
    for k in [k for k in config.depths if k < len(layers)] + [len(layers)]:
        for order, chosen in (("first", layers[:k]), ("last", layers[-k:])):
            changes = {} if k == len(layers) else {"layers": tuple(chosen)}
            yield _ablated(study, **changes), {"layers": k, "order": order}


def lengths(study: StudySteps) -> Measured:
    """P-Tuning v2 at several prompt lengths; rows have "length"."""
    for n in study.scale.encoders.lengths:
        changes = {} if n == study.scale.encoders.prompt_length else {"prompt_length": n}
        yield _ablated(study, **changes), {"length": n}


def forms(study: StudySteps) -> Measured:
    """P-Tuning v2 with and without its MLP, each at its own learning rate; rows have "form"."""
    for form in p_tuning_v2.FORMS:
        yield _ablated(study, **({} if form == p_tuning_v2.FORMS[0] else {"form": form})), {"form": form}


def heads(study: StudySteps) -> Measured:
    """Deep prompts in the study's causal model, with answers from its LM head or from a linear head.

    The LM head answers with the label names, after " It was". The linear head reads the state of the last
    token. Rows have "head", one of HEADS; there are none if the scale has no such comparison.
    """
    config = study.scale.encoders.heads
    if config is None:
        return
    limit = config.test_examples
    read = [
        task
        for seed in study.seeds
        for task in suites.load_suite(study.scale.suite, seed, config.tasks, limit)
    ]

    def make(head: str, checkpoint: Path) -> Made:
        lab = lab_of(study, study.backbone)
        prompt = lab.deep_prompt(len(read), prompt_length=config.prompt_length)
        engine: PromptEngine
        source: PromptSource
        if head == "LM head":
            engine = Engine(lab.backbone, (PROMPT, TEXT, " It was"), sites=prompt.sites)
            source = prompt.to(lab.backbone.device)
        else:
            source = lab.with_head(read, prompt)
            engine = lab.engine(source)
        runs = [Run(task, task.seed, lr=config.rates[head]) for task in read]
        fit(engine, source, runs, config.fit, checkpoint, f"{head}, {len(runs)} runs")
        scores = evaluation.evaluate(engine, source, read, label=f"test of {head}")
        numbers = sum(p[0].numel() for p in source.parameters())
        rows = [
            lab.row(task, score, "P-Tuning v2", numbers, "few-shot")
            for task, score in zip(read, scores, strict=True)
        ]
        return {}, {"rows": rows}

    for head in HEADS:
        key = [*study.model_key(), digest_of(read), study.seed, head, config, study.scale.encoders.std]
        step = step_cache.step(f"head-{head.replace(' ', '-')}", key, functools.partial(make, head))
        yield step, {"head": head}


PARTS: dict[str, Callable[[StudySteps], Measured]] = {
    part.__name__: part for part in (compared, depths, lengths, forms, heads)
}
ABLATIONS = ("depths", "lengths", "forms")


# ---- parts ---------------------------------------------------------------------------------------
def _rows_of(
    study: StudySteps, part: str, step: step_cache.Step, what: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a step for one of PARTS, with the fields `what`; ablations use some tasks only."""
    found, only = step.values["rows"], study.scale.encoders.ablated
    more = {"part": part, **what, "seconds": step.seconds / len(found)}
    return [row | more for row in found if part not in ABLATIONS or row["task"] in only]


def _ablated(study: StudySteps, **changes: Any) -> step_cache.Step:
    """P-Tuning v2 with changes, on the tasks of ablations; without changes it is that of the main table."""
    return trained(study, METHODS[2], study.scale.encoders.ablated if changes else (), **changes)
