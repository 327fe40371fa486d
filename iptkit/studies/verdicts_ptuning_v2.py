"""Differences between the methods of lesson 04, and verdicts on the claims about P-Tuning v2 (B3 to B10).

Nothing is measured here: the rows come from `lesson04` or are stored ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from iptkit.scores import claims, intervals
from iptkit.scores.intervals import difference_text
from iptkit.studies.lesson04_methods import COMMONEST, METHODS

PROBE, SHALLOW, DEEP, SHARED, TUNED = METHODS
Rows = Sequence[dict[str, Any]]
NAN = float("nan")
MARGIN = 0.03  # of a score: "about as good as" means at most so much below, "far behind" means more
SHORT, LONG = 20, 100  # prompt lengths of the paper's claim B6
HOLDS, IN_PART, FAILS, OPEN = claims.VERDICTS


def part(rows: Rows, name: str, **wanted: Any) -> list[dict[str, Any]]:
    """The rows of a part (see `lesson04.PARTS`) that have the `wanted` values."""
    return [r for r in rows if r["part"] == name and all(r[k] == v for k, v in wanted.items())]


def main(rows: Rows) -> list[dict[str, Any]]:
    """The rows of the main table for the training data that ablations use: the last of the study."""
    compared = part(rows, "compared")
    return [row for row in compared if row["data"] == compared[-1]["data"]]


def difference(first: Rows, second: Rows, *, value: str = "score") -> tuple[float, float, float, int]:
    """The mean of first - second over the tasks that both have, paired by task and seed.

    Rows of the same task and seed (of several depths, say) are averaged first.

    Args:
      first: rows of one method.
      second: rows of another one.
      value: the field to compare, "score" or "log_likelihood".
    Returns: mean, low and high of the 95 % interval (`intervals.over_tasks`), and the number of tasks; nan if
      there is nothing to compare.
    """
    a, b = _by_run(first, value), _by_run(second, value)
    pairs: dict[str, list[float]] = {}
    for task, seed in a:
        if (task, seed) in b:
            pairs.setdefault(task, []).append(a[task, seed] - b[task, seed])
    return (*(intervals.over_tasks(pairs, first) if pairs else (NAN, NAN, NAN)), len(pairs))


def share(rows: Rows, method: str) -> float:
    """The mean number of parameters that a method trains for one task, as a share of the model's."""
    mine = [row["share"] for row in main(rows) if row["method"] == method]
    return sum(mine) / len(mine)


def verdicts(rows: Rows, names: Collection[str] = ()) -> list[dict[str, Any]]:
    """Verdicts on claims B3 to B10: each "name", "here" (in words), "verdict", "num_tasks", "num_seeds".

    Args:
      rows: of the study.
      names: of the claims to judge, () for all.
    """
    seeds = len({row["seed"] for row in main(rows)})
    return [
        {"name": name, "here": here, "verdict": verdict, "num_tasks": num_tasks, "num_seeds": seeds}
        for name, judge in JUDGES.items()
        if name in (names or JUDGES)
        for here, verdict, num_tasks in [judge(rows)]
    ]


# ---- one claim each: (the measurement in words, verdict, number of tasks) ----------------------------
Judged = tuple[str, str, int]


def _behind(rows: Rows) -> Judged:
    """B3: shallow prompts are more than MARGIN behind fine-tuning on tags, and less far behind on classes.

    That is, the interval for tags lies above that for classes, where fine-tuning is ahead as well.
    """
    tags, classes = (_methods(rows, TUNED, SHALLOW, category) for category in ("tag", "cls"))
    behind = claims.of_difference([value - MARGIN for value in tags[:3]])
    most = HOLDS if tags[1] > classes[2] and classes[1] > 0 else FAILS if tags[2] < classes[1] else OPEN
    verdict = FAILS if behind == FAILS else claims.of_both([behind, most])
    here = f"fine-tuning − prompt tuning: tags {_counted(tags)}, classes {_counted(classes)}"
    return f"{here}; {_data(rows)}", verdict, tags[3] + classes[3]


def _deeper(rows: Rows) -> Judged:
    """B4: deep prompts train 0.1 to 3 % of the parameters, heads included, and are better than shallow ones.

    The paper's 0.01 % for shallow prompts is for larger models; here they only have to train less than deep
    ones.
    """
    gap, shares = _methods(rows, DEEP, SHALLOW), [share(rows, method) for method in (DEEP, SHALLOW)]
    better = claims.of_difference(gap)
    is_small = 0.001 <= shares[0] <= 0.03 and shares[1] < shares[0]
    verdict = FAILS if not is_small else HOLDS if better == HOLDS else IN_PART
    tags = _methods(rows, DEEP, SHALLOW, "tag")
    here = (
        f"trained, heads included, {shares[0]:.2%} against {shares[1]:.2%}; deep − shallow {_counted(gap)}, "
        f"tags {_counted(tags)}; {_data(rows)}"
    )
    return here, verdict, gap[3]


