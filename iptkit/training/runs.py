"""Runs, the settings and the result of a training, and the examples that a run draws at each step."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

from torch import Tensor

from iptkit.tasks.examples import Example, Task

SETS = ("train", "train_new")


@dataclass(frozen=True)
class Run:
    """One training of one prompt.

    Attributes:
      task: the task that the prompt is trained on.
      seed: of the order of the training examples.
      data: the set with the training examples, one of SETS.
      lr: the learning rate > 0, or None for FitConfig.lr.
      skip: number of examples that an earlier training has drawn; this one continues after them.
    """

    task: Task
    seed: int = 0
    data: str = "train"
    lr: float | None = None
    skip: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise ValueError(
                f"Run.task is {self.task!r:.80}, a {type(self.task).__name__}; give a Task, as in "
                "Run(tasks.load_suite(...)[0])"
            )
        if self.data not in SETS:
            raise ValueError(f"Run.data is {self.data!r}; choose one of {SETS}")
        if not self.examples:
            raise ValueError(
                f"task {self.task.id} has no example in {self.data}; train on another set, or "
                "give it more examples"
            )
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(
                f"Run.lr is {self.lr}; give a number > 0 that is finite, or None for FitConfig.lr"
            )

    @property
    def examples(self) -> tuple[Example, ...]:
        """The training examples of this run."""
        return getattr(self.task, self.data)


@dataclass(frozen=True)
class FitConfig:
    """The settings of a training with Adam, linear warm-up, then linear decay to 0.

    Attributes:
      steps: number of steps, >= 0.
      rows_per_run: examples per run and step, >= 1.
      lr: peak learning rate > 0.
      warmup: share of the steps with a rising learning rate, in [0, 1).
      clip: largest gradient norm of a run, > 0.
      evaluations: number of evaluations on dev, >= 1, evenly spaced, the last after the last step.
      dev_examples: largest number of examples of each dev set, >= 1.
    """

    steps: int = 100
    rows_per_run: int = 8
    lr: float = 0.02
    warmup: float = 0.1
    clip: float = 1.0
    evaluations: int = 4
    dev_examples: int = 32

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("rows_per_run", 1), ("evaluations", 1), ("dev_examples", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"FitConfig.{name} is {getattr(self, name)}; it must be at least {low}")
        if not (0 < self.lr < math.inf and self.clip > 0 and 0 <= self.warmup < 1):
            raise ValueError(
                f"FitConfig needs a finite lr > 0, clip > 0 and 0 <= warmup < 1, got lr={self.lr}, "
                f"clip={self.clip}, warmup={self.warmup}"
            )

    def rate(self, step: int) -> float:
        """The share of the peak learning rate at `step` (0-based)."""
        warm = max(1, math.ceil(self.warmup * self.steps))
        return min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm + 1))


def evaluation_steps(steps: int, evaluations: int) -> set[int]:
    """After how many steps a training is evaluated: evenly spaced, the last time at its end.

    >>> sorted(evaluation_steps(10, 4))
    [2, 5, 8, 10]
    """
    return {round(steps * (i + 1) / evaluations) for i in range(evaluations)}


@dataclass
class Fit:
    """The curves of a training; the source itself holds the best state.

    Attributes:
      losses: [steps, R] mean token losses.
      penalty: [steps], 0 for a source without a penalty.
      dev: [evaluations, R, 2], accuracy over options and minus the mean token loss.
      best_step: [R] number of steps after which the best state was found.
      seconds: duration, of all processes that resumed the training (of each earlier one up to its last
        checkpoint, 0 for a checkpoint of an earlier version, which does not tell it).
      cpu_seconds: CPU time of the same processes, user and system, summed over all threads.
      resumed_at: the step of the checkpoint that the training resumed from, else 0.
    """

    losses: Tensor
    penalty: Tensor
    dev: Tensor
    best_step: Tensor
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    resumed_at: int = 0

    def __repr__(self) -> str:
        steps, runs = self.losses.shape
        last = f", last loss {self.losses[-1].mean():.3f}" if steps and runs else ""
        return f"Fit({steps} steps of {runs} run{'s' * (runs != 1)}{last}, {self.seconds:.0f} s)"


def draw(run: Run, step: int, count: int) -> list[Example]:
    """The `count` examples that `run` draws at `step`.

    The order within an epoch depends on task, set, seed and epoch alone, so a resumed run draws the same
    examples.
    """
    total = len(run.examples)
    return [
        run.examples[_order(run.task.id, run.data, run.seed, position // total, total)[position % total]]
        for position in range(run.skip + step * count, run.skip + (step + 1) * count)
    ]


@functools.lru_cache(4096)
def _order(task_id: str, data: str, seed: int, epoch: int, total: int) -> tuple[int, ...]:
    order = list(range(total))
    random.Random(f"{task_id}/{data}/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def read_by(run: Run, config: FitConfig) -> list[Example]:
    """All examples that a training of `run` reads: those it draws, and the dev examples."""
    drawn = min(config.steps * config.rows_per_run, len(run.examples))  # all of them after one epoch
    return [*draw(run, 0, drawn), *run.task.dev[: config.dev_examples]]
