"""Judges the answers of learners: functions, predictions and choices.

A check such as `lesson02.check_02_1` makes small inputs, the right result and the results of typical
mistakes. `judge_function` runs the learner's function and compares. Whatever that function does, it ends in a
`Feedback`: an error becomes a message with the learner's line, and what is printed is cut. An endless loop is
not stopped; the learner interrupts the cell.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import math
import sysconfig
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iptkit.course.exercises.feedback import Feedback
from iptkit.storage import paths

NOT_WRITTEN = "Not written yet: replace `{}` by your answer, run that cell, then this one again."
KEEP = "Keep your prediction and read on: the point is the reason."
RTOL, ATOL = 1e-3, 1e-5  # of the largest value: wide enough for other orders of sums and number types
MAX_TEXT = 300  # characters of an error, or of what was printed, that a message shows
STDLIB = Path(sysconfig.get_path("stdlib")).resolve()


@dataclass(frozen=True)
class Case:
    """One input of a learner's function, with the right result and those of typical mistakes.

    Attributes:
      arguments: name and value of each argument, in order; the names are used in messages.
      right: what the function has to return: a number or a tensor.
      mistakes: for each typical mistake its hint, and what a function with this mistake returns.
      rtol: largest error that counts as rounding, as a share of the largest value; 0 for counts.
    """

    arguments: Mapping[str, Any]
    right: Any
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    rtol: float = RTOL


@dataclass(frozen=True)
class Outcome:
    """What happened when a learner's function ran.

    Attributes:
      value: what it returned; None if there is a problem.
      problem: why it cannot be judged, as a message to the learner; empty if it can.
      printed: the beginning of what it printed.
    """

    value: Any
    problem: str
    printed: str

    def feedback(self, is_passed: bool, message: str) -> Feedback:
        """A feedback that also shows what the learner's code printed."""
        return Feedback(
            is_passed, f"{message}\nYour code printed: {self.printed}" if self.printed else message
        )


def judge_function(
    answer: object,
    cases: Sequence[Case],
    praise: str,
    also: Callable[[Any], str] = lambda value: "",
) -> Feedback:
    """Run a learner's function on each case and compare what it returns.

    A result is right if its numbers are: of any type, as a tensor, an array, a number or a list of them, with
    or without axes of size 1.

    Args:
      answer: the function that the learner wrote.
      cases: the inputs; the hint is that of the first mistake whose result equals the answer's.
      praise: the message if all is right.
      also: called with a right result; returns a hint if something else is wrong with it, otherwise "".
    """
    outcome = Outcome(None, "", "")
    for case in cases:
        outcome = run(answer, case.arguments)
        problem = outcome.problem or _difference(outcome.value, case) or also(outcome.value)
        if problem:
            return outcome.feedback(False, problem)
    return outcome.feedback(True, praise)


def judge_step(answer: object, case: Case, praise: str, name: str) -> Feedback:
    """Judge one step of training by hand: as `judge_function`, with hints for what goes wrong with gradients.

    Args:
      answer: the function that the learner wrote; it returns the trained tensor after the step.
      case: the input.
      praise: the message if all is right.
      name: of the tensor that is trained, such as "P".
    """
    graph = (
        f"The values are right, but the new {name} still carries the graph of this step, so memory grows "
        "with every step: return `....detach()`."
    )
    cut = (
        f"The chain from {name} to the loss is cut, so {name} gets no gradient. Call `requires_grad_()` on a "
        "copy of it, use that copy, and detach nothing that is computed from it."
    )
    a_tuple = "`torch.autograd.grad` returns a tuple, even for one tensor: take its first entry, `[0]`."
    hints = {
        "does not require grad": cut,
        "not have been used": cut,
        "for scalar outputs": "A gradient is that of one number: add the losses of the runs first, `.sum()`.",
        "can't multiply sequence": a_tuple,
        "and 'tuple'": a_tuple,
        "'tuple' and": a_tuple,
        "'tuple' object": a_tuple,
    }
    feedback = judge_function(
        answer,
        [case],
        praise,
        lambda new: graph if isinstance(new, Tensor) and new.requires_grad else "",
    )
    return explained(feedback, hints)


def explained(feedback: Feedback, hints: Mapping[str, str]) -> Feedback:
    """The feedback with a hint before its message, if the message has the words of a known error.

    Args:
      feedback: what `judge_function` returned.
      hints: words of an error of Python or torch -> what to do; the first that is found counts.
    """
    found = next((hint for words, hint in hints.items() if words in feedback.message), None)
    return feedback if found is None else replace(feedback, message=f"{found} ({feedback.message})")


