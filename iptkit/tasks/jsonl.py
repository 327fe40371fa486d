"""Your own tasks in JSON lines files, checked as a whole before anything runs.

Each line is one object: {"input": "...", "targets": ["..."]} or {"input": "...", "target": "..."}, with
"options": ["...", "..."] if the task has choices. Blank lines are allowed. Other fields are ignored, but a
field that looks like a misspelt name is a problem. The files are never changed.

Inputs that differ only in case, blanks or composed letters are different inputs, but near duplicates: if one
is in the training set and the other in the test set, the test gets easier. The kit reports them, and with
"near_duplicates": "drop" in NAME.card.json it keeps only the first.

With "category": "tag" in NAME.card.json, the target holds one tag for every word of the input. Tags of spans
may follow any scheme of schemes.py (name it as "scheme" in NAME.card.json) and are converted to IOB2. If the
tags name no spans, the card needs "metric": "tag_accuracy".

own_tasks.py reads these files and those of other formats; here is what concerns one file.
"""

from __future__ import annotations

from pathlib import Path

from iptkit.storage import messages
from iptkit.tasks import own_tasks, sidecars
from iptkit.tasks.examples import Example
from iptkit.tasks.task_files import TaskFiles


def check_jsonl(path: str | Path, max_input: int | None = None, max_target: int | None = None) -> list[str]:
    """Return every problem of a JSONL file as "file:line: what is wrong; how to fix it".

    The list is empty if the file is fine.

    Args:
      path: the file.
      max_input: longest input allowed, in characters; None for that of the card, or 2000.
      max_target: longest answer or option allowed, in characters; None for that of the card, or 400.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read or is a folder.
    """
    return [*_read(path, max_input, max_target).problems]


def near_duplicates(path: str | Path) -> list[str]:
    """Return "file:line: ..." for each near duplicate of an earlier input (see the module's docstring).

    Lines with problems are skipped. Raises what `check_jsonl` raises.
    """
    return own_tasks.near_lines(_read(path))


def read_jsonl(
    path: str | Path, max_input: int | None = None, max_target: int | None = None
) -> list[Example]:
    """Return the examples of a JSONL file, in the order of its lines.

    Raises: ValueError with the first 20 problems if there are any; otherwise what `check_jsonl` raises.
    """
    found = _read(path, max_input, max_target)
    messages.refuse(path, found.problems)
    return list(found.sets[""].values())


def _read(path: str | Path, max_input: int | None = None, max_target: int | None = None) -> own_tasks.OwnTask:
    path = Path(path)
    files = TaskFiles(path.stem, path, sidecars.beside(path), {"": (path,)})
    limits = {"max_input": max_input, "max_target": max_target}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return own_tasks.read(files, own_tasks.How(kind="jsonl"), given)
