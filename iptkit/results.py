"""Rows of measured scores, and what is read from them: summaries and paired differences.

A row is one score: task, category, (leakage) group, split ("seen" or "unseen"), setting, method, d_I (0
where a method has none), seed, metric, score, chance, n_test, backbone, scale, dtype and device. Tasks of a
group are made of the same texts or facts and not independent, so intervals are over groups.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iptkit import evaluate, files, paths, provenance, store
from iptkit.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from iptkit.experiments import Study

FIELDS = ("task", "method", "score", "seed")  # that every row has, of any part
OF_SUBSPACE = (*FIELDS, "d_I", "split", "chance")
PROMPTS = ".prompts.safetensors"
DECODERS = {  # what IST decodes with -> its method
    "learned": "IST",
    "random": "random decoder",
    "pca": "PCA of the prompts",
    "fastfood": "Fastfood over the prompt",
}


def rows(
    study: Study,
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
    study: Study,
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


def of_sides(study: Study, step: store.Step) -> store.Step:
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
      low, high) of `evaluate.over_tasks`; E_rel is None where no task has a usable reference, and
      "E_rel tasks" counts those that have one. "ratio of means" is a plain number.
    """
    lines = []
    for method, dim in methods:
        for split in splits:
            wanted = (method, dim, split)
            mine = evaluate.by_task([r for r in rows if (r["method"], r["d_I"], r["split"]) == wanted])
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
    return evaluate.over_tasks({task: _paired(a[task], b[task]) for task in a}, rows)


def _paired(first: dict[int, float], second: dict[int, float]) -> list[float]:
    """Differences of one task: by seed where both have the same, else of means (spread: of the longer)."""
    if set(first) == set(second):
        return [value - second[seed] for seed, value in first.items()]
    if len(first) == len(second):
        return [(sum(first.values()) - sum(second.values())) / len(first)]
    more, less = (first, second) if len(first) > len(second) else (second, first)
    sign, other = (1 if more is first else -1), sum(less.values()) / len(less)
    return [sign * (value - other) for value in more.values()]


def stored(name: str = "core36") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows that come with the project (data/results/NAME.jsonl), and where they come from.

    Returns: the rows, and their provenance.
    Raises: FileNotFoundError with the way to make them; ValueError naming file and line of a row that lacks
      a field, or another file than `iptkit study` writes.
    """
    path = paths.data_dir() / "results" / f"{name}.jsonl"
    rows = store.read_results(path, FIELDS)
    if not any("part" in row for row in rows):  # which those of `--part deep` have
        rows = store.read_results(path, OF_SUBSPACE)
    about = files.read_json(path.with_suffix(provenance.ENDING))
    provenance.check_files(path, about)
    return rows, about


def stored_prompts(name: str = "ipt120") -> tuple[Tensor, dict[str, Any]]:
    """Trained prompts that come with the project (data/results/NAME.prompts.safetensors).

    Returns: [S, T, n, d], and what they are of: "tasks" (T ids, seen ones first), "seeds" (S few-shot
      samples), "command", and what they were made for (see `prompts.made_for`; older files name the
      "backbone" only). `SoftPrompt(P[0], about)` is refused by an engine with another model.
    Raises: FileNotFoundError with the way to make them; ValueError for a file that does not hold that.
    """
    path = paths.data_dir() / "results" / f"{name}{PROMPTS}"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no prompts at {path}; `iptkit study` writes them beside its rows")
    tensors, about = files.read_tensors(path)
    trained, counts = tensors.get("P"), [len(about.get(name) or ()) for name in ("seeds", "tasks")]
    if trained is None or trained.dim() != 4 or list(trained.shape[:2]) != counts:
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(
            f"{path} holds {found} for {counts[0]} seeds and {counts[1]} tasks; prompts are P [seeds, tasks, "
            "prompt_length, width]"
        )
    if not trained.isfinite().all():
        raise ValueError(f"{path}: some of its prompts are not finite; write them again with `iptkit study`")
    return trained, about


def _row(
    study: Study, task: Task, is_seen: bool, method: str, intrinsic_dim: int, score: float
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


def _compared(
    mine: dict[str, list[float]], rows: Sequence[dict[str, Any]], split: str, method: str
) -> dict[str, Any]:
    """Scores by task beside those of `method` on the same split."""
    full = evaluate.by_task([r for r in rows if (r["method"], r["d_I"], r["split"]) == (method, 0, split)])
    missing = sorted(set(mine) - set(full))
    if missing:
        told = f"there are no rows of {method!r} without d_I on {files.visible(', '.join(missing))}"
        raise ValueError(f"{told}; give another reference")
    reference = {task: sum(values) / len(values) for task, values in full.items()}
    chance = {r["task"]: r["chance"] for r in rows}
    line: dict[str, Any] = {"score": evaluate.over_tasks(mine, rows)}
    whole = sum(reference[t] for t in mine) / len(mine)
    line["ratio of means"] = line["score"][0] / whole if whole else float("nan")
    for name, floor in (("E_rel", dict.fromkeys(mine, 0.0)), ("E_rel above chance", chance)):
        ratios = {t: [evaluate.relative(s, reference[t], floor[t]) for s in v] for t, v in mine.items()}
        kept = {task: r for task, r in ratios.items() if None not in r}
        line[name] = evaluate.over_tasks(kept, rows) if kept else None
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
