"""Effects that decide claims: how they are measured from rows, and what verdicts follow.

    data/claims.json: criteria -> a table of effects: how to measure each -> verdicts(rows, claims, table)

A criterion names an effect in words, the table of a study says which rows measure it, and `claims.of_effect`
turns it into a verdict: from the interval over tasks and the sign-flip test over leakage groups. With fewer
than `intervals.LEAST_GROUPS` groups an effect stays undecided. An undecided one says how large an effect
would have had to be for this design to see it. `verdicts_ipt` and `verdicts_encoders` have the tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iptkit.scores import claims, intervals, summary
from iptkit.scores.claims import Claim, Criterion

Rows = Sequence[dict[str, Any]]
Values = dict[str, list[float]]  # task -> a value per seed
OPEN = claims.VERDICTS[3]


class Arm(ABC):
    """The rows of one method under one condition."""

    @abstractmethod
    def of(self, rows: Rows) -> list[dict[str, Any]]:
        """Its rows among those of a study."""

    def left_out(self, rows: Rows) -> set[str]:
        """Tasks that were measured and do not count; none, unless a subclass says so."""
        return set()


class Effect(ABC):
    """How an effect is measured."""

    @property
    @abstractmethod
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""

    @abstractmethod
    def values(self, rows: Rows, measure: str) -> Values:
        """What the effect is the mean of; empty if something was not measured."""

    def measured(self, rows: Rows, measure: str, value: float = 0.0) -> dict[str, Any] | None:
        """What `measured` says of its values; None if something was not measured."""
        values = self.values(rows, measure)
        return measured(values, rows, value) if values else None


@dataclass(frozen=True)
class Pair(Effect):
    """Two arms that an effect compares."""

    first: Arm
    second: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it compares."""
        return self.first, self.second


class Gap(Pair):
    """`first` − `second`, paired by task and few-shot sample, on the tasks of both."""

    def values(self, rows: Rows, measure: str) -> Values:
        """The differences of each task, in the score or the log-likelihood."""
        each = [arm.of(rows) for arm in self.arms]
        shared = set.intersection(*({row["task"] for row in mine} for mine in each))
        named = [  # both arms may be of one method, under two conditions
            {"split": "both"} | row | {"method": name, "d_I": 0}
            for name, mine in zip(("first", "second"), each, strict=True)
            for row in mine
            if row["task"] in shared
        ]
        return summary.differences(named, ("first", 0), ("second", 0), value=measure) if shared else {}


