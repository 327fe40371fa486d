"""Answers of a model with trained prompts, and their scores on test sets."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.calls import check_list, check_modules
from iptkit.engine.compatibility import check_source
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.models.devices import to_device
from iptkit.scores.metrics import METRICS
from iptkit.storage import progress
from iptkit.tasks.examples import ALL_SETS, Example, Task
from iptkit.training.adam import DivergedError
from iptkit.training.trainer import per_token

MEANS = ("accuracy", "exact_match", "token_f1", "rouge_l")  # metrics that are means over examples
DRAWS = 1000  # of the bootstrap
EQUAL = 1e-9  # draws that differ less are equal, but for rounding


def evaluate(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[float]:
    """Return the score of each row of `source` on its task, by the task's metric.

    A score is in [0, 1], or in [-1, 1] for mcc. If k options are equally likely, each counts as 1/k of an
    answer, so a tie scores like a random choice. For arguments and errors see `predict`.
    """
    likeliest = _likeliest(engine, source, tasks, split, limit, label)
    return [score_of(best, getattr(t, split)[:limit], t) for best, t in zip(likeliest, tasks, strict=True)]


@dataclass(frozen=True)
class Outcome:
    """What a prompt reaches on a task.

    Attributes:
      score: by the task's metric, as `evaluate` returns it.
      log_likelihood: mean over the examples of the mean log-likelihood per token of the first right answer,
        in nats; larger is better. It is minus the loss of `training.trainer.dev_scores`.
    """

    score: float
    log_likelihood: float


def outcomes(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[Outcome]:
    """Return score and log-likelihood of each row of `source` on its task.

    The log-likelihood of a right option comes from the forward pass that scores the options; free answers and
    tags take one forward pass more than `evaluate` does. For arguments and errors see `predict`.

    Raises: DivergedError, besides what `predict` raises, for a log-likelihood that is not finite.
    """
    found = []
    for answered, task in zip(
        answered_by(engine, source, tasks, split, limit, label, True), tasks, strict=True
    ):
        examples = getattr(task, split)[:limit]
        score = score_of([one.likeliest for one in answered], examples, task)
        found.append(Outcome(score, log_likelihood_of(answered, examples, task)))
    return found


@dataclass(frozen=True)
class Score:
    """The score of one task, and how far it might be off with other test examples of the same task.

    Attributes:
      task: id of the task.
      metric: one of metrics.METRICS.
      score: by that metric.
      low: lower end of the 95 % interval.
      high: its upper end.
      examples: number of test examples.
      chance: score of a random choice among the options, 0.0 for free answers.
      log_likelihood: of the first right answer per token, in nats, see Outcome.
    """

    task: str
    metric: str
    score: float
    low: float
    high: float
    examples: int
    chance: float
    log_likelihood: float

    def __str__(self) -> str:
        """Name the task, its score and the interval in one line."""
        return (
            f"{self.task}: {self.metric} {self.score:.3f} [{self.low:.3f}, {self.high:.3f}] on "
            f"{self.examples} examples (chance {self.chance:.2f})"
        )


def measure(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[Score]:
    """Return the score of each row of `source` on its task with a 95 % interval over the task's examples.

    If each example counts 0 or 1, the interval is Wilson's; else it is the percentile bootstrap over examples
    (1,000 draws). If all draws are equal, as those of a perfect macro_f1 are, they say nothing; then it is
    Wilson's for a share as large as the score (from the metric's lowest value to 1) of as many examples. For
    a mean of values between 0 and 1 that is the widest it could be. For a single example that counts neither
    0 nor 1, or of a metric that is no mean over examples, it is the metric's whole range.
    For arguments see `predict`, for errors and the log-likelihood `outcomes`.
    """
    answered = answered_by(engine, source, tasks, split, limit, label, True)
    return [
        _measured(of_task, getattr(t, split)[:limit], t) for of_task, t in zip(answered, tasks, strict=True)
    ]


def predict(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[list[str]]:
    """Return the answers to the examples of tasks[r], given with the prompt of row r of `source`.

    An answer is the likeliest option or, if an example has no options, the text that the model generates
    greedily. If several options are exactly as likely, example i takes number i of them, modulo their count.

    Args:
      engine: the frozen model.
      source: R prompts, one per row.
      tasks: R tasks, one per row of the source.
      split: "train", "train_new", "dev" or "test".
      limit: use the first `limit` examples of each task, >= 1; None for all.
      label: text on the progress bar.
    Returns: R lists of answers.

    Raises:
      ValueError: the texts do not fit the model (see `engine.limits.check`), the source has not as many runs
        as there are tasks, there is no such split, a task has no example in it, the limit is below 1, or
        something else than a list of tasks was given.
      DivergedError: the scores of options are nan, or a prompt that generates or tags is not finite.
    """
    likeliest = _likeliest(engine, source, tasks, split, limit, label)
    return [[best[i % len(best)] for i, best in enumerate(of_task)] for of_task in likeliest]


class Answered(NamedTuple):
    """The answer to one example.

    Attributes:
      likeliest: the generated answer, or all options with the highest likelihood.
      log_likelihood: of the first right answer per token, in nats; nan if nobody asked for it.
    """

    likeliest: tuple[str, ...]
    log_likelihood: float


def _likeliest(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str,
    limit: int | None,
    label: str,
) -> list[list[tuple[str, ...]]]:
    """Return for each example the generated answer, or all options with the highest likelihood."""
    answered = answered_by(engine, source, tasks, split, limit, label, False)
    return [[one.likeliest for one in of_task] for of_task in answered]


@torch.no_grad()
def answered_by(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str,
    limit: int | None,
    label: str,
    with_likelihoods: bool,
) -> list[list[Answered]]:
    """Return the answer to each example of each task.

    With likelihoods, free answers and tags take one forward pass more. For the other arguments and errors
    see `predict`.
    """
    _check_call(engine, source, tasks, split, limit)
    source.eval()
    plan = [(r, e) for r, task in enumerate(tasks) for e in getattr(task, split)[:limit]]
    answers = [Answered((), math.nan)] * len(plan)
    length = check_source(engine, source)
    limits.check(engine, tasks, length, (split,), (split,), limit)
    caps = [
        0 if all(e.options for e in getattr(t, split)[:limit]) else limits.answer_cap(engine, t)
        for t in tasks
    ]
    engine.keep_contexts(getattr(task, split)[:limit] for task in tasks)
    with progress.track(label, total=len(plan), unit="example") as bar:
        for has_options in (True, False):
            where = [i for i, (_, e) in enumerate(plan) if bool(e.options) == has_options]
            make_row = engine.option_row if has_options else engine.target_row
            rows = [make_row(plan[i][1]) for i in where]
            for batch in engine.batches(rows, length):
                planned = [plan[where[j]] for j in batch]
                found = _answers(
                    engine, source, planned, [rows[j] for j in batch], caps, has_options, with_likelihoods
                )
                for j, one in zip(batch, found, strict=True):
                    answers[where[j]] = one
                bar.update(len(batch))
    return [[a for (r, _), a in zip(plan, answers, strict=True) if r == row] for row in range(len(tasks))]


def _check_call(engine: Any, source: Any, tasks: Any, split: str, limit: Any) -> None:
    """Raise ValueError for what is no engine, source, list of tasks, split or limit, or no task per run."""
    check_modules(engine, source)
    check_list(tasks, Task, "evaluate", "tasks")
    if split not in ALL_SETS:
        raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(ALL_SETS)}")
    count = source.num_runs
    if count not in (None, len(tasks)):
        raise ValueError(
            f"{len(tasks)} tasks were given, but this {type(source).__name__} has {count} runs; give one "
            "task per run, in their order (a task may occur several times)"
        )
    if limit is not None and (not isinstance(limit, numbers.Integral) or limit < 1):
        raise ValueError(f"limit is {limit!r}; give a whole number of at least 1, or None for all examples")
    if empty := [task.id for task in tasks if not getattr(task, split)]:
        raise ValueError(f"there is no example in {split} of {', '.join(empty)}; choose another split")


def _answers(
    engine: PromptEngine,
    source: PromptSource,
    planned: Sequence[tuple[int, Example]],
    rows: Sequence[Any],
    caps: Sequence[int],
    has_options: bool,
    with_likelihoods: bool,
) -> list[Answered]:
    """Return the answers of one batch; `planned` has the (row of the source, example) of each of its rows."""
    of = [r for r, _ in planned]
    prompt = source(torch.tensor(of, device=engine.backbone.device))
    if has_options:
        scores, tokens = engine.log_likelihoods(prompt, rows)
        found = _best_options(scores, [e for _, e in planned])
    else:
        _check_finite(prompt, [e for _, e in planned])
        found = [(text,) for text in engine.greedy(prompt, rows, [caps[r] for r in of])]
    if not with_likelihoods:
        return [Answered(best, math.nan) for best in found]
    if not has_options:
        scores, tokens = engine.log_likelihoods(prompt, rows)
    right = [e.options.index(e.targets[0]) if e.options else 0 for _, e in planned]
    values = per_token(scores, tokens, to_device(right, scores.device)).tolist()
    return [Answered(*one) for one in zip(found, values, strict=True)]


def _check_finite(prompt: Prompt, examples: Sequence[Example]) -> None:
    """Raise DivergedError for a prompt with nan or infinity: greedy decoding would choose a word even so."""
    if False in (finite := prompt.are_finite.tolist()):
        text = examples[finite.index(False)].input
        raise DivergedError(
            f"the prompt for {text[:60]!r} has values that are not finite; train with a smaller learning rate"
        )


def _best_options(scores: Tensor, examples: Sequence[Example]) -> list[tuple[str, ...]]:
    """Return all options with the highest score [B, K] of each example."""
    best = (scores == scores.amax(1, keepdim=True)).tolist()
    found = [tuple(itertools.compress(e.options, line)) for e, line in zip(examples, best, strict=True)]
    if () in found:
        text = examples[found.index(())].input
        raise DivergedError(
            f"the options of {text[:60]!r} have nan as scores: the prompt or the model is not finite; train "
            "with a smaller learning rate"
        )
    return found


def log_likelihood_of(answered: Sequence[Answered], examples: Sequence[Example], task: Task) -> float:
    """Return the mean of the examples' log-likelihoods, exact in any order of the examples.

    Args:
      answered: the answers to the examples, with likelihoods.
      examples: the examples.
      task: theirs, for the error.
    Raises: DivergedError for a log-likelihood that is not finite.
    """
    for (_, value), example in zip(answered, examples, strict=True):
        if not math.isfinite(value):
            raise DivergedError(
                f"task {task.id}: the right answer to {example.input[:60]!r} has the log-likelihood {value}: "
                "the prompt or the model is not finite; train with a smaller learning rate"
            )
    return math.fsum(one.log_likelihood for one in answered) / len(answered)


def _measured(answered: Sequence[Answered], examples: Sequence[Example], task: Task) -> Score:
    """Return the score of a task with its interval; see `measure`."""
    from scipy import stats

    likeliest, log_likelihood = (
        [one.likeliest for one in answered],
        log_likelihood_of(answered, examples, task),
    )
    score, count = score_of(likeliest, examples, task), len(examples)
    is_mean, lowest = task.metric in MEANS, -1.0 if task.metric == "mcc" else 0.0
    each = zip(likeliest, examples, strict=True)
    credits = [score_of([best], [example], task) for best, example in each] if is_mean else []

    def drawn(index: np.ndarray) -> float:
        if is_mean:
            return float(np.asarray(credits)[index].mean())
        return score_of([likeliest[i] for i in index], [examples[i] for i in index], task)

    if is_mean and set(credits) <= {0.0, 1.0}:
        low, high = stats.binomtest(round(sum(credits)), count).proportion_ci(0.95, "wilson")
    elif count < 2:
        low, high = lowest, 1.0
    else:
        rng = np.random.default_rng(0)
        means = [drawn(rng.integers(count, size=count)) for _ in range(DRAWS)]
        low, high = np.quantile(means, [0.025, 0.975])
        if high - low < EQUAL:
            low, high = (
                lowest + (1 - lowest) * end for end in wilson((score - lowest) / (1 - lowest), count)
            )
    return Score(task.id, task.metric, score, float(low), float(high), count, task.chance, log_likelihood)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) for a share of `count` examples, which need not be a whole number."""
    square = 1.959963984540054**2  # of the normal distribution's 97.5 % quantile
    middle = share + square / (2 * count)
    half = math.sqrt(square * (max(share * (1 - share), 0.0) / count + square / (4 * count**2)))
    low, high = ((middle + side * half) / (1 + square / count) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def score_of(likeliest: Sequence[tuple[str, ...]], examples: Sequence[Example], task: Task) -> float:
    """Return the task's metric, with equal weights for the equally likely answers to an example.

    Args:
      likeliest: `Answered.likeliest` of each example.
      examples: the examples, of which one may stand there several times.
      task: names the metric.
    """
    answers = [answer for best in likeliest for answer in best]
    if len(answers) == len(examples):
        return METRICS[task.metric](answers, examples, task)
    repeated = [example for best, example in zip(likeliest, examples, strict=True) for _ in best]
    weights = [1 / len(best) for best in likeliest for _ in best]
    return METRICS[task.metric](answers, repeated, task, weights)
