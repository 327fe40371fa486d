"""The trainings behind the learning curves of a study (see `learning_curves`): prompts, MSF and IST.

Each is a step in the step cache with values["rows"]. They are trained and scored like those of `steps`, on
few tasks that one fold holds out, with the few-shot sets of the first seed.

Beside the fields of a study's rows, a row has
  stage         "prompts", "msf", "ist" or "rates" ("weights" comes from `curve_weights`)
  budget        steps x examples per step, such as "120x2"; with rows_per_run and lr
  msf           the budget of the MSF behind an IST, else ""
  decoder       what IST decodes with (see `score_rows.DECODERS`), else ""
  dev_loss      the lowest mean token loss on dev that the run had at an evaluation, in nats
  dev_losses    at each evaluation; number i of k came after round(steps * i / k) steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from iptkit.methods import subspace
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.scores.evaluation import Outcome
from iptkit.storage import step_cache
from iptkit.studies import scales, score_rows
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks.examples import Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit


def part_of(study: StudySteps, fold: str, msf: FitConfig | None = None) -> StudySteps:
    """The part of a study that has one fold's sides.

    Args:
      study: whose model, tasks and trained prompts are used. If the fold is not one of its scale's, it counts
        as a study with this fold only, whose prompts a study with more folds shares.
      fold: name of the split.
      msf: how to train the auto-encoder instead of as the scale says.
    """
    scale, models = study.scale, study
    if fold not in scale.folds:
        scale = replace(scale, folds=(fold,), compared=(), seen=(), unseen=())
        models = type(study)(scale, study.device, study.seed, study)
    part = scales.part(replace(scale, msf=msf or scale.msf), fold)
    return type(study)(part, study.device, study.seed, models)


def budget_of(config: FitConfig) -> str:
    """Steps x examples per run and step.

    >>> budget_of(FitConfig(steps=120, rows_per_run=2))
    '120x2'
    """
    return f"{config.steps}x{config.rows_per_run}"


def prompts(part: StudySteps, ids: Sequence[str], config: FitConfig) -> step_cache.Step:
    """Prompt tuning of some tasks from words.

    Args:
      part: a part of a study.
      ids: of its tasks.
      config: how to train.
    Returns: a step with tensors["losses"] [steps, R], tensors["dev"] [evaluations, R] and values["rows"].
    """
    first = part.seeds[0]

    def make(checkpoint: Path) -> Made:
        tasks = [part.task(name, first) for name in ids]
        source = SoftPrompt(part.words(len(tasks)).P, part.prompt_kind)
        label = f"prompt tuning, {budget_of(config)}, {len(tasks)} runs"
        result = fit(part.engine, source, [Run(t, t.seed) for t in tasks], config, checkpoint, label)
        outcomes = part.outcomes(source, tasks, "test of prompt tuning")
        about = [_setting("prompts", config, config.lr)] * len(tasks)
        return _curves(result), {"rows": _rows(part, tasks, "prompt tuning", 0, outcomes, result, about)}

    key = part.key("curve of prompts", config, list(ids), seeds=(first,))
    return step_cache.step(f"curve-prompts-{budget_of(config)}", key, make)


def msf(part: StudySteps) -> step_cache.Step:
    """MSF of a part at its main d_I: one row per seen task, with dev losses and without a test score.

    One auto-encoder serves all tasks, so dev_loss is the task's own at the evaluation with the lowest mean.

    Args:
      part: a part of a study; its scale says how to train.
    """
    config, dim, first = part.scale.msf, part.scale.main_dim, part.seeds[0]

    def make(_: Path) -> Made:
        step, rows = part.found(dim)[1], []
        dev, about = step.tensors["dev"], step.values["trained"]
        best = int(dev.mean(1).argmin())
        for i, task in enumerate(part.seen_tasks(first)):
            row = score_rows.of_task(part, task, "MSF", Outcome(math.nan, math.nan), dim, **about)
            row |= {"score": None, "log_likelihood": None, **_setting("msf", config, config.lr)}
            rows.append(row | _losses(dev[:, i].tolist(), best))
        return {}, {"rows": rows}

    scale = part.scale
    how = (scale.prompt, scale.msf, replace(scale.subspace, intrinsic_dim=dim))
    key = part.key("curve of MSF", *how, seeds=part.groups()[0])
    return step_cache.step(f"curve-msf-{budget_of(config)}", key, make)


def ist(
    part: StudySteps,
    ids: Sequence[str],
    config: FitConfig,
    decoder: str = "learned",
    rates: Sequence[float] = (),
) -> step_cache.Step:
    """IST with new data on unseen tasks at the main d_I, in the subspace that the part's own MSF finds.

    Args:
      part: a part of a study.
      ids: of its unseen tasks.
      config: how to train.
      decoder: one of score_rows.DECODERS.
      rates: learning rates that are compared; they train together, and the rows are of the stage "rates".
    Returns: see `prompts`.
    """
    scale, first, dim = part.scale, part.seeds[0], part.scale.main_dim
    each = tuple(rates) or (config.lr,)
    method, found_with = score_rows.DECODERS[decoder], budget_of(scale.msf)

    def make(checkpoint: Path) -> Made:
        tasks = [part.task(name, first) for name in ids] * len(each)
        lrs = [rate for rate in each for _ in ids]
        runs = [Run(task, task.seed, "train_new", lr) for task, lr in zip(tasks, lrs, strict=True)]
        label = f"{method}, {budget_of(config)}, MSF {found_with}, {len(runs)} runs"
        used = part.decoder(dim, decoder)
        source, result = subspace.tune(part.engine, used, runs, config, checkpoint, label)
        outcomes = part.outcomes(source, tasks, f"test of {method}")
        stage = "rates" if rates else "ist"
        about = [_setting(stage, config, lr, found_with, decoder) for lr in lrs]
        return _curves(result), {"rows": _rows(part, tasks, method, dim, outcomes, result, about)}

    how = (scale.prompt, scale.msf, replace(scale.subspace, intrinsic_dim=dim))
    key = part.key("curve of IST", decoder, *how, config, list(each), list(ids), seeds=part.groups()[0])
    name = f"rates-{decoder}" if rates else f"ist-{found_with}-{budget_of(config)}"
    return step_cache.step(f"curve-{name}", key, make)


def _setting(stage: str, config: FitConfig, lr: float, msf: str = "", decoder: str = "") -> score_rows.Row:
    """What a row says of the training's settings."""
    budget = {"budget": budget_of(config), "rows_per_run": config.rows_per_run}
    return {"stage": stage, **budget, "lr": lr, "msf": msf, "decoder": decoder}


def _rows(
    part: StudySteps,
    tasks: Sequence[Task],
    method: str,
    intrinsic_dim: int,
    outcomes: Sequence[Outcome],
    result: Fit,
    about: Sequence[score_rows.Row],
) -> list[score_rows.Row]:
    """One row for each run of a training."""
    dev, trained = _curves(result)["dev"], score_rows.trained(result)
    each = zip(tasks, outcomes, trained, about, strict=True)
    return [
        score_rows.of_task(part, task, method, outcome, intrinsic_dim, **of_run, **setting)
        | _losses(dev[:, i].tolist())
        for i, (task, outcome, of_run, setting) in enumerate(each)
    ]


def _losses(of_run: Sequence[float], best: int | None = None) -> score_rows.Row:
    """The losses of a run on dev, and the lowest, or that of evaluation number `best`, from 0 on."""
    lowest = min(of_run) if best is None else of_run[best]
    return {"dev_loss": round(lowest, 6), "dev_losses": [round(loss, 4) for loss in of_run]}


def _curves(result: Fit) -> dict[str, Tensor]:
    """The losses of a training, for its step."""
    return {"losses": result.losses.float(), "dev": -result.dev[..., 1].float()}
