"""The suite `crossfit`: the 120 tasks and the settings of Intrinsic Prompt Tuning (Qin et al. 2021).

`tasks.load_suite("crossfit", seed=100, only=[...])` reads the requested tasks from the model hub, or from
your own files ($IPTKIT_CROSSFIT, see sources/crossfit.py), and caches their pools. An input is
" [task name] text", as in the paper, so the model sees the name of the task. Texts are cut at about 412
tokens, answers (including those of the test set) at about 64.

Metrics, sizes of few-shot sets and splits are the paper's. Three things differ:

- The examples in a few-shot set are drawn by iptkit's rule, so a seed gives others than in CrossFit's files.
- The test set has at most 256 examples.
- If a task has choices, the answer is the likeliest option; in the paper, the model generates freely.

The recipes were written without access to the hub and never tried on it; `check` says which tasks it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iptkit.storage import paths, reading
from iptkit.tasks import suites
from iptkit.tasks.sources import crossfit as source

SEEDS = (100, 13, 21, 42, 87)  # CrossFit's; the paper trains prompts on 100 and takes "new data" from 21
STAGES = ("prompt", "msf", "ist", "fastfood")


def recipe(task_id: str) -> dict[str, Any]:
    """Return how a task is read: its name on the hub and the other fields of data/crossfit.json.

    Raises: ValueError for an unknown task.

    >>> recipe("anli")["hub"]
    'facebook/anli'
    """
    known = source.recipes()
    if task_id not in known:
        raise ValueError(f"there is no CrossFit task {task_id!r}; choose one of {', '.join(known)}")
    return dict(known[task_id])


def unsure() -> tuple[str, ...]:
    """Return the tasks whose name or fields on the hub are a guess, or that cannot be downloaded."""
    return tuple(name for name, of in source.recipes().items() if not of["sure"])


def check(only: Sequence[str] | None = None) -> dict[str, str]:
    """Load tasks one by one and return what is wrong with each, "" if it can be read.

    Args:
      only: names of tasks, None for all 120 (many GB of downloads).
    """
    problems = {}
    for name in only or source.recipes():
        try:
            suites.load_suite("crossfit", SEEDS[0], only=[name])
            problems[name] = ""
        except (ValueError, OSError) as error:
            problems[name] = str(error)
    return problems


def paper_config() -> dict[str, Any]:
    """Return the paper's settings, with their sources, for model, prompt, msf, ist and fastfood.

    >>> paper_config()["prompt"]["lr"]
    [1e-05, 2e-05, 5e-05, 0.0001]
    """
    return reading.read_json(paths.data_dir() / "papers.json")["ipt"]


def fit_fields(stage: str = "prompt", lr: float | None = None, batch: int | None = None) -> dict[str, Any]:
    """Return the fields for `training.FitConfig` that come closest to a stage of the paper.

    FitConfig has no fields for label smoothing, for dropout in the frozen model and for a loss summed over
    tokens (here it is their mean; the paper's clipping at 0.1 acts on the sum). The paper draws a batch of
    `msf` from all tasks at once; `rows_per_run` is per task.

    Args:
      stage: one of STAGES.
      lr: a learning rate of the paper's grid, None for its first.
      batch: a batch size of the paper's grid, None for its first.
    Raises: ValueError for an unknown stage, or an lr or batch that is not in the grid.

    >>> fit_fields("ist")["steps"]
    100000
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}, allowed are: {', '.join(STAGES)}")
    of = paper_config()[stage]
    for name, value in (("lr", lr), ("batch", batch)):
        if value is not None and value not in of[name]:
            raise ValueError(f"{name} is {value}, the paper's grid for {stage!r} has: {of[name]}")
    fields = {
        "steps": of["steps"],
        "rows_per_run": of["batch"][0] if batch is None else batch,
        "lr": of["lr"][0] if lr is None else lr,
        "warmup": of["warmup"],
        "evaluations": of["steps"] // of["evaluate_every"],
    }
    return {**fields, "clip": of["clip"]} if "clip" in of else fields
