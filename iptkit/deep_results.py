"""What the rows of deep_studies say: differences between methods, and verdicts on the paper's claims.

Reads rows only, those of a lesson or those that are stored, so nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iptkit import claims, evaluate
from iptkit.deep_studies import METHODS

PROBE, SHALLOW, DEEP, SHARED, TUNED = METHODS
Rows = Sequence[dict[str, Any]]
MARGIN = 0.03  # of a score: "about as good as"; the paper's own gaps to fine-tuning go up to 0.03


def part(rows: Rows, name: str, **wanted: Any) -> list[dict[str, Any]]:
    """The rows of a part (see deep_studies.PARTS) that have the wanted values."""
    return [r for r in rows if r["part"] == name and all(r[k] == v for k, v in wanted.items())]


def main(rows: Rows) -> list[dict[str, Any]]:
    """The rows of the main table for the data that ablations use: the last of a study's."""
    compared = part(rows, "compared")
    return [row for row in compared if row["data"] == compared[-1]["data"]]


def difference(first: Rows, second: Rows) -> tuple[float, float, float, int]:
    """Mean of first - second over the tasks that both have, paired by task and seed.

    Rows that share task and seed (several depths, say) are averaged first.

    Returns: mean, low and high of the 95 % interval (`evaluate.interval`), and the number of tasks.
    """
    a, b = _by_run(first), _by_run(second)
    pairs: dict[str, list[float]] = {}
    for task, seed in a:
        if (task, seed) in b:
            pairs.setdefault(task, []).append(a[task, seed] - b[task, seed])
    return (*evaluate.interval(list(pairs.values())), len(pairs))


def told(gap: Sequence[float]) -> str:
    """ "+0.123 [+0.010, +0.240]"."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap[:3])


def share(rows: Rows, method: str) -> float:
    """Mean share of the model's numbers that a method trains for one task."""
    mine = [row["share"] for row in main(rows) if row["method"] == method]
    return sum(mine) / len(mine)


def verdicts(rows: Rows) -> list[dict[str, Any]]:
    """What these rows say to claims B3 to B10: claim, here, verdict, num_tasks, num_seeds."""
    seeds = len({row["seed"] for row in main(rows)})
    return [
        {"name": name, "here": here, "verdict": verdict, "num_tasks": num_tasks, "num_seeds": seeds}
        for name, judge in JUDGES.items()
        for here, verdict, num_tasks in [judge(rows)]
    ]


# ---- one claim each: (what was measured, verdict, tasks) ---------------------------------------------
Judged = tuple[str, str, int]


def _behind(rows: Rows) -> Judged:
    """B3: fine-tuning - shallow prompts, on tags and on classes."""
    tags, classes = (_methods(rows, TUNED, SHALLOW, category) for category in ("tag", "cls"))
    verdict = claims.of_difference(tags)
    if verdict == claims.VERDICTS[0] and tags[0] <= classes[0]:
        verdict = claims.VERDICTS[1]
    here = f"fine-tuning − prompt tuning: tags {told(tags)}, classes {told(classes)}"
    return here, verdict, tags[3] + classes[3]


def _deeper(rows: Rows) -> Judged:
    """B4: the trained shares, and deep - shallow prompts."""
    gap, shares = _methods(rows, DEEP, SHALLOW), [share(rows, method) for method in (DEEP, SHALLOW)]
    better = claims.of_difference(gap)
    as_told = 0.001 <= shares[0] <= 0.03 and shares[1] < shares[0]
    verdict = better if as_told else claims.VERDICTS[2]
    if as_told and better != claims.VERDICTS[0]:
        verdict = claims.VERDICTS[1]
    tags = _methods(rows, DEEP, SHALLOW, "tag")
    here = f"{shares[0]:.2%} against {shares[1]:.2%}; deep − shallow {told(gap)}, tags {told(tags)}"
    return here, verdict, gap[3]


