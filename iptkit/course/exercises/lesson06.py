"""Checks of the exercises of lesson 06, intrinsic subspace tuning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iptkit.course.exercises.answers import (
    Case,
    explained,
    judge_choice,
    judge_function,
    judge_number,
    judge_step,
)
from iptkit.course.exercises.feedback import Feedback

RUNS, DIM, HIDDEN, SIZE = 3, 3, 7, 10  # as many runs as values in a code, so that wrong axes fit


def check_06_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that makes one step of IST for several runs.

    Args:
      answer: ist_step(decoder, loss_of, center [d_I], unit [d_I], u [R, d_I], lr) -> the new u [R, d_I].
        decoder(z [R, d_I]) gives prompts [R, D], and loss_of(prompts [R, D]) one loss per run [R].
      seed: of the random inputs.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    decoder: Any = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, SIZE))
    with torch.no_grad():
        for p in decoder.parameters():
            p.copy_(draw(*p.shape) / 2)
    center, unit, target = draw(DIM), 0.5 + draw(DIM).abs(), draw(RUNS, SIZE)
    u, lr = 0.3 * draw(RUNS, DIM), 0.5

    def loss_of(prompts: Tensor) -> Tensor:  # [R, D] -> [R]
        if prompts.shape != target.shape:
            raise ValueError(f"loss_of takes all R prompts at once, [R, D], but got {list(prompts.shape)}")
        return (prompts - target).square().mean(1)

    def slope(center: Tensor, unit: Tensor, u: Tensor) -> Tensor:
        u = u.clone().requires_grad_()
        return torch.autograd.grad(loss_of(decoder(center + unit * u)).sum(), u)[0]

    g = slope(center, unit, u)
    one, none = torch.ones(DIM), torch.zeros(DIM)
    mistakes = {
        "The new u is the old one: nothing was learned. Ask for the gradient of the very tensor that the "
        "loss depends on, and return the new one.": u,
        "The step goes uphill: subtract the gradient.": u + lr * g,
        "You step by the gradient itself; multiply it by `lr`.": u - g,
        "This is a step of Adam; make a plain one, u minus lr times the gradient.": u - lr * g.sign(),
        "This is the gradient; return the new u.": g,
        "This is the new code z; return u, from which z is made.": center + unit * (u - lr * g),
        "Your code is unit * u and starts at the zero code; IST starts at the mean code: add `center`.": (
            u - lr * slope(none, unit, u)
        ),
        "Your code is center + u; multiply u by `unit`.": u - lr * slope(center, one, u),
        "You give u itself to the decoder; its code is z = center + unit * u.": u - lr * slope(none, one, u),
        "This is the gradient of z. u enters as unit * u, so the chain rule gives a factor `unit`.": (
            u - lr * g / unit
        ),
        "Each step is divided by the number of runs: add the losses of the runs, so that each trains as if "
        "it were alone.": u - lr * g / RUNS,
        "Your gradient is a mean over runs, so all runs make the same step. Each run has its own row of u.": (
            u - lr * g.mean(0)
        ),
        "Your gradient is summed over runs, so all runs make the same step. Each run has its own row of u.": (
            u - lr * g.sum(0)
        ),
        "You start at u = 0 instead of the u that was given.": -lr * slope(center, unit, torch.zeros_like(u)),
    }
    arguments = {"decoder": decoder, "loss_of": loss_of, "center": center, "unit": unit, "u": u, "lr": lr}
    return judge_step(
        answer,
        Case(arguments, u - lr * g, mistakes),
        "Only u moves: the decoder keeps its weights and gets no gradient.",
        "u",
    )


def check_06_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that computes E_rel and the ratio of means from scores.

    Args:
      answer: kept(scores [S, T], full [S, T]) -> two numbers, E_rel and the ratio of means.
      seed: of the random scores.
    """
    generator = torch.Generator().manual_seed(seed)
    easy = torch.tensor([0.7, 0.3, 0.0, 0.5, 0.2, 0.6])
    by_run = torch.tensor([[1.0], [0.5], [0.8]])  # seeds differ, so that a mean over the wrong axis shows
    full = by_run * (easy + 0.2 * torch.rand(3, 6, generator=generator))
    full[:, 2] = torch.tensor([0.06, 0.0, 0.03])  # its mean is below 0.05, one of its scores is not
    share = torch.tensor([0.2, 0.9, 0.8, 0.4, 0.9, 0.3])  # of prompt tuning's score, by task
    scores = by_run.flip(0) * share * full + 0.1 + 0.1 * torch.rand(3, 6, generator=generator)
    scores[:, 4] = torch.tensor([0.02, 0.05, 0.03])  # prompt tuning solves it, the method does not
    mine, whole = scores.mean(0), full.mean(0)  # [T]
    used = whole >= 0.05
    ratio = mine.sum() / whole.sum()
    e_rel = (mine / whole)[used].mean()
    each, seedwise = scores / full, (scores.mean(1) / full.mean(1)).mean()
    mistakes = {
        "You have the right two numbers in the other order: E_rel first.": [ratio, e_rel],
        "Your E_rel divides by the score of one task that prompt tuning hardly solves. Leave out tasks on "
        "which its mean score is below 0.05.": [(mine / whole).mean(), ratio],
        "You choose tasks by the method's own scores. Leave out those on which prompt tuning's mean score "
        "is below 0.05.": [(mine / whole)[mine >= 0.05].mean(), ratio],
        "Your E_rel averages over tasks first, so it has one ratio for each seed. `.mean(0)` averages over "
        "seeds, the first axis.": [seedwise, ratio],
        "Your ratio of means divides seed by seed. Average over seeds and tasks, then divide once.": [
            e_rel,
            seedwise,
        ],
        "Your E_rel divides seed by seed. Average prompt tuning's score of a task over its seeds first.": [
            each[full >= 0.05].mean(),
            ratio,
        ],
        "Your E_rel divides seed by seed, then averages. Average each task over its seeds first.": [
            each[:, used].mean(),
            ratio,
        ],
        "Both of your numbers divide seed by seed. Average each task over its seeds first.": [
            each[:, used].mean(),
            seedwise,
        ],
        "Your ratio of means leaves out a task. Only E_rel does; the ratio of means divides by no single "
        "task.": [e_rel, mine[used].sum() / whole[used].sum()],
        "Both of your numbers are the ratio of means. E_rel divides task by task, then averages.": [
            ratio,
            ratio,
        ],
        "Both of your numbers are the mean of ratios. The ratio of means averages first, then divides.": [
            e_rel,
            e_rel,
        ],
        "Your E_rel counts the task that is left out as 0: divide by the number of tasks that remain.": [
            (mine / whole)[used].sum() / len(whole),
            ratio,
        ],
    }
    case = Case(
        {"scores": scores, "full": full},
        torch.stack([e_rel, ratio]),
        {hint: torch.stack([torch.as_tensor(value) for value in pair]) for hint, pair in mistakes.items()},
    )
    feedback = judge_function(
        answer,
        [case],
        "The two differ: in E_rel every task counts alike, in the ratio of means tasks with high scores "
        "count more. Neither has a floor for what guessing would score.",
    )
    hints = {
        "return a tensor of shape [2]": (
            "Return two numbers, (E_rel, ratio of means). If one of yours still has a number for each task, "
            "average it."
        ),
        "not finite": (
            "You divide by 0: prompt tuning scores 0 on one task with one seed. Average over seeds first."
        ),
    }
    return explained(feedback, hints)


def check_06_3(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: E_rel of guessing between two labels where prompt tuning scores 0.8.

    Args:
      answer: a number.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    if isinstance(answer, int | float) and 60 <= answer <= 65:
        return Feedback(False, f"Is {answer} in per cent? E_rel is a share: write {answer / 100:.3g}.")
    return judge_number(
        answer,
        0.6,
        0.65,
        "Guessing is right half of the time, and 0.5 / 0.8 = 0.625. A method that has learned nothing can "
        "keep most of prompt tuning's score, so E_rel says little without the E_rel of a prompt that nobody "
        "tuned.",
    )


def check_06_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what the gain of IST over the mean code consists of.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "The whole gain over the mean code is what tuning adds. But tuning five parameters along "
            "random directions from the same start adds 0.06 already.",
            "b": "Both start at the same prompt and train five parameters. So 0.06 is what tuning along any "
            "directions adds, and the other 0.08 is due to the directions that MSF found.",
            "c": "The random decoder starts at the mean prompt, not at the mean code. Its distance to IST "
            "mixes two things: another start and other directions.",
            "d": "IST starts at the mean code, where the score is 0.28: the start is no merit of tuning.",
        },
    )
