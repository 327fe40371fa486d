"""Two side studies of lesson 02: starts and learning rates of prompt tuning, and reference methods.

Each is a step of a `Study`: `study.start_and_rate()` and `study.beside_prompt_tuning()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.methods import fine_tuning, prompt_tuning
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.storage import step_cache
from iptkit.studies.score_rows import about
from iptkit.studies.steps import Made, StudySteps
from iptkit.training.runs import Run
from iptkit.training.trainer import fit

STARTS = ("words", "N(0, 0.02²)")


def start_and_rate(study: StudySteps) -> step_cache.Step:
    """Prompt tuning from two starts, each at a fifth, once and five times the scale's learning rate.

    The starts are words and, as in the paper, N(0, 0.02^2).

    Returns: a step whose values["rows"] have start, lr, seed, task, group, score and dev_loss.
    """
    scale, base = study.scale, study.scale.prompt.lr
    rates = (base / 5, base, base * 5)
    cells = [(a, lr, s, i) for a in STARTS for lr in rates for s in study.seeds for i in scale.grid]

    def make(checkpoint: Path) -> Made:
        runs = [Run(study.task(i, s), s, lr=lr) for _, lr, s, i in cells]
        source = SoftPrompt(torch.stack([_start(study, start, s) for start, _, s, _ in cells]))
        label = f"starts and rates, {len(runs)} runs"
        result = fit(study.engine, source, runs, scale.prompt, checkpoint, label)
        dev = (-result.dev[..., 1].amax(0)).tolist()  # lowest mean token loss
        outcomes = study.outcomes(source, [run.task for run in runs], "test of starts and rates")
        rows = [
            {**about(run.task), "start": start, "lr": lr, "seed": s, "score": found.score, "dev_loss": loss}
            for run, (start, lr, s, _), found, loss in zip(runs, cells, outcomes, dev, strict=True)
        ]
        return {}, {"rows": rows}

    return step_cache.step("start-and-rate", study.key("grid", cells, scale.prompt), make)


def beside_prompt_tuning(study: StudySteps) -> step_cache.Step:
    """Prompt tuning, LoRA and full fine-tuning on one task and all seeds, with the same number of examples.

    Returns: a step whose values["table"] has one line a method: "method", "numbers" (trained parameters),
      "scores" and "seconds".
    """
    scale = study.scale
    rates = {"LoRA": scale.lora_lr, "fine-tuning": scale.fine_tuning_lr}

    def make(_: Path) -> Made:
        bank = study.bank()
        study.engine.forget_contexts()  # frees memory for fine-tuning
        tuned = {
            "method": "prompt tuning",
            "numbers": scale.prompt_length * study.backbone.width,
            "scores": [r["score"] for r in bank.values["rows"] if r["task"] == scale.beside],
            "seconds": bank.seconds / len(bank.values["rows"]),
        }
        return {}, {"table": [tuned, *(_reference(study, method, lr) for method, lr in rates.items())]}

    key = study.key("beside", scale.beside, scale.prompt, rates, study.seeds, _is_mixed(study))
    return step_cache.step("beside", key, make)


def _start(study: StudySteps, start: str, seed: int) -> Tensor:
    """The start [n, d] of one run."""
    if start == "words":
        return prompt_tuning.from_words(study.backbone, study.scale.prompt_length)
    generator = torch.Generator().manual_seed(seed)
    return prompt_tuning.from_normal(study.backbone, study.scale.prompt_length, 0.02, generator)


def _is_mixed(study: StudySteps) -> bool:
    """Whether the references train with matrix products in bfloat16, as the prompts do."""
    return study.backbone.dtype == "mixed"


def _reference(study: StudySteps, method: str, lr: float) -> dict[str, Any]:
    """One line of the table: a reference method, trained with every seed."""
    scale, config = study.scale, study.scale.prompt
    runs = [
        fine_tuning.fine_tune(
            study.backbone,
            study.task(scale.beside, seed),
            method,
            config.steps,
            config.rows_per_run,
            lr,
            seed,
            scale.test_examples,
            is_mixed=_is_mixed(study),
        )
        for seed in study.seeds
    ]
    return {
        "method": method,
        "numbers": runs[0].num_parameters,
        "scores": [r.score for r in runs],
        "seconds": sum(r.seconds for r in runs) / len(runs),
    }
