"""Prompt files: finished prompts as safetensors, whose header says what they were made for.

The tensors are the parts of a `Prompt` (engine/prompt.py), each [R, ...] with one row per run. The header, a
JSON object, names the method, the model and its fingerprint, layout, sizes, tasks, scores and versions. A
folder with a prompt file and a card (README.md) is what a model hub takes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from iptkit.storage import files, messages, paths, reading, tensor_files, versions

ENDING = ".safetensors"
IN_FOLDER = "prompt.safetensors"  # the name of the prompt file in a folder
CARD = "README.md"
FORMAT = "iptkit prompt 1"
PARTS = ("embeds", "keys_values", "head", "lengths", "adapters")
ADAPTER = "adapter_config.json"  # of PEFT


def write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """Write a prompt file, atomically, and return its path.

    Args:
      path: a file that ends in .safetensors; any other name is a folder, which also gets a card.
      tensors: parts of a Prompt by name, each [R, ...].
      about: what the header says.
    """
    header = {"format": FORMAT, **about, "versions": versions.of_packages()}
    path = paths.expanded(path)
    if path.suffix == ENDING:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensor_files.write(path, dict(tensors), header)
        return path
    path.mkdir(parents=True, exist_ok=True)
    tensor_files.write(path / IN_FOLDER, dict(tensors), header)
    with files.atomic(path / CARD) as draft:
        draft.write_text(card(header), encoding="utf-8")
    return path / IN_FOLDER


def file_of(path: str | Path) -> Path:
    """The prompt file at `path`, which is that file or a folder with prompt.safetensors.

    Raises: FileNotFoundError that says what is there instead.
    """
    path = paths.expanded(path)
    if not path.is_dir():
        if not os.path.lexists(path):
            raise FileNotFoundError(
                f"there is no prompt file {path}; source.save and `iptkit tune` write one"
            )
        return path
    if (path / IN_FOLDER).is_file():
        return path / IN_FOLDER
    if (path / ADAPTER).is_file():
        raise FileNotFoundError(
            f"the folder {path} holds a PEFT adapter; read it with prompts.interchange.from_peft"
        )
    there = ", ".join(file.name for file in reading.listed(path, "")[:10]) or "nothing"
    raise FileNotFoundError(f"the folder {path} has no {IN_FOLDER} (found: {there}); give a prompt's folder")


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a prompt file, checked against each other.

    Args:
      path: of the file, or of its folder.
    Raises: FileNotFoundError; DamagedError for a damaged file; ValueError for a file that holds something
      else, or prompts that are not finite or of different numbers.
    """
    path = file_of(path)
    way_out = "give a file that source.save or `iptkit tune` wrote, or write this one again"
    try:
        tensors, about = tensor_files.read(path, way_out=way_out)
    except tensor_files.DamagedError as error:
        if path.suffix == ENDING:
            raise
        told = f"{path} is no prompt file; give a {ENDING} file that `iptkit tune` wrote"
        raise ValueError(told) from error
    if about.get("format") != FORMAT:
        held = ", ".join(sorted(tensors)[:5]) or "nothing"
        what = f"it says {about['format']!r}" if "format" in about else f"it holds {held}"
        raise ValueError(f"{path} is no prompt file ({what}); give a file that source.save wrote")
    unknown = [name for name in tensors if name not in PARTS]
    counts = {name: len(tensor) if tensor.dim() else 0 for name, tensor in tensors.items()}
    problem = ""
    if unknown or not tensors:
        problem = f"it holds {', '.join(map(messages.visible, unknown)) or 'nothing'}"
    elif len(set(counts.values())) > 1 or 0 in counts.values():
        problem = f"its parts have different numbers of runs: {counts}"
    elif bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        problem = f"{', '.join(bad)} has values that are not finite"
    elif not isinstance(about.get("tasks", []), list) or len(about.get("tasks", [])) not in (
        0,
        *counts.values(),
    ):
        problem = f"its header names the tasks {about['tasks']!r:.80} for {max(counts.values())} runs"
    if problem:
        raise ValueError(f"{path} does not hold prompts that can be used: {problem}. Save the prompt again")
    return tensors, about


def card(about: Mapping[str, Any]) -> str:
    """The text of a card (Markdown with YAML in front, as model hubs read it) from a prompt's header.

    Args:
      about: the header; see `write`.
    """
    from huggingface_hub import ModelCardData

    method, model = _cell(about.get("tuned") or about.get("method")), _cell(_name(about.get("backbone")))
    data: list[dict[str, Any]] = list(about.get("data") or ())
    scores = [_score_text(score) for score in about.get("scores") or ()] or ["not measured"] * len(data)
    front = ModelCardData(
        base_model=model,
        library_name="iptkit",
        tags=["prompt-tuning", method],
        license_name=", ".join(sorted({_cell(one.get("licence")) for one in data})) or None,
    )
    rows = [
        [
            *(_cell(one.get(name)) for name in ("task", "metric")),
            score,
            _cell(_name(one.get("source"))),
            licence,
        ]
        for one, score in zip(data, scores, strict=True)
        for licence in [_cell(one.get("licence"))]
    ]
    table = ["| task | metric | test score (95 % interval) | data | licence |", "|---|---|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    lines = [
        f"---\n{front.to_yaml().strip()}\n---\n",
        f"# Prompt for {', '.join(_cell(task) for task in about.get('tasks') or ()) or model}\n",
        f"A prompt for the frozen model `{model}` (fingerprint `{about.get('fingerprint')}`), by iptkit.\n",
        f"- Method: `{method}`",
        f"- Layout: `{about.get('layout')}`",
        f"- Prompt length: {about.get('prompt_length')}; width: {about.get('width')}\n",
        *([*table, ""] if rows else []),
        "```python",
        "from iptkit import open_prompt\n",
        'engine, source = open_prompt("FOLDER")  # the folder of this card',
        "```\n",
        f"Versions: {', '.join(' '.join(pair) for pair in about.get('versions', {}).items())}\n",
    ]
    return "\n".join(lines)


def _score_text(score: Any) -> str:
    if not isinstance(score, Mapping):
        return f"{float(score):.3f}"
    return f"{score['score']:.3f} [{score['low']:.3f}, {score['high']:.3f}], {score['examples']} examples"


def _name(value: Any) -> Any:
    """A path of this machine as its last part, which is all that others may know; other texts as they are."""
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value


def _cell(value: Any) -> str:
    """A value as one cell of a table."""
    return " ".join(messages.visible(str(value or "not known")).split()).replace("|", "\\|")
