"""What the results page shows of a study with folds: rows, verdicts, gains, controls, learning curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iptkit.course.sentences import with_interval
from iptkit.scores import intervals, summary
from iptkit.studies import learning_curves, verdicts_ipt
from iptkit.studies.curve_steps import budget_of
from iptkit.studies.effects import Gap
from iptkit.studies.unseen import FROM_WORDS, NEAREST, STAGE_TWO
from iptkit.studies.verdicts_ipt import MEAN_CODE, Arm
from iptkit.training.runs import FitConfig

Rows = Sequence[dict[str, Any]]
KINDS = {  # categories of tasks
    "cls": "classification",
    "mcqa": "multiple choice",
    "qa": "question answering",
    "gen": "generation",
    "seq": "extraction",
}
WITH_OPTIONS = ("cls", "mcqa")  # their answers are options, of which the model's likeliest counts
SUBSPACES = {  # kind of folds -> the seen tasks that a subspace was found on
    "main": "many tasks of all kinds",
    "few": "few tasks of all kinds",
    "cls": "classifications only",
    "non_cls": "other tasks only",
}
LEFT = {  # pattern of the names of jobs -> what they measure; the last one fits every name
    r"^stage-two-": "stage two (prompt tuning that starts from IST's solution)",
    r"^adapter": "adapters",
    r"^did-around-": "DID around the mean code",
    r"^did-": "DID (random directions of all weights)",
    r"^fine-tuning-": "fine-tuning",
    r"_20$": "some subspaces of 20 seen tasks",
    r"cls\d$": "some subspaces of one kind of tasks",
    r"-50-": "50 parameters per task",
    r"^codes-(?!learned|random_around).*-seed[1-9]": "a second few-shot sample of some controls",
    r"fold\d$": "some folds",
    r"": "others",
}


@dataclass(frozen=True)
class Folds:
    """A study with folds.

    Attributes:
      rows: its result rows (see `scores.summary`).
      about: how they were made (see `studies.provenance`).
      curves: rows of its learning curves (see `studies.learning_curves`).
    """

    rows: Rows
    about: Mapping[str, Any]
    curves: Rows

    @property
    def scale(self) -> Mapping[str, Any]:
        """The settings of the study."""
        scale: Mapping[str, Any] = self.about["scale"]
        return scale

    @property
    def left(self) -> list[str]:
        """What is not measured yet, in words (see LEFT); empty once the study is finished."""
        names = self.about.get("not finished", ())
        found = {next(part for part in LEFT if re.search(part, name)) for name in names}
        return [words for part, words in LEFT.items() if part in found]

    @property
    def dim(self) -> int:
        """The d_I that the controls were run at."""
        return int(self.scale.get("main_dim", verdicts_ipt.PAPER_DIM))

    @cached_property
    def main(self) -> Rows:
        """The rows of the main folds."""
        return summary.of_folds(self.rows)

    @cached_property
    def at_dim(self) -> Rows:
        """The rows at `dim`, and those of methods without a d_I."""
        return verdicts_ipt.at(self.rows, self.dim)

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        """See `studies.effects.verdicts`."""
        return verdicts_ipt.verdicts(self.rows, self.dim)

    @cached_property
    def effects(self) -> dict[str, list[dict[str, Any]]]:
        """Claim -> its effects (see `studies.effects.effect_of`)."""
        return {verdict["name"]: verdict["effects"] for verdict in self.verdicts}

    @cached_property
    def effects_so_far(self) -> dict[str, list[dict[str, Any]]]:
        """Claim -> those of its effects that were measured, also where others of the claim are missing."""
        each = {
            name: [verdicts_ipt.effect_of(self.rows, one, self.dim) for one in claim.criteria]
            for name, claim in verdicts_ipt.judged().items()
        }
        return {name: [effect for effect in of if effect] for name, of in each.items()}

    @cached_property
    def gains(self) -> list[dict[str, Any]]:
        """See `verdicts_ipt.starts`."""
        return verdicts_ipt.starts(self.rows, self.dim)

    @cached_property
    def controls(self) -> list[dict[str, Any]]:
        """See `verdicts_ipt.controls`."""
        return verdicts_ipt.controls(self.rows, self.dim)

    @cached_property
    def apart(self) -> list[dict[str, Any]]:
        """See `verdicts_ipt.apart`."""
        return verdicts_ipt.apart(self.rows, self.dim)

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """See `verdicts_ipt.per_category`."""
        return verdicts_ipt.per_category(self.rows, self.dim)

    @cached_property
    def budgets(self) -> list[dict[str, Any]]:
        """See `learning_curves.relative`."""
        return learning_curves.relative(self.curves)

    @cached_property
    def task_gaps(self) -> list[float]:
        """Stage two − prompt tuning from words in log-likelihood, one per unseen task."""
        values = Gap(Arm(STAGE_TWO), Arm(FROM_WORDS)).values(self.at_dim, "log_likelihood")
        return [sum(of_task) / len(of_task) for of_task in values.values()]

    def line(
        self, method: str, side: str, dim: int | None = None, rows: Rows | None = None
    ) -> dict[str, Any]:
        """The line of `summary.summary` (crossed) of one method and side, {} if it was not measured."""
        which = (method, self.dim if dim is None else dim)
        found = summary.summary(self.main if rows is None else rows, [which], [side], crossed=True)
        return found[0] if found else {}

    def gap(self, first: tuple[str, int], second: tuple[str, int], side: str) -> intervals.Interval | None:
        """The difference in score of two methods on the tasks of both (see `summary.difference`), or None."""
        tasks = (
            {
                r["task"]
                for r in self.main
                if (r["method"], r["d_I"]) == which and r["split"] in (side, "both")
            }
            for which in (first, second)
        )
        shared = set.intersection(*tasks)
        rows = [row for row in self.main if row["task"] in shared]
        return summary.difference(rows, first, second, side) if shared else None

    def tasks_of(self, side: str) -> Rows:
        """The rows of the main folds of those tasks that IST was scored on, on one side."""
        mine = {r["task"] for r in self.main if (r["method"], r["split"]) == ("IST", side)}
        return [row for row in self.main if row["task"] in mine]

    def stored_verdicts(self) -> list[dict[str, Any]]:
        """The verdicts in the form in which `claims.load_stored` returns them."""
        return [
            {
                "claim": v["name"],
                "scale": self.scale["name"],
                "tasks": v["num_tasks"],
                "seeds": v["num_seeds"],
                **{name: v[name] for name in ("here", "verdict")},
            }
            for v in self.verdicts
        ]


# ---- learning curves ------------------------------------------------------------------------------
def by_prompts(study: Folds) -> list[dict[str, Any]]:
    """Ratios of the study's IST and MSF, by the budget of the prompts that it is compared with."""
    own = {
        "msf": name_of(study.scale["msf"]),
        "ist": name_of(study.scale["ist"]),
        "lr": study.scale["prompt"]["lr"],
    }
    mine = [line for line in study.budgets if own.items() <= line.items() and line["ratio"]]
    return sorted(mine, key=lambda line: examples_of(line["prompts"]))


