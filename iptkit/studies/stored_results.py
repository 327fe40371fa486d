"""Rows and prompts that come with the project."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from iptkit.scores.summary import FIELDS, OF_SUBSPACE
from iptkit.storage import paths, reading, result_files, tensor_files
from iptkit.studies import provenance

PROMPTS = ".prompts.safetensors"


def stored(name: str = "core36") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows that come with the project (data/results/NAME.jsonl), and where they come from.

    Returns: the rows, and their provenance.
    Raises: FileNotFoundError with the way to make them; ValueError naming file and line of a row that lacks
      a field, or another file than `iptkit study` writes.
    """
    path = paths.data_dir() / "results" / f"{name}.jsonl"
    rows = result_files.read(path, FIELDS)
    if not any("part" in row for row in rows):  # which those of `--part deep` have
        rows = result_files.read(path, OF_SUBSPACE)
    about = reading.read_json(path.with_suffix(provenance.ENDING))
    provenance.check_files(path, about)
    return rows, about


def stored_prompts(name: str = "ipt120") -> tuple[Tensor, dict[str, Any]]:
    """Trained prompts that come with the project (data/results/NAME.prompts.safetensors).

    Returns: [S, T, n, d], and what they are of: "tasks" (T ids, seen ones first), "seeds" (S few-shot
      samples), "command", and what they were made for (see `prompts.made_for`; older files name the
      "backbone" only). `SoftPrompt(P[0], about=about)` is refused by an engine with another model.
    Raises: FileNotFoundError with the way to make them; ValueError for a file that does not hold that.
    """
    path = paths.data_dir() / "results" / f"{name}{PROMPTS}"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no prompts at {path}; `iptkit study` writes them beside its rows")
    tensors, about = tensor_files.read(path)
    trained, counts = tensors.get("P"), [len(about.get(name) or ()) for name in ("seeds", "tasks")]
    if trained is None or trained.dim() != 4 or list(trained.shape[:2]) != counts:
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(
            f"{path} holds {found} for {counts[0]} seeds and {counts[1]} tasks; prompts are P [seeds, tasks, "
            "prompt_length, width]"
        )
    if not trained.isfinite().all():
        raise ValueError(f"{path}: some of its prompts are not finite; write them again with `iptkit study`")
    return trained, about
