"""Scores of prompts on test sets, and how much of full prompt tuning a method keeps (E_rel)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from iptkit import progress
from iptkit.engine import Engine, Row
from iptkit.intervals import interval as interval
from iptkit.intervals import over_tasks as over_tasks
from iptkit.prompts import prompt_length
from iptkit.tasks import Example, Task

MAX_ANSWER_TOKENS = 64


@torch.no_grad()
def predict(
    engine: Engine,
    source: nn.Module,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[list[str]]:
    """The answers of row r of `source` to the examples of tasks[r].

    An answer is the likeliest option, or what the model says greedily where there are no options.

    Args:
      tasks: R tasks, one per row of the source.
      split: "train", "train_new", "dev" or "test".
      limit: first so many examples, None for all.
      label: words on the progress bar.
    Returns: R lists of answers.
    """
    source.eval()
    plan = [(r, e) for r, task in enumerate(tasks) for e in getattr(task, split)[:limit]]
    answers: list[str | None] = [None] * len(plan)
    caps = [_answer_cap(engine, task) for task in tasks]
    length = prompt_length(source)
    engine.keep_contexts(getattr(task, split)[:limit] for task in tasks)
    with progress.track(label, total=len(plan), unit="example") as bar:
        for has_options in (True, False):
            where = [i for i, (_, e) in enumerate(plan) if bool(e.options) == has_options]
            make_row = engine.option_row if has_options else engine.target_row
            rows = [make_row(plan[i][1]) for i in where]
            for batch in engine.batches(rows, length):
                planned = [plan[where[j]] for j in batch]
                texts = _answers(engine, source, planned, [rows[j] for j in batch], caps, has_options)
                for j, text in zip(batch, texts, strict=True):
                    answers[where[j]] = text
                bar.update(len(batch))
    return [[a for (r, _), a in zip(plan, answers, strict=True) if r == row] for row in range(len(tasks))]


def _answers(
    engine: Engine,
    source: nn.Module,
    planned: Sequence[tuple[int, Example]],
    rows: Sequence[Row],
    caps: Sequence[int],
    has_options: bool,
) -> list[str]:
    """Answers of one batch; planned: (row of the source, example) of each of its rows."""
    of = [r for r, _ in planned]
    prompt = source(torch.tensor(of, device=engine.backbone.device))
    if not has_options:
        return engine.greedy(prompt, rows, [caps[r] for r in of])
    scores, _ = engine.log_likelihoods(prompt, rows)
    return [e.options[k] for (_, e), k in zip(planned, scores.argmax(1).tolist(), strict=True)]


def evaluate(
    engine: Engine,
    source: nn.Module,
    tasks: Sequence[Task],
    split: str = "test",
    limit: int | None = None,
    label: str = "evaluate",
) -> list[float]:
    """Score in [0, 1] ([-1, 1] for mcc) of each row of `source` on its task, by the task's metric."""
    answers = predict(engine, source, tasks, split, limit, label)
    return [METRICS[t.metric](a, getattr(t, split)[:limit], t) for a, t in zip(answers, tasks, strict=True)]


def _answer_cap(engine: Engine, task: Task) -> int:
    """A little more than the longest answer seen in training; test answers are not looked at."""
    longest = max(len(engine.target_row(e).answers[0]) for e in task.train)
    return min(MAX_ANSWER_TOKENS, longest + 2)


# ---- metrics -------------------------------------------------------------------------------------
def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks (as SQuAD's script does)."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def accuracy(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Share of answers that equal an accepted one."""
    return float(np.mean([a in e.targets for a, e in zip(answers, examples, strict=True)]))


def macro_f1(answers: Sequence[str], examples: Sequence[Example], task: Task) -> float:
    """Mean F1 over the task's label set (never over strings outside it).

    Of a task without labels, as CrossFit's `codah` with its free choices: over all strings seen.
    """
    from sklearn.metrics import f1_score

    return float(
        f1_score(
            [e.targets[0] for e in examples],
            list(answers),
            labels=list(task.labels) or None,
            average="macro",
            zero_division=0,
        )
    )


def mcc(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Matthews correlation coefficient, -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef([e.targets[0] for e in examples], list(answers)))


def exact_match(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Share of answers that equal an accepted one after `normalise`."""
    return float(
        np.mean(
            [
                any(normalise(a) == normalise(t) for t in e.targets)
                for a, e in zip(answers, examples, strict=True)
            ]
        )
    )


def token_f1(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Mean over examples of the best token F1 against an accepted answer."""

    def one(answer: str, target: str) -> float:
        a, t = normalise(answer).split(), normalise(target).split()
        same = sum((Counter(a) & Counter(t)).values())
        return 2 * same / (len(a) + len(t)) if same else float(not a and not t)

    return float(np.mean([max(one(a, t) for t in e.targets) for a, e in zip(answers, examples, strict=True)]))


def rouge_l(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Mean over examples of the best ROUGE-L F1 against an accepted answer (rouge-score, no stemming)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return float(
        np.mean(
            [
                max(scorer.score(t, a)["rougeL"].fmeasure for t in e.targets)
                for a, e in zip(answers, examples, strict=True)
            ]
        )
    )


def span_f1(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """F1 over whole spans of tags (seqeval, strict, scheme IOB2: B- begins a span, I- goes on, O is none).

    A span counts only if its words and its kind are right.
    """
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    right, said = ([line.split() for line in lines] for lines in (_first(examples), answers))
    return float(f1_score(right, said, mode="strict", scheme=IOB2, zero_division=0))


def tag_accuracy(answers: Sequence[str], examples: Sequence[Example], task: Task | None = None) -> float:
    """Share of words whose tag is right."""
    pairs = [
        (mine, right)
        for answer, target in zip(answers, _first(examples), strict=True)
        for mine, right in zip(answer.split(), target.split(), strict=True)
    ]
    return float(np.mean([mine == right for mine, right in pairs]))


def _first(examples: Sequence[Example]) -> list[str]:
    return [example.targets[0] for example in examples]


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "span_f1": span_f1,
    "tag_accuracy": tag_accuracy,
}


# ---- relative performance ------------------------------------------------------------------------
def relative(score: float, reference: float, floor: float = 0.0, least: float = 0.05) -> float | None:
    """E_rel of one task, the share of prompt tuning that is kept: (score - floor) / (reference - floor).

    Qin et al. 2021 divide the bare scores (floor 0). With `floor` = chance, guessing counts as nothing.

    Returns: the ratio, or None where the reference is less than `least` above the floor and a ratio
      would say nothing.
    """
    return None if reference - floor < least else (score - floor) / (reference - floor)


def by_task(rows: Sequence[dict[str, Any]], value: str = "score") -> dict[str, list[float]]:
    """Group result rows: task id -> values over seeds, in the order given."""
    out: dict[str, list[float]] = {}
    for row in rows:
        if row[value] is not None:
            out.setdefault(row["task"], []).append(row[value])
    return out