def _reparameterised(rows: Rows) -> Judged:
    """B5: MLP - embedding, task by task."""
    made = part(rows, "forms")
    tasks = list(dict.fromkeys(row["task"] for row in made))
    gaps = {task: _split(part(made, "forms", task=task), "form", "mlp", "embedding") for task in tasks}
    helps, hurts = (sum(sign * g[edge] > 0 for g in gaps.values()) for sign, edge in ((1, 1), (-1, 2)))
    verdict = claims.VERDICTS[0 if helps and hurts else 1 if hurts else 2 if helps else 3]
    here = "MLP − none: " + ", ".join(f"{task} {told(gap)}" for task, gap in gaps.items())
    return here, verdict, len(gaps)


def _longer(rows: Rows) -> Judged:
    """B6: the longest - the shortest prompt, on tags and on classes, and each task's best length."""
    made = part(rows, "lengths")
    ends = sorted({row["length"] for row in made})
    of = {c: [row for row in made if row["category"] == c] for c in ("tag", "cls")}
    tags, classes = (_split(of[c], "length", ends[-1], ends[0]) for c in ("tag", "cls"))
    best = {}
    for task in dict.fromkeys(row["task"] for row in made):
        means = {n: _mean(part(made, "lengths", task=task, length=n)) for n in ends}
        best[task] = max(means, key=lambda n: means[n])
    verdict = claims.of_difference(tags)
    if verdict == claims.VERDICTS[0] and classes[1] > 0:  # long ones help simple tasks as well
        verdict = claims.VERDICTS[1]
    lengths = ", ".join(f"{task} {n}" for task, n in best.items())
    here = f"n = {ends[-1]} − n = {ends[0]}: tags {told(tags)}, classes {told(classes)}; best: {lengths}"
    return here, verdict, len(best)


def _shared(rows: Rows) -> Judged:
    """B7: MPT-2 - P-Tuning v2 on the data sets that share."""
    gap = _methods(rows, SHARED, DEEP)
    return f"MPT-2 − single {told(gap)}", claims.of_difference(gap), gap[3]


def _wordless(rows: Rows) -> Judged:
    """B8: deep prompts with heads above the commonest answer, and head against label words."""
    mine = [row for row in main(rows) if row["method"] == DEEP]
    gap = difference(mine, [row | {"score": row["majority"]} for row in mine])
    here, verdict = f"deep prompts − commonest answer {told(gap)}", claims.of_difference(gap)
    heads = part(rows, "heads")
    if heads:
        words = _split(heads, "head", "linear", "LM head")
        here += f"; head − label words {told(words)} (causal model)"
        if claims.of_difference(words, MARGIN) == claims.VERDICTS[2]:
            verdict = claims.VERDICTS[1]
    return here, verdict, gap[3]


def _as_good(rows: Rows) -> Judged:
    """B9: deep prompts - fine-tuning, at most MARGIN below."""
    gap = _methods(rows, DEEP, TUNED)
    return f"deep prompts − fine-tuning {told(gap)}", claims.of_difference(gap, MARGIN), gap[3]


def _last(rows: Rows) -> Judged:
    """B10: the last k - the first k layers, over all k below the whole depth."""
    made = part(rows, "depths")
    most = max(row["layers"] for row in made)
    gap = _split([row for row in made if row["layers"] < most], "order", "last", "first")
    return f"last k − first k layers {told(gap)}", claims.of_difference(gap), gap[3]


JUDGES: dict[str, Callable[[Rows], Judged]] = {
    "B3": _behind,
    "B4": _deeper,
    "B5": _reparameterised,
    "B6": _longer,
    "B7": _shared,
    "B8": _wordless,
    "B9": _as_good,
    "B10": _last,
}


# ---- parts ---------------------------------------------------------------------------------------
def _methods(rows: Rows, first: str, second: str, category: str = "") -> tuple[float, float, float, int]:
    """first - second of the main table, on tasks of a category ("" for all)."""
    mine = [row for row in main(rows) if category in ("", row["category"])]
    return difference(*([row for row in mine if row["method"] == name] for name in (first, second)))


def _split(rows: Rows, column: str, first: Any, second: Any) -> tuple[float, float, float, int]:
    return difference(*([row for row in rows if row[column] == value] for value in (first, second)))


def _by_run(rows: Rows) -> dict[tuple[str, int], float]:
    """(task, seed) -> mean score."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((row["task"], row["seed"]), []).append(row)
    return {run: _mean(of) for run, of in runs.items()}


def _mean(rows: Rows) -> float:
    return sum(row["score"] for row in rows) / len(rows)
