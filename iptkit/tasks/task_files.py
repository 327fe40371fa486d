"""Finds out which files of a user's path are tasks.

a file              one task (.jsonl, .csv, .tsv, .parquet, .conll), drawn into sets
a task folder       train, dev and test files of one task, which keep their sets; also `save_to_disk` folders
a folder of tasks   one file per task; PREFIX_train.csv, PREFIX_dev.csv and so on belong together
a folder of folders one task folder per task

A folder is a task folder if its card has "files", or if it has a file named train and one named dev or test
(or with another name of NAMES). Endings may be in upper case. Hidden files are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TypeVar

from iptkit.storage import messages, reading
from iptkit.storage.paths import expanded
from iptkit.tasks import record_files, sidecars
from iptkit.tasks.record_files import ENDINGS, SAVED

NAMES = {  # of files, and of the splits of data sets
    "train": "train",
    "dev32": "dev",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}
STEM = re.compile(
    rf"(?:(?P<prefix>.+)[-_. ])?(?P<name>{'|'.join(NAMES)})(?P<shard>-\d{{5}}-of-\d{{5}})?", re.IGNORECASE
)
SAVED_DICT = "dataset_dict.json"
T = TypeVar("T")
SPREADSHEETS = (".xlsx", ".xls", ".ods")
ENDINGS_TEXT = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


@dataclass(frozen=True)
class TaskFiles:
    """The files of one task.

    Attributes:
      id: the task's name, unless its card has another.
      path: the file or folder that a message names.
      card: the path of its card file, which need not exist.
      parts: the files by the name of their split (one of NAMES, in its order); "" for a task in one file.
      notes: what was left out.
    """

    id: str
    path: PurePath
    card: PurePath
    parts: Mapping[str, tuple[Path, ...]]
    notes: tuple[str, ...] = field(default=())


def find(path: str | Path, files: Mapping[str, str] | None = None) -> list[TaskFiles]:
    """Return the tasks of a file or a folder, in the order of their names.

    Args:
      path: the file or folder.
      files: names of the files of each split, in the folder `path`; None for those of its card, or the
        usual ones.
    Raises: FileNotFoundError if a folder has no tasks or a file is missing; ValueError for a folder that
      cannot be read, two files of one split, or a file with another ending.
    """
    path = expanded(path)
    if not os.path.isdir(path):
        card = sidecars.beside(path)
        if path.suffix.lower() in SPREADSHEETS:
            raise ValueError(f'{path} is a spreadsheet; save it as a .csv file (in Excel as "CSV UTF-8")')
        if path.suffix.lower() not in ENDINGS and "format" not in sidecars.read(card).settings:
            raise ValueError(
                f"{path} does not end in {ENDINGS_TEXT}; rename it if it has one JSON object per line "
                "(.jsonl), columns separated by commas (.csv) or tabs (.tsv), or one word per line (.conll), "
                f"or name its format in {card.name}"
            )
        return [TaskFiles(path.stem, path, card, {"": (path,)})]
    found = _of_folder(path, files)
    if found:
        return [found]
    singles = _singles(path)
    if singles:
        return singles
    folders = [Path(entry) for entry in reading.listed(path, "") if os.path.isdir(entry)]
    tasks = [task for folder in folders if (task := _of_folder(folder, None))]
    if len(tasks) == 1 and tasks[0].path.name == "data":  # a data set downloaded from the model hub
        return [replace(tasks[0], id=path.absolute().name)]
    if tasks:
        return tasks
    others = ", ".join(file.name for file in reading.listed(path, "")[:10]) or "nothing"
    raise FileNotFoundError(
        f"the folder {path} has no task (found: {messages.visible(others)}); put one {ENDINGS_TEXT} file per "
        "task there, or the files train, dev and test of one task"
    )


def role_of(split: str) -> str:
    """Return "train", "dev" or "test" for the name of a split; "" for another name."""
    return NAMES.get(split.lower(), "")


def _of_folder(folder: Path, files: Mapping[str, str] | None) -> TaskFiles | None:
    """Return the task of a task folder, or None if it is none."""
    card = sidecars.of_folder(folder)
    if not files:
        files = sidecars.read(card).settings.get("files")
        _check_plain(card, files or {})
    name = folder.absolute().name
    if files:
        return TaskFiles(name, folder, card, _named(folder, files, card))
    if os.path.lexists(folder / SAVED_DICT):
        return TaskFiles(name, folder, card, *_saved(folder, card))
    if os.path.lexists(folder / SAVED):
        return TaskFiles(name, folder, card, {"": (folder,)})
    grouped = _grouped(_task_files(folder))
    if "" not in grouped:
        return None
    parts = _parts(folder, grouped[""])
    rest = [file.name for file in _task_files(folder) if file not in grouped[""]]
    return TaskFiles(name, folder, card, parts, _not_read(rest, _on_card(card)))


def _singles(folder: Path) -> list[TaskFiles]:
    """Return the tasks of a folder with one file per task, or with PREFIX_train, PREFIX_test and so on.

    If there are JSON lines, files of other formats are left out. A note says how a file named train becomes
    the training set of the others.
    """
    files = _task_files(folder)
    lines = [file for file in files if file.suffix.lower() == ".jsonl"]
    rest = [file for file in files if file not in lines] if lines else []
    notes = _not_read([file.name for file in rest], "beside .jsonl files no others are read")
    files = lines or files
    grouped = _grouped(files)
    of = {file: prefix for prefix, group in grouped.items() for file in group}
    tasks: dict[str, TaskFiles] = {}
    for file in files:
        prefix = of.get(file)
        if prefix is None:
            found = STEM.fullmatch(file.stem)
            if found and not found["prefix"] and role_of(found["name"]) == "train" and len(files) > 1:
                way = _on_card(sidecars.of_folder(folder))
                notes += (f"no file is named dev or test, so {file.name} is a task of its own ({way})",)
            tasks[str(file)] = TaskFiles(file.stem, file, sidecars.beside(file), {"": (file,)}, notes)
        else:
            card = folder / f"{prefix}.card.json"
            parts = _parts(folder, grouped[prefix])
            tasks[f"{prefix}/"] = TaskFiles(prefix, folder / prefix, card, parts, notes)
        notes = ()  # say it once
    return list(tasks.values())


def _task_files(folder: Path) -> list[Path]:
    """Return the files of a folder that end like tasks."""
    return [file for file in reading.listed(folder, "") if file.suffix.lower() in ENDINGS]


def _grouped(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files of each prefix that has a training file and another one."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        if found := STEM.fullmatch(file.stem):
            groups.setdefault(found["prefix"] or "", []).append(file)
    return {
        prefix: group
        for prefix, group in groups.items()
        if len(_roles(group)) > 1 and "train" in _roles(group)
    }


def _roles(files: Iterable[Path]) -> set[str]:
    return {role_of(found["name"]) for file in files if (found := STEM.fullmatch(file.stem))}


def _parts(folder: Path, files: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each split; several only if they are the shards of one."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        found = STEM.fullmatch(file.stem)
        parts.setdefault(found["name"].lower() if found else "", []).append(file)
    for group in parts.values():
        shards = [found["shard"] for file in group if (found := STEM.fullmatch(file.stem))]
        if len(group) > 1 and not all(shards):
            raise ValueError(
                f"{folder} has {' and '.join(file.name for file in group)} for the same split; keep "
                "one of them"
            )
    return {name: tuple(parts[name]) for name in NAMES if name in parts}


def _check_plain(card: Path, files: Mapping[str, str]) -> None:
    """Raise ValueError unless a card, which may be a stranger's, names files of the task's folder only."""
    for name in files.values():
        if not record_files.is_plain(name):
            raise ValueError(
                f"{card}: files names {name!r:.80}; a card names files of the task's folder, without a path: "
                "move the file there, or give its path in Python: load_suite(FOLDER, files={...})"
            )


def _named(folder: Path, files: Mapping[str, str], card: Path) -> dict[str, tuple[Path, ...]]:
    if unknown := [name for name in files if name not in sidecars.SPLITS]:
        raise ValueError(
            f"{folder}: files name the split {unknown[0]!r:.80}; allowed are: {', '.join(sidecars.SPLITS)}"
        )
    if "train" not in files:
        raise ValueError(f"{folder}: files name no train file; give it ({card.name}, or files=)")
    return {name: (folder / files[name],) for name in sidecars.SPLITS if name in files}


def _not_read(names: Sequence[str], way: str) -> tuple[str, ...]:
    """Return a note on the files or splits that are left out, if any, with the way to use them."""
    return (f"{messages.visible(', '.join(messages.first(names)))} not read ({way})",) if names else ()


def _on_card(card: Path) -> str:
    return f'to use others, name them in {card.name}: {{"files": {{"train": "...", "test": "..."}}}}'


def _saved(folder: Path, card: Path) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """Return the splits of a saved `DatasetDict`, and a note on those with other names."""
    splits = reading.read_json(folder / SAVED_DICT).get("splits")
    if not isinstance(splits, list) or not all(map(record_files.is_plain, splits)):
        raise ValueError(f"{folder / SAVED_DICT}: splits is not a list of names; save the data set again")
    return chosen(splits, lambda split: (folder / split,), str(folder), _on_card(card))


def chosen(
    splits: Iterable[str], of: Callable[[str], T], where: str, way: str
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Return the splits that have a role, by name, and a note on the others.

    Args:
      splits: their names.
      of: what is returned for a name.
      where: they are from, for errors.
      way: to use the others, for the note.
    Raises: ValueError if none is a training set.
    """
    splits = list(splits)
    by_name = {split.lower(): split for split in splits}
    if "train" not in map(role_of, splits):
        if len(splits) == 1:
            return {"": of(splits[0])}, ()
        found = messages.visible(", ".join(messages.first(splits))) or "none"
        raise ValueError(f"{where} has no split named train (found: {found}); rename one")
    rest = [split for split in splits if not role_of(split)]
    return {name: of(by_name[name]) for name in NAMES if name in by_name}, _not_read(rest, way)