def _reparameterised(rows: Rows) -> Judged:
    """B5: whether the MLP helps depends on the task: it helps one and hurts another."""
    made = part(rows, "forms")
    tasks = list(dict.fromkeys(row["task"] for row in made))
    gaps = {task: _split(part(made, "forms", task=task), "form", "mlp", "embedding") for task in tasks}
    helps, hurts = (sum(sign * g[edge] > 0 for g in gaps.values()) for sign, edge in ((1, 1), (-1, 2)))
    if helps and hurts:
        verdict = HOLDS
    elif helps == len(gaps):
        verdict = FAILS  # it helps everywhere
    else:
        verdict = IN_PART if helps or hurts else OPEN
    here = "MLP − none: " + ", ".join(f"{task} {difference_text(gap)}" for task, gap in gaps.items())
    return here, verdict, len(gaps)


def _longer(rows: Rows) -> Judged:
    """B6: on tags the longest prompt is better than one shorter than SHORT, on classes it is not."""
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
        verdict = IN_PART  # short prompts are not better on classes, or none was as long as the paper's
    lengths = ", ".join(f"{task} {n}" for task, n in best.items())
    gaps = f"tags {difference_text(tags)}, classes {difference_text(classes)}"
    return f"n = {every[-1]} − n = {short}: {gaps}; best: {lengths}", verdict, len(best)


def _shared(rows: Rows) -> Judged:
    """B7: MPT-2 is better than P-Tuning v2 on the data sets that share a prompt."""
    gap = _methods(rows, SHARED, DEEP)
    return f"MPT-2 − single {_counted(gap)}; {_data(rows)}", claims.of_difference(gap), gap[3]


def _wordless(rows: Rows) -> Judged:
    """B8: deep prompts with heads beat the commonest answer and are as good as label words."""
    gap = _methods(rows, DEEP, COMMONEST)
    here, verdict = f"deep prompts − commonest answer {_counted(gap)}", claims.of_difference(gap)
    words = _split(part(rows, "heads"), "head", "linear", "LM head")
    if words[3]:
        here += f"; head − label words {_counted(words)} (causal model, few-shot)"
    if verdict == HOLDS and claims.of_difference(words, MARGIN) != HOLDS:
        verdict = IN_PART  # heads work, but it is not shown that they are as good as words
    return here, verdict, gap[3]


def _as_good(rows: Rows) -> Judged:
    """B9: deep prompts are at most MARGIN below fine-tuning."""
    gap = _methods(rows, DEEP, TUNED)
    here = f"deep prompts − fine-tuning {_counted(gap)}; {_data(rows)}"
    return here, claims.of_difference(gap, MARGIN), gap[3]


def _last(rows: Rows) -> Judged:
    """B10: prompts in the last k layers are better than in the first k, over all k below the whole depth.

    One task could decide a mean over few tasks, so the claim holds if it does for each task, and in part if
    it does for some.
    """
    made = part(rows, "depths")
    most = max((row["layers"] for row in made), default=0)
    made = [row for row in made if row["layers"] < most]
    tasks = list(dict.fromkeys(row["task"] for row in made))
    gaps = {t: _split(part(made, "depths", task=t), "order", "last", "first") for t in tasks}
    verdict = claims.of_both([claims.of_difference(gap) for gap in gaps.values()] or [OPEN])
    here = ", ".join(f"{task} {difference_text(gap)}" for task, gap in gaps.items())
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
    """The difference of two methods in the main table, on tasks of a category ("" for all)."""
    return _split([row for row in main(rows) if category in ("", row["category"])], "method", first, second)


def _data(rows: Rows) -> str:
    """The training data of `main` in words."""
    data = {row["data"] for row in main(rows)}
    return "trained on all examples" if data == {"full"} else ", ".join(data)


def _counted(gap: tuple[float, float, float, int]) -> str:
    """The text of a difference with the number of its tasks: "+0.123 [+0.010, +0.240] (9)"."""
    return f"{difference_text(gap)} ({gap[3]})"


def _split(rows: Rows, column: str, first: Any, second: Any) -> tuple[float, float, float, int]:
    """The difference of the rows with one value in a column and those with another."""
    one, other = ([row for row in rows if row[column] == value] for value in (first, second))
    return difference(one, other)


def _by_run(rows: Rows, value: str) -> dict[tuple[str, int], float]:
    """(task, seed) -> mean of a field."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault((row["task"], row["seed"]), []).append(row)
    return {run: _mean(of, value) for run, of in runs.items()}


def _mean(rows: Rows, value: str = "score") -> float:
    return sum(row[value] for row in rows) / len(rows)
