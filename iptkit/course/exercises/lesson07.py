"""Checks of the exercises of lesson 07, tasks that the subspace never saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iptkit.course.exercises.answers import Case, explained, judge_choice, judge_function, judge_number, near
from iptkit.course.exercises.feedback import Feedback

GROUPS = (0, 1, 1, 2, 3, 1, 4, 3, 2, 1, 3, 4)  # of each task; some stand side by side, not all
LABELS = (6, 1, 20, 3, 8)  # in some order; not 0, 1, ...
ALIKE = (-0.1, 1.2, -0.4, 0.2, 0.5)  # what the tasks of each group have in common
RTOL = 1e-4  # narrower than elsewhere, because some mistakes come close to each other


def check_07_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that computes E_rel with crossed few-shot samples.

    Args:
      answer: crossed(scores [2, T], full [2, T]) -> one number.
      seed: of the random scores.
    """
    generator = torch.Generator().manual_seed(seed)
    full = 0.3 + 0.5 * torch.rand(2, 9, generator=generator)
    scores = full * (0.4 + 0.5 * torch.rand(2, 9, generator=generator))  # a sample is lucky for both
    full[:, 2] = torch.tensor([0.02, 0.03])
    full[:, 4] = torch.tensor([0.06, 0.01])  # one is at least 0.05, their mean is not
    full[1, 5] = 0.03  # their mean is at least 0.05
    full[0, 6] = 0.05  # just counts
    scores[:, (2, 4, 6)] = 0.05 + 0.05 * torch.rand(2, 3, generator=generator)
    scores[:, 3] = torch.tensor([0.02, 0.04])  # the method fails, prompt tuning does not
    scores[0, 7] = 0.03  # it fails once
    zeros = torch.tensor([[0.8, 0.0, 0.6, 0.0, 0.5], [0.5, 0.4, 0.3, 0.0, 0.7]])
    feedback = judge_function(
        answer,
        [
            Case(
                {"scores": scores, "full": full}, _e_rel(scores, full), _crossing_mistakes(scores, full), RTOL
            ),
            Case({"scores": 0.6 * zeros.flip(1), "full": zeros}, _e_rel(0.6 * zeros.flip(1), zeros)),
        ],
        "Now the luck of one sample is not in numerator and denominator at once. A task that prompt tuning "
        "hardly solves is left out as a whole.",
    )
    hints = {
        "not finite": (
            "A task that does not count is still in your mean: 0 / 0 is nan, and nan times 0 is nan, too. "
            "Choose the columns of the tasks that count before you average."
        ),
        "does not match the shape of the indexed tensor": (
            "A mask of tasks has T entries, and tasks are axis 1: `x[:, mask]`."
        ),
        "too many indices": (
            "Your mask has a row for each sample. Make it one entry per task: true if both samples are."
        ),
        "is ambiguous": "`and` joins two single values; for tensors, write `&` or `.all(k)`.",
        "step must be greater than zero": "torch has no step of -1; `x.flip(k)` reverses axis k.",
        "returns a tensor of shape [2];": "Yours is one value per sample; E_rel is their mean.",
        "returns a tensor of shape [2, ": "Yours has a value for each sample and task; E_rel is their mean.",
        "; return one number": "E_rel is one number: average over samples and over the tasks that count.",
    }
    return explained(feedback, hints)


def _e_rel(scores: Tensor, full: Tensor) -> Tensor:
    """What `check_07_1` asks for."""
    return (scores / full.flip(0))[:, (full >= 0.05).all(0)].mean()


