"""Prompt files: finished prompts as safetensors, whose header says what they were made for.

The tensors are the parts of a `Prompt` (engine/prompt.py), each [R, ...] with one row per run. The header, a
JSON object, names the method, the model and its fingerprint, layout, sizes, tasks, scores and versions. A
folder with a prompt file and a card (README.md) is what a model hub takes.
"""

from __future__ import annotations

import json
import os
import warnings
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
    Raises: ValueError, before anything is written, if a file that is no prompt has this name, or the header
      cannot be written as JSON.
    Warns: UserWarning if the folder has a card, or another README.md, that was not written here; it stays.
    """
    header = {"format": FORMAT, **about, "versions": versions.of_packages()}
    try:
        header = json.loads(json.dumps(header))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the header takes texts, numbers, lists and mappings only ({error})") from error
    path = paths.expanded(path)
    is_file = path.suffix == ENDING
    file = path if is_file else path / IN_FOLDER
    text = "" if is_file else card(header)  # made before anything is written
    for place in (file.parent, *file.parent.parents):
        if place.is_file():
            raise ValueError(f"{place} is a file, and a folder is needed there; choose another name")
    before = _header_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    tensor_files.write(file, dict(tensors), header)
    own = file.parent / CARD
    if not is_file and (not own.exists() or (before and own.read_bytes() == card(before).encode())):
        with files.atomic(own) as draft:
            draft.write_bytes(text.encode())
    elif not is_file:
        warnings.warn(
            f"{own} was there before and stays; delete it and save again for a new card", stacklevel=3
        )
    return file


def _header_of(file: Path) -> dict[str, Any] | None:
    """The header of the prompt that a new one replaces; None if there is none.

    Raises: ValueError if another file has that name.
    """
    if not os.path.lexists(file):
        return None
    try:
        return read(file)[1]
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{file} exists and is no prompt file, so it stays; choose another name ({error})"
        ) from error


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
    _check_tensors(path, tensors, about)
    if problem := _problem(about, tensors):
        raise ValueError(f"{path}: its header cannot be used: {problem}. Save the prompt again")
    return tensors, about


def public(about: Mapping[str, Any]) -> dict[str, Any]:
    """A header without the folders of this machine.

    Args:
      about: the header; see `write`.
    """
    data = [{**one, "source": _name(one.get("source"))} for one in about.get("data") or ()]
    return {**about, "backbone": _name(about.get("backbone")), **({"data": data} if data else {})}


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Raise ValueError unless the tensors are parts of prompts of the same runs."""
    unknown = [name for name in tensors if name not in PARTS]
    counts = {name: len(tensor) if tensor.dim() else 0 for name, tensor in tensors.items()}
    problem = ""
    if unknown or not tensors.keys() - {"lengths"}:
        problem = f"it holds {', '.join(map(messages.visible, unknown)) or 'nothing'}"
    elif len(set(counts.values())) > 1 or 0 in counts.values():
        problem = f"its parts have different numbers of runs: {counts}"
    elif bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        problem = f"{', '.join(bad)} has values that are not finite"
    elif bad := [name for name, t in tensors.items() if t.is_floating_point() == (name == "lengths")]:
        problem = f"{', '.join(bad)} has the number type {tensors[bad[0]].dtype}"
    elif "lengths" in tensors and not _are_lengths(tensors["lengths"], tensors.get("keys_values")):
        problem = "its lengths are not those of its deep prompts"
    if problem:
        raise ValueError(f"{path} does not hold prompts that can be used: {problem}. Save the prompt again")


def _are_lengths(lengths: Tensor, deep: Tensor | None) -> bool:
    if deep is None or deep.dim() != 6 or lengths.dim() != 1:
        return False
    return bool(((lengths >= 1) & (lengths <= deep.shape[4])).all())


NEEDED = ("method", "backbone", "fingerprint")
FIELDS: dict[str, tuple[type, ...]] = {  # what the fields of a header are, where they are there
    **dict.fromkeys((*NEEDED, "engine", "tuned"), (str,)),
    **dict.fromkeys(("width", "prompt_length"), (int,)),
    **dict.fromkeys(("sites", "tasks", "data"), (list,)),
    **dict.fromkeys(("training", "versions", "peft"), (dict,)),
    "layout": (str, list, type(None)),
    "scores": (list, type(None)),
    "before": (list, type(None)),
}


def _problem(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with a header, "" if nothing is."""
    runs = max(len(tensor) for tensor in tensors.values())
    for name in NEEDED:
        if not about.get(name):
            return f"it names no {name}"
    for name, kinds in FIELDS.items():
        if name in about and type(about[name]) not in kinds:
            return f"its {name} is {about[name]!r:.80}"
    data, tasks, scores = (about.get(name) or [] for name in ("data", "tasks", "scores"))
    if not all(isinstance(one, str) for one in tasks) or len(tasks) not in (0, runs):
        return f"it names the tasks {tasks!r:.80} for {runs} runs"
    if not all(isinstance(one, dict) for one in data) or len(data) not in (0, runs):
        return f"its data are {data!r:.80} for {runs} runs"
    if not all(map(_is_score, scores)) or len(scores) not in (0, runs):
        return f"its scores are {scores!r:.80} for {runs} runs"
    if not all(
        isinstance(one, list) and [type(part) for part in one] == [str, int] for one in about.get("sites", ())
    ):
        return f"its sites are {about['sites']!r:.80}"
    if not all(isinstance(part, (str, int)) for part in about.get("layout") or ()):
        return f"its layout is {about['layout']!r:.80}"
    for one in data:
        labels = one.get("labels") or []
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            return f"the labels in its data are {labels!r:.80}"
        read = one.get("read", {"train": [], "dev": []})
        if not (
            isinstance(read, dict) and all(isinstance(read.get(name), list) for name in ("train", "dev"))
        ):
            return f"the inputs in its data are {read!r:.80}"
        if "head" in tensors and labels and len(labels) > tensors["head"].shape[1]:
            return f"it names {len(labels)} labels, and its head has {tensors['head'].shape[1]} classes"
    return ""


def _is_score(score: Any) -> bool:
    numbers = (
        [score.get(name) for name in ("score", "low", "high", "examples")]
        if isinstance(score, dict)
        else [score]
    )
    return all(isinstance(number, (int, float)) for number in numbers)


def card(about: Mapping[str, Any]) -> str:
    """The text of a card (Markdown with YAML in front, as model hubs read it) from a prompt's header.

    Args:
      about: the header; see `write`.
    """
    from huggingface_hub import ModelCardData

    method, model = _cell(about.get("tuned") or about.get("method")), _cell(_name(about.get("backbone")))
    tasks = [_cell(task) for task in about.get("tasks") or ()]
    data: list[dict[str, Any]] = list(about.get("data") or ({"task": task} for task in tasks))
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
        for one, score in zip(data or [{}] * len(scores), scores, strict=True)
        for licence in [_cell(one.get("licence"))]
    ]
    table = ["| task | metric | test score (95 % interval) | data | licence |", "|---|---|---|---|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    lines = [
        f"---\n{front.to_yaml().strip()}\n---\n",
        f"# Prompt for {', '.join(tasks) or model}\n",
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
