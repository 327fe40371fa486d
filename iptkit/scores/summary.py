"""Summaries of result rows: mean scores, relative performance (E_rel) and paired differences.

A row holds one score: task, category, leakage group, split ("seen" or "unseen"), setting, method, d_I (0 for
methods without one), seed, metric, score, chance, n_test, backbone, scale, dtype and device. Tasks of a
leakage group share texts or facts and are not independent, so intervals are computed over groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iptkit.scores import intervals
from iptkit.storage import messages

FIELDS = ("task", "method", "score", "seed")  # every row has these
OF_SUBSPACE = (*FIELDS, "d_I", "split", "chance")  # every row of a subspace study has these


def summary(
    rows: Sequence[dict[str, Any]],
    methods: Sequence[tuple[str, int]],
    splits: Sequence[str] = ("seen", "unseen"),
    reference: str = "prompt tuning",
) -> list[dict[str, Any]]:
    """Return one line per (method, d_I, split) that was measured, compared with prompt tuning on its tasks.

    The reference score of a task is the mean over all its seeds, even for a method that was measured with
    the first seed only. So all methods share one reference.

    Args:
      rows: result rows (see the module's docstring).
      methods: (method, d_I) pairs, with d_I 0 for a method without one.
      splits: which of "seen" and "unseen" get a line.
      reference: the method to compare with, one without d_I. With "fine-tuning", E_rel is the paper's
        E_rel^FT.

    Returns: lines with "score", "E_rel" (floor 0) and "E_rel above chance", each a triple (mean over tasks,
      low, high) from `intervals.over_tasks`. E_rel is None if no task has a usable reference; "E_rel tasks"
      counts the tasks that have one. "ratio of means" is a plain number.
    """
    lines = []
    for method, dim in methods:
        for split in splits:
            wanted = (method, dim, split)
            mine = intervals.by_task([r for r in rows if (r["method"], r["d_I"], r["split"]) == wanted])
            if mine:
                names = {"method": method, "d_I": dim, "split": split, "tasks": len(mine)}
                lines.append(names | _compared(mine, rows, split, reference))
    return lines


def difference(
    rows: Sequence[dict[str, Any]], first: tuple[str, int], second: tuple[str, int], split: str | None = None
) -> tuple[float, float, float]:
    """Return the mean over tasks of score(first) - score(second), paired by task and seed, with its interval.

    If the two methods were measured with different seeds on a task, the difference of their means over seeds
    counts for that task. So swapping the arguments flips the sign. If both were measured on the same tasks,
    the result is the difference of the two means in `summary`.

    Args:
      rows: result rows (see the module's docstring).
      first: (method, d_I).
      second: (method, d_I) of the method that is subtracted.
      split: "seen", "unseen" or None for both.
    Raises: ValueError if `first` was not measured, `second` was not measured on all tasks of `first`, or the
      rows of a method differ in their number of training examples.
    """
    a, b = (_by_seed(rows, which, split) for which in (first, second))
    missing = sorted(set(a) - set(b))
    if missing or not a:
        of = "no task" if not a else f"not {len(missing)} of the {len(a)} tasks of {first} ({missing[0]} ...)"
        raise ValueError(
            f"{second if a else first} was measured on {of} (split: {split or 'both'}); "
            "name a split on which both were"
        )
    return intervals.over_tasks({task: _paired(a[task], b[task]) for task in a}, rows)


def relative(score: float, reference: float, floor: float = 0.0, least: float = 0.05) -> float | None:
    """Return E_rel of one task, (score - floor) / (reference - floor): the share of the reference kept.

    Qin et al. 2021 divide the plain scores (floor 0). With `floor` = chance, guessing earns nothing.

    Args:
      score: the method's score.
      reference: the score of prompt tuning (or fine-tuning) on the task.
      floor: the score that counts as zero.
      least: smallest usable difference of reference and floor.

    Returns: the ratio, or None if the reference is less than `least` above the floor, where the ratio is
      mostly noise.
    """
    return None if reference - floor < least else (score - floor) / (reference - floor)


def _paired(first: dict[int, float], second: dict[int, float]) -> list[float]:
    """Return the differences on one task: by seed if both methods have the same seeds, else of their means.

    If one method has more seeds, its values minus the other's mean are returned, so that they keep their
    variance.
    """
    if set(first) == set(second):
        return [value - second[seed] for seed, value in first.items()]
    if len(first) == len(second):
        return [(sum(first.values()) - sum(second.values())) / len(first)]
    more, less = (first, second) if len(first) > len(second) else (second, first)
    sign, other = (1 if more is first else -1), sum(less.values()) / len(less)
    return [sign * (value - other) for value in more.values()]


def _compared(
    mine: dict[str, list[float]], rows: Sequence[dict[str, Any]], split: str, method: str
) -> dict[str, Any]:
    """Return the fields of a line of `summary` that compare scores by task with those of `method`."""
    full = intervals.by_task([r for r in rows if (r["method"], r["d_I"], r["split"]) == (method, 0, split)])
    missing = sorted(set(mine) - set(full))
    if missing:
        tasks = messages.visible(", ".join(missing))
        raise ValueError(f"{method!r} without d_I was not measured on {tasks}; give another reference")
    reference = {task: sum(values) / len(values) for task, values in full.items()}
    chance = {r["task"]: r["chance"] for r in rows}
    line: dict[str, Any] = {"score": intervals.over_tasks(mine, rows)}
    whole = sum(reference[t] for t in mine) / len(mine)
    line["ratio of means"] = line["score"][0] / whole if whole else float("nan")
    for name, floor in (("E_rel", dict.fromkeys(mine, 0.0)), ("E_rel above chance", chance)):
        ratios = {t: [relative(s, reference[t], floor[t]) for s in v] for t, v in mine.items()}
        kept = {t: [r for r in v if r is not None] for t, v in ratios.items() if None not in v}
        line[name] = intervals.over_tasks(kept, rows) if kept else None
        line[f"{name} tasks"] = len(kept)
    return line


def _by_seed(
    rows: Sequence[dict[str, Any]], which: tuple[str, int], split: str | None
) -> dict[str, dict[int, float]]:
    """Return task -> seed -> score of one (method, d_I), averaged over its runs with that seed."""
    found: dict[str, dict[int, list[float]]] = {}
    mine = [r for r in rows if (r["method"], r["d_I"]) == which and split in (None, r["split"])]
    if len(counts := {row.get("examples", 0) for row in mine}) > 1:
        raise ValueError(
            f"the rows of {which} were trained on {sorted(counts)} examples; give rows with one number only"
        )
    for row in mine:
        found.setdefault(row["task"], {}).setdefault(row["seed"], []).append(row["score"])
    return {t: {s: sum(v) / len(v) for s, v in of_task.items()} for t, of_task in found.items()}
