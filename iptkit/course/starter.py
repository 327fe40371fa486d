"""`iptkit init`: puts the notebooks of the course and an example task into a folder of the learner's.

The notebooks are those of the student edition (see `editions`); the solutions lie in a folder beside them.
"""

from __future__ import annotations

import os
from pathlib import Path

from iptkit.course import editions, lessons
from iptkit.storage import files, outputs, paths

README = Path(__file__).resolve().parent / "templates" / "start" / "README.md"
EXAMPLE = "tiny-mood"  # of the suite `tiny`, which was written for the kit


def copy(folder: str | Path) -> list[Path]:
    """Write the course's files into a folder: README.md, example_task.jsonl, notebooks/ and solutions/.

    Files that are there already with the same content are left alone. No file is ever overwritten.

    Args:
      folder: a new folder, or one that has no other files of these names; a leading `~` is the home folder.
    Returns: the files that were written, none if all were there.
    Raises: ValueError, before anything is written, if files of these names have another content, or if
      nothing can be written there.
    """
    folder = outputs.writable_folder(folder, "iptkit init FOLDER")
    wanted = {folder / name: content for name, content in _contents().items()}
    missing = [path for path in wanted if not os.path.lexists(path)]
    others = [
        path for path, content in wanted.items() if path not in missing and not editions.holds(path, content)
    ]
    if others:
        names = ", ".join(str(path.relative_to(folder)) for path in others)
        raise ValueError(
            f"{folder} has other files of the same names ({names}); they may be your work, so nothing was "
            "changed. Name another folder, or move these files away"
        )
    for place in {path.parent for path in missing}:
        outputs.writable_folder(place, "iptkit init FOLDER")
    for path in missing:
        with files.atomic(path) as draft:
            draft.write_bytes(wanted[path])
    return missing


def _contents() -> dict[str, bytes]:
    """What each file of the learner's folder holds, by its path there."""
    example = paths.data_dir() / "tiny" / f"{EXAMPLE}.jsonl"
    found = {"README.md": README.read_bytes(), "example_task.jsonl": example.read_bytes()}
    places = {editions.STUDENT: "notebooks", editions.SOLUTIONS: "solutions"}
    for lesson in lessons.find(lessons.own_folder()):
        for path, content in editions.of_lesson(lesson)[1].items():
            edition, _, name = path.partition("/")
            if edition in places:
                found[f"{places[edition]}/{name}"] = content
    return found
