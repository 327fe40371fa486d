"""Which of the prompts in a file serves which task: runs by name, labels, classes of a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from iptkit.engine.prompt import PromptSource
from iptkit.prompts.saved import SavedPrompt
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
      task: the task's id; None if there is only one run.
    Raises: ValueError that lists the tasks.
    """
    known = [str(one) for one in about.get("tasks") or ()]
    if task is None and len(known) < 2:
        return 0
    if task is None:
        raise ValueError(f"there are prompts for {len(known)} tasks: {', '.join(known)}; choose one: --task")
    if task not in known:
        raise ValueError(f"there is no prompt for the task {task!r}, only for {', '.join(known) or 'one'}")
    return known.index(task)


def runs_for(about: Mapping[str, Any], tasks: Sequence[Task], task: str | None = None) -> list[int]:
    """The index of the run to use for each task: the run `task`, else the only one, else the one of its name.

    Args:
      about: what the prompts were made for.
      tasks: the tasks.
      task: id of the task whose prompt serves all of them.
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


def all_as_test(task: Task) -> Task:
    """The task with the examples of all its sets in its test set.

    Args:
      task: loaded with full=True, so that no example is left out.
    """
    every = dict.fromkeys((*task.train, *task.dev, *task.test))
    return replace(task, test=tuple(every))


def chosen(source: PromptSource, runs: Sequence[int]) -> SavedPrompt:
    """The prompts of some runs, one row for each.

    Args:
      source: prompts.
      runs: R indices of its runs.
    """
    prompt = source.finished()
    index = torch.tensor(runs, device=next(iter(prompt.tensors().values())).device)
    return SavedPrompt(prompt.rows(index), source.about, tuple(source.sites))
