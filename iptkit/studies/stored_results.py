"""Rows and trained prompts that come with the project, in data/results/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from iptkit.scores.summary import FIELDS, OF_SUBSPACE
from iptkit.storage import messages, paths, tensor_files
from iptkit.studies import provenance

PROMPTS = ".prompts.safetensors"


def load_rows(name: str | Path = "ipt120") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a stored study (data/results/NAME.jsonl), and what made them.

    Args:
      name: of the study, such as "ipt120", "lesson" or "encoder9"; or a path that ends in .jsonl, of rows of
        your own.
    Returns: the whole rows, also if the file is compact (see data/results/README.md), and their provenance.
    Raises: FileNotFoundError that says where their making is described; ValueError naming file and line of a
      row that lacks a field, or a file that `iptkit study` did not write.
    """
    is_path = str(name).endswith(".jsonl")
    path = Path(name) if is_path else paths.data_dir() / "results" / f"{name}.jsonl"
    rows, about = provenance.read_rows(path, FIELDS)
    if not any("part" in row for row in rows):  # rows of other parts than "subspace" have one, and no d_I
        lacking = [(n, [field for field in OF_SUBSPACE if field not in row]) for n, row in enumerate(rows, 1)]
        advice = "restore the file or make it again"
        messages.refuse(
            path, [f"{path}:{n}: the row lacks {', '.join(names)}; {advice}" for n, names in lacking if names]
        )
    return rows, about


def load_prompts(name: str = "ipt120") -> tuple[Tensor, dict[str, Any]]:
    """The trained prompts of a stored study (data/results/NAME.prompts.safetensors).

    An engine with another model refuses `SoftPrompt(P[0], about=about)`.

    Args:
      name: of the study.
    Returns: P [S, T, n, d], and a description: "tasks" (T ids, seen ones first), "seeds" (of the S few-shot
      samples), "command", and the model and layout (see `engine.compatibility.made_for`; older files name
      only the "backbone").
    Raises: FileNotFoundError with the way to make them; ValueError for a file that does not hold such
      prompts.
    """
    path = paths.data_dir() / "results" / f"{name}{PROMPTS}"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no prompts at {path}; `iptkit study` writes them next to its rows")
    tensors, about = tensor_files.read(path)
    trained, counts = tensors.get("P"), [len(about.get(name) or ()) for name in ("seeds", "tasks")]
    if trained is None or trained.dim() != 4 or list(trained.shape[:2]) != counts:
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(
            f"{path} holds {found} for {counts[0]} seeds and {counts[1]} tasks, not prompts P [seeds, tasks, "
            "prompt_length, width]"
        )
    if not trained.isfinite().all():
        raise ValueError(f"{path}: some of its prompts are not finite; write them again with `iptkit study`")
    return trained, about
