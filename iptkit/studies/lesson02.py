"""Two side studies of lesson 02: where prompt tuning starts and how fast, and what stands beside it.

Each is a step of a `Study`, called as `study.start_and_rate()` and `study.beside_prompt_tuning()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.methods import fine_tuning, prompt_tuning
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.storage import step_cache
from iptkit.studies.steps import StudySteps
from iptkit.training.runs import Run
from iptkit.training.trainer import fit

STARTS = ("words", "N(0, 0.02²)")


def start_and_rate(study: StudySteps) -> step_cache.Step:
    """Prompt tuning from two starts at a fifth, one and five times the scale's learning rate.

    The starts are words and, as in the paper, N(0, 0.02^2).

    Returns: a step whose values["rows"] hold start, lr, seed, task, its group, score and dev_loss.
    """
    scale, base = study.scale, study.scale.prompt.lr
    rates = (base / 5, base, base * 5)
    cells = [(a, lr, s, i) for a in STARTS for lr in rates for s in study.seeds for i in scale.grid]

    def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        runs = [Run(study.task(i, s), s, lr=lr) for _, lr, s, i in cells]
        source = SoftPrompt(torch.stack([_start(study, start, s) for start, _, s, _ in cells]))
        label = f"starts and rates, {len(runs)} runs"
        result = fit(study.engine, source, runs, scale.prompt, checkpoint, label)
        dev = (-result.dev[..., 1].amax(0)).tolist()  # lowest mean token loss
        scores = study.score(source, [run.task for run in runs], "test of starts and rates")
        rows = [
            {"start": start, "lr": lr, "seed": s, "task": i, "score": score, "dev_loss": loss}
            | {"group": study.task(i, s).group}
            for (start, lr, s, i), score, loss in zip(cells, scores, dev, strict=True)
        ]
        return {}, {"rows": rows}

    return step_cache.step("start-and-rate", study.key("grid", cells, scale.prompt), make)


def beside_prompt_tuning(study: StudySteps) -> step_cache.Step:
    """Prompt tuning, LoRA and full fine-tuning on one task and all seeds, with equally many examples.

    Returns: a step whose values["table"] holds per method its trained numbers, scores and seconds.
    """
    scale = study.scale
    rates = {"LoRA": scale.lora_lr, "fine-tuning": scale.fine_tuning_lr}

    def make(_: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        bank = study.bank()
        study.engine.forget_contexts()  # fine-tuning needs the memory
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
    """[n, d] start of one run."""
    if start == "words":
        return prompt_tuning.from_words(study.backbone, study.scale.prompt_length)
    generator = torch.Generator().manual_seed(seed)
    return prompt_tuning.from_normal(study.backbone, study.scale.prompt_length, 0.02, generator)


def _is_mixed(study: StudySteps) -> bool:
    """Do the references train as the prompts do, with products in bfloat16?"""
    return study.backbone.dtype == "mixed"


def _reference(study: StudySteps, method: str, lr: float) -> dict[str, Any]:
    """One line of the table: a reference method trained with every seed."""
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
