"""Verdicts of a study's rows on the claims about Intrinsic Prompt Tuning (A1, A3, ...).

    data/claims.json: criteria -> EFFECTS: how to measure each -> verdicts(rows)

How an effect becomes a verdict is in `effects`. `starts`, `controls`, `apart` and `per_category` take the
same rows apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from iptkit.scores import summary
from iptkit.scores.claims import Claim, Criterion
from iptkit.studies import effects
from iptkit.studies.adapters import METHODS as ADAPTERS
from iptkit.studies.adapters import SHARED
from iptkit.studies.effects import Effect, Gap, Level, Pair, Rows, Values
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.unseen import DID_AROUND, FROM_WORDS, NEAREST, STAGE_TWO

PAPER_DIM = 5
PAPER = {"seen": 0.87, "unseen": 0.65}  # E_rel of IST at that d_I (arXiv 2110.07867, first version)
SIDES = ("seen", "unseen")
MEAN_CODE, ZERO_SHOT, PROMPT_TUNING = "mean code", "zero-shot", "prompt tuning"
CONTROLS = (*(DECODERS[name] for name in (*AROUND, "random", "reconstruction")), NEAREST, MEAN_CODE)


@dataclass(frozen=True)
class Arm(effects.Arm):
    """A method on one side of one kind of folds.

    Attributes:
      method: of the rows.
      side: "seen" or "unseen".
      folds: one of `summary.FOLDS`.
      is_cls: only classifications (True), only other tasks (False), or all (None).
    """

    method: str
    side: str = "unseen"
    folds: str = "main"
    is_cls: bool | None = None

    def of(self, rows: Rows) -> list[dict[str, Any]]:
        """Its rows among those `at` one d_I."""
        return [
            row
            for row in summary.of_folds(rows, self.folds)
            if row["method"] == self.method
            and row["split"] in (self.side, "both")
            and self.is_cls in (None, row["category"] == "cls")
        ]


@dataclass(frozen=True)
class Kept(Effect):
    """E_rel: the share of prompt tuning's score that a method keeps (see `summary.ratios`, crossed)."""

    arm: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""
        return self.arm, Arm(PROMPT_TUNING, self.arm.side, self.arm.folds, self.arm.is_cls)

    def values(self, rows: Rows, measure: str) -> Values:
        """The ratios of each task with a usable reference."""
        mine, reference = (arm.of(rows) for arm in self.arms)
        if not mine or not reference:
            return {}
        which = (self.arm.method, mine[0]["d_I"])
        return summary.ratios([*mine, *reference], which, self.arm.side, crossed=True)


class Steadier(Pair):
    """How much less `second` varies over its runs than `first`: the difference of their deviations."""

    def values(self, rows: Rows, measure: str) -> Values:
        """One difference of standard deviations for each task."""
        wide, narrow = (arm.of(rows) for arm in self.arms)
        if not wide or not narrow:
            return {}
        first = run_deviations(wide, wide[0]["method"], measure)
        second = run_deviations(narrow, narrow[0]["method"], measure)
        return {task: [first[task] - second[task]] for task in first if task in second}


@dataclass(frozen=True)
class Tuning(Effect):
    """How much more tuning gains in one method than in another, each from its own start."""

    first: Gap
    second: Gap

    @property
    def arms(self) -> tuple[effects.Arm, ...]:
        """What it compares."""
        return *self.first.arms, *self.second.arms

    def values(self, rows: Rows, measure: str) -> Values:
        """One difference of gains for each task of both."""
        first, second = (
            {task: statistics.fmean(of_task) for task, of_task in gap.values(rows, measure).items()}
            for gap in (self.first, self.second)
        )
        return {task: [gain - second[task]] for task, gain in first.items() if task in second}


