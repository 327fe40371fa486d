"""Checks of the exercises of lesson 05, multi-task subspace finding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iptkit.course.exercises.answers import Case, explained, judge_choice, judge_function, judge_number
from iptkit.course.exercises.feedback import Feedback

T = DIM = 3  # as many tasks as values in a code: a mean over the wrong axis has the right size
N, WIDTH, HIDDEN = 2, 5, 6


def check_05_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that decodes the mean code of a bank of prompts.

    Args:
      answer: mean_code_prompt(P [T, n, d], mean [D], std, W1 [d_I, D], b1 [d_I], W2 [hidden, d_I],
        b2 [hidden], W3 [D, hidden], b3 [D]) -> one prompt [n, d].
      seed: of the random input.
    """
    generator = torch.Generator().manual_seed(seed)
    size = N * WIDTH

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    P = 2 + 3 * draw(T, N, WIDTH)
    W1, b1, W2, b2 = draw(DIM, size) / 2, draw(DIM), draw(HIDDEN, DIM), draw(HIDDEN)
    W3, b3 = draw(size, HIDDEN), draw(size)
    mean, std = 2 + draw(size), 1.6  # of a larger bank

    def encode(flat: Tensor, bias: Tensor = b1) -> Tensor:
        return flat @ W1.T + bias

    def standardised(z: Tensor, first: Tensor = b2, last: Tensor = b3) -> Tensor:
        return torch.tanh(z @ W2.T + first) @ W3.T + last

    def prompt(p: Tensor) -> Tensor:
        return (mean + std * p).view(*p.shape[:-1], N, WIDTH)

    codes = encode((P.flatten(1) - mean) / std)  # [T, d_I]
    z, none = codes.mean(0), torch.zeros(1)
    mistakes = {
        "This is the mean of the decoded prompts. Average the codes first, then decode once: tanh is not "
        "linear, so the order matters.": prompt(standardised(codes)).mean(0),
        "These are the decoded prompts of all tasks; average their codes first, so that one is left.": (
            prompt(standardised(codes))
        ),
        "This is the mean over the values of a code. Average over tasks, the first axis: `.mean(0)`.": (
            prompt(standardised(codes.mean(1)))
        ),
        "This is the mean prompt: the auto-encoder plays no part in it.": P.mean(0),
        "The tanh is missing: without it the decoder is linear.": prompt(z @ W2.T @ W3.T + b2 @ W3.T + b3),
        "tanh belongs to the hidden layer, after W2 and b2, not to the code.": prompt(
            (torch.tanh(z) @ W2.T + b2) @ W3.T + b3
        ),
        "Your result is still standardised: multiply it by `std`, then add `mean`.": (
            standardised(z).view(N, WIDTH)
        ),
        "Multiply by `std` first, then add `mean`.": (std * (standardised(z) + mean)).view(N, WIDTH),
        "You add `mean`, but do not multiply by `std`.": (standardised(z) + mean).view(N, WIDTH),
        "The encoder expects standardised prompts: subtract `mean` and divide by `std` before W1.": prompt(
            standardised(encode(P.flatten(1)).mean(0))
        ),
        "You subtract `mean` before W1, but do not divide by `std`.": prompt(
            standardised(encode(P.flatten(1) - mean).mean(0))
        ),
        "The bias b1 of the encoder is missing.": prompt(
            standardised(encode((P.flatten(1) - mean) / std, none).mean(0))
        ),
        "The biases of the decoder are missing.": prompt(standardised(z, none, none)),
        "Your mean code is b1. That is so for the whole bank, but P is only a part of it: encode P, "
        "standardised with the `mean` and `std` that are given.": prompt(standardised(b1)),
    }
    flat = P.flatten(1)
    for taken, (mean_of, std_of) in _recomputed(flat, mean, std).items():
        encoded = encode((flat - mean_of) / std_of).mean(0)
        hint = f"You take {taken} from P. Do not recompute them: `mean` and `std` are those of the bank."
        mistakes[hint] = (mean_of + std_of * standardised(encoded)).view(N, WIDTH)
    arguments = {"P": P, "mean": mean, "std": std}
    arguments |= {"W1": W1, "b1": b1, "W2": W2, "b2": b2, "W3": W3, "b3": b3}
    feedback = judge_function(
        answer,
        [Case(arguments, prompt(standardised(z)), mistakes)],
        "One prompt for all tasks. For the whole bank the standardised prompts have the mean 0, so the mean "
        "code is b1: nothing in it belongs to one task.",
        lambda found: (
            f"The values are right, but the shape is {list(found.shape)}: one prompt is [n, d]."
            if isinstance(found, Tensor | np.ndarray) and found.shape != (N, WIDTH)
            else ""
        ),
    )
    of_layers = "A linear layer with weights W [out, in] maps rows by `x @ W.T + b`."
    hints = {
        f"a ({WIDTH}) must match the size of tensor b ({size})": (
            "`mean` has D = n * d entries; make P rows of D entries first: `P.flatten(1)`."
        ),
        "cannot be multiplied": of_layers,
        "size mismatch": of_layers,
    }
    return explained(feedback, hints)


