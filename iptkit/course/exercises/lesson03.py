"""Checks of the exercises of lesson 03, P-tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from iptkit.course.exercises.answers import Case, judge_choice, judge_function, judge_number
from iptkit.course.exercises.feedback import Feedback
from iptkit.methods.p_tuning import num_parameters


def check_03_1(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: where a vector could stand that never learns anything.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "c",
        {
            "a": "In front of the text, a vector is read by every later token, also by the answer. It "
            "learns.",
            "b": "Between two anchor words, a vector is read by all that comes after it, also by the answer. "
            "It learns.",
            "c": "A causal model reads from left to right. Nothing that counts in the loss comes after the "
            "answer, so the vector's gradient is 0. The kit's layouts have no such place: the answer is "
            "always last.",
            "d": "Directly in front of the answer, a vector is read by the answer's tokens only, but that is "
            "enough. It learns.",
        },
    )


def check_03_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that counts the trainable parameters of P-tuning with an LSTM.

    Args:
      answer: num_trainable(n, d) -> the number of parameters of the inputs, the LSTM and the MLP.
      seed: chooses the sizes.
    """
    return judge_function(
        answer,
        [_case(9, 768 + 64 * seed), _case(4 + seed, 32)],
        "Nearly all of it is the encoder, which is dropped after training.",
    )


def check_03_3(answer: object, seed: int = 0) -> Feedback:
    """Check a function that puts together the vectors of a row for any layout.

    Args:
      answer: row_of(layout, P [n, d], table [V, d], text [L], anchor [A], answer [T]) -> [S, d].
      seed: of the random inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    P, table = (torch.randn(size, 4, generator=generator) for size in (6, 40))
    ids = torch.randperm(40, generator=generator)
    text, anchor, target = ids[:5], ids[5:8], ids[8:10]
    x, words, end = table[text], table[anchor], table[target]
    a, b, c = P[:3], P[3:5], P[5:]
    mistakes = {
        "Each number takes vectors from the start of `P`. Count how many are used already: the next k are "
        "`P[used : used + k]`.": [a, x, P[:2], words, P[:1], end],
        "This is the layout of `log_p_of`. Follow the given one.": [a, x, P[3:], words, end],
        "All vectors stand in front of the text. Follow the layout entry by entry.": [P, x, words, end],
        "All vectors stand behind the text. Follow the layout entry by entry.": [x, P, words, end],
        "The answer is missing; it comes last.": [a, x, b, words, c],
        "The answer stands at the beginning; it comes last.": [end, a, x, b, words, c],
        "The anchor is missing.": [a, x, b, c, end],
        "Text and anchor are swapped.": [a, words, b, x, c, end],
        "A number k means k vectors, and you take one: `P[used : used + k]`.": [
            P[:1], x, P[1:2], words, P[2:3], end
        ],
        "You take vector number k, not the next k vectors: `P[used : used + k]`.": [
            P[3:4], x, P[2:3], words, P[1:2], end
        ],
    }  # fmt: skip
    fixed = {"This is right for one layout only. Follow the given one.": [a, x, b, words, c, end]}

    def case(layout: tuple[int | str, ...], right: list[Tensor], wrong: dict[str, list[Tensor]]) -> Case:
        given = {"layout": layout, "P": P, "table": table, "text": text, "anchor": anchor}
        results = {hint: torch.cat(pieces) for hint, pieces in wrong.items()}
        return Case(given | {"answer": target}, torch.cat(right), results)

    cases = [
        case((3, "text", 2, "anchor", 1), [a, x, b, words, c, end], mistakes),
        case(("anchor", 6, "text"), [words, P, x, end], fixed),
    ]
    return judge_function(
        answer, cases, "Only the layout differs between prompt tuning and P-tuning; the row is built alike."
    )


def check_03_4(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: the mean cosine of two vectors of the prompt that a new encoder makes.

    Args:
      answer: a number.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    return judge_number(
        answer,
        0.95,
        1.0,
        "A new encoder makes nearly the same vector at every place: its biases are the same everywhere, and "
        "what its small weights keep of the input is little beside them. So the vectors are tied together "
        "from the start, and training first has to pull them apart.",
    )


def _case(n: int, d: int) -> Case:
    right, h = num_parameters(n, d), d // 2
    one = 4 * h * (d + h + 2)  # one direction of one layer, with two vectors of biases
    mlp = 2 * (d * d + d)
    mistakes = {
        "You count half of the LSTM: it has two layers, and each reads in two directions.": right - 2 * one,
        "You count one direction of one layer; the LSTM has two layers and two directions.": right - 3 * one,
        "You count one of the LSTM's two vectors of biases: PyTorch has bias_ih and bias_hh.": right - 16 * h,
        "You left out the biases of the LSTM: 2 vectors of 4 h numbers in each direction of each layer.": (
            right - 32 * h
        ),
        "You left out the biases of the MLP.": right - 2 * d,
        "You left out the bias of one of the MLP's two layers.": right - d,
        "The second layer of the LSTM reads both directions of the first: its input has width d.": (
            right - 2 * 4 * h * (d - h)
        ),
        "You left out all biases.": right - 32 * h - 2 * d,
        "You left out the input vectors X, n x d numbers that also train.": right - n * d,
        "You left out the MLP behind the LSTM.": right - mlp,
        "You count one of the MLP's two linear layers.": right - mlp // 2,
        "You count three gates; an LSTM has four (a GRU has three).": right - one,
        "The LSTM has d units in each direction here; it is d / 2, so that both together have d.": (
            n * d + 4 * 4 * d * (2 * d + 2) + mlp
        ),
    }
    return Case({"n": n, "d": d}, right, mistakes, rtol=0)
