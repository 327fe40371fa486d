"""The side study of lesson 02: starts and learning rates of prompt tuning, `study.start_and_rate()`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from iptkit.methods import prompt_tuning
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.storage import step_cache
from iptkit.studies.score_rows import about
from iptkit.studies.steps import Made, StudySteps
from iptkit.training.runs import Run
from iptkit.training.trainer import fit

STARTS = ("words", "N(0, 0.02²)")


def start_and_rate(study: StudySteps) -> step_cache.Step:
    """Prompt tuning from two starts, each at a fifth, once and five times the scale's learning rate.

    The starts are words and, as in the paper, N(0, 0.02^2). All run with the first seed on the tasks of the
    scale's `grid`.

    Returns: a step whose values["rows"] have start, lr, seed, task, group, score and dev_loss.
    """
    scale, base, seed = study.scale, study.scale.prompt.lr, study.seeds[0]
    cells = [(a, lr, i) for a in STARTS for lr in (base / 5, base, base * 5) for i in scale.grid]

    def make(checkpoint: Path) -> Made:
        runs = [Run(study.task(i, seed), seed, lr=lr) for _, lr, i in cells]
        source = SoftPrompt(torch.stack([_start(study, start, seed) for start, _, _ in cells]))
        label = f"starts and rates, {len(runs)} runs"
        result = fit(study.engine, source, runs, scale.prompt, checkpoint, label)
        dev = (-result.dev[..., 1].amax(0)).tolist()  # lowest mean token loss
        outcomes = study.outcomes(source, [run.task for run in runs], "test of starts and rates")
        rows = [
            {
                **about(run.task),
                "start": start,
                "lr": lr,
                "seed": seed,
                "score": found.score,
                "dev_loss": loss,
            }
            for run, (start, lr, _), found, loss in zip(runs, cells, outcomes, dev, strict=True)
        ]
        return {}, {"rows": rows}

    return step_cache.step("start-and-rate", study.key("grid", cells, scale.prompt), make)


def _start(study: StudySteps, start: str, seed: int) -> Tensor:
    """The start [n, d] of one run."""
    if start == "words":
        return prompt_tuning.from_words(study.backbone, study.scale.prompt_length)
    generator = torch.Generator().manual_seed(seed)
    return prompt_tuning.from_normal(study.backbone, study.scale.prompt_length, 0.02, generator)