def _crossing_mistakes(scores: Tensor, full: Tensor) -> dict[str, Any]:
    """Hints of `check_07_1`: each way to divide with each choice of tasks, then the rest."""
    other, used = full.flip(0), (full >= 0.05).all(0)
    both = "Both of prompt tuning's scores have to be at least 0.05. "
    divisors = {
        "": other,
        "You divide by the score of the same sample, so its luck is in numerator and denominator. Take the "
        "other sample. ": full,
        "You divide by the mean of both samples, and one of them is the method's own. Take the other one "
        "alone. ": full.mean(0).expand(2, -1),
    }
    choices = {
        "": used,
        "You leave out no task, and one that is divided by nearly 0 outweighs all others. " + both: (
            torch.ones_like(used)
        ),
        "You choose tasks by the method's scores, and so leave out those where it fails. Choose by prompt "
        "tuning's: both have to be at least 0.05.": (scores >= 0.05).all(0),
        "You choose tasks by the method's mean score, and so leave out those where it fails. Choose by "
        "prompt tuning's: both have to be at least 0.05.": scores.mean(0) >= 0.05,
        "You also leave out tasks where the method fails, which makes it look better. Prompt tuning's scores "
        "alone decide.": used & (scores >= 0.05).all(0),
        "You choose tasks by prompt tuning's mean score, as in exercise 06.2. " + both: full.mean(0) >= 0.05,
        "You keep a task if one score is large enough. " + both: (full >= 0.05).any(0),
        "A task with a score of exactly 0.05 counts: at least means `>=`.": (full > 0.05).all(0),
    }
    mistakes: dict[str, Any] = {
        (of + among).strip(): (scores / divisor)[:, chosen].mean()
        for of, divisor in divisors.items()
        for among, chosen in choices.items()
        if of or among
    }
    ratio, fine = scores / other, other >= 0.05
    by_task = [ratio[fine[:, t], t].mean() for t in range(len(used)) if fine[:, t].any()]
    mine, whole = scores[:, used], other[:, used]
    return mistakes | {
        "You drop single scores, not tasks. A task with one score below 0.05 is left out as a whole.": (
            ratio[fine].mean()
        ),
        "You drop single scores, then average each task over what is left. A task with one score below 0.05 "
        "is left out as a whole.": torch.stack(by_task).mean(),
        "You drop single scores, and by the sample that you do not divide by. A task with one score below "
        "0.05 is left out as a whole.": ratio[full >= 0.05].mean(),
        "You drop single scores, not tasks, and divide by the score of the same sample. Take the other "
        "sample, and leave out a task with one score below 0.05 as a whole.": (
            (scores / full)[full >= 0.05].mean()
        ),
        "This is the ratio of means. E_rel divides task by task, then averages.": mine.mean() / whole.mean(),
        "This is the ratio of means over all tasks. E_rel divides task by task, then averages.": (
            scores.mean() / full.mean()
        ),
        "This is the ratio of means, sample by sample. E_rel divides task by task, then averages.": (
            (mine.mean(1) / whole.mean(1)).mean()
        ),
        "You count the tasks that are left out as 0. Divide by the number of those that count.": (
            (ratio * used).mean()
        ),
        "You raise small scores to 0.05 instead of leaving these tasks out.": (
            (scores / other.clamp(min=0.05)).mean()
        ),
        "You use the method's first sample only. Divide its second one by prompt tuning's first, too, and "
        "average.": ratio[0, used].mean(),
        "You use the method's second sample only. Divide its first one by prompt tuning's second, too, and "
        "average.": ratio[1, used].mean(),
        "You average the method's scores over samples before you divide. Divide sample by sample.": (
            (scores.mean(0) / other)[:, used].mean()
        ),
        "This is the sum over both samples; take their mean.": ratio[:, used].sum(0).mean(),
        "This is the sum over tasks; divide by the number of those that count.": ratio[:, used].mean(0).sum(),
        "This is the sum over samples and tasks; take the mean of both.": ratio[:, used].sum(),
        "Your ratio is upside down: divide the method's score by prompt tuning's.": (whole / mine).mean(),
        "You mix up `scores` and `full`: divide the method's score by prompt tuning's, and choose tasks by "
        "prompt tuning's.": _e_rel(full, scores),
        "You turn the order of the tasks around, so that a task is divided by another one. The samples are "
        "axis 0.": (scores / full.flip(1))[:, used].mean(),
        "You turn the order of the tasks around, so that a task is divided by another one, and choose tasks "
        "in that order. The samples are axis 0.": (scores / full.flip(1))[:, used.flip(0)].mean(),
        "You turn the order of the tasks around, so that a task is divided by another one, and leave out no "
        "task. The samples are axis 0.": (scores / full.flip(1)).mean(),
        "You turn both axes around. Swap the samples only, axis 0.": (
            (scores / full.flip(0, 1))[:, used].mean()
        ),
        "`roll` without an axis also moves tasks. Swap the samples only, axis 0.": (
            (scores / full.roll(1))[:, used].mean()
        ),
    }


