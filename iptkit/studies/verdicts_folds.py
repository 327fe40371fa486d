"""Verdicts of a study with folds on the claims about Intrinsic Prompt Tuning.

    data/claims.json: criteria -> EFFECTS: how to measure each -> verdicts(rows)

A criterion names an effect in words, EFFECTS says which rows measure it, and `claims.of_effect` turns it into
a verdict: from the interval over tasks and the sign-flip test over leakage groups. With fewer than
`intervals.LEAST_GROUPS` groups an effect stays undecided. An undecided one says how large an effect would
have had to be for this design to see it. `starts`, `controls` and `per_category` take the same rows apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from iptkit.scores import claims, intervals, summary
from iptkit.scores.claims import Claim, Criterion
from iptkit.scores.intervals import difference_text, level_text
from iptkit.studies.adapters import METHODS as ADAPTERS
from iptkit.studies.adapters import SHARED
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.unseen import FROM_WORDS, NEAREST, STAGE_TWO

Rows = Sequence[dict[str, Any]]
Values = dict[str, list[float]]  # task -> a value per seed
PAPER_DIM = 5  # A7 is about this d_I
OPEN = claims.VERDICTS[3]
SIDES = ("seen", "unseen")
MEAN_CODE, ZERO_SHOT, PROMPT_TUNING = "mean code", "zero-shot", "prompt tuning"
CONTROLS = (*(DECODERS[name] for name in (*AROUND, "random", "reconstruction")), NEAREST, MEAN_CODE)


@dataclass(frozen=True)
class Arm:
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

    def of(self, rows: Rows, dim: int) -> list[dict[str, Any]]:
        """Its rows, at one d_I if the method has one."""
        return [
            row
            for row in summary.of_folds(rows, self.folds)
            if row["method"] == self.method
            and row["d_I"] in (0, dim)
            and row["split"] in (self.side, "both")
            and self.is_cls in (None, row["category"] == "cls")
        ]


class Effect(Protocol):
    """How an effect is measured."""

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""
        ...

    def values(self, rows: Rows, dim: int, measure: str) -> Values:
        """What the effect is the mean of; empty if something was not measured."""
        ...


@dataclass(frozen=True)
class Pair:
    """Two arms that an effect compares."""

    first: Arm
    second: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""
        return self.first, self.second


class Gap(Pair):
    """`first` − `second`, paired by task and few-shot sample, on the tasks of both."""

    def values(self, rows: Rows, dim: int, measure: str) -> Values:
        """The differences of each task, in the score or the log-likelihood."""
        each = [arm.of(rows, dim) for arm in self.arms]
        shared = set.intersection(*({row["task"] for row in mine} for mine in each))
        named = [  # the method of both may be IST, in two kinds of folds
            row | {"method": name, "d_I": 0}
            for name, mine in zip(("first", "second"), each, strict=True)
            for row in mine
            if row["task"] in shared
        ]
        return summary.differences(named, ("first", 0), ("second", 0), value=measure) if shared else {}


@dataclass(frozen=True)
class Kept:
    """E_rel: the share of prompt tuning's score that a method keeps (see `summary.ratios`, crossed)."""

    arm: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""
        return self.arm, Arm(PROMPT_TUNING, self.arm.side, self.arm.folds, self.arm.is_cls)

    def values(self, rows: Rows, dim: int, measure: str) -> Values:
        """The ratios of each task with a usable reference."""
        mine, reference = (arm.of(rows, dim) for arm in self.arms)
        if not mine or not reference:
            return {}
        which = (self.arm.method, mine[0]["d_I"])
        return summary.ratios([*mine, *reference], which, self.arm.side, crossed=True)


