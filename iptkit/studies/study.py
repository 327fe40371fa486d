"""The study as a list of cached steps, from the prompts of all tasks to one table of results.

    tasks -> prompts (prompt tuning, the bank) -> subspace(d_I) (MSF) -> codes(d_I) (IST) -> table()

`steps` has the steps of that line, `lesson02` two side studies, and `unseen` what unseen tasks gain beyond
IST. One row of the table is one score.

A scale with `folds` is cross-fitted: one prompt for every task, then for each fold a subspace of its own and
what builds on it. So every task is unseen once.

At the scales of GENERATED the model writes every answer, as in Qin et al. 2021, where other scales choose the
likeliest option. Training is the same. Without options, dev examples are judged by their loss alone.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from iptkit.storage import step_cache
from iptkit.studies import lesson02, scales
from iptkit.studies.costs import Costs
from iptkit.studies.jobs import Job, in_order_of_table, jobs_of, jobs_of_folds, unfinished
from iptkit.studies.steps import StudySteps
from iptkit.tasks.examples import ALL_SETS, Task

GENERATED = ("paper",)  # scales at which no task has options


class Study(StudySteps):
    """All measurements of one scale; each expensive part is a step in the step cache.

    Args:
      scale: from `scales.load`.
      device: "cpu", "cuda" or "auto".
      seed: first seed; the scale's seeds are counted from it.
      models: another study with the same model, whose model and engine are used instead of loading them.
    """

    @functools.cached_property
    def parts(self) -> tuple[Study, ...]:
        """For each fold, and each split that is compared, the study of it; () for a study without folds."""
        scale = self.scale
        names = (*scale.folds, *scale.compared)
        return tuple(type(self)(scales.part(scale, name), self.device, self.seed, self) for name in names)

    def _load_tasks(self, seed: int) -> list[Task]:
        return self.as_asked(super()._load_tasks(seed))

    def as_asked(self, tasks: list[Task]) -> list[Task]:
        """The tasks without their options, if the model writes every answer at this scale."""
        return [without_options(task) for task in tasks] if self.scale.name in GENERATED else tasks

    def start_and_rate(self) -> step_cache.Step:
        """Prompt tuning from words and from noise at three learning rates: values["rows"]."""
        return lesson02.start_and_rate(self)

    def table(self) -> list[dict[str, Any]]:
        """One row for every measured score (see `scores.summary`); makes what is missing."""
        return [row for step in self.steps() for row in step.values["rows"]]

    def steps(self, finished_only: bool = False) -> list[step_cache.Step]:
        """All steps of the table, in its order.

        Args:
          finished_only: leave out what is missing instead of making it.
        """
        listed = self.jobs()
        in_table = [job for job in in_order_of_table(listed) if job.has_rows]
        if finished_only:
            found = [step_cache.finished(job.read) for job in in_table]
            return [step for step in found if step]
        for job in unfinished(listed):
            job.make()
        return [job.read() for job in in_table]

    def jobs(self, costs: Costs | None = None) -> list[Job]:
        """All jobs, each after those that it needs; with `costs` their FLOPs are estimated."""
        return jobs_of_folds(self, self.parts, costs) if self.scale.folds else jobs_of(self, costs)


def without_options(task: Task) -> Task:
    """The task with free answers in place of options: the model has to write the right one."""
    sets: dict[str, Any] = {
        name: tuple(replace(e, options=()) for e in getattr(task, name)) for name in ALL_SETS
    }
    return replace(task, chance=0.0, **sets)
