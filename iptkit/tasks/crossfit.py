"""Suite `crossfit`: the 120 tasks and the settings of Intrinsic Prompt Tuning (Qin et al. 2021).

`tasks.load_suite("crossfit", seed=100, only=[...])` reads the tasks asked for from the model hub, or from
your own files ($IPTKIT_CROSSFIT, see sources/crossfit.py), and keeps their pools. An input is
" [task name] text", as in the paper, so the model is told the task; a text is cut at about 412 tokens, an
answer (also those of the test set) at about 64.

Metrics, sizes of few-shot sets and splits are the paper's. Not the paper's are the examples in a few-shot set
(drawn by iptkit's rule, so a seed gives others than in CrossFit's files), the test set (256 examples of it at
most), and choices: the likeliest option is the answer, where the paper lets the model write freely.

Nothing here was tried on the hub, which was out of reach: `check` tells which tasks can be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iptkit.storage import paths, reading
from iptkit.tasks import suites
from iptkit.tasks.sources import crossfit as source

SEEDS = (100, 13, 21, 42, 87)  # CrossFit's; prompts were trained on 100, "new data" is 21
STAGES = ("prompt", "msf", "ist", "fastfood")


def recipe(task_id: str) -> dict[str, Any]:
    """How a task is read: its name on the hub and the fields of data/crossfit.json.

    Raises: ValueError for an unknown task.

    >>> recipe("anli")["hub"]
    'facebook/anli'
    """
    known = source.recipes()
    if task_id not in known:
        raise ValueError(f"CrossFit's task {task_id!r} is unknown; there are: {', '.join(known)}")
    return dict(known[task_id])


def unsure() -> tuple[str, ...]:
    """Tasks whose name or fields on the hub are a guess, or that cannot be downloaded."""
    return tuple(name for name, of in source.recipes().items() if not of["sure"])


def check(only: Sequence[str] | None = None) -> dict[str, str]:
    """Load tasks one by one: "" for those that can be had, else what is wrong.

    Args:
      only: names of tasks, None for all 120 (many GB of downloads).
    """
    told = {}
    for name in only or source.recipes():
        try:
            suites.load_suite("crossfit", SEEDS[0], only=[name])
            told[name] = ""
        except (ValueError, OSError) as error:
            told[name] = str(error)
    return told


def paper_config() -> dict[str, Any]:
    """The paper's settings, with their sources: model, prompt, msf, ist and fastfood.

    >>> paper_config()["prompt"]["lr"]
    [1e-05, 2e-05, 5e-05, 0.0001]
    """
    return reading.read_json(paths.data_dir() / "papers.json")["ipt"]


def fit_fields(stage: str = "prompt", lr: float | None = None, batch: int | None = None) -> dict[str, Any]:
    """Fields for train.FitConfig that come nearest to a stage of the paper.

    What FitConfig has no field for is not there: label smoothing, dropout of the frozen model and a loss that
    is summed over tokens (here its mean; the paper's clipping at 0.1 acts on the sum). `msf` draws its batch
    from all tasks at once, `rows_per_run` is per task.

    Args:
      stage: one of STAGES.
      lr, batch: one of the grid's, None for its first.
    Raises: ValueError for an unknown stage, or an lr or batch that is not in the grid.

    >>> fit_fields("ist")["steps"]
    100000
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}, allowed are: {', '.join(STAGES)}")
    of = paper_config()[stage]
    for name, value in (("lr", lr), ("batch", batch)):
        if value is not None and value not in of[name]:
            raise ValueError(f"{name} is {value}, the paper's grid of {stage!r} has: {of[name]}")
    fields = {
        "steps": of["steps"],
        "rows_per_run": of["batch"][0] if batch is None else batch,
        "lr": of["lr"][0] if lr is None else lr,
        "warmup": of["warmup"],
        "evaluations": of["steps"] // of["evaluate_every"],
    }
    return {**fields, "clip": of["clip"]} if "clip" in of else fields