def check_07_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that computes a mean over tasks and its cluster-robust standard error.

    Args:
      answer: clustered(values [T], groups [T]) -> two numbers, the mean and its standard error.
      seed: of the random values and groups.
    """
    generator = torch.Generator().manual_seed(seed)
    place, labels = torch.tensor(GROUPS), torch.tensor(LABELS)[torch.randperm(5, generator=generator)]
    groups, shared = labels[place], torch.tensor(ALIKE) + 0.2 * torch.randn(5, generator=generator)
    values = shared[place] + 0.4 * torch.randn(len(GROUPS), generator=generator)
    alone = torch.randn(6, generator=generator)
    feedback = judge_function(
        answer,
        [
            Case({"values": values, "groups": groups}, *_clustering(values, groups), RTOL),
            Case(
                {"values": alone, "groups": torch.arange(6)},
                torch.stack([alone.mean(), alone.std() / 6**0.5]),
            ),
        ],
        "Where the tasks of a group are alike, their deviations add up before they are squared, and the "
        "error grows. Where each task is its own group, this is the usual standard error.",
    )
    names = "Labels are names, they need not be 0, 1, 2 and so on. `groups.unique()` has each of them once."
    hints = {
        "return a tensor of shape [2]": (
            "Return both numbers, the mean over tasks and its standard error, as a tuple or a tensor."
        ),
        "not finite": (
            "Look for a division by 0: G is the number of different labels, and a group may have one task."
        ),
        "out of range": names,
        "out of bounds": names,
    }
    return explained(feedback, hints)


def _clustering(values: Tensor, groups: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The right result of `check_07_2`, and those of its mistakes: each mean with each standard error."""
    place = groups.unique(return_inverse=True)[1]
    T, G, mean = len(values), int(place.max()) + 1, values.mean()

    def sums(numbers: Tensor) -> Tensor:  # [T] -> [G]
        return torch.zeros(G).index_add(0, place, numbers)

    counts, factor, highest = sums(torch.ones(T)), G / (G - 1), int(groups.max()) + 1
    of_groups = sums(values) / counts
    middle = of_groups.mean()
    squares, repeated = sums(values - mean).square().sum(), (sums(values - mean).square() * counts).sum()
    right = (factor * squares).sqrt() / T
    in_a_row = 1 + int((groups[1:] != groups[:-1]).sum())
    runs = torch.unique_consecutive(groups, return_inverse=True)[1]
    by_run = torch.zeros(in_a_row).index_add(0, runs, values - mean).square().sum()
    each_once = "Go through `groups.unique()`, so that each group counts once. "
    means = {
        "": mean,
        "Your mean is the mean of the groups' means. Each task counts alike: average all values. ": middle,
    }
    errors = {
        "": right,
        "Your standard error treats all tasks as independent. Sum the deviations within each group before "
        "you square them. (Entries of a tensor are no keys: use `groups.tolist()` in a dictionary.)": (
            values.std() / T**0.5
        ),
        "Your standard error treats all tasks as independent, and divides by T instead of T - 1. Sum the "
        "deviations within each group before you square them.": values.std(correction=0) / T**0.5,
        "Your standard error treats all tasks as independent, and divides by the square root of G. Sum the "
        "deviations within each group before you square them.": values.std() / G**0.5,
        "This is the standard deviation of the values, not the standard error of their mean.": values.std(),
        "Your standard error lacks the factor G / (G - 1).": squares.sqrt() / T,
        "Your standard error has the factor T / (T - 1). Groups are independent, tasks are not: count the "
        "groups. (`set` of a tensor keeps every entry; use `groups.unique()`.)": (
            (T / (T - 1) * squares).sqrt() / T
        ),
        "Your factor is (G - 1) / G; turn it around.": (squares / factor).sqrt() / T,
        "The factor G / (G - 1) belongs under the root.": factor * squares.sqrt() / T,
        "You divide by G - 1 under the root, but do not multiply by G.": (squares / (G - 1)).sqrt() / T,
        "Your G is the highest label plus 1. Labels are names: count the different ones.": (
            (highest / (highest - 1) * squares).sqrt() / T
        ),
        "You divide the root by G, but the mean is over T values.": (factor * squares).sqrt() / G,
        "You divide the root by the square root of T. Divide it by T.": (factor * squares / T).sqrt(),
        "You divide the root by the square root of G. Divide it by T.": (factor * squares / G).sqrt(),
        "Divide the root by T.": (factor * squares).sqrt(),
        "The root is missing: take it before you divide by T.": factor * squares / T,
        "This is the square of the standard error: the root is missing.": factor * squares / T**2,
        "You sum the values. Subtract the mean from each of them first.": (
            (factor * sums(values).square().sum()).sqrt() / T
        ),
        "Your standard error is 0, because deviations from a mean add up to 0. Subtract the mean of all "
        "values, not the group's own, and square each group's sum before you add.": torch.zeros(()),
        "Your deviations are from the mean of the groups' means. Subtract the mean of all values.": (
            (factor * sums(values - middle).square().sum()).sqrt() / T
        ),
        "You square the deviations, then sum them within a group. Sum first: deviations of the same sign add "
        "up.": (factor * (values - mean).square().sum()).sqrt() / T,
        "You average the deviations within a group; sum them.": (
            (factor * (of_groups - mean).square().sum()).sqrt() / T
        ),
        "You average the deviations within a group, and divide by G. Sum them, and divide by T.": (
            (factor * (of_groups - mean).square().sum()).sqrt() / G
        ),
        "This is the standard error of the mean of the groups' means, where large groups count no more than "
        "small ones. Sum deviations instead of averaging them.": of_groups.std() / G**0.5,
        "This is the standard error of the mean of the groups' means, with G in place of G - 1. Sum "
        "deviations instead of averaging them.": of_groups.std(correction=0) / G**0.5,
        "Your loop counts labels from 0. Labels are names: go through `groups.unique()`.": (
            (factor * sums(values - mean)[groups.unique() < G].square().sum()).sqrt() / T
        ),
        "You count a group once for each of its tasks. " + each_once: (factor * repeated).sqrt() / T,
        "You count a group once for each of its tasks, and your factor is T / (T - 1). " + each_once: (
            (T / (T - 1) * repeated).sqrt() / T
        ),
        "You only join tasks that stand side by side. A group's tasks may stand anywhere.": (
            (in_a_row / (in_a_row - 1) * by_run).sqrt() / T
        ),
        "Square each group's sum, then add the squares.": (
            factor * sums(values - mean).abs().sum().square()
        ).sqrt()
        / T,
    }
    pairs = {
        (of + off).strip(): torch.stack([center, error])
        for of, center in means.items()
        for off, error in errors.items()
        if of or off
    }
    swapped = {
        "These are the right two numbers in the other order: the mean first.": torch.stack([right, mean])
    }
    return torch.stack([mean, right]), pairs | swapped


