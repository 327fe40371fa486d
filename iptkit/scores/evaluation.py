"""Scores of prompts on test sets, and how much of full prompt tuning a method keeps (E_rel)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from iptkit.engine import limits
from iptkit.engine.compatibility import check_source
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import PromptSource
from iptkit.scores.metrics import METRICS
from iptkit.storage import progress
from iptkit.tasks.examples import Example, Task
from iptkit.training.adam import DivergedError


def predict(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[list[str]]:
    """The answers of row r of `source` to the examples of tasks[r].

    An answer is the likeliest option, or what the model says greedily where there are no options. Of options
    that are exactly as likely the examples take the first, the second ... in turn.

    Args:
      tasks: R tasks, one per row of the source.
      split: "train", "train_new", "dev" or "test".
      limit: first so many examples, None for all.
      label: words on the progress bar.
    Returns: R lists of answers.

    Raises:
      ValueError: see limits.check.
      optim.DivergedError: the scores of options are no numbers, or a prompt that generates or tags is not
        finite.
    """
    likeliest = _likeliest(engine, source, tasks, split, limit, label)
    return [[best[i % len(best)] for i, best in enumerate(of_task)] for of_task in likeliest]


@torch.no_grad()
def _likeliest(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str,
    limit: int | None,
    label: str,
) -> list[list[tuple[str, ...]]]:
    """For each example the answer, or all options that are exactly as likely as the likeliest."""
    source.eval()
    plan = [(r, e) for r, task in enumerate(tasks) for e in getattr(task, split)[:limit]]
    answers: list[tuple[str, ...]] = [()] * len(plan)
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
                found = _answers(engine, source, planned, [rows[j] for j in batch], caps, has_options)
                for j, best in zip(batch, found, strict=True):
                    answers[where[j]] = best
                bar.update(len(batch))
    return [[a for (r, _), a in zip(plan, answers, strict=True) if r == row] for row in range(len(tasks))]


def _answers(
    engine: PromptEngine,
    source: PromptSource,
    planned: Sequence[tuple[int, Example]],
    rows: Sequence[Any],
    caps: Sequence[int],
    has_options: bool,
) -> list[tuple[str, ...]]:
    """Answers of one batch; planned: (row of the source, example) of each of its rows."""
    of = [r for r, _ in planned]
    prompt = source(torch.tensor(of, device=engine.backbone.device))
    if not has_options:  # a word or a tag is chosen even among scores that are no numbers
        if False in (finite := prompt.are_finite.tolist()):
            text = planned[finite.index(False)][1].input
            raise DivergedError(
                f"the prompt for {text[:60]!r} holds numbers that are not finite; train with a smaller "
                "learning rate"
            )
        return [(text,) for text in engine.greedy(prompt, rows, [caps[r] for r in of])]
    scores, _ = engine.log_likelihoods(prompt, rows)
    best = (scores == scores.amax(1, keepdim=True)).tolist()
    found = [tuple(itertools.compress(e.options, line)) for (_, e), line in zip(planned, best, strict=True)]
    if () in found:
        text = planned[found.index(())][1].input
        raise DivergedError(
            f"the options of {text[:60]!r} have scores that are no numbers: the prompt or the model is "
            "not finite; train with a smaller learning rate"
        )
    return found


def evaluate(
    engine: PromptEngine,
    source: PromptSource,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[float]:
    """Score in [0, 1] ([-1, 1] for mcc) of each row of `source` on its task, by the task's metric.

    Options that are exactly as likely count as chance: each of k best ones as 1/k of an answer.

    Args and Raises: see `predict`.
    """
    likeliest = _likeliest(engine, source, tasks, split, limit, label)
    return [_score(best, getattr(t, split)[:limit], t) for best, t in zip(likeliest, tasks, strict=True)]


def _score(likeliest: Sequence[tuple[str, ...]], examples: Sequence[Example], task: Task) -> float:
    """The task's metric of answers of which some may be several, each with its share of the weight."""
    answers = [answer for best in likeliest for answer in best]
    if len(answers) == len(examples):
        return METRICS[task.metric](answers, examples, task)
    spread = [example for best, example in zip(likeliest, examples, strict=True) for _ in best]
    weights = [1 / len(best) for best in likeliest for _ in best]
    return METRICS[task.metric](answers, spread, task, weights)
