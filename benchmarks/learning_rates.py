"""Mean dev loss of a scale's tasks after training at three learning rates; no test example is read.

python -m benchmarks.learning_rates [--scale lesson] [--seed 0] [--factor 3] [--device cpu] [--json FILE]
    [--only prompt,ist,ptuning,encoders,fine-tuning,weights,adapters] [--every 1]

The scale's own rate is the middle one. Prompts train on `train`. IST and the random decoder train on
`train_new`; their dev examples exclude those that selected the prompts of the bank, as in the study.
`ptuning` tries the encoders of lesson 03, on classification tasks and relations. `encoders` and
`fine-tuning` are the methods of lesson 04. Two parts run only if named: `weights` (fine-tuning and DID of
the causal model) and `adapters` (the adapter variant: MSF on half of the tasks, then IST on the other half).
The score is the accuracy over options; for fine-tuning and DID it is the mean of the tasks' own metrics.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.machine import keep
from iptkit.methods import subspace
from iptkit.methods.adapters import RandomAround
from iptkit.methods.fine_tuning import fine_tune
from iptkit.methods.p_tuning import ENCODERS
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.studies import adapters, lesson03, lesson04_methods, scales
from iptkit.studies.adapters import config_of, drawn, engine_of
from iptkit.studies.study import Study
from iptkit.training import trainer
from iptkit.training.runs import Fit, Run

Cells = list[dict[str, Any]]


def prompt_tuning(study: Study, factor: float, every: int = 1) -> Cells:
    """Prompt tuning of every task, or of every `every`-th."""
    seed = study.seeds[0]
    rates = rates_around(study.scale.prompt.lr, factor)
    runs = [Run(task, seed, lr=lr) for lr in rates for task in study.tasks(seed)[::every]]
    config = replace(study.scale.prompt, evaluations=1)
    label = f"prompt tuning, {len(runs)} runs"
    source = SoftPrompt(study.words(len(runs)).P, study.prompt_kind)
    fit = trainer.fit(study.engine, source, runs, config, label=label)
    return cells_of("prompt tuning", runs, rates, fit)


def ist(study: Study, factor: float, every: int = 1) -> Cells:
    """IST with the learned and the random decoder, on every task or every `every`-th."""
    seed, cells = study.seeds[0], []
    rates = rates_around(study.scale.ist.lr, factor)
    config = replace(study.scale.ist, evaluations=1)
    fresh = study.fresh_tasks(seed)[::every]
    runs = [Run(task, seed, "train_new", lr) for lr in rates for task in fresh]
    for method, decoder in (("IST", "learned"), ("random decoder", "random")):
        autoencoder = study.decoder(study.scale.main_dim, decoder)
        label = f"{method}, {len(runs)} runs"
        _, fit = subspace.tune(study.engine, autoencoder, runs, config, label=label)
        cells += cells_of(method, runs, rates, fit)
    return cells


def p_tuning(study: Study, factor: float) -> Cells:
    """P-tuning with every encoder, on classification tasks and on relations."""
    chosen, cells = study.scale.ptuning, []
    config = replace(chosen.fit, evaluations=1)
    for encoder in ENCODERS:
        for kind in lesson03.KINDS:
            rates = rates_around(lesson03.rate_of(study, encoder, kind), factor)
            made = lesson03.train(study, encoder, kind, chosen.seeds[:1], rates, config)
            cells += cells_of(f"{encoder}, {kind}", made.runs, rates, made.fit)
    return cells


def encoders(study: Study, factor: float) -> Cells:
    """Linear probe, prompt tuning and P-Tuning v2 (with and without MLP) on the encoder model."""
    chosen, cells = study.scale.encoders, []
    config = replace(chosen.fits[chosen.data], evaluations=1)
    for name in (*lesson04_methods.METHODS[:3], "P-Tuning v2, mlp"):
        method, _, form = name.partition(", ")
        rates = rates_around(chosen.rates[name], factor)
        options = {"form": form} if form else {}
        runs, fit = lesson04_methods.train(study, method, study.seeds[0], rates, config, **options)
        cells += cells_of(f"{name} (04)", runs, rates, fit)
    return cells


def weights(study: Study, factor: float, every: int = 1) -> Cells:
    """Fine-tuning and DID of the causal model on seen tasks, scored after the last step."""
    scale, seed, cells = study.scale, study.seeds[0], []
    chosen, how = study.seen_tasks(seed)[::every], study.scale.prompt
    for method, rate in (("fine-tuning", scale.fine_tuning_lr), ("DID", scale.did_lr)):
        for lr in rates_around(rate, factor):
            sizes = (how.steps, how.rows_per_run, lr, seed, how.dev_examples, "dev", scale.main_dim)
            found = [fine_tune(study.backbone, t, method, *sizes) for t in chosen]
            mean = {name: fmean(getattr(one, name) for one in found) for name in ("dev_loss", "score")}
            about = {"method": method, "lr": lr, "dev_loss": mean["dev_loss"], "tasks": len(found)}
            cells.append(about | {"option_accuracy": mean["score"]})
    return cells


def of_adapters(study: Study, factor: float, every: int = 1) -> Cells:
    """The adapter variant: MSF on half of the tasks, IST and its controls on the other half."""
    chosen, seed, dim, cells = config_of(study), study.seeds[0], study.scale.main_dim, []
    engine = engine_of(study)
    runs = [Run(task, seed) for task in study.seen_tasks(seed)[::every][::2]]
    found = {}
    for lr in rates_around(chosen.msf.lr, factor):
        found[lr] = drawn(study, dim)
        fit = trainer.fit(
            engine, found[lr], runs, replace(chosen.msf, lr=lr, evaluations=1), label="adapters"
        )
        cells += cells_of("adapters (MSF)", runs, (lr,), fit)
    others = study.fresh_tasks(seed)[: len(study.seen)][::every][1::2]
    rates, config = rates_around(chosen.ist.lr, factor), replace(chosen.ist, evaluations=1)
    tuned = [Run(task, seed, "train_new", lr) for lr in rates for task in others]
    mine, random = found[chosen.msf.lr], drawn(study, dim)
    decoders: dict[str, subspace.PromptDecoder] = {
        "learned": mine,
        "around": RandomAround(mine, random),
        "random": random,
    }
    for name, decoder in decoders.items():
        method = adapters.METHODS[name]
        _, fit = subspace.tune(engine, decoder, tuned, config, label=method)
        cells += cells_of(method, tuned, rates, fit)
    return cells


def fine_tuning(study: Study, factor: float) -> Cells:
    """Full fine-tuning of the encoder model: mean dev score, because the Trainer keeps no dev loss.

    There are no cells if the scale fine-tunes on no task.
    """
    cells: Cells = []
    if not study.scale.encoders.tuned:
        return cells
    for lr in rates_around(study.scale.encoders.rates["fine-tuning"], factor):
        scores = lesson04_methods.fine_tuning_scores(study, study.seeds[0], lr)
        about = {"method": "fine-tuning (04)", "lr": lr, "dev_loss": None, "tasks": len(scores)}
        cells.append(about | {"option_accuracy": sum(scores) / len(scores)})
    return cells


METHODS = {
    "prompt": prompt_tuning,
    "ist": ist,
    "ptuning": p_tuning,
    "encoders": encoders,
    "fine-tuning": fine_tuning,
    "weights": weights,
    "adapters": of_adapters,
}
USUAL = tuple(name for name in METHODS if name not in ("weights", "adapters"))
TAKE_SOME = ("prompt", "ist", "weights", "adapters")  # methods with an argument `every`


def measure(study: Study, factor: float, only: Sequence[str] = USUAL, every: int = 1) -> Cells:
    """Return one cell per method and rate: mean dev loss over tasks, and accuracy where there are options."""
    some = {name: {"every": every} if name in TAKE_SOME else {} for name in only}
    return [cell for name in only for cell in METHODS[name](study, factor, **some[name])]


def rates_around(rate: float, factor: float) -> tuple[float, float, float]:
    """Return the rate divided by the factor, the rate, and the rate times the factor."""
    return rate / factor, rate, rate * factor


def cells_of(method: str, runs: list[Run], rates: tuple[float, ...], fit: Fit) -> Cells:
    """Return one cell per rate from runs that are ordered by rate, then by task."""
    dev = fit.dev[-1].unflatten(0, (len(rates), -1))  # [rates, tasks, (accuracy, -loss)]
    per_rate = len(runs) // len(rates)
    choices = torch.tensor([bool(run.task.dev[0].options) for run in runs[:per_rate]])
    return [
        {
            "method": method,
            "lr": lr,
            "dev_loss": -float(scores[:, 1].mean()),
            "option_accuracy": float(scores[choices, 0].mean()) if choices.any() else None,
            "tasks": per_rate,
        }
        for lr, scores in zip(rates, dev, strict=True)
    ]


def table(cells: Cells) -> str:
    """Return the cells as aligned text."""
    lines = [f"{'method':24}{'lr':>8}{'tasks':>7}{'dev loss':>10}{'score':>8}"]
    for c in cells:
        loss, score = ("" if c[k] is None else f"{c[k]:.3f}" for k in ("dev_loss", "option_accuracy"))
        lines.append(f"{c['method']:24}{c['lr']:8.3g}{c['tasks']:7d}{loss:>10}{score:>8}")
    return "\n".join(lines)


def main() -> None:
    """Train at every rate, print the table and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_rates", description=__doc__)
    parser.add_argument("--scale", default="lesson", help="a name in data/scales.json (default lesson)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the few-shot sets (default 0)")
    parser.add_argument("--factor", type=float, default=3.0, help="ratio of two rates, above 1 (default 3)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default cpu)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", default=",".join(USUAL), help=f"some of {', '.join(METHODS)}")
    parser.add_argument("--every", type=int, default=1, help=f"use every N-th task ({', '.join(TAKE_SOME)})")
    given = parser.parse_args()
    only = given.only.split(",")
    if set(only) - set(METHODS):
        parser.error(f"--only is {given.only}; choose from {', '.join(METHODS)}")
    if given.every < 1:
        parser.error(f"--every is {given.every}; give a number from 1 on")
    if not given.factor > 1:
        parser.error(f"--factor is {given.factor}; give a number above 1")
    study = Study(scales.load(given.scale), given.device, given.seed)
    cells = measure(study, given.factor, only, given.every)
    print(table(cells))
    about = {"scale": study.scale.name, "seed": study.seeds[0], "every": given.every}
    keep(given.json, about, cells=cells)


if __name__ == "__main__":
    main()
