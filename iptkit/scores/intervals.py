"""Intervals of means over tasks: what a score would be on other tasks of the kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FEW_TASKS, MANY_TASKS = 4, 30  # see `interval`


def interval(
    values: Sequence[Sequence[float]],
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[float, float, float]:
    """Mean and interval of values[task][seed].

    From MANY_TASKS on: tasks with their seeds are drawn with replacement (bootstrap), so the interval speaks
    of other tasks of the kind. With fewer that is too narrow (by a sixth at 10 tasks), so from FEW_TASKS on
    Student's t over the tasks' means takes its place. Below, or where all are of one group, nothing can be
    said of other tasks: Student's t over the seeds of these.

    Args:
      values: of each task, one per seed.
      groups: a label for each task; tasks of one label (a leakage group) are not independent, so they are
        drawn together, and from two groups up to MANY_TASKS Student's t has the error of clusters and as many
        degrees of freedom as groups, less one. The mean stays that over tasks.

    Returns: (mean, low, high); low and high are nan where few tasks have one seed each.
    Raises: ValueError if there is no value.

    Example:
      >>> interval([[1.0, 1.0], [1.0, 1.0]])
      (1.0, 1.0, 1.0)
    """
    tasks = [np.asarray(v, dtype=float) for v in values if len(v)]
    if not tasks:
        raise ValueError("interval got no values; every task was left out (see `relative`)")
    means = np.array([t.mean() for t in tasks])
    mean, rng = float(means.mean()), np.random.default_rng(seed)
    labels = [label for label, v in zip(groups or range(len(values)), values, strict=True) if len(v)]
    count = len(set(labels))
    if len(tasks) >= FEW_TASKS and 1 < count < len(tasks):
        return _of_clusters(means, labels, draws, level, rng)
    if FEW_TASKS <= count < MANY_TASKS:
        return _student(mean, means.std(ddof=1) / np.sqrt(len(means)), len(means) - 1, level)
    if count < FEW_TASKS:
        repeated = [t for t in tasks if len(t) > 1]
        error = np.sqrt(sum(t.var(ddof=1) / len(t) for t in repeated)) / len(tasks)
        freedom = sum(len(t) - 1 for t in tasks) if len(repeated) == len(tasks) else 0
        return _student(mean, error, freedom, level)
    drawn = rng.choice(means, size=(draws, len(means))).mean(-1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def over_tasks(
    values: Mapping[str, Sequence[float]], rows: Sequence[Mapping[str, Any]]
) -> tuple[float, float, float]:
    """`interval` of values by task (see evaluation.by_task), over the leakage groups that the rows name.

    Args:
      values: task id -> its values, one per seed.
      rows: those that the values come from; where none has a "group", each task is one of its own.
    Raises: ValueError if some tasks have a group and others do not.
    """
    group = {row["task"]: row["group"] for row in rows if "group" in row}
    without = sorted(values.keys() - group.keys())
    if group and without:
        raise ValueError(
            f"rows of {without[0]} name no leakage group, others do; put `group` of the task's card on all"
        )
    return interval(list(values.values()), groups=[group.get(task, task) for task in values])


def _of_clusters(
    means: np.ndarray, labels: Sequence[Any], draws: int, level: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """The interval of `interval` where groups of tasks are what is independent."""
    place = np.unique(labels, return_inverse=True)[1]
    mean, size = float(means.mean()), int(place.max()) + 1
    if size < MANY_TASKS:
        apart = np.bincount(place, means - mean)  # sums over the tasks of a group
        error = np.sqrt((apart**2).sum() * size / (size - 1)) / len(means)
        return _student(mean, error, size - 1, level)
    sums, counts = np.bincount(place, means), np.bincount(place)
    chosen = rng.integers(0, size, (draws, size))
    drawn = sums[chosen].sum(-1) / counts[chosen].sum(-1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def _student(mean: float, error: float, freedom: int, level: float) -> tuple[float, float, float]:
    """Student's interval of a mean with its standard error; nan where nothing was repeated."""
    from scipy.stats import t as student

    half = student.ppf((1 + level) / 2, freedom) * error if freedom else np.nan
    return mean, float(mean - half), float(mean + half)


# ---- relative performance ------------------------------------------------------------------------
def relative(score: float, reference: float, floor: float = 0.0, least: float = 0.05) -> float | None:
    """E_rel of one task, the share of prompt tuning that is kept: (score - floor) / (reference - floor).

    Qin et al. 2021 divide the bare scores (floor 0). With `floor` = chance, guessing counts as nothing.

    Returns: the ratio, or None where the reference is less than `least` above the floor and a ratio
      would say nothing.
    """
    return None if reference - floor < least else (score - floor) / (reference - floor)


def by_task(rows: Sequence[dict[str, Any]], value: str = "score") -> dict[str, list[float]]:
    """Group result rows: task id -> values over seeds, in the order given."""
    out: dict[str, list[float]] = {}
    for row in rows:
        if row[value] is not None:
            out.setdefault(row["task"], []).append(row[value])
    return out
