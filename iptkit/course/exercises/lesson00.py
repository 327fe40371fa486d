"""Checks of the exercises of lesson 00, the words of the course."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from iptkit.course.exercises.answers import Case, judge_choice, judge_function, run
from iptkit.course.exercises.feedback import Feedback


class Beside(nn.Module):
    """A small model whose output layer is its embedding table, and a prompt P [n, d] beside it.

    Args:
      vocabulary: V, rows of the embedding table.
      width: d.
      prompt_length: n.
      is_frozen: only P trains; otherwise only the model does.
    """

    def __init__(self, vocabulary: int, width: int, prompt_length: int, is_frozen: bool):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.layer = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.table.weight
        self.requires_grad_(not is_frozen)
        self.P = nn.Parameter(torch.zeros(prompt_length, width), requires_grad=is_frozen)


def check_00_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that counts the trainable parameters of a module.

    Args:
      answer: num_trainable(module) -> a number.
      seed: chooses the sizes.
    """
    v, d, n = 50 + seed, 8, 5 + seed
    model, prompt, tied = v * d + d * d + d, n * d, v * d
    frozen = "You count frozen parameters, too. A parameter trains only if its `requires_grad` is True."
    twice = "The embedding table and the output layer are one matrix: count it once. `state_dict()` lists it "
    tensors = "You count the tensors; add up how many numbers each holds: `p.numel()`."
    beside_frozen = {
        frozen: model + prompt,
        f"{frozen} Nor may one matrix count twice.": model + prompt + tied,
        tensors: 1,
        "You count the vectors of the prompt; each has d numbers.": n,
        "These are bytes; count numbers.": 4 * prompt,
        "You count what is frozen; count what trains.": model,
        "Nothing trains by your count. Tensors of `state_dict()` never have `requires_grad`.": 0,
    }
    whole = {
        twice + "under both names, `parameters()` once.": model + tied,
        "Here the model trains and the prompt does not; `requires_grad` says so.": model + prompt,
        tensors: 3,
        "You count the prompt, but here only the model trains.": prompt,
        "You left out the embedding table, which is also the output layer.": model - tied,
    }
    cases = [
        Case({"module": Beside(v, d, n, is_frozen=True)}, prompt, beside_frozen, rtol=0),
        Case({"module": Beside(v, d, n, is_frozen=False)}, model, whole, rtol=0),
    ]
    praise = "A prompt beside a frozen model is n · d numbers; fine-tuning counts the shared matrix once."
    return judge_function(answer, cases, praise)


def check_00_2(answer: object, seed: int = 0) -> Feedback:
    """Check a function that splits tasks into seen and unseen ones by whole leakage groups.

    Args:
      answer: split(group_of, num_unseen, seed) -> (seen, unseen), lists of tasks.
      seed: draws the groups.
    """
    drawn, group_of = random.Random(seed), {}
    for group in ("birds", "coins", "films", "rivers", "songs", "towns"):
        for i in range(drawn.randint(1, 3) if group != "coins" else 3):
            group_of[f"{group}-{i}"] = group
    tasks = list(group_of)
    drawn.shuffle(tasks)
    group_of = {task: group_of[task] for task in tasks}
    num_unseen, found, turned = 2, [], dict(reversed(group_of.items()))
    for order, draw in ((order, draw) for order in (group_of, turned) for draw in range(8)):
        given = {task: _Name(name, order is turned) for task, name in order.items()}
        arguments: dict[str, Any] = {"group_of": dict(given), "num_unseen": num_unseen, "seed": draw}
        outcome = run(answer, arguments)
        problem = outcome.problem or _problem_of_split(outcome.value, group_of, num_unseen)
        if not problem and list(arguments["group_of"].items()) != list(given.items()):
            problem = "Your function changes its argument `group_of`; make new lists instead."
        if problem:
            return outcome.feedback(False, problem)
        found.append(frozenset(outcome.value[1]))
    if found[:8] != found[8:]:
        problem = (
            "The same seed gives two splits. Draw with `random.Random(seed)`, and from a sorted list: the "
            "order of a set or of the tasks is not always the same."
        )
    elif len(set(found)) == 1:
        problem = "Every seed gives the same split: draw the groups with `random.Random(seed)`."
    return outcome.feedback(
        not problem,
        problem or "Siblings stay together, so nothing that training saw comes back in an unseen task.",
    )


class _Name(str):
    """A group's name whose place in a set is another one if `is_other`, as in another run of Python."""

    _hash: int

    def __new__(cls, text: str, is_other: bool) -> _Name:
        name = super().__new__(cls, text)
        name._hash = hash((text, is_other))
        return name

    def __hash__(self) -> int:
        return self._hash


def _problem_of_split(value: Any, group_of: dict[str, str], num_unseen: int) -> str:
    """What is wrong with a learner's split, as a hint; empty if it is right."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    if not is_pair or not all(map(_is_names, value)):
        return "Return two lists of task names: `return seen, unseen`."
    seen, unseen = (list(map(str, side)) for side in value)
    if {*seen, *unseen} & set(group_of.values()):
        return "These are the names of groups; return the tasks of these groups."
    if unknown := {*seen, *unseen} - group_of.keys():
        return f"There is no task {min(unknown)[:40]!r}; return keys of `group_of`."
    if len({*seen, *unseen}) < len(seen) + len(unseen):
        return "A task is listed twice; each task is on one side, once."
    sides = [{group_of[task] for task in side} for side in (seen, unseen)]
    if torn := sides[0] & sides[1]:
        return (
            f"The group {min(torn)!r} is on both sides, so an unseen task has a sibling that was seen. Draw "
            "groups, not tasks."
        )
    if len(seen) + len(unseen) < len(group_of):
        return f"You lose tasks: {len(group_of)} are given, and {len(seen) + len(unseen)} are on a side."
    if len(sides[1]) != num_unseen and len(sides[0]) == num_unseen:
        return "The sides are swapped: return (seen, unseen)."
    if len(sides[1]) != num_unseen:
        return f"Groups that are unseen: {len(sides[1])}; `num_unseen` asks for {num_unseen}."
    return ""


def _is_names(side: object) -> bool:
    if not isinstance(side, list | tuple | set | frozenset) or len(side) > 1000:
        return False
    return all(isinstance(name, str) for name in side)


def check_00_3(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: which score may be reported for a wording that was chosen among three.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "Here the test examples chose the wording. It won partly by luck with these very examples, "
            "and on new ones the luck is gone.",
            "b": "Dev chose, and the test examples were asked once, afterwards. So they are as new to this "
            "wording as those of any user.",
            "c": "This wording won on dev, partly by luck with the dev examples, so its score there is too "
            "high. The test examples did not choose, so ask them.",
            "d": "The mean is fair for a wording that is drawn blindly, but you do not draw: you choose on "
            "dev, and this choice has a test score of its own.",
        },
    )
