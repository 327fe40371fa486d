"""Result rows without repetition: what many rows have in common is written once, beside them.

    rows -> pack -> shorter rows, and the fields they share -> unpack -> the same rows

The shared fields are three JSON values:

EVERY    {field: value}          fields that have one value in all rows
TASK     {task: {field: value}}  fields that have one value in all rows of a task, for all tasks
TOGETHER [{field: value}, ...]   per combination of TOGETHER_BY: its fields, and what its rows have in common
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iptkit.scores.summary import FIELDS
from iptkit.storage import result_files

Row = dict[str, Any]
TOGETHER_BY = ("method", "split", "d_I", "seed", "fold")  # rows that were trained together agree in them
EVERY, TASK = "every row", "every row of a task"
TOGETHER = "every row of a method, split, d_I, seed and fold"
SHARED = (EVERY, TASK, TOGETHER)
ADVICE = "; restore the file or make it again"


def pack(rows: Sequence[Row]) -> tuple[list[Row], dict[str, Any]]:
    """Rows without the fields they share, and these fields; `unpack` puts both together again.

    The fields of `scores.summary.FIELDS` stay in the rows, and so do lists, objects, NaN and infinity.

    Args:
      rows: any, as long as JSON can hold them.
    Returns: one shorter row per row, in the same order, and the shared fields: those of SHARED that are not
      empty.

    Example:
      >>> made = {"seed": 0, "method": "IST", "device": "cpu"}
      >>> short, shared = pack([{"task": name, "score": 0.5, **made} for name in "ab"])
      >>> short[1], shared
      ({'task': 'b', 'score': 0.5, 'seed': 0, 'method': 'IST'}, {'every row': {'device': 'cpu'}})
    """
    every = _alike(rows)
    tasks = _of_tasks(rows, every)
    moved = {*every, *next(iter(tasks.values()), {})}
    cells = _of_cells(rows, moved)
    short = [
        {name: value for name, value in row.items() if name not in moved and name not in cell}
        for row, cell in ((row, cells.get(_key(row), {}).keys() - {*TOGETHER_BY}) for row in rows)
    ]
    found = {EVERY: every, TASK: tasks, TOGETHER: [*cells.values()]}
    return short, {name: value for name, value in found.items() if value}


def unpack(rows: Iterable[Row], shared: Mapping[str, Any], path: str | Path) -> list[Row]:
    """The whole rows that `pack` made shorter.

    Args:
      rows: shorter ones, each with its "task"; or whole ones, if nothing is shared.
      shared: the fields they share, such as the provenance beside the rows; other names are ignored.
      path: of the file with the shared fields, for errors.
    Raises: ValueError naming what is wrong with the shared fields, or a task that they lack.
    """
    every, tasks, cells = shared.get(EVERY, {}), shared.get(TASK, {}), shared.get(TOGETHER, [])
    _check(path, EVERY, [every])
    _check(path, TASK, tasks.values() if isinstance(tasks, dict) else [tasks])
    if not isinstance(cells, list):
        raise ValueError(f"{path}: {TOGETHER!r} holds {cells!r:.80}, a list of objects is needed{ADVICE}")
    _check(path, TOGETHER, cells)
    together = {_key(cell): cell for cell in cells}
    whole = []
    for row in rows:
        if tasks and row["task"] not in tasks:
            raise ValueError(f"{path}: {TASK!r} lacks the task {row['task']!r}{ADVICE}")
        row = {**every, **tasks.get(row["task"], {}), **row} if every or tasks else row
        whole.append({**together.get(_key(row), {}), **row} if together else row)
    return whole


def _of_tasks(rows: Sequence[Row], every: Row) -> dict[str, Row]:
    """For each task the fields that its rows share, only those that the rows of every task share."""
    if not all(isinstance(row.get("task"), str) for row in rows):
        return {}
    found = {task: _alike(mine) for task, mine in _groups(rows, lambda row: row["task"])}
    of_first = [name for name in next(iter(found.values()), {}) if name not in every]
    names = [name for name in of_first if all(name in fields for fields in found.values())]
    return {task: _only(fields, names) for task, fields in found.items()} if names else {}


def _of_cells(rows: Sequence[Row], moved: Collection[str]) -> dict[str, Row]:
    """For each combination of TOGETHER_BY that two or more rows have, by its key, what else they share."""
    cells = {}
    for key, mine in _groups(rows, _key):
        same = _only(mine[0], TOGETHER_BY)
        fields = _alike(mine) if len(mine) > 1 and all(map(_is_plain, same.values())) else {}
        if more := [name for name in fields if name not in moved and name not in TOGETHER_BY]:
            cells[key] = same | _only(fields, more)
    return cells


def _check(path: str | Path, name: str, tables: Iterable[Any]) -> None:
    """Raise ValueError unless all tables are objects whose values have the types of `result_files.KINDS`."""
    for table in tables:
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name!r} holds {table!r:.80}, an object is needed{ADVICE}")
        for field in table.keys() & result_files.KINDS.keys():
            (kind, wanted), value = result_files.KINDS[field], table[field]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{path}: {name!r} has {field} {value!r:.80}, {wanted} is needed{ADVICE}")


def _alike(rows: Sequence[Row]) -> Row:
    """The fields that all rows have, with one value of a kind that every JSON file can hold."""
    if not rows:
        return {}
    first, *others = rows
    names = [name for name, value in first.items() if name not in FIELDS and _is_plain(value)]
    return {
        name: first[name]
        for name in names
        if all(name in row and _is_same(row[name], first[name]) for row in others)
    }


def _is_plain(value: Any) -> bool:
    return type(value) in (str, int, bool, type(None)) or type(value) is float and math.isfinite(value)


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are one JSON text: 1, 1.0 and true are three, and so are 0.0 and -0.0."""
    return type(one) is type(other) and repr(one) == repr(other)


def _groups(rows: Iterable[Row], key: Callable[[Row], str]) -> Iterable[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found.items()


def _key(row: Row) -> str:
    """The text of the fields of TOGETHER_BY that a row has."""
    return json.dumps(_only(row, TOGETHER_BY))


def _only(row: Row, names: Iterable[str]) -> Row:
    return {name: row[name] for name in names if name in row}