@dataclass(frozen=True)
class Level(Effect):
    """A field of an arm's rows by itself."""

    arm: Arm

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What it measures."""
        return (self.arm,)

    def values(self, rows: Rows, measure: str) -> Values:
        """The field that is named like the measure."""
        return intervals.by_task(self.arm.of(rows), measure)


def judged(letter: str) -> dict[str, Claim]:
    """The claims of one paper that have criteria, by id.

    Args:
      letter: that their ids begin with, "A" (Intrinsic Prompt Tuning) or "B" (P-Tuning v2).
    """
    return {name: claim for name, claim in claims.known().items() if name[0] == letter and claim.criteria}


def verdicts(rows: Rows, asked: Mapping[str, Claim], effects: Mapping[str, Effect]) -> list[dict[str, Any]]:
    """Verdicts on claims, as far as the rows have the methods that they compare.

    The number of seeds of a verdict is the smallest one among the methods that it compares.

    Args:
      rows: of a study.
      asked: claims with criteria, by id.
      effects: how to measure each effect, by the words of its criterion.
    Returns: one dictionary a claim: its "name", "here" (the measurement in words), "verdict", "num_tasks",
      "num_seeds", and "effects", one dictionary for each criterion (see `effect_of`).
    """
    found = []
    for name, claim in asked.items():
        each = [effect_of(rows, criterion, effects) for criterion in claim.criteria]
        made = [effect for effect in each if effect is not None]
        if len(made) < len(each):
            continue
        used = [(effects[one.effect], one.measure) for one in claim.criteria]
        arms = [arm for effect, _ in used for arm in effect.arms]
        found.append(
            {
                "name": name,
                "here": "; ".join(map(as_text, made)),
                "verdict": claims.of_both([effect["verdict"] for effect in made]),
                "num_tasks": len({t for effect, measure in used for t in effect.values(rows, measure)}),
                "num_seeds": min(len({row["seed"] for row in arm.of(rows)}) for arm in arms),
                "effects": made,
            }
        )
    return found


def effect_of(rows: Rows, criterion: Criterion, effects: Mapping[str, Effect]) -> dict[str, Any] | None:
    """Measure the effect of a criterion; None if something that it compares was not measured.

    Args:
      rows: of a study.
      criterion: of a claim.
      effects: how to measure each effect, by the words of its criterion.
    Returns: the fields of the criterion; "mean", "low" and "high" (95 % interval over tasks), "p" (sign-flip
      test that the effect is the criterion's value), "tasks" and "groups" (how many), "verdict", "smallest",
      the difference from the value that the design would see (see `intervals.smallest_effect`), and, if an
      arm leaves tasks out, "left_out" (how many). "least_groups" is the smaller number of groups of an effect
      that compares two kinds of tasks, and "digits" that of a text, if not 3.
    Raises: ValueError if `effects` does not have the effect.
    """
    if criterion.effect not in effects:
        raise ValueError(
            f"nothing says how to measure {criterion.effect!r}; EFFECTS has {'; '.join(effects)}"
        )
    effect = effects[criterion.effect]
    found = effect.measured(rows, criterion.measure, criterion.value)
    if found is None:
        return None
    interval = (found["mean"], found["low"], found["high"])
    is_enough = _least_groups(found) >= intervals.LEAST_GROUPS
    verdict = claims.of_effect(interval, found["p"], criterion) if is_enough else OPEN
    left_out = {task for arm in effect.arms for task in arm.left_out(rows)}
    names = ("effect", "measure", "asks", "value", "equal")
    return (
        {name: getattr(criterion, name) for name in names}
        | found
        | {"verdict": verdict}
        | ({"left_out": len(left_out)} if left_out else {})
    )


def measured(values: Values, rows: Rows, value: float = 0.0) -> dict[str, Any]:
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
    unit = " nats" if measure == "log_likelihood" else ""
    where = f"({effect['tasks']} in {effect['groups']} groups"
    where += f", {effect['left_out']} left out)" if effect.get("left_out") else ")"
    is_share, digits = measure == "share", effect.get("digits", 3)
    sign = "" if measure in ("E_rel", "reconstruction", "share") else "+"
    mean, low, high = (f"{end + 0.0:{sign}.{'2%' if is_share else f'{digits}f'}}" for end in interval)
    text = f"{'E_rel of ' if measure == 'E_rel' else ''}{effect['effect']} {where} "
    text += f"{mean} [{low}, {high}]{unit}"
    if asks != "about":
        text += f", p {effect['p']:.3f}" if effect["p"] >= 0.001 else ", p < 0.001"
    least = value - effect["equal"] if asks == "about" else value
    if asks == "about" or value:
        than = {"about": "", "less": "less than ", "more": "more than "}[asks]
        text += f" ({than}{f'{least:.2%}' if is_share else f'{least:.2f}'} is asked for)"
    if effect["verdict"] == OPEN:
        text += ", undecided: "
        if _least_groups(effect) < intervals.LEAST_GROUPS:
            text += f"it takes {intervals.LEAST_GROUPS} groups"
        else:
            text += f"this design sees differences of {effect['smallest']:.{digits}f}{unit} and more"
    return text


def _least_groups(found: Mapping[str, Any]) -> int:
    """The number of groups, of the smaller kind if an effect compares two kinds of tasks."""
    return int(found.get("least_groups", found["groups"]))