def judge_number(answer: object, low: float, high: float, why: str) -> Feedback:
    """Judge a prediction; the right range and the reason are shown only after an attempt.

    A prediction outside the range is not passed, and its message says that there is no need to change it.

    Args:
      answer: the learner's number; None if there is none yet.
      low: the smallest value that counts as right.
      high: the largest one.
      why: why it is so, shown after each attempt.
    """
    if answer is None or answer is ...:
        return Feedback(False, NOT_WRITTEN.format("None"))
    number = _numbers(answer, 1)
    if number is None or number.numel() != 1 or isinstance(answer, bool):
        return Feedback(False, f"The answer is {_kind(answer)}; give one number.")
    given = float(number)
    if low <= given <= high:
        return Feedback(True, why)
    side = "is no number" if given != given else "is too low" if given < low else "is too high"
    wanted = _short(low) if low == high else f"{_short(low)} to {_short(high)}"
    return Feedback(False, f"{_short(given)} {side}: right is {wanted}. {why} {KEEP}")


def near(feedback: Feedback, answer: object, hints: Mapping[float, str]) -> Feedback:
    """The feedback on a predicted number, with the hint for the typical mistake that it is near to.

    Args:
      feedback: of `judge_number`.
      answer: the learner's number.
      hints: what to say about a number within 2 % of the key.
    """
    if feedback.is_passed:
        return feedback
    number = _numbers(answer, 1)
    given = math.nan if number is None or number.numel() != 1 else float(number)
    close = [hint for value, hint in hints.items() if math.isclose(given, value, rel_tol=0.02)]
    return replace(feedback, message=" ".join([*close[:1], feedback.message]))


def judge_choice(answer: object, right: str, why: Mapping[str, str]) -> Feedback:
    """Judge a choice among options.

    Args:
      answer: the letter of the learner's option; None if there is none yet.
      right: the letter of the right option.
      why: for each letter, why it is right or wrong.
    """
    if answer is None or answer is ...:
        return Feedback(False, NOT_WRITTEN.format("None"))
    letter = answer.strip(" ().'\"").lower() if isinstance(answer, str) and len(answer) < 10 else ""
    if letter not in why:
        return Feedback(False, f"The answer is {_kind(answer)}; choose one of {', '.join(map(repr, why))}.")
    return Feedback(letter == right, why[letter])


def run(answer: object, arguments: Mapping[str, Any]) -> Outcome:
    """Call a learner's function with copies of tensors, and with modules as they are.

    Args:
      answer: the function.
      arguments: name and value of each argument, in order.
    """
    if answer is None or answer is ...:
        return Outcome(None, NOT_WRITTEN.format("None"), "")
    if not callable(answer):
        problem = (
            f"The check needs your function itself, not {_kind(answer)}: write its name without brackets."
        )
        return Outcome(None, problem, "")
    given = {
        name: value.detach().clone().requires_grad_(value.requires_grad)
        if isinstance(value, Tensor)
        else value
        for name, value in arguments.items()
    }
    before = {name: _state(value) for name, value in given.items()}
    value, problem, printed = None, "", _Beginning()
    try:
        with _settings_kept(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            value = answer(*given.values())
    except KeyboardInterrupt:
        raise
    except NotImplementedError:
        problem = NOT_WRITTEN.format("raise NotImplementedError")
    except BaseException as error:  # also SystemExit: the learner's code must not end the notebook
        problem = _told(error, tuple(arguments))
    if not problem and value is None:
        problem = "Your function returns nothing: end it with `return ...`."
    problem = problem or next(filter(None, (_altered(n, given[n], before[n]) for n in given)), "")
    return Outcome(None if problem else value, problem, printed.text())


def _difference(value: object, case: Case) -> str:
    """What is wrong with a result, as a hint; empty if it is right."""
    right = torch.as_tensor(case.right).detach().cpu().double()
    if _is_same(value, right, case.rtol):
        return ""
    for hint, result in case.mistakes.items():
        if _is_same(value, torch.as_tensor(result).detach().cpu().double(), case.rtol):
            return hint
    numbers = _numbers(value, right.numel())
    if numbers is None or _sizes(numbers.shape) != _sizes(right.shape):
        wanted = f"a tensor of shape {list(right.shape)}" if right.dim() else "one number"
        return f"Your function returns {_kind(value)}; return {wanted}."
    if not torch.isfinite(numbers).all():
        return "Your result has values that are not finite (nan or inf): look for a logarithm of 0, or 0 / 0."
    numbers, right = numbers.flatten(), right.flatten()
    worst = int((numbers - right).abs().argmax())
    where = f"the value at place {worst} of {right.numel()}" if right.numel() > 1 else "the value"
    inputs = ", ".join(f"{name}: {_kind(given)}" for name, given in case.arguments.items())
    wanted, given = _apart(float(right[worst]), float(numbers[worst]))
    told = f"{where} should be {wanted}, and yours is {given}"
    return f"Not right, and it is none of the usual mistakes. On one input ({inputs}), {told}."


def _is_same(value: object, wanted: Tensor, rtol: float) -> bool:
    """Whether a learner's result has these numbers, up to rounding and axes of size 1."""
    numbers = _numbers(value, wanted.numel())
    if numbers is None or _sizes(numbers.shape) != _sizes(wanted.shape):
        return False
    gap = (numbers.flatten() - wanted.flatten()).abs()
    return bool((gap <= ATOL + rtol * wanted.abs().max()).all())


def _numbers(value: object, count: int) -> Tensor | None:
    """A learner's result as float64 numbers; None if it is something else.

    A tensor with another number of elements than `count` keeps its shape but not its values: it may be huge.
    """
    try:
        if isinstance(value, np.ndarray | np.number):
            value = torch.as_tensor(value)
        if isinstance(value, Tensor):
            if value.is_complex() or value.layout is not torch.strided:
                return None
            if value.numel() != count:
                return torch.zeros((), dtype=torch.float64).expand(value.shape)
            return value.detach().cpu().double()
        if isinstance(value, int | float):
            return torch.tensor(float(value), dtype=torch.float64)
        if isinstance(value, list | tuple) and 0 < len(value) <= max(count, 1):
            size = count // len(value)
            parts = [
                part for one in value if (part := _numbers(one, size)) is not None and part.numel() == size
            ]
            return torch.stack(parts) if len(parts) == len(value) else None
    except Exception:  # whatever the learner's object does
        return None
    return None


def _sizes(shape: Sequence[int]) -> list[int]:
    """A shape without its axes of size 1."""
    return [size for size in shape if size != 1]


def _kind(value: object) -> str:
    """What a value is, without its content, which may be huge or fail to print."""
    if isinstance(value, Tensor | np.ndarray):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, bool | int | float) and abs(value) < 1e9:
        return f"the {type(value).__name__} {value}"
    if isinstance(value, list | tuple | str):
        return f"a {type(value).__name__} of length {len(value)}"
    if callable(value) and isinstance(value, types.FunctionType | type):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__name__}"
    return f"of type {type(value).__name__}" if value is not None else "None"