IST, IST_SEEN = Arm("IST"), Arm("IST", "seen")
CLASSIFICATIONS, OTHERS = (Arm("IST", folds="cls", is_cls=is_cls) for is_cls in (True, False))
EFFECTS: dict[str, Effect] = {  # the words of data/claims.json -> how to measure it
    "IST − random directions around the mean code, unseen tasks": Gap(IST, Arm(DECODERS["random_around"])),
    "IST, unseen tasks": Kept(IST),
    "IST, seen tasks with new data": Kept(IST_SEEN),
    "error of a seen task's rebuilt prompt (the mean prompt has 1)": Level(Arm("MSF", "seen")),
    "MSF − mean code, seen tasks": Gap(Arm("MSF", "seen"), Arm(MEAN_CODE, "seen")),
    "IST − mean code, seen tasks with new data": Gap(IST_SEEN, Arm(MEAN_CODE, "seen")),
    "IST − mean code, unseen tasks": Gap(IST, Arm(MEAN_CODE)),
    "prompt tuning − IST, seen tasks with new data": Gap(Arm(PROMPT_TUNING, "seen"), IST_SEEN),
    "prompt tuning − IST, unseen tasks": Gap(Arm(PROMPT_TUNING), IST),
    "IST in a subspace of classifications − zero-shot, unseen classifications": Gap(
        CLASSIFICATIONS, Arm(ZERO_SHOT)
    ),
    "IST in a subspace of classifications − zero-shot, other tasks": Gap(OTHERS, Arm(ZERO_SHOT)),
    "IST in a subspace of other tasks − in one of classifications, other tasks": Gap(
        Arm("IST", folds="non_cls", is_cls=False), OTHERS
    ),
    "IST with 100 seen tasks − with 20, unseen tasks": Gap(IST, Arm("IST", folds="few")),
    "stage two − prompt tuning from words, unseen tasks": Gap(Arm(STAGE_TWO), Arm(FROM_WORDS)),
    "standard deviation over runs: prompt tuning from words − stage two": Steadier(
        Arm(FROM_WORDS), Arm(STAGE_TWO)
    ),
    "IST of adapters − IST of prompts, unseen tasks": Gap(Arm(ADAPTERS["learned"]), IST),
    "IST of adapters − the shared adapters untuned, unseen tasks": Gap(Arm(ADAPTERS["learned"]), Arm(SHARED)),
    "IST − Fastfood around the mean code, unseen tasks": Gap(IST, Arm(DECODERS["fastfood_around"])),
    "IST − DID, unseen tasks": Gap(IST, Arm("DID")),
}


def _start_of(arm: Arm) -> Arm:
    """The mean code of the same folds and tasks."""
    return replace(arm, method=MEAN_CODE)


_ADAPTERS, _OTHER_SUBSPACE = Arm(ADAPTERS["learned"]), Arm("IST", folds="non_cls", is_cls=False)
_FEW = Arm("IST", folds="few")
APART = {  # claim, comparison -> the two methods, each with what it starts at
    ("A9", "IST in a subspace of other tasks − in one of classifications, other tasks"): (
        (_OTHER_SUBSPACE, _start_of(_OTHER_SUBSPACE)),
        (OTHERS, _start_of(OTHERS)),
    ),
    ("A10", "IST with 100 seen tasks − with 20"): ((IST, _start_of(IST)), (_FEW, _start_of(_FEW))),
    ("A13", "IST of adapters − IST of prompts"): ((_ADAPTERS, Arm(SHARED)), (IST, _start_of(IST))),
    ("A13", "IST of adapters − random directions around the shared adapters"): (
        (_ADAPTERS, Arm(SHARED)),
        (Arm(ADAPTERS["around"]), Arm(SHARED)),
    ),
    ("A14", "IST − DID"): ((IST, _start_of(IST)), (Arm("DID"), Arm(ZERO_SHOT))),
    ("A14", f"IST − {DID_AROUND}"): ((IST, _start_of(IST)), (Arm(DID_AROUND), _start_of(IST))),
}


