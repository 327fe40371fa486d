"""Which of two prompts is better on a task: their difference on the same examples, with a 95 % interval.

Two prompts that answer the same examples find the same ones hard. So the intervals of their scores may
overlap although one prompt is clearly better; the interval of the difference says which one is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import PromptSource
from iptkit.scores.evaluation import (
    DRAWS,
    EQUAL,
    MEANS,
    Answered,
    answered_by,
    log_likelihood_of,
    score_of,
    wilson,
)
from iptkit.tasks.examples import Example, Task

Prompted = tuple[PromptEngine, PromptSource]


@dataclass(frozen=True)
class Difference:
    """How much better one prompt is than another one on a task.

    Attributes:
      task: id of the task.
      metric: one of metrics.METRICS.
      one: score of the first prompt by that metric.
      other: score of the second prompt.
      score: the difference one - other.
      score_interval: the ends of its 95 % interval.
      log_likelihood: the difference of the log-likelihoods, in nats per answer token (see `Outcome`).
      log_likelihood_interval: the ends of its 95 % interval.
      examples: number of examples.
    """

    task: str
    metric: str
    one: float
    other: float
    score: float
    score_interval: tuple[float, float]
    log_likelihood: float
    log_likelihood_interval: tuple[float, float]
    examples: int

    def __str__(self) -> str:
        """Name the task and both differences with their intervals in one line."""
        low, high = self.score_interval
        least, most = self.log_likelihood_interval
        return (
            f"{self.task}: {self.metric} {self.score:+.3f} [{low:+.3f}, {high:+.3f}], log-likelihood "
            f"{self.log_likelihood:+.3f} [{least:+.3f}, {most:+.3f}] on {self.examples} examples"
        )


def compare(
    one: Prompted,
    other: Prompted,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
) -> list[Difference]:
    """Return for each task how much better the first prompt is than the second one on the same examples.

    The interval is the paired percentile bootstrap over examples (1,000 draws). If all draws are equal, as
    they are if both prompts answer alike, they say nothing; then the difference may be off by as much as the
    share of examples that Wilson's interval allows for none of so many.

    Args:
      one: an engine, and a source with a prompt for each task.
      other: the same of the prompts to compare with; model and method may be others.
      tasks: R tasks, one per row of both sources.
      split: "train", "train_new", "dev" or "test". Choose on dev, report test.
      limit: use the first `limit` examples of each task; None for all.

    Raises: ValueError for a task with fewer than two examples in the split; what `evaluation.outcomes`
      raises.

    Example:
      >>> from iptkit import Engine, methods, models, tasks
      >>> model = models.load("tiny-causal")
      >>> engine = Engine(model)
      >>> moods = tasks.load_suite("tiny", only=["tiny-mood"])
      >>> short, long = (methods.FixedPrompt(methods.from_words(model, n)[None]) for n in (2, 4))
      >>> compare((engine, short), (engine, long), moods)[0].metric
      'accuracy'
    """
    if few := [task.id for task in tasks if len(getattr(task, split, "  ")[:limit]) < 2]:
        raise ValueError(f"{few[0]} has fewer than two examples in {split} to compare on; give more")
    first, second = (answered_by(*given, tasks, split, limit, "compare", True) for given in (one, other))
    return [
        _difference(mine, theirs, getattr(task, split)[:limit], task)
        for mine, theirs, task in zip(first, second, tasks, strict=True)
    ]


def _difference(
    mine: Sequence[Answered], theirs: Sequence[Answered], examples: Sequence[Example], task: Task
) -> Difference:
    count, rng = len(examples), np.random.default_rng(0)
    draws = [rng.integers(count, size=count) for _ in range(DRAWS)]
    likely, less = (log_likelihood_of(answers, examples, task) for answers in (mine, theirs))
    gaps = np.asarray([a.log_likelihood - b.log_likelihood for a, b in zip(mine, theirs, strict=True)])
    everything = np.arange(count)
    one, other = (_scorer(answers, examples, task) for answers in (mine, theirs))
    score = one(everything) - other(everything)
    low, high = np.quantile([one(index) - other(index) for index in draws], [0.025, 0.975])
    if high - low < EQUAL:
        off = wilson(0.0, count)[1]
        low, high = max(score - off, -1.0), min(score + off, 1.0)
    least, most = np.quantile([gaps[index].mean() for index in draws], [0.025, 0.975])
    return Difference(
        task.id,
        task.metric,
        one(everything),
        other(everything),
        score,
        (float(low), float(high)),
        likely - less,
        (float(least), float(most)),
        count,
    )


def _scorer(
    answers: Sequence[Answered], examples: Sequence[Example], task: Task
) -> Callable[[np.ndarray], float]:
    """A function from the places of examples, which may repeat, to the score on these examples."""
    likeliest = [answer.likeliest for answer in answers]
    if task.metric in MEANS:
        credits = np.asarray(
            [score_of([best], [example], task) for best, example in zip(likeliest, examples, strict=True)]
        )
        return lambda index: float(credits[index].mean())
    return lambda index: score_of([likeliest[i] for i in index], [examples[i] for i in index], task)
