"""Rows of results: one per score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from iptkit.scores.evaluation import Outcome
from iptkit.storage import step_cache, versions
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Task
from iptkit.training.runs import Fit

Row = dict[str, Any]
DECODERS = {  # what IST decodes with -> its method
    "learned": "IST",
    "random_around": "random directions around the mean code",
    "fastfood_around": "Fastfood around the mean code",
    "pca_around": "principal components around the mean code",
    "random": "random decoder",
    "reconstruction": "reconstruction alone",
    "pca": "PCA of the prompts",
    "fastfood": "Fastfood over the prompt",
}
AROUND = ("random_around", "fastfood_around", "pca_around")  # other directions from the start of "learned"


def about(task: Task) -> dict[str, str]:
    """What every row says of its task: its id and its leakage group."""
    return {"task": task.id, "group": task.group}


def row(task: Task, method: str, score: float, **more: Any) -> Row:
    """One result: the task, its few-shot seed, the method, the score, and `more` about it."""
    return {**about(task), "seed": task.seed, "method": method, "score": score, **more}


def trained(result: Fit) -> list[Row]:
    """What a training says of each of its runs, for their rows.

    Returns: for each run "steps", "best_step", and "seconds" and "cpu_seconds" of the training divided by the
      number of runs.
    """
    steps, count = len(result.losses), result.losses.shape[1]
    best = result.best_step.tolist()  # one for all runs of a shared source
    share = {"seconds": result.seconds / count, "cpu_seconds": result.cpu_seconds / count}
    share = {name: round(value, 2) for name, value in share.items()}
    return [{"steps": steps, "best_step": best[i % len(best)], **share} for i in range(count)]


def of_study(
    study: StudyInputs,
    outcomes: Sequence[Outcome],
    method: str,
    seeds: Sequence[int],
    intrinsic_dim: int = 0,
    only: str = "",
    more: Sequence[Row] = (),
) -> list[Row]:
    """Rows of a study's table, one per score.

    Args:
      study: whose tasks were scored.
      outcomes: one per seed and judged task of the study, all tasks of the first seed first.
      method: what was scored.
      seeds: of the few-shot sets that were scored.
      intrinsic_dim: d_I, 0 for a method without one.
      only: "seen" or "unseen" if only tasks of that side were scored.
      more: further fields of each row, such as those of `trained`.
    """
    scored = [task for seed in seeds for task in study.judged_tasks(seed, only)]
    each = zip(scored, outcomes, more or [{}] * len(scored), strict=True)
    return [of_task(study, task, method, outcome, intrinsic_dim, **fields) for task, outcome, fields in each]


def of_task(
    study: StudyInputs, task: Task, method: str, outcome: Outcome, intrinsic_dim: int = 0, **more: Any
) -> Row:
    """One row of a study's table; the arguments are those of `of_study`."""
    return row(
        task,
        method,
        outcome.score,
        log_likelihood=round(outcome.log_likelihood, 6),
        category=task.category,
        **_setting(method, study.side(task.id)),
        d_I=intrinsic_dim,
        metric=task.metric,
        chance=task.chance,
        n_test=min(len(task.test), study.scale.test_examples),
        backbone=study.scale.backbone,
        scale=study.scale.name,
        dtype=study.backbone.dtype,
        device=str(study.backbone.device),
        processor=versions.processor(),
        **({"fold": study.scale.fold} if study.scale.fold else {}),
        **more,
    )


def view_of_split(study: StudyInputs, step: step_cache.Step) -> step_cache.Step:
    """A step of the whole suite (`Study.whole`) cut to the tasks of a split, in its order.

    Args:
      study: of the split.
      step: has the tensors "P" [S, T, *prompt] and "losses" [steps, S * T], or neither; each list of its
        values has one entry per seed and task.
    """
    whole = study.whole.ids
    places = [whole.index(task) for task in study.ids]
    index = [start + i for start in range(0, len(step.values["rows"]), len(whole)) for i in places]
    values = {name: [value[i] for i in index] for name, value in step.values.items()}
    values["rows"] = [r | _setting(r["method"], study.side(r["task"])) for r in values["rows"]]
    tensors = {name: t[:, places if name == "P" else index] for name, t in step.tensors.items()}
    return replace(step, tensors=tensors, values=values)


def _setting(method: str, side: str) -> dict[str, str]:
    """Split and setting of a score, the latter in the words of Qin et al. 2021."""
    if side == "both":
        return {"split": side, "setting": f"{method}, all tasks"}
    name, _, data = method.partition(", ")
    if name in DECODERS.values() and side == "seen":
        return {"split": side, "setting": f"{name}, seen tasks, {data or 'new data'}"}
    return {"split": side, "setting": f"{method}, {side} tasks"}
