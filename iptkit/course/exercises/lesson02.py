"""Checks of the exercises of lesson 02, prompt tuning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from iptkit.course.exercises.answers import (
    Case,
    explained,
    judge_choice,
    judge_function,
    judge_number,
    judge_step,
    run,
)
from iptkit.course.exercises.feedback import Feedback
from iptkit.models import tiny


def check_02_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that computes the loss of a batch from logits, tokens and marks of the answers.

    Args:
      answer: batch_loss(logits [B, S, V], tokens [B, S], is_answer [B, S]) -> the mean over answer tokens.
      seed: of the random inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, 9, 13, generator=generator)
    tokens = torch.randint(13, (3, 9), generator=generator)
    place = torch.arange(9)
    first = torch.randint(2, 5, (3, 1), generator=generator)
    marks = (place >= first) & (place < first + torch.tensor([[1], [2], [4]]))  # answers of 1, 2 and 4 tokens

    def minus(scores: Tensor, shift: int = 1) -> Tensor:  # [B, S - shift]
        return -scores[:, : 9 - shift].gather(-1, tokens[:, shift:, None])[..., 0]

    back = -logits.log_softmax(-1)[:, 1:].gather(-1, tokens[:, :-1, None])[..., 0]
    losses, later = minus(logits.log_softmax(-1)), marks[:, 1:]
    by_row = [row[mark].mean() for row, mark in zip(losses, later, strict=True)]
    mistakes = {
        "The logits at position i predict token i + 1, and you compare them with token i: your labels are "
        "not shifted.": minus(logits.log_softmax(-1), 0)[marks].mean(),
        "You shift in the wrong direction, and the logits are about a later token: `logits[:, :-1]` belongs "
        "to `tokens[:, 1:]`.": back[marks[:, :-1]].mean(),
        "You shift logits and tokens in the wrong direction: `logits[:, :-1]` belongs to `tokens[:, 1:]`.": (
            back[later].mean()
        ),
        "You shifted the tokens, but not `is_answer`: both need `[:, 1:]`.": losses[marks[:, :-1]].mean(),
        "This is the mean over all positions. Only answer tokens count; select them with `is_answer`.": (
            losses.mean()
        ),
        "Zeros of the text count in your mean: divide the sum by the number of answer tokens, not of "
        "positions.": (losses * later).mean(),
        "This is the sum over answer tokens; take their mean.": losses[later].sum(),
        "This is the sum divided by the number of rows; divide by the number of answer tokens.": (
            losses[later].sum() / 3
        ),
        "You average each row first, so a token of a short answer weighs more. Take one mean over all answer "
        "tokens.": torch.stack(by_row).mean(),
        "The sign is wrong: the loss is minus the log-probability.": -losses[later].mean(),
        "This is one value per token; return their mean.": losses[later],
        "This is a sigmoid for each token by itself. The tokens of the vocabulary compete: use "
        "`log_softmax`.": minus(functional.logsigmoid(logits))[later].mean(),
        "Your softmax is over positions, not over the vocabulary: use `dim=-1`.": minus(
            logits.log_softmax(1)
        )[later].mean(),
        "Your softmax is over the rows of the batch, not over the vocabulary: use `dim=-1`.": minus(
            logits.log_softmax(0)
        )[later].mean(),
        "This is the mean of probabilities; the loss needs their logarithms: `log_softmax`.": (
            minus(logits.softmax(-1))[later].mean()
        ),
        "These are the logits themselves; turn them into log-probabilities first: `log_softmax`.": (
            minus(logits)[later].mean()
        ),
    }
    arguments = {"logits": logits, "tokens": tokens, "is_answer": marks}
    feedback = judge_function(
        answer,
        [Case(arguments, losses[later].mean(), mistakes)],
        "This is the loss of `loss_of` above for a whole batch of rows.",
    )
    if feedback.is_passed:
        again = run(answer, arguments | {"logits": logits.requires_grad_()})
        if not (isinstance(again.value, Tensor) and again.value.requires_grad):
            return again.feedback(
                False,
                "The number is right, but no gradient can pass through it, so nothing could be trained with "
                "it. Return a tensor made by torch alone, without `.item()`, `.detach()`, `float()` or "
                "`.numpy()`.",
            )
    return explained(
        feedback,
        {
            "same number of dimensions": "`gather` wants an index with as many axes as its tensor, and gives "
            "one number per position: `log_p.gather(-1, ids[..., None])[..., 0]`."
        },
    )


def check_02_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that makes one training step for several prompts in one frozen model.

    Args:
      answer: train_step(model, P [R, n, d], text [R, L], answer [R, T], lr) -> the new prompts [R, n, d].
      seed: of the random inputs.
    """
    model: Any = tiny.build("tiny-causal")[0]
    table = model.get_input_embeddings().weight.detach()
    generator = torch.Generator().manual_seed(seed)
    text, target = (torch.randint(4, len(table), (2, size), generator=generator) for size in (5, 3))
    P, lr = 0.2 * torch.randn(2, 4, table.shape[1], generator=generator), 0.5

    def slope(order: str = "text first", shift: int = -1, axis: int | None = -1) -> Tensor:  # [R, n, d]
        p = P.clone().requires_grad_()
        front, back = (p, table[text]) if order == "prompt first" else (table[text], p)
        x = torch.cat([front, back] + [table[target]] * (order != "no answer"), 1)
        first = front.shape[1] + back.shape[1] + shift
        log_p = model(inputs_embeds=x).logits[:, first : first + 3]
        log_p = log_p if axis is None else log_p.log_softmax(axis)
        log_p = log_p.expand(-1, 3, -1)  # without the answer in the row there is one position
        return torch.autograd.grad(-log_p.gather(-1, target[..., None]).mean((1, 2)).sum(), p)[0]

    g = slope()
    mistakes = {
        "The step goes uphill: subtract the gradient.": P + lr * g,
        "The new prompt is the old one: nothing was learned. Does the loss depend on the very tensor that "
        "you asked the gradient of, and do you return the new one?": P,
        "You step by the gradient itself; multiply it by `lr`.": P - g,
        "Each step is divided by the number of runs. Add the losses of the runs, so that each run trains as "
        "if it were alone.": P - lr * g / len(P),
        "Each step is larger by the number of answer tokens: take the mean over a run's answer tokens.": (
            P - lr * g * target.shape[1]
        ),
        "Your prompt stands before the text. Here the text comes first, then the prompt, then the answer.": (
            P - lr * slope("prompt first")
        ),
        "Your logits are one position late. The logits at position i predict what stands at i + 1, so the "
        "first answer token is predicted at position L + n - 1.": P - lr * slope(shift=0),
        "Your logits are one position early: the first answer token is predicted at position L + n - 1.": (
            P - lr * slope(shift=-2)
        ),
        "This is the gradient; return the new prompts.": g,
        "This is a step of Adam. Make a plain step here: P minus `lr` times the gradient.": (
            P - lr * g / (g.abs() + 1e-8)
        ),
        "The answer is missing in your row, so all its tokens are predicted from the end of the prompt. The "
        "row is text, prompt, answer: a token is predicted from all that stands before it.": (
            P - lr * slope("no answer")
        ),
        "These are the logits themselves; turn them into log-probabilities first: `log_softmax(-1)`.": (
            P - lr * slope(axis=None)
        ),
    }
    arguments = {"model": model, "P": P, "text": text, "answer": target, "lr": lr}
    feedback = judge_step(
        answer,
        Case(arguments, P - lr * g, mistakes),
        "All runs learn in one batch, none touches another's prompt, and the model stays as it was.",
        "P",
    )
    return explained(
        feedback,
        {
            "no attribute 'embedding'": "Here `model` is a Hugging Face model, not the kit's: "
            "`model.get_input_embeddings()(text)` gives the vectors.",
            "except in dimension 0": "The parts of a row stand one after the other on axis 1: "
            "`torch.cat([...], 1)`.",
        },
    )


def check_02_3(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: the largest cosine of a random direction with 10,000 others of 2,304 numbers.

    Args:
      answer: a number.
      seed: not used, because the answer is nearly the same for every draw; all checks have it.
    """
    return judge_number(
        answer,
        0.06,
        0.11,
        "Two random directions are nearly at right angles: in d dimensions their cosine has mean 0 and "
        "standard deviation 1 / sqrt(d), here 1 / sqrt(2304) = 0.02. Even the largest of 10,000 is only "
        "three to five times that. So the same cosine says more in a wider space: compare it with chance.",
    )


def check_02_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what follows if the best of many seeds was chosen by the test score.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "The same test examples make the prompts comparable with each other. But she took this one "
            "because its score was high, and part of that is luck with these examples.",
            "b": "Each score is the true one plus noise, and the largest is likely to have lucky noise. The "
            "mean over seeds has no such bias. To use one prompt, choose it on dev, then look at test once.",
            "c": "Dev chose the rate, and that was fair. But the test scores chose the seed.",
            "d": "The more prompts, the luckier the best of them: its score rises with their number although "
            "no prompt gets better.",
        },
    )
