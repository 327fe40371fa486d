"""Checks of the exercises of lesson 03, P-tuning."""

from __future__ import annotations

from iptkit.course.exercises.answers import Case, judge_choice, judge_function
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
