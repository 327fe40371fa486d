"""Learning curves, from which the recipe of a study is chosen before the study runs: on dev, on few tasks.

    stage      what is trained                                                          on
    prompts    prompt tuning from words                                                 the chosen tasks
    weights    fine-tuning and DID                                                      the first of them
    msf        the auto-encoder of a fold at main_dim                                   the fold's seen tasks
    ist        IST with new data, in the subspace of every MSF above                    the chosen tasks
    rates      IST with "learned" and all controls of the scale, at several rates       the chosen tasks

The chosen tasks are unseen in the fold, so no subspace has read them. `choose` picks a budget (steps x
examples per step) for each curve and a learning rate for each decoder; `relative` says how the share that
IST keeps depends on the budgets. `iptkit study --part curves` measures and prints all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iptkit.scores import intervals
from iptkit.storage import step_cache
from iptkit.studies import curve_steps, curve_weights, provenance
from iptkit.studies.curve_steps import budget_of
from iptkit.studies.steps import StudySteps
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig

STAGES = ("prompts", "weights", "msf", "ist", "rates")
Budget = tuple[int, int]  # steps, examples per run and step
Row = dict[str, Any]


@dataclass(frozen=True)
class CurveConfig:
    """Which learning curves are measured. The scale of the study has all other settings.

    Attributes:
      fold: the split whose unseen tasks are trained; "": the first of the scale's folds ("fold1" if it has
        none) with as many tasks as `kinds` asks for, or else the first.
      kinds: how many tasks of each category, at most.
      prompts, weights, msf, ist: the budgets of each stage.
      num_weights: number of tasks, from the first, that the stage "weights" trains.
      prompt_rates: learning rates of prompt tuning that are compared at the scale's own budget.
      rates: learning rates of IST that are compared.
      steps_per_evaluation: on dev, for prompts, MSF and IST.
      most_evaluations: of one training; it has at least two.
      margin: see `choose`, in nats.
    """

    fold: str = ""
    kinds: tuple[tuple[str, int], ...] = (("cls", 4), ("mcqa", 2), ("qa", 2), ("gen", 2), ("seq", 2))
    prompts: tuple[Budget, ...] = ((40, 2), (120, 2), (360, 2))
    weights: tuple[Budget, ...] = ((40, 2), (120, 2))
    msf: tuple[Budget, ...] = ((40, 2), (120, 2), (120, 1), (360, 2))
    ist: tuple[Budget, ...] = ((16, 2), (48, 2), (120, 2), (360, 2))
    num_weights: int = 6
    prompt_rates: tuple[float, ...] = (0.1, 0.3, 1.0)
    rates: tuple[float, ...] = (0.1, 0.3, 1.0)
    steps_per_evaluation: int = 20
    most_evaluations: int = 18
    margin: float = 0.02

    def fit(self, like: FitConfig, budget: Budget) -> FitConfig:
        """The settings of a training like another one, with a budget and evaluations all along."""
        steps, rows = budget
        count = max(2, min(self.most_evaluations, steps // self.steps_per_evaluation))
        return replace(like, steps=steps, rows_per_run=rows, evaluations=count)


CONFIG = CurveConfig()


# ---- measuring -----------------------------------------------------------------------------------
def fold_of(study: StudySteps, config: CurveConfig = CONFIG) -> str:
    """The split whose unseen tasks are trained: see CurveConfig.fold."""
    folds, suite = (config.fold,) if config.fold else study.scale.folds or ("fold1",), study.scale.suite
    wanted = sum(count for _, count in config.kinds)
    return next((fold for fold in folds if len(tasks_of(suite, fold, config)) == wanted), folds[0])


def tasks_of(suite: str, fold: str, config: CurveConfig = CONFIG) -> tuple[str, ...]:
    """Ids of the chosen tasks: unseen ones of a fold, the first of each category in the order of the split.

    No two are of one leakage group. Categories take turns, so that the first few tasks are of all kinds.

    Args:
      suite: with the split.
      fold: the split.
      config: has the number of tasks of each category.
    """
    cards = {card.id: card for card in suites.list_cards(suite)}
    unseen = [cards[name] for name in suites.split(fold, suite).unseen]
    groups: set[str] = set()
    found: dict[str, list[str]] = {}
    for category, count in config.kinds:
        mine = found.setdefault(category, [])
        for card in unseen:
            if len(mine) < count and card.category == category and card.group not in groups:
                mine.append(card.id)
                groups.add(card.group)
    most = max(map(len, found.values()))
    return tuple(mine[turn] for turn in range(most) for mine in found.values() if turn < len(mine))


def jobs(
    study: StudySteps, stages: Sequence[str] = STAGES, config: CurveConfig | None = None
) -> dict[str, Callable[[], step_cache.Step]]:
    """What makes each step, or finds it in the step cache, by a name of its own, in the order of STAGES.

    MSF needs the trained prompts of all tasks of the study, which its steps make first if they are missing.

    Args:
      study: of a suite with the fold.
      stages: some of STAGES.
      config: which curves; None for CONFIG.
    Raises: ValueError for an unknown stage.
    """
    config = config or CONFIG
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ValueError(f"stages name {', '.join(map(repr, unknown))}; known are {', '.join(STAGES)}")
    listed = {stage: functools.partial(_LISTS[stage], study, config) for stage in STAGES if stage in stages}
    return {f"curve-{name}": job for stage in listed.values() for name, job in stage()}


def make(
    study: StudySteps, stages: Sequence[str] = STAGES, config: CurveConfig | None = None
) -> list[step_cache.Step]:
    """The steps of some stages, made if they are missing; for the arguments see `jobs`."""
    return [job() for job in jobs(study, stages, config).values()]


def rows_of(steps: Sequence[step_cache.Step]) -> list[Row]:
    """The rows of steps."""
    return [row for step in steps for row in step.values["rows"]]


def write(study: StudySteps, path: str | Path, finished_only: bool = False) -> int:
    """Measure what is missing of all stages, and write the rows and their provenance.

    Args:
      study: see `jobs`.
      path: of the rows (JSON lines), see `provenance.write_rows`.
      finished_only: measure nothing; the provenance then names what is missing.
    Returns: the number of rows.
    Raises: ValueError if nothing is finished, or if the file already has more rows of this study.
    """
    listed, path = jobs(study), Path(path)
    found = {name: step_cache.finished(job) if finished_only else job() for name, job in listed.items()}
    steps = [step for step in found.values() if step]
    rows, left = rows_of(steps), [name for name, step in found.items() if step is None]
    if finished_only:
        provenance.check_fewer(study, path, len(rows), "curves")
    return provenance.write_rows(study, path, rows, steps, "curves", left)


Listed = Iterator[tuple[str, Callable[[], step_cache.Step]]]


def _prompts(study: StudySteps, config: CurveConfig) -> Listed:
    part, ids = _part_and_tasks(study, config)
    for budget in config.prompts:
        how = config.fit(study.scale.prompt, budget)
        yield f"prompts-{budget_of(how)}", functools.partial(curve_steps.prompts, part, ids, how)
    own = study.scale.prompt
    for rate in config.prompt_rates:
        how = replace(config.fit(own, (own.steps, own.rows_per_run)), lr=rate)
        if rate != own.lr or (own.steps, own.rows_per_run) not in config.prompts:
            job = functools.partial(curve_steps.prompts, part, ids, how)
            yield f"prompts-{budget_of(how)}-at-{rate:g}", job


def _weights(study: StudySteps, config: CurveConfig) -> Listed:
    part, ids = _part_and_tasks(study, config)
    for method in curve_weights.METHODS:
        for steps, batch in config.weights:
            for task in ids[: config.num_weights]:
                job = functools.partial(curve_weights.weights, part, method, task, steps, batch)
                yield f"{method.lower()}-{steps}x{batch}-{task}", job


def _msf(study: StudySteps, config: CurveConfig) -> Listed:
    for how in _msf_budgets(study, config):
        part, _ = _part_and_tasks(study, config, how)
        yield f"msf-{budget_of(how)}", functools.partial(curve_steps.msf, part)


def _ist(study: StudySteps, config: CurveConfig) -> Listed:
    for msf in _msf_budgets(study, config):
        part, ids = _part_and_tasks(study, config, msf)
        for budget in config.ist:
            how = config.fit(study.scale.ist, budget)
            job = functools.partial(curve_steps.ist, part, ids, how)
            yield f"ist-{budget_of(msf)}-{budget_of(how)}", job


def _rates(study: StudySteps, config: CurveConfig) -> Listed:
    part, ids = _part_and_tasks(study, config)
    for decoder in ("learned", *study.scale.controls):
        job = functools.partial(curve_steps.ist, part, ids, study.scale.ist, decoder, config.rates)
        yield f"rates-{decoder}", job


_LISTS: dict[str, Callable[[StudySteps, CurveConfig], Listed]] = {
    "prompts": _prompts, "weights": _weights, "msf": _msf, "ist": _ist, "rates": _rates,
}  # fmt: skip


def _part_and_tasks(
    study: StudySteps, config: CurveConfig, msf: FitConfig | None = None
) -> tuple[StudySteps, tuple[str, ...]]:
    fold = fold_of(study, config)
    return curve_steps.part_of(study, fold, msf), tasks_of(study.scale.suite, fold, config)


def _msf_budgets(study: StudySteps, config: CurveConfig) -> list[FitConfig]:
    """How MSF is trained; with the scale's own budget it is the study's own, which is found only once."""
    own = study.scale.msf
    return [
        own if budget == (own.steps, own.rows_per_run) else config.fit(own, budget) for budget in config.msf
    ]


# ---- choosing ------------------------------------------------------------------------------------
def choose(rows: Sequence[Row], margin: float = CONFIG.margin) -> dict[str, Any]:
    """The recipe: the cheapest budget of each curve that is as good as its best one, and rates of IST.

    A budget (of prompt tuning: with its learning rate) is as good as the best if its mean dev loss is at most
    `margin` above the lowest of the curve. Of these, the one with the fewest CPU seconds per run is chosen.
    For each decoder, the chosen learning rate has the lowest mean dev loss. Means are over the tasks that all
    budgets of the curve have.

    Args:
      rows: of any stages.
      margin: in nats per token, >= 0.
    Returns:
      "budgets": the chosen one by curve: "prompt tuning", "fine-tuning", "DID", "MSF", and "IST, MSF 120x2"
        for each budget of MSF.
      "rates": the chosen one by decoder.
      "lines": what was compared: curve, budget, lr, tasks, dev_loss, above_best (mean, low, high: how much
        its dev loss is above that of the best, paired by task), log_likelihood and score (on test, None
        without), cpu_seconds, and is_chosen.
    """
    budgets: dict[str, str] = {}
    rates: dict[str, float] = {}
    lines: list[Row] = []
    for curve, mine in _grouped(rows, _curve).items():
        is_of_rates = mine[0]["stage"] == "rates"
        compared = _lines(curve, _grouped(mine, _setting))
        if not compared:
            continue
        best = min(line["dev_loss"] for line in compared)
        if is_of_rates:
            chosen = min(compared, key=lambda line: line["dev_loss"])
            rates[mine[0]["decoder"]] = chosen["lr"]
        else:
            good = [line for line in compared if line["dev_loss"] <= best + margin]
            chosen = min(good, key=lambda line: (line["cpu_seconds"], line["dev_loss"]))
            budgets[curve] = chosen["budget"]
        lines += [line | {"is_chosen": line is chosen} for line in compared]
    return {"budgets": budgets, "rates": rates, "lines": lines}


def relative(rows: Sequence[Row]) -> list[Row]:
    """How much of prompt tuning IST keeps, for each budget of prompts, MSF and IST.

    The ratio r is that of the means over the tasks that both have. It varies like the mean over tasks of
    (ist - r * prompt) / mean(prompt), whose `intervals.interval` over leakage groups gives that of r.

    Args:
      rows: of the stages "prompts" and "ist".

    Returns: lines with "prompts", "msf" and "ist" (budgets), "lr" (of the prompts), "tasks", "groups", and
      "ratio" and "ratio above chance", each (ratio, low, high), or None if prompt tuning is not above 0 or
      chance on average.
    """
    prompts = _grouped([row for row in rows if row["stage"] == "prompts"], _setting)
    codes = _grouped([row for row in rows if row["stage"] == "ist"], lambda row: (row["msf"], row["budget"]))
    lines = []
    for (budget, rate), full in prompts.items():
        whole = {row["task"]: row for row in full}
        for (msf, ist), tuned in codes.items():
            both = [(row, whole[row["task"]]) for row in tuned if row["task"] in whole]
            if not both:
                continue
            line = {"prompts": budget, "lr": rate, "msf": msf, "ist": ist, "tasks": len(both)}
            line["groups"] = len({row["group"] for row, _ in both})
            for name, floor in (("ratio", 0.0), ("ratio above chance", 1.0)):
                over = [[r["score"] - floor * r["chance"] for r in pair] for pair in both]
                line[name] = _ratio([a for a, _ in over], [b for _, b in over], [r for r, _ in both])
            lines.append(line)
    return lines


def table(rows: Sequence[Row]) -> str:
    """Text: what `choose` compared, with * at what it chose, and what IST keeps of the chosen prompts."""
    found, text = choose(rows), []
    head = f"{'':2}{'budget':<9}{'lr':<9}{'tasks':>5}{'dev loss':>10}  {'above the best':<26}"
    head += f"{'test log-lik.':>13}{'score':>8}{'CPU s a run':>13}"
    for curve, lines in _grouped(found["lines"], lambda line: line["curve"]).items():
        text += ["", curve, head]
        for line in lines:
            mark = "*" if line["is_chosen"] else " "
            gap = intervals.difference_text(line["above_best"])
            numbers = (
                f"{mark:2}{line['budget']:<9}{line['lr']:<9g}{line['tasks']:>5}{line['dev_loss']:>10.3f}"
            )
            test = [_shown(line["log_likelihood"], 13), _shown(line["score"], 8)]
            text.append(f"{numbers}  {gap:<26}{''.join(test)}{line['cpu_seconds']:>13.2f}")
    full = [line for line in found["lines"] if line["is_chosen"] and line["curve"] == "prompt tuning"]
    chosen = [(line["budget"], line["lr"]) for line in full]
    compared = [line for line in relative(rows) if (line["prompts"], line["lr"]) in chosen]
    if compared:
        ((budget, rate),) = chosen
        text += ["", f"share of prompt tuning, {budget} at {rate:g}, that IST keeps (ratio of means, 95 %)"]
        text.append(f"  {'MSF':<9}{'IST':<9}{'ratio':<24}above chance")
    for line in compared:
        shown = [intervals.level_text(line[n]) if line[n] else "-" for n in ("ratio", "ratio above chance")]
        text.append(f"  {line['msf']:<9}{line['ist']:<9}{shown[0]:<24}{shown[1]}")
    return "\n".join(text[1:])


def _curve(row: Row) -> str:
    """The name of the curve that a row belongs to."""
    if row["stage"] == "rates":
        return f"rates, {row['method']}"
    return f"{row['method']}, MSF {row['msf']}" if row["msf"] else row["method"]


def _setting(row: Row) -> tuple[str, float]:
    return row["budget"], row["lr"]


def _grouped(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """The rows by a key, in the order in which keys appear."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _lines(curve: str, compared: dict[Any, list[Row]]) -> list[Row]:
    """One line for each budget, or rate, of a curve; none if no task was trained with all of them."""
    common = set.intersection(*({row["task"] for row in mine} for mine in compared.values()))
    if not common:
        return []
    kept = [[row for row in mine if row["task"] in common] for mine in compared.values()]
    losses = [{row["task"]: row["dev_loss"] for row in mine} for mine in kept]
    best = min(losses, key=lambda of: sum(of.values()))
    lines = []
    for mine, loss in zip(kept, losses, strict=True):
        gaps = {task: [value - best[task]] for task, value in loss.items()}
        line = {"curve": curve, "budget": mine[0]["budget"], "lr": mine[0]["lr"], "tasks": len(mine)}
        line |= {"dev_loss": _mean(mine, "dev_loss"), "above_best": intervals.over_tasks(gaps, mine)}
        line |= {name: _mean(mine, name) for name in ("log_likelihood", "score", "cpu_seconds")}
        lines.append(line)
    return lines


def _mean(rows: Sequence[Row], name: str) -> Any:
    values = [row[name] for row in rows]
    return None if None in values else sum(values) / len(values)


def _ratio(first: Sequence[float], second: Sequence[float], rows: Sequence[Row]) -> intervals.Interval | None:
    """The ratio of two means over the tasks of some rows, with its interval; None for a mean up to 0."""
    if sum(second) <= 0:
        return None
    ratio, mean = sum(first) / sum(second), sum(second) / len(second)
    each = {row["task"]: [(a - ratio * b) / mean] for row, a, b in zip(rows, first, second, strict=True)}
    _, low, high = intervals.over_tasks(each, rows)
    return ratio, ratio + low, ratio + high


def _shown(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.3f}"
