"""Rows of measured scores, and what is read from them: summaries and paired differences.

A row is one score: task, category, (leakage) group, split ("seen" or "unseen"), setting, method, d_I (0
where a method has none), seed, metric, score, chance, n_test, backbone, scale, dtype and device. Tasks of a
group are made of the same texts or facts and not independent, so intervals are over groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iptkit.scores import intervals
from iptkit.storage import files

FIELDS = ("task", "method", "score", "seed")  # that every row has, of any part
OF_SUBSPACE = (*FIELDS, "d_I", "split", "chance")


def summary(
    rows: Sequence[dict[str, Any]],
    methods: Sequence[tuple[str, int]],
    splits: Sequence[str] = ("seen", "unseen"),
    reference: str = "prompt tuning",
) -> list[dict[str, Any]]:
    """One line per (method, d_I, split) that was measured, beside prompt tuning on the same tasks.

    Prompt tuning's score of a task is the mean over all its samples, also for a method that was measured on
    the first only, so that the reference is the same for all.

    Args:
      methods: (method, d_I); 0 for a method without d_I.
      reference: a method without d_I in its place; with "fine-tuning" E_rel is the paper's E_rel^FT.

    Returns: lines with "score", "E_rel" (floor 0) and "E_rel above chance", each (mean over tasks,
      low, high) of `evaluation.over_tasks`; E_rel is None where no task has a usable reference, and
      "E_rel tasks" counts those that have one. "ratio of means" is a plain number.
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
    """Mean over tasks of score(first) - score(second) with its interval, paired by task and seed.

    Where the two were not measured with the same seeds of a task, that task's difference is the one of their
    means over the seeds that each has. So the difference of swapped arguments is the negative one, and where
    both have the same tasks it is the difference of what `summary` shows.

    Args:
      first, second: (method, d_I).  split: "seen", "unseen" or None for both.
    Raises: ValueError if either was not measured, or `second` not on all tasks of `first`, or if there are
      rows of several numbers of examples.
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


def _paired(first: dict[int, float], second: dict[int, float]) -> list[float]:
    """Differences of one task: by seed where both have the same, else of means (spread: of the longer)."""
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
    """Scores by task beside those of `method` on the same split."""
    full = intervals.by_task([r for r in rows if (r["method"], r["d_I"], r["split"]) == (method, 0, split)])
    missing = sorted(set(mine) - set(full))
    if missing:
        told = f"there are no rows of {method!r} without d_I on {files.visible(', '.join(missing))}"
        raise ValueError(f"{told}; give another reference")
    reference = {task: sum(values) / len(values) for task, values in full.items()}
    chance = {r["task"]: r["chance"] for r in rows}
    line: dict[str, Any] = {"score": intervals.over_tasks(mine, rows)}
    whole = sum(reference[t] for t in mine) / len(mine)
    line["ratio of means"] = line["score"][0] / whole if whole else float("nan")
    for name, floor in (("E_rel", dict.fromkeys(mine, 0.0)), ("E_rel above chance", chance)):
        ratios = {t: [intervals.relative(s, reference[t], floor[t]) for s in v] for t, v in mine.items()}
        kept = {task: r for task, r in ratios.items() if None not in r}
        line[name] = intervals.over_tasks(kept, rows) if kept else None
        line[f"{name} tasks"] = len(kept)
    return line


def _by_seed(
    rows: Sequence[dict[str, Any]], which: tuple[str, int], split: str | None
) -> dict[str, dict[int, float]]:
    """Task -> seed -> score of one (method, d_I), mean over its runs."""
    found: dict[str, dict[int, list[float]]] = {}
    mine = [r for r in rows if (r["method"], r["d_I"]) == which and split in (None, r["split"])]
    if len(counts := {row.get("examples", 0) for row in mine}) > 1:
        raise ValueError(f"rows of {which} from {sorted(counts)} examples; choose those of one number")
    for row in mine:
        found.setdefault(row["task"], {}).setdefault(row["seed"], []).append(row["score"])
    return {t: {s: sum(v) / len(v) for s, v in of_task.items()} for t, of_task in found.items()}
