"""The study as a list of cached steps, from the prompts of all tasks to one table of results.

    tasks -> prompts (prompt tuning, the bank) -> subspace(d_I) (MSF) -> codes(d_I) (IST) -> table()

Settings as in Qin et al. 2021, section 4: MSF on seen and unseen tasks (a task's own prompt through the
auto-encoder, nothing tuned), IST on seen tasks with new data, IST on unseen tasks. A row is one score.
"""

from __future__ import annotations

from typing import Any

from iptkit.storage import step_cache
from iptkit.studies import lesson02, unseen
from iptkit.studies.costs import Costs
from iptkit.studies.jobs import Job, in_order_of_table, jobs_of
from iptkit.studies.steps import StudySteps


class Study(StudySteps):
    """All measurements of one scale; each expensive part is a step in the step cache.

    Args:
      scale: from scales.load.
      device: "cpu", "cuda" or "auto".
      seed: first seed; the scale's seeds are counted from it.
      models: a study whose model and engine are used, instead of loading them again.
    """

    def start_and_rate(self) -> step_cache.Step:
        """Prompt tuning from words and from noise at three learning rates: values["rows"]."""
        return lesson02.start_and_rate(self)

    def beside_prompt_tuning(self) -> step_cache.Step:
        """Prompt tuning, LoRA and full fine-tuning on one task: values["table"]."""
        return lesson02.beside_prompt_tuning(self)

    def nearest_prompt(self) -> step_cache.Step:
        """Unseen tasks under a seen task's prompt: values["rows"], values["nearest"]."""
        return unseen.nearest_prompt(self)

    def fewer_examples(self, intrinsic_dim: int) -> step_cache.Step:
        """IST and prompt tuning of unseen tasks from fewer examples: values["rows"], each with "examples"."""
        return unseen.fewer_examples(self, intrinsic_dim)

    def stage_two(self, intrinsic_dim: int) -> step_cache.Step:
        """Unseen tasks' prompts tuned from IST's solution and from words, several runs: values["rows"]."""
        return unseen.stage_two(self, intrinsic_dim)

    def table(self) -> list[dict[str, Any]]:
        """Every measured score once, one row each (see `results`); makes what is missing."""
        return [row for step in self.steps() for row in step.values["rows"]]

    def steps(self, finished_only: bool = False) -> list[step_cache.Step]:
        """All steps of the table, in its order.

        Args:
          finished_only: leave out what is missing, instead of making it.
        """
        listed = self.jobs()
        if finished_only:
            found = [step_cache.finished(job.read) for job in in_order_of_table(listed)]
            return [step for step in found if step]
        for job in listed:
            job.make()
        return [job.read() for job in in_order_of_table(listed)]

    def jobs(self, costs: Costs | None = None) -> list[Job]:
        """What the table needs, in an order that works; with `costs` the jobs' FLOPs are estimated."""
        return jobs_of(self, costs)
