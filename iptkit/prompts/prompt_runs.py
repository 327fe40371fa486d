"""Which of the prompts in a file serves which task: runs by name, labels, classes of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from iptkit.engine.prompt import PromptSource
from iptkit.prompts.saved import SavedPrompt
from iptkit.storage import digests
from iptkit.tasks import fewshot
from iptkit.tasks.examples import ALL_SETS, Example, TaggedExample, Task


def trained_on(about: Mapping[str, Any], run: int) -> Mapping[str, Any]:
    """What the header says about the task of a run: "category", "metric", "labels" and more; {} if nothing.

    Args:
      about: what the prompts were made for, see `PromptSource.about`.
      run: index of the run.
    """
    data = list(about.get("data") or ())
    return data[run] if run < len(data) else {}


def find_run(about: Mapping[str, Any], task: str | None = None) -> int:
    """The index of the run that was trained for a task.

    Args:
      about: what the prompts were made for, see `PromptSource.about`.
      task: the task's id; the index of the run, "0" for the first; or "ID:0", "ID:1", ... for the first or
        second of several runs of one task. None if there is only one run.
    Raises: ValueError that lists the tasks.

    >>> find_run({"tasks": ["mood", "kind", "mood"]}, "mood:1")
    2
    """
    known = [str(one) for one in about.get("tasks") or ()]
    if task is None and len(known) < 2:
        return 0
    names = [one if known.count(one) == 1 else f"{one}:{known[:i].count(one)}" for i, one in enumerate(known)]
    if task is None:
        raise ValueError(
            f"there are {len(names)} prompts, for {', '.join(names)}; choose one by its name or its index "
            f"from 0 to {len(names) - 1}: --task"
        )
    if known.count(task) == 1:
        return known.index(task)
    if task in names:
        return names.index(task)
    if task in known:
        several = [name for name, one in zip(names, known, strict=True) if one == task]
        raise ValueError(
            f"there are {len(several)} prompts for {task}: {', '.join(several)}; choose one: --task"
        )
    if task.isdecimal() and int(task) < max(1, len(known)):
        return int(task)
    if not names:
        raise ValueError(f"the task is {task!r}, but this file names no tasks; leave the task (--task) out")
    raise ValueError(f"there is no prompt for the task {task!r}, only for {', '.join(names)}")


def runs_for(about: Mapping[str, Any], tasks: Sequence[Task], task: str | None = None) -> list[int]:
    """The index of the run to use for each task: the run `task`, else the only one, else the one of its name.

    Args:
      about: what the prompts were made for.
      tasks: the tasks.
      task: names the run whose prompt serves all of them, as in `find_run`.
    Raises: ValueError if there is no such prompt.
    """
    if task is not None or len(about.get("tasks") or ()) < 2:
        return [find_run(about, task)] * len(tasks)
    return [find_run(about, one.id) for one in tasks]


def difference(about: Mapping[str, Any], run: int, task: Task) -> str:
    """How a task differs from the one that a run was trained for, "" if it does not.

    Args:
      about: what the prompts were made for.
      run: index of the run.
      task: the task to use it for.
    """
    known = list(about.get("tasks") or ())
    trained = trained_on(about, run)
    labels = trained.get("labels") or ()
    if known and known[run] != task.id:
        return f"the prompt was trained for the task {known[run]}, and is scored on {task.id}"
    if labels and task.labels and set(labels) != set(task.labels):
        return (
            f"the prompt of {task.id} was trained with the labels {', '.join(labels)}, the file has "
            f"{', '.join(task.labels)}"
        )
    return ""


def with_classes_of(about: Mapping[str, Any], run: int, task: Task) -> Task:
    """The task with its classes numbered as the head of a run numbers them; unchanged without a head.

    Args:
      about: what the prompts were made for.
      run: index of the run.
      task: the task to use it for.
    Raises: ValueError if the head has no such class.
    """
    labels = tuple(trained_on(about, run).get("labels") or ())
    if about.get("engine") != "HeadEngine" or not labels or task.labels == labels:
        return task
    unknown = sorted(set(task.labels) - set(labels))
    if unknown or (task.category != "tag" and set(task.labels) != set(labels)):
        of_task = f"the labels {', '.join(task.labels)}" if task.labels else "free answers"
        raise ValueError(
            f"task {task.id} has {of_task}, but the head of this prompt chooses "
            f"from {', '.join(labels)}; give a file with these labels"
        )
    sets: dict[str, Any] = {
        name: tuple(_relabelled(e, labels) for e in getattr(task, name)) for name in ALL_SETS
    }
    return replace(task, labels=labels, **sets)


def _relabelled(example: Example, labels: tuple[str, ...]) -> Example:
    return replace(example, labels=labels) if isinstance(example, TaggedExample) else example


def all_as_test(task: Task, read: Sequence[Example] = ()) -> Task:
    """The task with all its examples in its test set, and the chance of a random choice among them.

    Args:
      task: loaded with full=True.
      read: all examples of its file; those that are in no set of the task, as in a large file, are added.
    """
    every = dict.fromkeys((*task.train, *task.dev, *task.test))
    there = {example.input for example in every}
    for example in fewshot.merge(read, key=str):
        if example.input not in there:
            is_tagged = task.category == "tag"
            kept = (
                TaggedExample(example.input, example.targets[:1], (), task.labels) if is_tagged else example
            )
            every[kept] = None
    chance = sum(1 / len(example.options) for example in every if example.options) / len(every)
    return replace(task, test=tuple(every), chance=chance)


def read_in_training(task: Task) -> dict[str, list[str]]:
    """Digests of the inputs that `tune` reads of a task, for the header of its prompt.

    Returns: "train" and "dev", each with 8 hex digits for every input.
    """
    sets = {"train": task.train, "dev": task.dev}
    return {name: [digests.digest(example.input) for example in of] for name, of in sets.items()}


def seen_in_training(about: Mapping[str, Any], run: int, task: Task, split: str) -> str:
    """A warning that a run was trained on examples that it is scored on, "" if it was not.

    The header of a prompt that `tune` made tells the inputs of its training (`read_in_training`). Of another
    prompt, only the task's name and the set tell.

    Args:
      about: what the prompts were made for.
      run: index of the run.
      task: the task to score it on, loaded with the seed ("sample") of the training.
      split: the set to score it on, or "all".
    """
    trained = trained_on(about, run)
    if read := trained.get("read"):
        scored = task.test if split == "all" else getattr(task, split)
        known = {*read["train"], *(read["dev"] if split != "dev" else ())}
        count = sum(digests.digest(example.input) in known for example in scored)
        what = f"{count} of the {len(scored)} examples in {split} of {task.id} were read in the training"
    else:
        name, examples = trained.get("set", "train"), trained.get("examples") or 0
        is_larger = name == "train" and examples > len(task.train)  # of all examples, not of a few-shot set
        is_same = [*(about.get("tasks") or ()), None][run] == task.id
        count = int(is_same and (split in ("all", name) or (is_larger and split == "train_new")))
        what = f"the prompt was trained on examples that are in {split} of {task.id}"
    way = "score it on other texts" if split == "test" else "--split test does"
    return f"{what}, so this score says little about new texts; {way}" if count else ""


def chosen(source: PromptSource, runs: Sequence[int]) -> SavedPrompt:
    """The prompts of some runs, one row for each.

    Args:
      source: prompts.
      runs: R indices of its runs.
    """
    prompt = source.finished()
    index = torch.tensor(runs, device=next(iter(prompt.tensors().values())).device)
    return SavedPrompt(prompt.rows(index), source.about, tuple(source.sites))