def verdicts(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """Verdicts on the claims about IPT that have criteria, as far as the rows have their methods.

    Args:
      rows: of a study with folds.
      dim: the d_I that its controls were run at. A7 is judged at PAPER_DIM only.
    Returns: see `effects.verdicts`.
    """
    asked = {name: claim for name, claim in judged().items() if name != "A7" or dim == PAPER_DIM}
    return effects.verdicts(at(rows, dim), asked, EFFECTS)


def judged() -> dict[str, Claim]:
    """The claims about IPT that have criteria, by id."""
    return effects.judged("A")


def effect_of(rows: Rows, criterion: Criterion, dim: int = PAPER_DIM) -> dict[str, Any] | None:
    """Measure the effect of a criterion; None if something that it compares was not measured.

    Args:
      rows: of a study with folds.
      criterion: of one of the claims `judged`.
      dim: the d_I that the controls were run at.
    Returns: see `effects.effect_of`.
    Raises: ValueError if EFFECTS does not have the effect.
    """
    return effects.effect_of(at(rows, dim), criterion, EFFECTS)


def at(rows: Rows, dim: int) -> list[dict[str, Any]]:
    """The rows at one d_I, and those of methods without one."""
    return [row for row in rows if row["d_I"] in (0, dim)]


def starts(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """What the start of IST gains by itself, and what tuning adds.

    Returns: a line for each gain ("start": mean code − zero-shot; "tuning": IST − mean code), side and
      measure (score and log-likelihood), with "gain", "split", "measure", and "mean", "low", "high", "p",
      "tasks", "groups" and "smallest" as in `effect_of`.
    """
    lines = []
    for side in SIDES:
        start = Arm(MEAN_CODE, side)
        gains = {"start": Gap(start, Arm(ZERO_SHOT, side)), "tuning": Gap(Arm("IST", side), start)}
        for gain, gap in gains.items():
            lines += _in_both_measures(rows, gap, dim, {"gain": gain, "split": side})
    return lines


def controls(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """IST minus each of CONTROLS that was measured, on unseen tasks.

    Returns: a line for each control and measure (score and log-likelihood), as `starts`, with "control".
    """
    return [
        line
        for name in CONTROLS
        for line in _in_both_measures(rows, Gap(IST, Arm(name)), dim, {"control": name})
    ]


def apart(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """The differences of APART on the tasks of all that they compare, as far as they were measured.

    Where two methods start apart, their difference is that of the starts plus that of what tuning gains.

    Returns: a line for each comparison, part ("whole", "starts" and "tuning"; only "whole" where both start
      at the same prompt) and measure, as `starts`, with "claim", "comparison" and "part".
    """
    lines, mine = [], at(rows, dim)
    for (claim, words), ((first, start), (second, other)) in APART.items():
        tasks = set.intersection(
            *({r["task"] for r in arm.of(mine)} for arm in (first, start, second, other))
        )
        shared = [row for row in rows if row["task"] in tasks]
        parts: dict[str, Effect] = {"whole": Gap(first, second)}
        if start != other:
            tuning = Tuning(Gap(first, start), Gap(second, other))
            parts |= {"starts": Gap(start, other), "tuning": tuning}
        for part, effect in parts.items():
            names = {"claim": claim, "comparison": words, "part": part}
            lines += _in_both_measures(shared, effect, dim, names)
    return lines


def per_category(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """Zero-shot, mean code, IST and prompt tuning by category of tasks and side, in the main folds.

    Returns: the lines of `summary.summary` (crossed) with "category", "groups" (how many) and
      "log_likelihood", the interval of its mean.
    """
    lines, main = [], summary.of_folds(rows)
    methods = [(ZERO_SHOT, 0), (MEAN_CODE, dim), ("IST", dim), (PROMPT_TUNING, 0)]
    for category in sorted({row["category"] for row in main}):
        mine = [row for row in main if row["category"] == category]
        others = summary.summary(mine, methods, value="log_likelihood")
        for line, other in zip(summary.summary(mine, methods, crossed=True), others, strict=True):
            wanted = Arm(line["method"], line["split"]).of(at(mine, dim))
            groups = {row.get("group", row["task"]) for row in wanted}
            more = {"groups": len(groups), "log_likelihood": other["log_likelihood"]}
            lines.append({"category": category} | line | more)
    return lines


def run_deviations(rows: Rows, method: str, value: str = "score") -> dict[str, float]:
    """Task -> standard deviation of a method's score over its runs with the first few-shot sample.

    Args:
      rows: of a study, or of one kind of folds.
      method: that was run several times.
      value: the field whose deviation is taken.
    Raises: ValueError if a task has fewer than 2 runs.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["task"], []).append(row[value])
    few = sorted(task for task, of_task in found.items() if len(of_task) < 2)
    if few or not found:
        raise ValueError(
            f"{method!r} has fewer than two runs on {', '.join(few) or 'every task'}; set stage_two_runs >= 2"
        )
    return {task: statistics.stdev(of_task) for task, of_task in found.items()}


# ---- parts ---------------------------------------------------------------------------------------
def _in_both_measures(rows: Rows, gap: Effect, dim: int, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A line for the score and one for the log-likelihood; none if something was not measured."""
    found = {measure: gap.measured(at(rows, dim), measure) for measure in summary.VALUES}
    return [{**names, "measure": measure, **made} for measure, made in found.items() if made]
