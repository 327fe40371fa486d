"""Tasks of BIG-bench (Srivastava et al. 2022), read from its source archive in one pass.

Every file has a canary, a text that reveals copies in training corpora; it is stored with each pool. The
instructions, prefixes and descriptions in the files are ignored, because the cards have their own wording.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from iptkit.storage import archives
from iptkit.tasks.sources.bigbench_tasks import TASKS
from iptkit.tasks.sources.records import Reader

VERSION = 1
PACKAGE = "bigbench"
FOLDER = "bigbench/benchmark_tasks/"


def rows(task_id: str) -> Iterator[dict]:
    """Yield the rows of one of the tasks of `TASKS`; this reads the whole archive up to the task's file."""
    for _, found, _ in stream([task_id]):
        yield from found


def stream(
    task_ids: Collection[str], tasks: Mapping[str, tuple[str, Reader]] = TASKS
) -> Iterator[tuple[str, Iterable[dict], dict[str, str]]]:
    """Yield tasks with their rows and {"canary": ...}, in the order of the archive.

    The archive is read once for all tasks, with one file at a time in memory. `tasks` has the file and the
    reader of each task.
    Raises: what `archives.stream` raises; ValueError for a file that has no canary or is not JSON.
    """
    by_file = defaultdict(list)
    for task_id in task_ids:
        file, reader = tasks[task_id]
        by_file[FOLDER + file].append((task_id, reader))
    for name, raw in archives.stream(PACKAGE, by_file):
        data, canary = _parse(name, raw)
        for task_id, reader in by_file[name]:
            yield task_id, reader(data), {"canary": canary}


def _parse(name: str, raw: bytes) -> tuple[dict, str]:
    """Return the content and the canary of a .json file or, as {"examples": lines}, of a .jsonl file."""
    lines = raw.decode("utf-8").split("\n")  # splitlines() would also cut texts at other characters
    comments = [line.strip("# \r") for line in lines if line.startswith("#")]
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    try:
        if name.endswith(".jsonl"):
            data: Any = {"examples": [json.loads(line) for line in body]}
        else:
            data = json.loads("\n".join(body))
            data = data if isinstance(data, dict) else {"examples": data}
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{PACKAGE}: {name} is not JSON ({error}); replace the archive by the pinned version"
        ) from error
    canary = data.get("canary") or next((line for line in comments if "canary" in line.lower()), "")
    if not canary:
        raise ValueError(
            f"{PACKAGE}: {name} has no canary, so it is not read; replace the archive by the pinned version"
        )
    return data, canary
