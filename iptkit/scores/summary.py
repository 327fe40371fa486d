"""Summaries of result rows: mean scores, relative performance (E_rel) and paired differences.

A row holds one score: task, category, leakage group, split ("seen" or "unseen"), setting, method, d_I (0 for
methods without one), seed, metric, score, chance, n_test, backbone, scale, dtype, device and, in newer
studies, log_likelihood. A study with folds names the fold in its rows; methods that are the same in all folds
have no fold and the split "both". Tasks of a leakage group share texts or facts and are not independent, so
intervals are computed over groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from iptkit.scores import intervals
from iptkit.storage import messages

FIELDS = ("task", "method", "score", "seed")  # every row has these
OF_SUBSPACE = (*FIELDS, "d_I", "split", "chance")  # every row of a subspace study has these
VALUES = ("score", "log_likelihood")  # what is compared
LEAST = 0.05  # smallest usable difference of a reference and the floor of E_rel
FOLDS = {  # kind of folds -> their names
    "main": r"fold\d+",  # every task is unseen in one of them
    "few": r"fold\d+_\d+",  # the same unseen tasks, fewer seen ones
    "cls": r"cls\d+",  # seen tasks are classifications
    "non_cls": r"non_cls\d+",  # seen tasks are no classifications
}


def of_folds(rows: Sequence[dict[str, Any]], kind: str = "main") -> list[dict[str, Any]]:
    """Return the rows of one kind of folds, and those without a fold, which all kinds share.

    Args:
      rows: of a study with folds (see the module's docstring); of one without, all rows are returned.
      kind: one of FOLDS.
    Raises: ValueError for another kind.

    Example:
      >>> [row["fold"] for row in of_folds([{"fold": "fold1"}, {"fold": "fold1_20"}, {"fold": "non_cls1"}])]
      ['fold1']
    """
    if kind not in FOLDS:
        raise ValueError(f"there is no kind of folds {kind!r}; choose one of {', '.join(FOLDS)}")
    return [row for row in rows if not row.get("fold") or re.fullmatch(FOLDS[kind], row["fold"])]


def summary(
    rows: Sequence[dict[str, Any]],
    methods: Sequence[tuple[str, int]],
    splits: Sequence[str] = ("seen", "unseen"),
    reference: str = "prompt tuning",
    value: str = "score",
    crossed: bool = False,
) -> list[dict[str, Any]]:
    """Return one line per (method, d_I, split) that was measured, compared with prompt tuning on its tasks.

    The reference score of a task is the mean over all its seeds, even for a method that was measured with
    the first seed only. So all methods share one reference.

    Args:
      rows: result rows (see the module's docstring), of one kind of folds (`of_folds`).
      methods: (method, d_I) pairs, with d_I 0 for a method without one.
      splits: which of "seen" and "unseen" get a line. Rows of "both" belong to either.
      reference: the method to compare with, one without d_I. With "fine-tuning", E_rel is the paper's
        E_rel^FT.
      value: one of VALUES.
      crossed: divide a score by the reference of the other few-shot samples (see `ratios`).

    Returns: lines with "score", "E_rel" (floor 0) and "E_rel above chance", each a triple (mean over tasks,
      low, high) from `intervals.over_tasks`. E_rel is None if no task has a usable reference; "E_rel tasks"
      counts the tasks that have one. "ratio of means" is a plain number. With value="log_likelihood", lines
      have "log_likelihood" and "difference" (to the reference), which are such triples, and no ratios.
    Raises: ValueError if a method was measured on a task without the reference, or if the rows are of several
      kinds of folds.
    """
    lines = []
    for method, dim in methods:
        for split in splits:
            mine = intervals.by_task(_chosen(rows, (method, dim), split, value), value)
            if mine:
                names = {"method": method, "d_I": dim, "split": split, "tasks": len(mine)}
                if value == "score":
                    more = _compared(mine, rows, (method, dim), split, reference, crossed)
                else:
                    gap = difference(rows, (method, dim), (reference, 0), split, value)
                    more = {value: intervals.over_tasks(mine, rows), "difference": gap}
                lines.append(names | more)
    return lines


def difference(
    rows: Sequence[dict[str, Any]],
    first: tuple[str, int],
    second: tuple[str, int],
    split: str | None = None,
    value: str = "score",
) -> tuple[float, float, float]:
    """Return the mean over tasks of score(first) - score(second), paired by task and seed, with its interval.

    If the two methods were measured with different seeds on a task, the difference of their means over seeds
    counts for that task. So swapping the arguments flips the sign. If both were measured on the same tasks,
    the result is the difference of the two means in `summary`.

    Args:
      rows: result rows (see the module's docstring), of one kind of folds (`of_folds`).
      first: (method, d_I).
      second: (method, d_I) of the method that is subtracted.
      split: "seen", "unseen" or None for both. Rows of "both" belong to either.
      value: one of VALUES.
    Raises: ValueError if `first` was not measured, `second` was not measured on all tasks of `first`, or the
      rows of a method differ in their number of training examples or are of several kinds of folds.
    """
    return intervals.over_tasks(differences(rows, first, second, split, value), rows)


def differences(
    rows: Sequence[dict[str, Any]],
    first: tuple[str, int],
    second: tuple[str, int],
    split: str | None = None,
    value: str = "score",
) -> dict[str, list[float]]:
    """Return task -> the paired differences of two methods that `difference` averages, one per seed.

    Args and Raises: as for `difference`.
    """
    a, b = (_by_seed(rows, which, split, value) for which in (first, second))
    missing = sorted(set(a) - set(b))
    if missing or not a:
        of = "no task" if not a else f"not {len(missing)} of the {len(a)} tasks of {first} ({missing[0]} ...)"
        raise ValueError(
            f"{second if a else first} was measured on {of} (split: {split or 'both'}); "
            "name a split on which both were"
        )
    return {task: _paired(a[task], b[task]) for task in a}


def ratios(
    rows: Sequence[dict[str, Any]],
    which: tuple[str, int],
    split: str,
    reference: str = "prompt tuning",
    is_above_chance: bool = False,
    crossed: bool = False,
) -> dict[str, list[float]]:
    """Return task -> E_rel of each of a method's rows, for the tasks with a usable reference.

    Args:
      rows: result rows (see the module's docstring), of one kind of folds (`of_folds`).
      which: (method, d_I).
      split: "seen" or "unseen". Rows of "both" belong to either.
      reference: the method to divide by, one without d_I.
      is_above_chance: the floor of `relative` is chance instead of 0.
      crossed: divide a score by the mean of the reference's other few-shot samples (of all, if it has no
        other), so that one sample's luck does not stand in numerator and denominator. One sample divided by
        itself is too high by 4 to 6 %. Without it, all scores are divided by the mean over all samples.
    Raises: ValueError if the method was measured on a task without the reference, or if the rows are of
      several kinds of folds.
    """
    mine = intervals.by_task(_chosen(rows, which, split, "score"))
    whole = _references(rows, which, split, reference, crossed)
    floor = {r["task"]: r["chance"] if is_above_chance else 0.0 for r in rows}
    found = {
        task: [relative(s, of, floor[task]) for s, of in zip(scores, whole[task], strict=True)]
        for task, scores in mine.items()
    }
    return {
        task: [r for r in of_task if r is not None] for task, of_task in found.items() if None not in of_task
    }


def above_chance(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Return task -> the scores of one method minus chance, the score of guessing.

    Args:
      rows: of one method on one side, of one kind of folds.

    Example:
      >>> above_chance([{"task": "a", "score": 0.75, "chance": 0.5}])
      {'a': [0.25]}
    """
    return intervals.by_task([row | {"score": row["score"] - row["chance"]} for row in rows])


def relative(score: float, reference: float, floor: float = 0.0, least: float = LEAST) -> float | None:
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
    mine: dict[str, list[float]],
    rows: Sequence[dict[str, Any]],
    which: tuple[str, int],
    split: str,
    reference: str,
    crossed: bool,
) -> dict[str, Any]:
    """Return the fields of a line of `summary` that compare scores by task with those of the reference."""
    every = _references(rows, which, split, reference, crossed)
    wholes = [sum(of) / len(of) if crossed else of[0] for of in every.values()]
    line: dict[str, Any] = {"score": intervals.over_tasks(mine, rows)}
    whole = sum(wholes) / len(mine)
    line["ratio of means"] = line["score"][0] / whole if whole else float("nan")
    for name, is_above in (("E_rel", False), ("E_rel above chance", True)):
        kept = ratios(rows, which, split, reference, is_above, crossed)
        line[name] = intervals.over_tasks(kept, rows) if kept else None
        line[f"{name} tasks"] = len(kept)
    return line


def _references(
    rows: Sequence[dict[str, Any]], which: tuple[str, int], split: str, reference: str, crossed: bool
) -> dict[str, list[float]]:
    """Return task -> for each of a method's rows the score of the reference (see `ratios`)."""
    full: dict[str, list[tuple[int, float]]] = {}
    for row in _chosen(rows, (reference, 0), split, "score"):
        if row["score"] is not None:
            full.setdefault(row["task"], []).append((row["seed"], row["score"]))
    mine = [row for row in _chosen(rows, which, split, "score") if row["score"] is not None]
    missing = sorted({row["task"] for row in mine} - full.keys())
    if missing:
        tasks = messages.visible(", ".join(missing))
        raise ValueError(f"{reference!r} without d_I was not measured on {tasks}; give another reference")
    found: dict[str, list[float]] = {}
    for row in mine:
        every = full[row["task"]]
        others = [score for seed, score in every if crossed and seed != row["seed"]]
        used = others or [score for _, score in every]
        found.setdefault(row["task"], []).append(sum(used) / len(used))
    return found


def _by_seed(
    rows: Sequence[dict[str, Any]], which: tuple[str, int], split: str | None, value: str
) -> dict[str, dict[int, float]]:
    """Return task -> seed -> value of one (method, d_I), averaged over its runs with that seed."""
    found: dict[str, dict[int, list[float]]] = {}
    mine = _chosen(rows, which, split, value)
    if len(counts := {row.get("examples", 0) for row in mine}) > 1:
        raise ValueError(
            f"the rows of {which} were trained on {sorted(counts)} examples; give rows with one number only"
        )
    for row in mine:
        found.setdefault(row["task"], {}).setdefault(row["seed"], []).append(row[value])
    return {t: {s: sum(v) / len(v) for s, v in of_task.items()} for t, of_task in found.items()}


def _chosen(
    rows: Sequence[dict[str, Any]], which: tuple[str, int], split: str | None, value: str
) -> list[dict[str, Any]]:
    """Return the rows of one (method, d_I) on one side (None: on both).

    Raises: ValueError for a value that cannot be compared or that a row lacks, and for rows of several kinds
      of folds.
    """
    if value not in VALUES:
        raise ValueError(f"the value is {value!r}; choose one of {', '.join(VALUES)}")
    mine = [
        r
        for r in rows
        if (r["method"], r["d_I"]) == which and (split is None or r["split"] in (split, "both"))
    ]
    fold: dict[tuple[str, str], str] = {}
    for row in mine:
        if value not in row:
            raise ValueError(
                f"the row of {which} on {row['task']} has no {value}; make the study again, or compare scores"
            )
        here = row.get("fold", "")
        if fold.setdefault((row["task"], row["split"]), here) != here:
            raise ValueError(
                f"the rows of {which} have {row['task']} on the {row['split']} side of {here} and of "
                f"{fold[row['task'], row['split']]}; choose one kind of folds: summary.of_folds(rows, kind)"
            )
    return mine
