"""Confidence intervals, a test and the power for mean scores over tasks.

They say how far the mean might be off on other tasks of the same kind. The code is our own because tasks of
one leakage group have to be drawn (or flipped) together, which scipy and its like do not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Interval = tuple[float, float, float]  # mean, low, high
FEW_TASKS, MANY_TASKS = 4, 30  # see `interval`
FEW_GROUPS = 12  # see `sign_flip`
LEAST_GROUPS = 6  # a verdict needs so many: with five, no sign-flip test has p <= 0.05


def interval(
    values: Sequence[Sequence[float]],
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> tuple[float, float, float]:
    """Return (mean, low, high): the mean of values[task][seed] over tasks with its confidence interval.

    The method depends on the number of tasks:

    - MANY_TASKS or more: a bootstrap that draws tasks, with all their seeds, with replacement. The interval
      generalises to other tasks of the same kind.
    - FEW_TASKS or more: Student's t over the means of the tasks, because a bootstrap of so few tasks is too
      narrow (by a sixth at 10 tasks).
    - fewer, or all in one group: Student's t over seeds. The interval covers these tasks only.

    Args:
      values: for each task its values, one per seed.
      draws: how many bootstrap samples are drawn.
      level: confidence level, between 0 and 1.
      seed: seeds the bootstrap.
      groups: a label for each task. Tasks with the same label (a leakage group) are not independent, so the
        bootstrap draws them together. With 2 to MANY_TASKS - 1 groups, Student's t uses the cluster-robust
        standard error, with one degree of freedom less than there are groups. The mean stays the mean over
        tasks.

    Returns: (mean, low, high); low and high are nan if there are fewer than FEW_TASKS tasks, or all are in
      one group, and one of them has a single seed.
    Raises: ValueError if there is no value.

    Example:
      >>> interval([[1.0, 1.0], [1.0, 1.0]])
      (1.0, 1.0, 1.0)
    """
    tasks = [np.asarray(v, dtype=float) for v in values if len(v)]
    if not tasks:
        raise ValueError("there are no values to average; give at least one task with a value")
    means = np.array([t.mean() for t in tasks])
    mean, rng = float(means.mean()), np.random.default_rng(seed)
    labels = [label for label, v in zip(groups or range(len(values)), values, strict=True) if len(v)]
    count = len(set(labels))
    if len(tasks) >= FEW_TASKS and 1 < count < len(tasks):
        return _of_clusters(means, labels, draws, level, rng)
    if FEW_TASKS <= count < MANY_TASKS:
        return student(mean, means.std(ddof=1) / np.sqrt(len(means)), len(means) - 1, level)
    if count < FEW_TASKS:
        repeated = [t for t in tasks if len(t) > 1]
        error = np.sqrt(sum(t.var(ddof=1) / len(t) for t in repeated)) / len(tasks)
        freedom = sum(len(t) - 1 for t in tasks) if len(repeated) == len(tasks) else 0
        return student(mean, error, freedom, level)
    drawn = rng.choice(means, size=(draws, len(means))).mean(-1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def over_tasks(
    values: Mapping[str, Sequence[float]], rows: Sequence[Mapping[str, Any]]
) -> tuple[float, float, float]:
    """Return the `interval` of values by task, with the leakage groups that the rows name.

    Args:
      values: task id -> its values, one per seed, as `by_task` returns them.
      rows: the result rows that the values come from. If no row has a "group", each task is its own group.
    Raises: ValueError if some tasks have a group and others do not.
    """
    return interval(list(values.values()), groups=groups_of(values, rows))


def groups_of(tasks: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the leakage group of each task, as the rows name it; the task itself if no row has a "group".

    Args:
      tasks: task ids.
      rows: result rows that have all tasks.
    Raises: ValueError if some tasks have a group and others do not.
    """
    tasks, group = list(tasks), {row["task"]: row["group"] for row in rows if "group" in row}
    without = sorted({*tasks} - group.keys())
    if group and without:
        raise ValueError(
            f"the rows of {without[0]} have no leakage group, but others do; give every row the `group` of "
            "its task's card"
        )
    return [group.get(task, task) for task in tasks]


def sign_flip(values_by_group: Mapping[str, Sequence[float]], draws: int = 20_000, seed: int = 0) -> float:
    """Return the two-sided p of the sign-flip test that the mean over tasks is 0.

    This is Fisher's randomisation test for paired values (Good 2005, "Permutation, Parametric and Bootstrap
    Tests of Hypotheses"). If the mean is 0, each group's values might as well have the opposite sign: p is
    the share of all such sign patterns with a sum at least as far from 0 as the measured one.

    Args:
      values_by_group: leakage group -> the value of each of its tasks, which share one sign. To test for
        another mean than 0, subtract it from the values.
      draws: how many sign patterns are drawn if there are more than FEW_GROUPS groups; up to there, all are
        tried.
      seed: seeds the draws.
    Raises: ValueError if there is no value.

    Example:
      >>> sign_flip({"a": [0.1], "b": [0.2, 0.1], "c": [0.3], "d": [0.1], "e": [0.2], "f": [0.2]})
      0.03125
    """
    sums = np.array([np.sum(values) for values in values_by_group.values() if len(values)], dtype=float)
    if not len(sums):
        raise ValueError("there are no values to test; give at least one group with a value")
    least = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # equal sums may differ by rounding
    if len(sums) <= FEW_GROUPS:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((1 - 2 * patterns) @ sums) >= least).mean())
    patterns = np.random.default_rng(seed).integers(0, 2, (draws, len(sums)))
    as_far = int((np.abs((1 - 2 * patterns) @ sums) >= least).sum())
    return (1 + as_far) / (1 + draws)  # the measured pattern is one of them