def by_ist(study: Folds) -> list[tuple[str, list[dict[str, Any]]]]:
    """MSF budget -> ratios of IST by its budget, compared with prompts of the study's budget."""
    own = {"prompts": name_of(study.scale["prompt"]), "lr": study.scale["prompt"]["lr"]}
    mine = [line for line in study.budgets if own.items() <= line.items() and line["ratio"]]
    return [
        (msf, sorted((x for x in mine if x["msf"] == msf), key=lambda line: examples_of(line["ist"])))
        for msf in dict.fromkeys(line["msf"] for line in mine)
    ]


# ---- words ----------------------------------------------------------------------------------------
def budget_text(fit: Mapping[str, Any]) -> str:
    """The budget of a FitConfig, in words.

    Example:
      >>> budget_text({"steps": 120, "rows_per_run": 2})
      '120 steps of 2 examples'
    """
    return f"{fit['steps']} steps of {fit['rows_per_run']} examples"


def name_of(fit: Mapping[str, Any]) -> str:
    """The budget of a stored FitConfig, as the rows of learning curves have it.

    Example:
      >>> name_of({"steps": 120, "rows_per_run": 2})
      '120x2'
    """
    return budget_of(FitConfig(**fit))


def examples_of(budget: str) -> int:
    """How many examples a training with a budget reads.

    Example:
      >>> examples_of("120x2")
      240
    """
    steps, batch = budget.split("x")
    return int(steps) * int(batch)


def gap_of(line: Mapping[str, Any]) -> intervals.Interval:
    """The mean of a line of `verdicts_ipt` with its interval."""
    return line["mean"], line["low"], line["high"]


def one_of(lines: Sequence[Mapping[str, Any]], **wanted: str) -> Mapping[str, Any] | None:
    """The first line that has these values; None if there is none."""
    return next((line for line in lines if wanted.items() <= line.items()), None)


def share(value: Sequence[float] | None) -> str:
    """E_rel with its interval; a dash if no task has a usable reference."""
    return with_interval(value) if value else "–"


def kind_of(line: Mapping[str, Any]) -> str:
    """The category of a line, in words."""
    return KINDS.get(line["category"], line["category"])


def control_name(control: str) -> str:
    """A control as a sentence names it."""
    names = {MEAN_CODE: f"the {MEAN_CODE}", NEAREST: f"the {NEAREST}", "random decoder": "a random decoder"}
    return names.get(control, control)
