"""Rows of a study's table: one per score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from iptkit.storage import step_cache
from iptkit.studies.base import StudyInputs
from iptkit.tasks.examples import Task

DECODERS = {  # what IST decodes with -> its method
    "learned": "IST",
    "random": "random decoder",
    "pca": "PCA of the prompts",
    "fastfood": "Fastfood over the prompt",
}


def rows(
    study: StudyInputs,
    scores: Sequence[float],
    method: str,
    seeds: Sequence[int],
    intrinsic_dim: int = 0,
    only: str = "",
) -> list[dict[str, Any]]:
    """One row per score.

    Args:
      scores: one per seed and task of the study, all tasks of the first seed first.
      seeds: those of the few-shot sets that were scored.
      intrinsic_dim: d_I, 0 for a method without one.
      only: "seen" or "unseen": there are scores of that side only.
    """
    sides = {"seen": study.seen_tasks, "unseen": study.unseen_tasks}
    scored = [
        (side == "seen", task)
        for seed in seeds
        for side, of in sides.items()
        if only in ("", side)
        for task in of(seed)
    ]
    return rows_of(study, scored, scores, method, intrinsic_dim)


def rows_of(
    study: StudyInputs,
    scored: Sequence[tuple[bool, Task]],
    scores: Sequence[float],
    method: str,
    intrinsic_dim: int = 0,
) -> list[dict[str, Any]]:
    """One row per score of a task; scored: (is it a seen one, the task)."""
    return [
        _row(study, task, is_seen, method, intrinsic_dim, score)
        for (is_seen, task), score in zip(scored, scores, strict=True)
    ]


def of_sides(study: StudyInputs, step: step_cache.Step) -> step_cache.Step:
    """A step of the whole suite (`Study.whole`) as one of a split of it: its tasks, in its order.

    Tensors: "P" [S, T, n, d] and "losses" [steps, S * T]; each list of values has one per seed and task.
    """
    whole, seen = study.whole.ids, set(study.seen)
    places = [whole.index(task) for task in study.ids]
    index = [start + i for start in range(0, len(step.values["rows"]), len(whole)) for i in places]
    values = {name: [value[i] for i in index] for name, value in step.values.items()}
    values["rows"] = [row | _side(row["method"], row["task"] in seen) for row in values["rows"]]
    tensors = {name: t[:, places if name == "P" else index] for name, t in step.tensors.items()}
    return replace(step, tensors=tensors, values=values)


def _row(
    study: StudyInputs, task: Task, is_seen: bool, method: str, intrinsic_dim: int, score: float
) -> dict[str, Any]:
    return {
        "task": task.id,
        "category": task.category,
        "group": task.group,
        **_side(method, is_seen),
        "method": method,
        "d_I": intrinsic_dim,
        "seed": task.seed,
        "metric": task.metric,
        "score": score,
        "chance": task.chance,
        "n_test": min(len(task.test), study.scale.test_examples),
        "backbone": study.scale.backbone,
        "scale": study.scale.name,
        "dtype": study.backbone.dtype,
        "device": str(study.backbone.device),
    }


def _side(method: str, is_seen: bool) -> dict[str, str]:
    """Split and setting of a score."""
    split = "seen" if is_seen else "unseen"
    name, _, data = method.partition(", ")
    if name in DECODERS.values() and is_seen:
        return {"split": split, "setting": f"{name}, seen tasks, {data or 'new data'}"}
    return {"split": split, "setting": f"{method}, {split} tasks"}
