"""Checks of the exercises of lesson 08, the subspace of deep prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iptkit.course.exercises.answers import Case, judge_choice, judge_function, judge_number, near
from iptkit.course.exercises.feedback import Feedback

RUNS, DIM, HIDDEN = 3, 2, 6
SHAPE = (2, 2, 2, 2, 2)  # layers, keys and values, heads, n, k: alike, so that wrong axes fit

CUT = "The values are right, but no gradient gets from the prompts to z, so IST cannot train: detach nothing."


def check_08_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that decodes the codes of several runs to deep prompts, by layer.

    Args:
      answer: decode_all(z [R, d_I], inner, outer, mean [D], std, shape (L, 2, heads, n, k)) ->
        [L, 2, R, heads, n, k]; inner and outer are linear layers.
      seed: of the random decoder and codes.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    size = torch.Size(SHAPE).numel()
    inner, outer = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, size)
    with torch.no_grad():
        for p in (*inner.parameters(), *outer.parameters()):
            p.copy_(draw(*p.shape)).requires_grad_(False)
        z, mean, std = draw(RUNS, DIM), draw(size), 2.5
        p = outer(torch.tanh(inner(z)))  # [R, D]
        prompts = (mean + std * p).view(RUNS, *SHAPE)
        right = prompts.permute(1, 2, 0, 3, 4, 5)

        def by_layer(flat: Tensor) -> Tensor:
            return flat.view(RUNS, *SHAPE).permute(1, 2, 0, 3, 4, 5)

        mistakes: dict[str, Any] = {
            "These are the prompts run by run, [R, L, 2, heads, n, k]; the layers need their axis first. "
            "`permute` moves axes.": prompts,
            "You cut the prompts with a view of [L, 2, R, ...], which mixes the runs. View them as "
            "[R, L, 2, ...] first, then permute.": (mean + std * p).view(*SHAPE[:2], RUNS, *SHAPE[2:]),
            "The axis of keys and values comes before that of the layers; the layers come first.": (
                prompts.permute(2, 1, 0, 3, 4, 5)
            ),
            "The runs stand between layers and keys and values; their axis is the third.": (
                prompts.permute(1, 0, 2, 3, 4, 5)
            ),
            "The last two axes are swapped: a key of width k is the last axis.": (
                prompts.permute(1, 2, 0, 3, 5, 4)
            ),
            "Your prompts are standardised; undo that: mean + std * p.": by_layer(p),
            "You add the mean, but do not multiply by `std`.": by_layer(mean + p),
            "You multiply by `std`, but do not add the mean.": by_layer(std * p),
            "The mean is not standardised: mean + std * p, not std * (mean + p).": by_layer(std * (mean + p)),
            "The decoder has a tanh between its two layers.": by_layer(mean + std * outer(inner(z))),
            "The tanh stands between the two layers, not behind the second one.": (
                by_layer(mean + std * torch.tanh(outer(inner(z))))
            ),
            "Your decoder has no biases: call the layers, `inner(z)`, or add them.": (
                by_layer(mean + std * (torch.tanh(z @ inner.weight.T) @ outer.weight.T))
            ),
        }
    arguments = {
        "z": z.requires_grad_(),
        "inner": inner,
        "outer": outer,
        "mean": mean,
        "std": std,
        "shape": SHAPE,
    }
    return judge_function(
        answer,
        [Case(arguments, right, mistakes)],
        "Only the last line knows of deep prompts. Nothing else in IST asks what a prompt is made of.",
        lambda made: "" if _has_gradient(made) else CUT,
    )


def _has_gradient(made: Any) -> bool:
    """Whether a gradient passes through a tensor, or through one in a list."""
    return (
        any(map(_has_gradient, made))
        if isinstance(made, list | tuple)
        else getattr(made, "requires_grad", False)
    )


def check_08_2(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: the share of 100 unrelated prompts in a plane of 80 of their components.

    Args:
      answer: a number between 0 and 1.
      seed: not used, because the answer is nearly the same for every draw; all checks have it.
    """
    feedback = judge_number(
        answer,
        0.75,
        0.9,
        "The prompts span 99 directions around their mean, and no direction is much longer than another. So "
        "80 of them hold about 80 / 99 = 0.81, a little more because the longest are taken. New prompts have "
        "only 80 / 2304 = 0.03 in this plane: it remembers, and there is nothing to share.",
    )
    hints = {
        80 / 2304: "This is the share of new prompts. The plane was laid through the ones in question.",
        1: "All of it would need 99 directions; the plane has 80.",
    }
    return near(feedback, answer, hints)


def check_08_3(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what two values of E_rel with their intervals say about their difference.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "c",
        {
            "a": "Nine other tasks would give other means. Without an interval of the difference, 0.03 may "
            "be luck.",
            "b": "Each interval says how much tasks differ from each other. On the same tasks a difference "
            "can be clear although the intervals overlap, or open although they hardly do.",
            "c": "What makes tasks easy or hard drops out of a difference on the same task. Its mean over "
            "tasks has an interval of its own; if that holds 0, the sign is open.",
            "d": "They can, if both used the same tasks, examples and model; the difference then says what "
            "the other settings change.",
        },
    )