def _recomputed(flat: Tensor, mean: Tensor, std: float) -> dict[str, tuple[Tensor, Tensor | float]]:
    """What a learner may take from the prompts [T, D] -> the mean and the standard deviation then."""
    own = flat.mean(0)
    return {
        "the mean": (own, std),
        "the standard deviation": (mean, (flat - own).square().mean().sqrt()),
        "the standard deviation (`std()` of all values)": (mean, flat.std()),
        "mean and standard deviation": (own, (flat - own).square().mean().sqrt()),
        "mean and standard deviation (`std()` of what is left)": (own, (flat - own).std()),
        "mean and standard deviation (`std()` of all values)": (own, flat.std()),
        "mean and standard deviation (`std(0)`, one for each entry)": (own, flat.std(0)),
    }


def check_05_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that counts the parameters of the auto-encoder.

    Args:
      answer: num_parameters(n, d, hidden, d_I) -> their number.
      seed: of the sizes, beside those of the paper.
    """
    draw = torch.Generator().manual_seed(seed)
    n, d, hidden, dim = (int(torch.randint(3, 12, (1,), generator=draw)) + add for add in (0, 20, 40, 9))
    return judge_function(
        answer,
        [_count_case(100, 768, 768, 5), _count_case(n, d, hidden, dim)],
        "At the paper's size these are 59,447,813. A code has five values, but they need a decoder with 59 "
        "million parameters, which many tasks have paid for.",
    )


def _count_case(n: int, d: int, hidden: int, dim: int) -> Case:
    size = n * d
    encoder, inner, outer = size * dim + dim, dim * hidden + hidden, hidden * size + size
    mistakes = {
        "The biases are missing: a linear layer from a to b numbers has a·b weights and b biases.": (
            size * dim + dim * hidden + hidden * size
        ),
        "The D biases of the last layer, b3, are missing.": encoder + inner + outer - size,
        "The biases of the hidden layer, b2, are missing.": encoder + inner + outer - hidden,
        "The d_I biases of the encoder, b1, are missing.": encoder + inner + outer - dim,
        "This is the decoder alone; the encoder trains, too.": inner + outer,
        "This is the encoder alone; the decoder trains, too.": encoder,
        "D is the number of all entries of a prompt, n·d, not its width d.": (
            d * dim + dim + inner + hidden * d + d
        ),
        "The decoder has a hidden layer: d_I to hidden, then hidden to D.": encoder + dim * size + size,
        "The encoder is one linear layer, without a hidden layer.": (
            size * hidden + hidden + hidden * dim + dim + inner + outer
        ),
        "These are the values of the code; count the weights that make it and decode it.": dim,
    }
    return Case({"n": n, "d": d, "hidden": hidden, "d_I": dim}, encoder + inner + outer, mistakes, rtol=0)


def check_05_3(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: how many principal directions hold all variance of 100 random prompts.

    Args:
      answer: a number.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    return judge_number(
        answer,
        99,
        99,
        "100 points around their mean span 99 directions, however many values each has: the last deviation "
        "is minus the sum of the others. So a curve that reaches 1 below D proves nothing about tasks. The "
        "noise shows it in its first directions: five of them hold about 5 / 99 of the variance.",
    )


def check_05_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what the scores of MSF and of its controls say about the codes.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "98 % says that little is lost. But the mean code loses as little, and it knows no task.",
            "b": "The mean code has the same decoder, and only the code differs. So the codes add 0.01, and "
            "the decoder's one prompt for all tasks brings the rest.",
            "c": "The error says that the prompts are hardly rebuilt. Scores are about answers, and other "
            "prompts can lead to the same ones.",
            "d": "The mean code scores 0.24 more than the mean prompt, so the decoder has learned a better "
            "prompt for all tasks. An error near 1 says only that it is another prompt.",
        },
    )
