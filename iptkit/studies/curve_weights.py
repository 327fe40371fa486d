"""Learning curves of methods that train the model's own weights: see `learning_curves` and `curve_steps`."""

from __future__ import annotations

import math
from pathlib import Path

from iptkit.methods import fine_tuning
from iptkit.scores.evaluation import Outcome
from iptkit.storage import step_cache
from iptkit.studies import score_rows
from iptkit.studies.steps import Made, StudySteps

METHODS = ("fine-tuning", "DID")


def weights(part: StudySteps, method: str, task_id: str, steps: int, batch: int) -> step_cache.Step:
    """A task learned by the model's own weights, at the learning rate of the scale, in float32.

    The weights after the last step are measured, on dev and on test.

    Args:
      part: a part of a study.
      method: one of METHODS.
      task_id: of one of its tasks; the first few-shot sample is used.
      steps: training steps.
      batch: examples per step.
    Returns: a step whose values["rows"] has one row, of the stage "weights".
    """
    scale, first = part.scale, part.seeds[0]
    rate, dim = (scale.did_lr, scale.main_dim) if method == "DID" else (scale.fine_tuning_lr, 0)
    dev_examples, budget = scale.prompt.dev_examples, f"{steps}x{batch}"

    def make(_: Path) -> Made:
        part.engine.forget_contexts()  # frees their memory
        task = part.task(task_id, first)
        sizes = (steps, batch, rate, first, scale.test_examples)
        found = fine_tuning.fine_tune(
            part.backbone, task, method, *sizes, intrinsic_dim=dim, dev_examples=dev_examples
        )
        loss = math.nan if found.dev_loss is None else found.dev_loss
        row = score_rows.of_task(part, task, method, Outcome(found.score, found.log_likelihood), dim)
        row |= {"dtype": "float32", "stage": "weights"}
        row |= {"budget": budget, "steps": steps, "rows_per_run": batch, "lr": rate, "best_step": steps}
        row |= {"msf": "", "decoder": "", "dev_loss": round(loss, 6), "dev_losses": [round(loss, 4)]}
        row |= {"seconds": round(found.seconds, 2), "cpu_seconds": round(found.cpu_seconds, 2)}
        return {}, {"rows": [row]}

    key = part.key("curve of weights", method, steps, batch, rate, dim, dev_examples, task_id, seeds=(first,))
    return step_cache.step(f"curve-{method.lower()}-{budget}-{task_id}", key, make)
