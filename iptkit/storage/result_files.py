"""Files of result rows: one JSON object per line, written atomically and checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from iptkit.storage import files, messages, reading

KINDS: dict[str, tuple[type | UnionType, str]] = {  # of the fields that readers calculate with or group by
    **dict.fromkeys(("task", "group", "method", "split"), (str, "a text")),
    **dict.fromkeys(("d_I", "seed", "n_test"), (int, "a whole number")),
    "chance": (int | float, "a number"),
    "score": (int | float | None, "a number or null"),
}


def write(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write result rows as JSON lines, atomically."""
    with files.atomic(path) as draft:
        draft.write_text(as_lines(rows), encoding="utf-8")


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    """The text of a file of these rows: one JSON object per line, with sorted keys."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def read(path: str | Path, fields: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read rows that `write` wrote.

    Args:
      path: the file.
      fields: the fields that every row must have.
    Raises: FileNotFoundError saying how to make the file; ValueError naming file and line of a row that is
      broken, lacks a field, or has a field of another type than `KINDS` says.
    """
    path = Path(path)
    found = reading.read_json_lines(
        path, "make it with the command named in data/results/README.md", nan=True
    )
    lacking = [(number, [name for name in fields if name not in row]) for number, row in found]
    advice = "; restore the file or make it again"
    problems = [f"{path}:{n}: the row lacks {', '.join(names)}{advice}" for n, names in lacking if names]
    problems += [
        f"{path}:{number}: {name} is {row[name]!r:.80}, {wanted} is needed{advice}"
        for number, row in found
        for name, (kind, wanted) in KINDS.items()
        if name in row and not _is_of(kind, row[name])
    ]
    messages.refuse(path, problems)
    return [row for _, row in found]


def _is_of(kind: type | UnionType, value: Any) -> bool:
    """Whether a value has this type and, if it is an integer, a float can hold it exactly."""
    is_huge = isinstance(value, int) and abs(value) > 2**53
    return isinstance(value, kind) and not isinstance(value, bool) and not is_huge
