"""What the rows of deep_studies say: differences between methods, and verdicts on the paper's claims.

Reads rows only, those of a lesson or those that are stored, so nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iptkit.scores import claims, intervals
from iptkit.studies.lesson04_methods import COMMONEST, METHODS

PROBE, SHALLOW, DEEP, SHARED, TUNED = METHODS
Rows = Sequence[dict[str, Any]]
NAN = float("nan")
MARGIN = 0.03  # of a score: "about as good as" is at most so much below, "far behind" more
SHORT, LONG = 20, 100  # prompt lengths of the paper's claim B6
HOLDS, IN_PART, FAILS, OPEN = claims.VERDICTS


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

    Returns: mean, low and high of the 95 % interval (`evaluation.over_tasks`), and the number of tasks; nan
      where there is nothing to compare, and then no verdict either.
    """
    a, b = _by_run(first), _by_run(second)
    pairs: dict[str, list[float]] = {}
    for task, seed in a:
        if (task, seed) in b:
            pairs.setdefault(task, []).append(a[task, seed] - b[task, seed])
    return (*(intervals.over_tasks(pairs, first) if pairs else (NAN,) * 3), len(pairs))


def told(gap: Sequence[float], length: int = 3) -> str:
    """ "+0.123 [+0.010, +0.240]", and with length 4 the number of tasks: "... (9)"."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap[:3]) + (f" ({gap[3]})" if length > 3 else "")


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
    """B3: fine-tuning - shallow prompts is more than MARGIN on tags, and there more than on classes.

    Most of all on tags: their interval lies above that of the classes, where fine-tuning is ahead, too.
    """
    tags, classes = (_methods(rows, TUNED, SHALLOW, category) for category in ("tag", "cls"))
    behind = claims.of_difference([value - MARGIN for value in tags[:3]])
    most = HOLDS if tags[1] > classes[2] and classes[1] > 0 else FAILS if tags[2] < classes[1] else OPEN
    verdict = FAILS if behind == FAILS else claims.of_both([behind, most])
    here = f"fine-tuning − prompt tuning: tags {told(tags, 4)}, classes {told(classes, 4)}"
    return f"{here}; {_data(rows)}", verdict, tags[3] + classes[3]


def _deeper(rows: Rows) -> Judged:
    """B4: the trained shares (heads included), and deep - shallow prompts.

    The claim's 0.01 % for prompts at the input is theirs for larger models; here less than deep is asked for.
    """
    gap, shares = _methods(rows, DEEP, SHALLOW), [share(rows, method) for method in (DEEP, SHALLOW)]
    better = claims.of_difference(gap)
    as_told = 0.001 <= shares[0] <= 0.03 and shares[1] < shares[0]
    verdict = FAILS if not as_told else HOLDS if better == HOLDS else IN_PART
    tags = _methods(rows, DEEP, SHALLOW, "tag")
    here = (
        f"trained, heads included, {shares[0]:.2%} against {shares[1]:.2%}; deep − shallow {told(gap, 4)}, "
        f"tags {told(tags, 4)}; {_data(rows)}"
    )
    return here, verdict, gap[3]


def _reparameterised(rows: Rows) -> Judged:
    """B5: MLP - embedding, task by task: it depends on the task if it helps one and hurts another."""
    made = part(rows, "forms")
    tasks = list(dict.fromkeys(row["task"] for row in made))
    gaps = {task: _split(part(made, "forms", task=task), "form", "mlp", "embedding") for task in tasks}
    helps, hurts = (sum(sign * g[edge] > 0 for g in gaps.values()) for sign, edge in ((1, 1), (-1, 2)))
    if helps and hurts:
        verdict = HOLDS
    elif helps == len(gaps):
        verdict = FAILS  # then nobody should leave it out
    else:
        verdict = IN_PART if helps or hurts else OPEN
    here = "MLP − none: " + ", ".join(f"{task} {told(gap)}" for task, gap in gaps.items())
    return here, verdict, len(gaps)


def _longer(rows: Rows) -> Judged:
    """B6: on tags the longest prompt beats those below SHORT, on classes it does not."""
    made = part(rows, "lengths")
    every = sorted({row["length"] for row in made})
    short = max((n for n in every if n < SHORT), default=every[0])
    of = {c: [row for row in made if row["category"] == c] for c in ("tag", "cls")}
    tags, classes = (_split(of[c], "length", every[-1], short) for c in ("tag", "cls"))
    best = {}
    for task in dict.fromkeys(row["task"] for row in made):
        means = {n: _mean(part(made, "lengths", task=task, length=n)) for n in every}
        best[task] = max(means, key=lambda n: means[n])
    verdict = claims.of_difference(tags)
    if verdict == HOLDS and (not classes[2] < 0 or every[-1] < LONG):
        verdict = IN_PART  # short ones are not better on classes, or nothing as long as the paper's was tried
    lengths = ", ".join(f"{task} {n}" for task, n in best.items())
    here = f"n = {every[-1]} − n = {short}: tags {told(tags)}, classes {told(classes)}; best: {lengths}"
    return here, verdict, len(best)


def _shared(rows: Rows) -> Judged:
    """B7: MPT-2 - P-Tuning v2 on the data sets that share."""
    gap = _methods(rows, SHARED, DEEP)
    return f"MPT-2 − single {told(gap, 4)}; {_data(rows)}", claims.of_difference(gap), gap[3]


def _wordless(rows: Rows) -> Judged:
    """B8: deep prompts with heads above the commonest answer, and as good as label words where those are."""
    gap = _methods(rows, DEEP, COMMONEST)
    here, verdict = f"deep prompts − commonest answer {told(gap, 4)}", claims.of_difference(gap)
    words = _split(part(rows, "heads"), "head", "linear", "LM head")
    if words[3]:
        here += f"; head − label words {told(words, 4)} (causal model, few-shot)"
    if verdict == HOLDS and claims.of_difference(words, MARGIN) != HOLDS:
        verdict = IN_PART  # heads work; that they are as good as words is not shown
    return here, verdict, gap[3]


def _as_good(rows: Rows) -> Judged:
    """B9: deep prompts - fine-tuning, at most MARGIN below."""
    gap = _methods(rows, DEEP, TUNED)
    here = f"deep prompts − fine-tuning {told(gap, 4)}; {_data(rows)}"
    return here, claims.of_difference(gap, MARGIN), gap[3]


def _last(rows: Rows) -> Judged:
    """B10: the last k - the first k layers, over all k below the whole depth, task by task.

    A mean over few tasks could be one task's: it holds if it does for each, in part if for some.
    """
    made = part(rows, "depths")
    most = max((row["layers"] for row in made), default=0)
    made = [row for row in made if row["layers"] < most]
    tasks = list(dict.fromkeys(row["task"] for row in made))
    gaps = {t: _split(part(made, "depths", task=t), "order", "last", "first") for t in tasks}
    verdict = claims.of_both([claims.of_difference(gap) for gap in gaps.values()] or [OPEN])
    here = ", ".join(f"{task} {told(gap)}" for task, gap in gaps.items())
    return f"last k − first k layers: {here}", verdict, len(gaps)


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
    """First - second of the main table, on tasks of a category ("" for all)."""
    mine = [row for row in main(rows) if category in ("", row["category"])]
    return difference(*([row for row in mine if row["method"] == name] for name in (first, second)))


def _data(rows: Rows) -> str:
    """What the rows of `main` were trained on, in words."""
    data = {row["data"] for row in main(rows)}
    return "trained on all examples" if data == {"full"} else ", ".join(data)


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