def standard_error(values: Sequence[float] | np.ndarray, groups: Sequence[Any]) -> tuple[float, int]:
    """Return the cluster-robust standard error of the mean over tasks, and its degrees of freedom.

    Args:
      values: one per task.
      groups: the leakage group of each task.
    Returns: (error, freedom); freedom is one less than the number of groups. With one group the error is nan.

    Example:
      >>> standard_error([0.0, 2.0], ["a", "b"]), standard_error([0.0, 2.0], ["a", "a"])
      ((1.0, 1), (nan, 0))
    """
    means, place = np.asarray(values, dtype=float), np.unique(groups, return_inverse=True)[1]
    size = int(place.max()) + 1
    if size < 2:
        return float("nan"), 0
    deviations = np.bincount(place, means - float(means.mean()))  # summed over the tasks of a group
    return float(np.sqrt((deviations**2).sum() * size / (size - 1)) / len(means)), size - 1


def student(mean: float, error: float, freedom: float, level: float = 0.95) -> Interval:
    """Return Student's t interval of a mean.

    Args:
      mean: the estimate.
      error: its standard error, see `standard_error`.
      freedom: its degrees of freedom; low and high are nan without one.
      level: confidence level, between 0 and 1.

    Example:
      >>> "{:.2f} {:.2f} {:.2f}".format(*student(1.0, 0.1, 10**6))
      '1.00 0.80 1.20'
    """
    from scipy.stats import t

    half = t.ppf((1 + level) / 2, freedom) * error if freedom > 0 else np.nan
    return mean, float(mean - half), float(mean + half)


def smallest_effect(error: float, freedom: float, power: float = 0.8, level: float = 0.05) -> float:
    """Return the smallest effect that a design sees with this power: (t_{1 - level / 2} + t_power) · error.

    The t are quantiles of Student's distribution. A smaller effect may well be there and not be significant.

    Args:
      error: standard error of the mean, see `standard_error`.
      freedom: its degrees of freedom; the effect is nan without one.
      power: probability that an effect of this size is significant, between 0 and 1.
      level: of the two-sided test, between 0 and 1.

    Example:
      >>> round(smallest_effect(0.1, 10**6), 3)  # 1.96 + 0.84 standard errors
      0.28
    """
    from scipy.stats import t

    return float(sum(t.ppf([1 - level / 2, power], freedom)) * error) if freedom > 0 else float("nan")


def by_group(
    values: Mapping[str, Sequence[float]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[float]]:
    """Return leakage group -> the mean over seeds of each of its tasks, for `sign_flip`.

    Args:
      values: task id -> its values, one per seed.
      rows: the result rows that the values come from.
    """
    out: dict[str, list[float]] = {}
    for group, of_task in zip(groups_of(values, rows), values.values(), strict=True):
        if len(of_task):
            out.setdefault(group, []).append(float(np.mean(of_task)))
    return out


def by_task(rows: Sequence[dict[str, Any]], value: str = "score") -> dict[str, list[float]]:
    """Return task id -> values over seeds, in the order of the rows; values that are None are left out.

    Args:
      rows: result rows, each with its "task".
      value: the field to collect.
    """
    out: dict[str, list[float]] = {}
    for row in rows:
        if row[value] is not None:
            out.setdefault(row["task"], []).append(row[value])
    return out


def opposite(difference: Sequence[float]) -> Interval:
    """Return the interval of b - a, given that of a - b (mean, low, high)."""
    mean, low, high = difference[:3]
    return -mean, -high, -low


def difference_text(difference: Sequence[float]) -> str:
    """Return a difference (mean, low, high) as text, with signs.

    Example:
      >>> difference_text((0.123, 0.01, 0.24))
      '+0.123 [+0.010, +0.240]'
    """
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*(value + 0.0 for value in difference[:3]))  # no -0.000 for 0


def level_text(level: Sequence[float]) -> str:
    """Return a score or a ratio (mean, low, high) as text, without signs.

    Example:
      >>> level_text((0.5, 0.4, 0.6))
      '0.500 [0.400, 0.600]'
    """
    return "{:.3f} [{:.3f}, {:.3f}]".format(*level[:3])


def _of_clusters(
    means: np.ndarray, labels: Sequence[Any], draws: int, level: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return what `interval` does when only the groups of tasks are independent."""
    place = np.unique(labels, return_inverse=True)[1]
    mean, size = float(means.mean()), int(place.max()) + 1
    if size < MANY_TASKS:
        return student(mean, *standard_error(means, labels), level)
    sums, counts = np.bincount(place, means), np.bincount(place)
    chosen = rng.integers(0, size, (draws, size))
    drawn = sums[chosen].sum(-1) / counts[chosen].sum(-1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)
