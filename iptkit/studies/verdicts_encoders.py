"""Verdicts on the claims about P-Tuning v2 (B3 to B10), from the rows of `encoder_study`.

    data/claims.json: criteria -> EFFECTS: how to measure each -> verdicts(rows)

How an effect becomes a verdict is in `effects`. Effects are paired by task, and intervals are over leakage
groups. A task whose fine-tuning is not trained (its "is_trained" is false: it stays below the linear probe on
dev) is left out of the effects that compare with fine-tuning, and their texts count such tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iptkit.scores import intervals
from iptkit.scores.claims import Claim
from iptkit.studies import effects
from iptkit.studies.effects import Effect, Gap, Level, Pair, Rows, Values
from iptkit.studies.lesson04_methods import COMMONEST, METHODS

_, SHALLOW, DEEP, SHARED, TUNED = METHODS
CUT = ", first {} layers"  # ends the name of a model without its later layers
DEPTHS = range(1, 6)  # k of B10, in a model of six layers


@dataclass(frozen=True)
class Arm(effects.Arm):
    """The rows of a method in one part of the study; those of untrained fine-tuning are left out.

    Attributes:
      method: of the rows.
      category: "cls", "tag" or "" for both.
      part: of the study, one of `encoder_study.PARTS`.
      data: that it trained on, "full" or "few-shot".
      layers: of the model, 0 for all.
      where: other fields, each with the values that count.
    """

    method: str
    category: str = ""
    part: str = "compared"
    data: str = "full"
    layers: int = 0
    where: Mapping[str, Collection[Any]] = field(default_factory=dict)

    def of(self, rows: Rows) -> list[dict[str, Any]]:
        """Its rows."""
        return [row for row in self._measured(rows) if row.get("is_trained", True)]

    def left_out(self, rows: Rows) -> set[str]:
        """Tasks without a trained run."""
        return {row["task"] for row in self._measured(rows)} - {row["task"] for row in self.of(rows)}

    def _measured(self, rows: Rows) -> list[dict[str, Any]]:
        return [
            row
            for row in rows
            if (row["part"], row["data"], row["method"]) == (self.part, self.data, self.method)
            and self.category in ("", row["category"])
            and self._is_model(row["backbone"])
            and all(row.get(name) in values for name, values in self.where.items())
        ]

    def _is_model(self, name: str) -> bool:
        return name.endswith(CUT.format(self.layers)) if self.layers else CUT.split("{")[0] not in name


@dataclass(frozen=True)
class Contrast(Effect):
    """The mean of one effect − that of another one, which is measured on other tasks.

    The interval is that of Welch (1947, "The generalization of Student's problem when several different
    population variances are involved"), with cluster-robust standard errors.
    """

    first: Effect
    second: Effect

    @property
    def arms(self) -> tuple[effects.Arm, ...]:
        """What both compare."""
        return *self.first.arms, *self.second.arms

    def values(self, rows: Rows, measure: str) -> Values:
        """One value a task, whose mean is the contrast and whose deviations are those of its own side.

        With n tasks in all and n_i on its side, a task with the value v has
        contrast ± (n / n_i) (v − mean of its side), so that the mean over tasks has the standard error of
        the contrast.
        """
        sides = self._sides(rows, measure)
        if not all(sides):
            return {}
        means = [float(np.mean([*side.values()])) for side in sides]
        count = sum(map(len, sides))
        return {
            task: [means[0] - means[1] + sign * count / len(side) * (value - mean)]
            for side, mean, sign in zip(sides, means, (1, -1), strict=True)
            for task, value in side.items()
        }

    def measured(self, rows: Rows, measure: str, value: float = 0.0) -> dict[str, Any] | None:
        """As for other effects; "least_groups" is the number of groups of the smaller side."""
        found = super().measured(rows, measure, value)
        if found is None:
            return None
        sides = self._sides(rows, measure)
        labels = [intervals.groups_of(side, rows) for side in sides]
        errors = [intervals.standard_error([*s.values()], of) for s, of in zip(sides, labels, strict=True)]
        error, freedom = _welch(*errors)
        _, low, high = intervals.student(found["mean"], error, freedom)
        smallest, least = intervals.smallest_effect(error, freedom), min(len({*of}) for of in labels)
        return found | {"low": low, "high": high, "smallest": smallest, "least_groups": least}

    def _sides(self, rows: Rows, measure: str) -> list[dict[str, float]]:
        """Task -> the mean of its values, of both effects."""
        each = (effect.values(rows, measure) for effect in (self.first, self.second))
        return [{task: float(np.mean(values)) for task, values in side.items()} for side in each]


@dataclass(frozen=True)
class Covariance(Pair):
    """How far the differences of two arms agree between few-shot samples: their covariance over tasks.

    Samples are scored on different test examples, so what one of them has by luck does not count.
    """

    def values(self, rows: Rows, measure: str) -> Values:
        """The product of each task's two deviations from the means over tasks, a value per pair of samples.

        They are divided by n − 1 of n tasks, not by n, as usual for a covariance.
        """
        seeds = sorted({row["seed"] for row in self.first.of(rows)})
        each = {
            seed: Gap(self.first, self.second).values([r for r in rows if r["seed"] == seed], measure)
            for seed in seeds
        }
        shared = sorted(set.intersection(*map(set, each.values()))) if each else []
        if len(seeds) < 2 or len(shared) < 2:
            return {}
        gaps = np.array([[each[seed][task][0] for task in shared] for seed in seeds])  # [samples, tasks]
        gaps -= gaps.mean(1, keepdims=True)
        products = [a * b * len(shared) / (len(shared) - 1) for a, b in itertools.combinations(gaps, 2)]
        return {task: [float(of[t]) for of in products] for t, task in enumerate(shared)}

    def measured(self, rows: Rows, measure: str, value: float = 0.0) -> dict[str, Any] | None:
        """As for other effects, with more digits."""
        found = super().measured(rows, measure, value)
        return None if found is None else found | {"digits": 5}


def _welch(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """The standard error of a difference of two means and its degrees of freedom, given those of both."""
    (a, n), (b, m) = first, second
    error = float(np.hypot(a, b))
    if not error or not min(n, m):
        return error, float(min(n, m))
    return error, error**4 / (a**4 / n + b**4 / m)


def _behind(category: str) -> Gap:
    """Fine-tuning − prompt tuning."""
    return Gap(Arm(TUNED, category), Arm(SHALLOW, category))


def _longer(category: str) -> Gap:
    """64 − 16 vectors."""
    long, short = (Arm(DEEP, category, "lengths", where={"length": (n,)}) for n in (64, 16))
    return Gap(long, short)


WITH_MLP, PLAIN = (Arm(DEEP, part="forms", where={"form": (form,)}) for form in ("mlp", "embedding"))
LAST, FIRST = (
    Arm(DEEP, part="depths", where={"order": (order,), "layers": DEPTHS}) for order in ("last", "first")
)
LINEAR, WORDS = (
    Arm(DEEP, "cls", "heads", "few-shot", where={"head": (head,)}) for head in ("linear", "LM head")
)
EFFECTS: dict[str, Effect] = {  # the words of data/claims.json -> how to measure it
    "fine-tuning − prompt tuning, tags, all examples": _behind("tag"),
    "fine-tuning − prompt tuning, classifications, all examples": _behind("cls"),
    "fine-tuning − prompt tuning: tags − classifications, all examples": Contrast(
        _behind("tag"), _behind("cls")
    ),
    "parameters that deep prompts train, of all": Level(Arm(DEEP)),
    "P-Tuning v2 − prompt tuning, all tasks, all examples": Gap(Arm(DEEP), Arm(SHALLOW)),
    "no MLP − MLP, all examples": Gap(PLAIN, WITH_MLP),
    "covariance over tasks of MLP − no MLP between two samples, all examples": Covariance(WITH_MLP, PLAIN),
    "64 − 16 vectors, tags, all examples": _longer("tag"),
    "64 − 16 vectors, classifications, all examples": _longer("cls"),
    "MPT-2 − P-Tuning v2, all examples": Gap(Arm(SHARED), Arm(DEEP)),
    "P-Tuning v2 − commonest answer, classifications, all examples": Gap(
        Arm(DEEP, "cls"), Arm(COMMONEST, "cls")
    ),
    "P-Tuning v2 − commonest answer, tags, all examples": Gap(Arm(DEEP, "tag"), Arm(COMMONEST, "tag")),
    "linear head − label words, classifications, few-shot, causal model": Gap(LINEAR, WORDS),
    "P-Tuning v2 − fine-tuning, classifications, all examples": Gap(Arm(DEEP, "cls"), Arm(TUNED, "cls")),
    "P-Tuning v2 − fine-tuning, tags, all examples": Gap(Arm(DEEP, "tag"), Arm(TUNED, "tag")),
    "P-Tuning v2 − fine-tuning, all tasks, all examples, first 3 layers": Gap(
        Arm(DEEP, layers=3), Arm(TUNED, layers=3)
    ),
    "last k − first k layers, mean over k < 6, all examples": Gap(LAST, FIRST),
}


def verdicts(rows: Rows) -> list[dict[str, Any]]:
    """Verdicts on the claims about P-Tuning v2 that have criteria, as far as the rows have their methods.

    Args:
      rows: of `encoder_study`.
    Returns: see `effects.verdicts`.
    """
    return effects.verdicts(rows, judged(), EFFECTS)


def judged() -> dict[str, Claim]:
    """The claims about P-Tuning v2 that have criteria, by id."""
    return effects.judged("B")