def _apart(first: float, second: float) -> tuple[str, str]:
    """Two different numbers with as many digits as it takes to see the difference, at least four."""
    if all(number.is_integer() and abs(number) < 1e15 for number in (first, second)):
        return f"{first:,.0f}", f"{second:,.0f}"
    pairs = [(f"{first:.{digits}g}", f"{second:.{digits}g}") for digits in range(4, 18)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])


def _short(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() and abs(number) < 1e12 else f"{number:.3g}"


# ---- errors --------------------------------------------------------------------------------------
def _told(error: BaseException, names: tuple[str, ...]) -> str:
    """An error of the learner's code as a message, with the line where it happened."""
    if isinstance(error, SystemExit):
        return "Your code ends the program (exit or quit); take that out."
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    what = type(error).__name__ + (f": {text[:MAX_TEXT]}" if text else "")
    own = [frame for frame in traceback.walk_tb(error.__traceback__) if _is_own(frame[0])]
    if not own:
        return f"Your function cannot be called with its arguments ({', '.join(names)}): {what}"
    frame, line = own[-1]
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    return f"Your code stops with {what} (line {line}" + (f": `{source[:MAX_TEXT]}`)" if source else ")")


def _is_own(frame: types.FrameType) -> bool:
    """Whether a frame is the learner's code: a cell or a file outside of installed packages and the kit."""
    file = Path(frame.f_code.co_filename).resolve()
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    of_others = installed or any(file.is_relative_to(place) for place in (STDLIB, paths.PACKAGE))
    return not of_others and not frame.f_code.co_filename.startswith("<frozen")


class _Beginning(io.TextIOBase):
    """A text stream that keeps the beginning of what is written to it."""

    def __init__(self) -> None:
        self._kept = ""

    def write(self, text: str) -> int:
        """Keep what fits."""
        self._kept += text[: MAX_TEXT + 1 - len(self._kept)]
        return len(text)

    def text(self) -> str:
        """The beginning, with an ellipsis if there was more."""
        return self._kept[:MAX_TEXT].strip() + ("…" if len(self._kept) > MAX_TEXT else "")


# ---- what must stay as it was ----------------------------------------------------------------------
@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """Inside this context gradients are on; after it torch's settings and random numbers are as before it."""
    dtype = torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


def _state(value: object) -> Any:
    """What a learner's function must leave alone in an argument."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, nn.Module):
        return [p.detach().clone() for p in value.parameters()]
    return None


def _altered(name: str, value: object, before: Any) -> str:
    """What a learner's function did to an argument, as a hint; empty if nothing."""
    if isinstance(value, Tensor) and not (value.shape == before.shape and torch.equal(value, before)):
        return f"Your function changes its argument `{name}` in place; make a new tensor instead."
    if isinstance(value, nn.Module):
        weights = list(value.parameters())
        same = len(weights) == len(before) and all(map(torch.equal, weights, before))
        if not same:
            return f"Your function changes the weights of `{name}`, which is frozen; change the prompt only."
        if any(p.grad is not None for p in weights):
            return (
                f"Your function leaves gradients in the weights of `{name}`, which is frozen: "
                "`loss.backward()` fills `.grad` of everything. Ask for one gradient only: "
                "`torch.autograd.grad(loss, ...)`."
            )
    return ""