@dataclass(frozen=True)
class Level:
    """A field of a method's rows by itself."""

    arm: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it measures."""
        return (self.arm,)

    def values(self, rows: Rows, dim: int, measure: str) -> Values:
        """The field that is named like the measure."""
        return intervals.by_task(self.arm.of(rows, dim), measure)


class Steadier(Pair):
    """How much less `second` varies over its runs than `first`: the difference of their deviations."""

    def values(self, rows: Rows, dim: int, measure: str) -> Values:
        """One difference of standard deviations for each task."""
        wide, narrow = (arm.of(rows, dim) for arm in self.arms)
        if not wide or not narrow:
            return {}
        first = run_deviations(wide, self.first.method, measure)
        second = run_deviations(narrow, self.second.method, measure)
        return {task: [first[task] - second[task]] for task in first if task in second}


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


def verdicts(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """Verdicts on the claims about IPT that have criteria, as far as the rows have their methods.

    The number of seeds of a verdict is the smallest one among the methods that it compares.

    Args:
      rows: of a study with folds.
      dim: the d_I that its controls were run at. A7 is judged at PAPER_DIM only.
    Returns: one dictionary a claim: its "name", "here" (the measurement in words), "verdict", "num_tasks",
      "num_seeds", and "effects", one dictionary for each criterion (see `effect_of`).
    """
    found = []
    for name, claim in judged().items():
        if name == "A7" and dim != PAPER_DIM:
            continue
        effects = [effect_of(rows, criterion, dim) for criterion in claim.criteria]
        measured = [effect for effect in effects if effect is not None]
        if len(measured) < len(effects):
            continue
        arms = [arm for one in claim.criteria for arm in EFFECTS[one.effect].arms]
        tasks = {task for one in claim.criteria for task in _values(rows, one, dim)}
        found.append(
            {
                "name": name,
                "here": "; ".join(map(as_text, measured)),
                "verdict": claims.of_both([effect["verdict"] for effect in measured]),
                "num_tasks": len(tasks),
                "num_seeds": min(len({row["seed"] for row in arm.of(rows, dim)}) for arm in arms),
                "effects": measured,
            }
        )
    return found


def judged() -> dict[str, Claim]:
    """The claims about IPT that have criteria, by id."""
    return {name: claim for name, claim in claims.known().items() if name[0] == "A" and claim.criteria}


def effect_of(rows: Rows, criterion: Criterion, dim: int = PAPER_DIM) -> dict[str, Any] | None:
    """Measure the effect of a criterion; None if something that it compares was not measured.

    Args:
      rows: of a study with folds.
      criterion: of one of the claims `judged`.
      dim: the d_I that the controls were run at.
    Returns: the fields of the criterion; "mean", "low" and "high" (95 % interval over tasks), "p" (sign-flip
      test that the effect is the criterion's value), "tasks" and "groups" (how many), "verdict", and
      "smallest", the difference from the value that the design would see (see `intervals.smallest_effect`).
    Raises: ValueError if EFFECTS does not have the effect.
    """
    values = _values(rows, criterion, dim)
    if not values:
        return None
    found = _measured(values, rows, criterion.value)
    interval = (found["mean"], found["low"], found["high"])
    is_enough = found["groups"] >= intervals.LEAST_GROUPS
    verdict = claims.of_effect(interval, found["p"], criterion) if is_enough else OPEN
    names = ("effect", "measure", "asks", "value", "equal")
    return {name: getattr(criterion, name) for name in names} | found | {"verdict": verdict}


def as_text(effect: Mapping[str, Any]) -> str:
    """Return an effect of `effect_of` in words: what, where, how much, what is asked for.

    Example:
      >>> found = {"effect": "a − b, unseen tasks", "measure": "score", "asks": "more", "value": 0.0,
      ...     "equal": 0.02, "mean": 0.1, "low": 0.05, "high": 0.15, "p": 0.0312, "tasks": 12, "groups": 7,
      ...     "smallest": 0.06, "verdict": "holds"}
      >>> as_text(found)
      'a − b, unseen tasks (12 in 7 groups) +0.100 [+0.050, +0.150], p 0.031'
    """
    asks, value, measure = effect["asks"], effect["value"], effect["measure"]
    interval = (effect["mean"], effect["low"], effect["high"])
    is_level = measure in ("E_rel", "reconstruction")
    unit = " nats" if measure == "log_likelihood" else ""
    where = f"({effect['tasks']} in {effect['groups']} groups)"
    text = f"{'E_rel of ' if measure == 'E_rel' else ''}{effect['effect']} {where} "
    text += (level_text if is_level else difference_text)(interval) + unit
    if asks != "about":
        text += f", p {effect['p']:.3f}" if effect["p"] >= 0.001 else ", p < 0.001"
    if asks == "about":
        text += f" ({value - effect['equal']:.2f} is asked for)"
    elif value:
        text += f" ({'less' if asks == 'less' else 'more'} than {value:.2f} is asked for)"
    if effect["verdict"] == OPEN:
        text += ", undecided: "
        if effect["groups"] < intervals.LEAST_GROUPS:
            text += f"it takes {intervals.LEAST_GROUPS} groups"
        else:
            text += f"this design sees differences of {effect['smallest']:.3f}{unit} and more"
    return text


def starts(rows: Rows, dim: int = PAPER_DIM) -> list[dict[str, Any]]:
    """What the start of IST gains by itself, and what tuning along its directions adds.

    Returns: a line for each gain ("start": mean code − zero-shot; "directions": IST − mean code), side and
      measure (score and log-likelihood), with "gain", "split", "measure", and "mean", "low", "high", "p",
      "tasks", "groups" and "smallest" as in `effect_of`.
    """
    lines = []
    for side in SIDES:
        start = Arm(MEAN_CODE, side)
        gains = {"start": Gap(start, Arm(ZERO_SHOT, side)), "directions": Gap(Arm("IST", side), start)}
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
            wanted = Arm(line["method"], line["split"]).of(mine, dim)
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
def _values(rows: Rows, criterion: Criterion, dim: int) -> Values:
    """What the effect of a criterion is the mean of."""
    if criterion.effect not in EFFECTS:
        raise ValueError(
            f"nothing says how to measure {criterion.effect!r}; EFFECTS has {'; '.join(EFFECTS)}"
        )
    return EFFECTS[criterion.effect].values(rows, dim, criterion.measure)


def _measured(values: Values, rows: Rows, value: float = 0.0) -> dict[str, Any]:
    """Mean, interval, p, counts and smallest effect of values by task, compared with `value`."""
    mean, low, high = intervals.over_tasks(values, rows)
    by_group = intervals.by_group(values, rows)
    p = intervals.sign_flip({group: [v - value for v in of] for group, of in by_group.items()})
    labels = [group for group, of in by_group.items() for _ in of]
    error = intervals.standard_error([v for of in by_group.values() for v in of], labels)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "p": p,
        "tasks": len(labels),
        "groups": len(by_group),
        "smallest": intervals.smallest_effect(*error),
    }


def _in_both_measures(rows: Rows, gap: Gap, dim: int, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A line for the score and one for the log-likelihood; none if something was not measured."""
    found = {measure: gap.values(rows, dim, measure) for measure in summary.VALUES}
    return [
        {**names, "measure": measure, **_measured(values, rows)}
        for measure, values in found.items()
        if values
    ]
