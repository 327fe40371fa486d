"""Rows of results: one per score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from iptkit.storage import step_cache
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Task

Row = dict[str, Any]
DECODERS = {  # what IST decodes with -> its method
    "learned": "IST",
    "random": "random decoder",
    "pca": "PCA of the prompts",
    "fastfood": "Fastfood over the prompt",
}


def about(task: Task) -> dict[str, str]:
    """What every row says of its task: its id and its leakage group."""
    return {"task": task.id, "group": task.group}


def row(task: Task, method: str, score: float, **more: Any) -> Row:
    """One result: the task, its few-shot seed, the method, the score, and `more` about it."""
    return {**about(task), "seed": task.seed, "method": method, "score": score, **more}


def of_study(
    study: StudyInputs,
    scores: Sequence[float],
    method: str,
    seeds: Sequence[int],
    intrinsic_dim: int = 0,
    only: str = "",
) -> list[Row]:
    """Rows of a study's table, one per score.

    Args:
      study: whose tasks were scored.
      scores: one per seed and task of the study, all tasks of the first seed first.
      method: what was scored.
      seeds: of the few-shot sets that were scored.
      intrinsic_dim: d_I, 0 for a method without one.
      only: "seen" or "unseen" if only tasks of that side were scored.
    """
    sides = {"seen": study.seen_tasks, "unseen": study.unseen_tasks}
    scored = [
        (task, side)
        for seed in seeds
        for side, tasks_of in sides.items()
        if only in ("", side)
        for task in tasks_of(seed)
    ]
    return [
        of_task(study, task, method, score, intrinsic_dim, side)
        for (task, side), score in zip(scored, scores, strict=True)
    ]


def of_task(
    study: StudyInputs, task: Task, method: str, score: float, intrinsic_dim: int = 0, side: str = "unseen"
) -> Row:
    """One row of a study's table; the arguments are those of `of_study`."""
    return row(
        task,
        method,
        score,
        category=task.category,
        **_setting(method, side),
        d_I=intrinsic_dim,
        metric=task.metric,
        chance=task.chance,
        n_test=min(len(task.test), study.scale.test_examples),
        backbone=study.scale.backbone,
        scale=study.scale.name,
        dtype=study.backbone.dtype,
        device=str(study.backbone.device),
    )


def view_of_split(study: StudyInputs, step: step_cache.Step) -> step_cache.Step:
    """A step of the whole suite (`Study.whole`) cut to the tasks of a split, in its order.

    Args:
      study: of the split.
      step: has the tensors "P" [S, T, n, d] and "losses" [steps, S * T], or neither; each list of its values
        has one entry per seed and task.
    """
    whole, seen = study.whole.ids, set(study.seen)
    places = [whole.index(task) for task in study.ids]
    index = [start + i for start in range(0, len(step.values["rows"]), len(whole)) for i in places]
    values = {name: [value[i] for i in index] for name, value in step.values.items()}
    sides = {True: "seen", False: "unseen"}
    values["rows"] = [r | _setting(r["method"], sides[r["task"] in seen]) for r in values["rows"]]
    tensors = {name: t[:, places if name == "P" else index] for name, t in step.tensors.items()}
    return replace(step, tensors=tensors, values=values)


def _setting(method: str, side: str) -> dict[str, str]:
    """Split and setting of a score, the latter in the words of Qin et al. 2021."""
    name, _, data = method.partition(", ")
    if name in DECODERS.values() and side == "seen":
        return {"split": side, "setting": f"{name}, seen tasks, {data or 'new data'}"}
    return {"split": side, "setting": f"{method}, {side} tasks"}
