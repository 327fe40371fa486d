"""Figures of the results page on a study with folds, from its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from iptkit.course import forest, plots
from iptkit.course.folds_study import (
    SUBSPACES,
    Folds,
    by_ist,
    by_prompts,
    control_name,
    examples_of,
    gap_of,
    kind_of,
    name_of,
)
from iptkit.scores import claims, intervals
from iptkit.studies import verdicts_ipt
from iptkit.studies.effects import Gap
from iptkit.studies.unseen import FROM_WORDS, STAGE_TWO
from iptkit.studies.verdicts_ipt import SIDES, ZERO_SHOT, Arm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {  # effect -> what the paper reports
    "IST, seen tasks with new data": verdicts_ipt.PAPER["seen"],
    "IST, unseen tasks": verdicts_ipt.PAPER["unseen"],
}


ROUNDING = 1e-9  # equal deviations may differ by so much


@dataclass(frozen=True)
class Picture:
    """A figure of the page: how to draw it, and what it shows in words."""

    draw: Callable[[], Figure]
    alt: str

    def svg(self) -> str:
        """The text of its file."""
        return plots.svg(self.draw)


def pictures(study: Folds) -> dict[str, Picture]:
    """The figures by the name of their file, without its ending, as far as their rows were measured."""
    found: dict[str, Picture] = {}
    paper = PAPER if study.dim == verdicts_ipt.PAPER_DIM else {}
    if study.verdicts:
        alt = forest.forest_described(study.verdicts)
        found["forest"] = Picture(lambda: forest.forest(study.verdicts, paper), alt)
    for name, panels in (
        ("gains", _gain_panels(study)),
        ("controls", _control_panels(study)),
        ("categories", _category_panels(study, paper)),
        ("seen_tasks", _seen_panels(study) if {"A9", "A10"} & study.effects.keys() else []),
    ):
        if panels and panels[0].rows:
            found[name] = Picture(partial(forest.dots, panels), forest.described(panels))
    if runs := _runs(study):
        found["stage_two"] = runs
    if study.budgets:
        found["budgets"] = _budget_picture(study)
    return found


# ---- parts ----------------------------------------------------------------------------------------
def _gain_panels(study: Folds) -> list[forest.Panel]:
    names = {"start": "start: mean code − zero-shot", "tuning": "tuning: IST − mean code"}
    return _panels([(names[x["gain"]], f"{x['split']} tasks", x) for x in study.gains])


def _control_panels(study: Folds) -> list[forest.Panel]:
    return _panels([(f"IST − {control_name(x['control'])}", "unseen tasks", x) for x in study.controls])


def _margins() -> dict[str, float]:
    """Measure -> the margin within which IST and another method do not differ, by claims A4 and A8."""
    return {one.measure: one.equal for name in ("A4", "A8") for one in claims.known()[name].criteria}


def _panels(lines: Sequence[tuple[str, str, Mapping[str, Any]]]) -> list[forest.Panel]:
    """Panels of log-likelihood and score from (row, series, line of `verdicts_ipt`)."""
    found = []
    for measure in ("log_likelihood", "score"):
        rows: dict[str, dict[str, Sequence[float]]] = {}
        for row, series, line in lines:
            if line["measure"] == measure:
                rows.setdefault(row, {})[series] = gap_of(line)
        found.append(forest.Panel(_axis(measure), rows, margin=_margins()[measure]))
    return found


def _category_panels(study: Folds, paper: Mapping[str, float]) -> list[forest.Panel]:
    panels = []
    for name in ("E_rel", "E_rel above chance"):
        rows: dict[str, dict[str, Sequence[float]]] = {}
        for line in study.categories:
            if line["method"] == "IST" and line[name]:
                rows.setdefault(kind_of(line), {})[f"{line['split']} tasks"] = line[name]
        values = dict(zip(SIDES, paper.values(), strict=True)) if paper and name == "E_rel" else {}
        lines = {f"the paper, {side} tasks": value for side, value in values.items()}
        panels.append(forest.Panel(f"{name} of IST", rows, lines, zero=1.0))
    return panels


def _seen_panels(study: Folds) -> list[forest.Panel]:
    """IST in subspaces of other seen tasks, beside zero-shot."""
    panels = []
    for measure in ("log_likelihood", "score"):
        rows: dict[str, dict[str, Sequence[float]]] = {}
        for kind, name in SUBSPACES.items():
            for series, is_cls in (("on classifications", True), ("on other tasks", False)):
                gap = Gap(Arm("IST", folds=kind, is_cls=is_cls), Arm(ZERO_SHOT))
                if values := gap.values(study.at_dim, measure):
                    mean = intervals.over_tasks(values, study.rows)
                    rows.setdefault(f"subspace of {name}", {})[series] = mean
        label = f"IST − zero-shot on unseen tasks,\n{_axis(measure)}"
        panels.append(forest.Panel(label, rows, margin=_margins()[measure]))
    return panels


def _runs(study: Folds) -> Picture | None:
    gaps = study.task_gaps
    if not gaps:
        return None
    wide, narrow = (
        verdicts_ipt.run_deviations(Arm(method).of(study.at_dim), method)
        for method in (FROM_WORDS, STAGE_TWO)
    )
    pairs = [(wide[task], narrow[task]) for task in wide if task in narrow]
    names = ("from words", "stage two")
    alt = (
        f"Left: stage two minus prompt tuning from words in log-likelihood, {len(gaps)} unseen tasks; "
        f"{sum(g > 0 for g in gaps)} of them gain. Right: standard deviation of the score over runs; it is "
        f"smaller with stage two on {sum(b < a - ROUNDING for a, b in pairs)} of {len(pairs)} tasks."
    )
    return Picture(lambda: forest.runs(gaps, pairs, names), alt)


def _budget_picture(study: Folds) -> Picture:
    prompts, codes = by_prompts(study), by_ist(study)
    panels = {
        f"reference trained longer (IST {name_of(study.scale['ist'])})": [
            forest.Line("IST", [examples_of(x["prompts"]) for x in prompts], [x["ratio"] for x in prompts])
        ],
        f"IST trained longer (prompts {name_of(study.scale['prompt'])})": [
            forest.Line(f"MSF {msf}", [examples_of(x["ist"]) for x in lines], [x["ratio"] for x in lines])
            for msf, lines in codes
        ],
    }
    first = ", ".join(f"{x['prompts']} {x['ratio'][0]:.2f}" for x in prompts)
    by_own = [(msf, [f"{x['ist']} {x['ratio'][0]:.2f}" for x in lines]) for msf, lines in codes]
    second = "; ".join(f"MSF {msf}: {', '.join(each)}" for msf, each in by_own)
    alt = (
        f"Ratio of means of IST and prompt tuning by the budget of prompt tuning: {first}. By IST's own "
        f"budget: {second}."
    )
    labels = ("examples that prompt tuning reads", "examples that IST reads")
    return Picture(lambda: forest.curves(panels, labels, "ratio of means"), alt)


def _axis(measure: str) -> str:
    return {"log_likelihood": "log-likelihood (nats per answer token)"}.get(measure, measure)