def check_07_3(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: how much too small a standard error is that takes ten tasks for thirty.

    Args:
      answer: a number.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    feedback = judge_number(
        answer,
        1.6,
        1.9,
        "Ten values, each three times, have the standard deviation of the ten, and only n is wrong: 30 "
        "instead of 10. So the error is too small by the square root of 30 / 10, which is 1.73. The cell "
        "prints 1.80: with ten groups G / (G - 1) makes the right error a little larger still.",
    )
    hints = {
        3: "There are 3 times as many values, but the error shrinks with their square root only.",
        1: "Copies bring nothing new, but the formula counts them as if they did.",
        10: "10 is the number of tasks; compare the n that was used with the right one.",
        10**0.5: "This is the square root of 10; compare the n that was used with the right one.",
        30**0.5: "This is the square root of 30; compare the n that was used with the right one.",
        3**-0.5: "This is the wrong error as a share of the right one; the factor is 1 over it.",
        1 / 3: "This has the two errors the wrong way round, and no root.",
    }
    return near(feedback, answer, hints)


def check_07_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what a difference to random directions says, in log-likelihood and in score.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "a",
        {
            "a": "Both start at the same prompt and differ in their directions alone. The first interval "
            "lies above 0. The second one contains a loss of 0.02 and a gain of 0.04, so the score may fall, "
            "stay or rise.",
            "b": "An interval that contains 0 does not show that nothing changes: a loss of 0.02 fits these "
            "tasks, and so does a gain of 0.04.",
            "c": "Better than random directions is not yet good. Whether the subspace holds what a new task "
            "needs takes another comparison: with prompt tuning, which may search everywhere.",
            "d": "The random directions only start at the mean code, and then they are tuned. What IST gains "
            "over the mean code itself is another comparison, and it is not given here.",
        },
    )
