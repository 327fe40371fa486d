"""`iptkit editions`: notebooks without solutions for students, solutions for teachers, tests for otter.

The cells of an exercise have tags: `exercise` (the task, whose first line is its title, and the stub of the
answer), `hint`, `solution` directly behind the stub, and `check`, one call of `exercises.check_NN_K`.
docs/exercises.md explains how to write one. The tests have the OK format of otter-grader 7, which is not
needed to write them.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pprint
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iptkit.course import lessons
from iptkit.storage import files, outputs

TAGS = ("exercise", "hint", "solution", "check")
KINDS = ("write code", "predict then run", "think")
TITLE = re.compile(rf"### Exercise (\d\d\.\d+) · ({'|'.join(KINDS)}) · (\d+) minutes · (★{{1,3}})")
STUDENT, SOLUTIONS = "student", "solutions"  # folders of editions
HIDDEN_SEEDS = (1, 2)  # the visible checks have seed 0


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
      number: "02.1".
      kind: one of KINDS.
      minutes: how long it takes a learner.
      difficulty: 1 to 3.
      cells: its notebook cells.
      answer: name of the learner's answer, which the check gets; None if there is no check (free text).
    """

    number: str
    kind: str
    minutes: int
    difficulty: int
    cells: tuple[Any, ...]
    answer: str | None

    @property
    def check(self) -> str:
        """Name of the function that checks the answer: "check_02_1"."""
        return f"check_{self.number.replace('.', '_')}"


@dataclass(frozen=True)
class Editions:
    """What `write` wrote.

    Attributes:
      exercises: number of exercises in the notebooks.
      written: the files that are new or have changed.
    """

    exercises: int
    written: tuple[Path, ...]


def write(
    folder: str | Path,
    only: Iterable[str] | None = None,
    notebooks: str | Path | None = None,
    overwrite: bool = False,
) -> Editions:
    """Write the editions of the notebooks into a folder: student/, solutions/ and autograder/.

    Args:
      folder: student/ gets every notebook without solutions and without the outputs of exercises; solutions/
        the exercises with their solutions; autograder/ a zip file for `otter run` per notebook with checks.
      only: numbers or names of the lessons; None for all.
      notebooks: folder of the notebooks; None as for `lessons.find`.
      overwrite: replace files that have another content.
    Raises: ValueError, before anything is written, for a notebook whose exercises are not complete, or if
      files of other content are there already.
    """
    folder = outputs.writable_folder(folder, "--out")
    wanted: dict[Path, bytes] = {}
    count = 0
    for lesson in lessons.select(lessons.find(notebooks), only):
        found, made = of_lesson(lesson)
        count += len(found)
        wanted |= {folder / name: content for name, content in made.items()}
    changed = [path for path, content in wanted.items() if not holds(path, content)]
    others = [path for path in changed if os.path.lexists(path)]
    if others and not overwrite:
        names = ", ".join(str(path.relative_to(folder)) for path in others)
        raise ValueError(
            f"{folder} has other files of the same names ({names}), so nothing was written; name another "
            "folder, or replace them with --overwrite"
        )
    for path in changed:
        outputs.writable_folder(path.parent, "--out")
        with files.atomic(path) as draft:
            draft.write_bytes(wanted[path])
    return Editions(count, tuple(changed))


def of_lesson(lesson: lessons.Lesson) -> tuple[list[Exercise], dict[str, bytes]]:
    """The exercises of a lesson, and the files of its editions by their path below the folder of `write`.

    A lesson without exercises has a file in student/ only.

    Raises: ValueError for exercises that are not complete.
    """
    import nbformat

    notebook = nbformat.read(lesson.path, as_version=4)
    found, name = exercises_of(notebook, lesson.number), lesson.path.name
    made = {f"{STUDENT}/{name}": _student(notebook, lesson.name)}
    if found:
        made[f"{SOLUTIONS}/{name}"] = _solutions(notebook, found, lesson)
    written = {path: (nbformat.writes(edition) + "\n").encode() for path, edition in made.items()}
    if any(one.answer for one in found):
        written[f"autograder/{lesson.name}.zip"] = _autograder(found, lesson.name)
    return found, written


def exercises_of(notebook: Any, lesson: str) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Args:
      notebook: an nbformat notebook node.
      lesson: the lesson's number, "02".
    Raises: ValueError for an exercise that lacks its title, stub, hint, solution or check, or has them in
      another order, and for two answers of one name.
    """
    groups: list[list[Any]] = []
    for cell, before in zip(notebook.cells, [None, *notebook.cells], strict=False):
        if not _tags(cell):
            continue
        is_task = _tags(cell) == {"exercise"} and cell.cell_type == "markdown"
        if is_task or not groups or before is None or not _tags(before):
            groups.append([])
        groups[-1].append(cell)
    found = [_exercise(group) for group in groups]
    numbers = [one.number for one in found]
    if numbers != [f"{lesson}.{k}" for k in range(1, len(found) + 1)]:
        raise ValueError(
            f"the exercises of lesson {lesson} are {', '.join(numbers)}; number them {lesson}.1, ..."
        )
    answers = [one.answer for one in found if one.answer]
    if twice := [name for name, count in Counter(answers).items() if count > 1]:
        raise ValueError(
            f"two exercises of lesson {lesson} have an answer named {twice[0]!r}; give each a name of its "
            "own, because otter-grader checks answers after the whole notebook has run"
        )
    return found


def _exercise(cells: list[Any]) -> Exercise:
    title = cells[0].source.partition("\n")[0]
    matched = TITLE.fullmatch(title)
    if matched is None or cells[0].cell_type != "markdown":
        raise ValueError(
            f"an exercise begins with {title!r}; begin it with a text cell tagged 'exercise', whose first "
            f"line is like '### Exercise 02.1 · {KINDS[0]} · 10 minutes · ★★' (kinds: {', '.join(KINDS)})"
        )
    number, kind, minutes, stars = matched.groups()
    order = [(next(iter(_tags(cell))), cell.cell_type) for cell in cells]
    missing = [tag for tag in ("hint", "solution") if tag not in dict(order)]
    checks = [cell for cell in cells if _tags(cell) == {"check"}]
    stubs = [k for k, (tag, sort) in enumerate(order) if (tag, sort) == ("exercise", "code")]
    is_free = kind == "think" and not checks and not stubs  # free text: nothing to check
    if not is_free:
        missing += ["stub"] * (not stubs) + ["check"] * (len(checks) != 1)
        if stubs and order[stubs[0] + 1 : stubs[0] + 2] != [("solution", "code")]:
            missing.append("solution directly behind its stub")
    if missing:
        advice = (
            ". Notebooks of a student edition, such as those of `iptkit init`, have none: in a folder "
            "without notebooks, `iptkit editions` takes the whole ones of the kit"
            if "solution" in missing
            else ""
        )
        raise ValueError(
            f"exercise {number} lacks its {', '.join(missing)}; docs/exercises.md has an example" + advice
        )
    one = Exercise(number, kind, int(minutes), len(stars), tuple(cells), None)
    return one if is_free else replace(one, answer=_answer(checks[0].source, one))


def _answer(source: str, exercise: Exercise) -> str:
    """The name that a check cell passes on: "batch_loss" for `exercises.check_02_1(batch_loss)`."""
    matched = re.fullmatch(rf"exercises\.{exercise.check}\((\w+)\)", source.strip())
    if matched is None:
        raise ValueError(
            f"exercise {exercise.number} is checked by {source.strip()!r}; the cell has to be "
            f"exercises.{exercise.check}(NAME), with the name of the answer and nothing else"
        )
    return matched[1]


def _tags(cell: Any) -> set[str]:
    """The tags of a cell that belong to exercises."""
    return set(TAGS) & set(cell.metadata.get("tags", []))


def _student(notebook: Any, name: str) -> Any:
    """The notebook without solutions, and without what exercise cells print."""
    edition = copy.deepcopy(notebook)
    edition.cells = [cell for cell in edition.cells if "solution" not in _tags(cell)]
    for cell in edition.cells:
        if _tags(cell) and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.tags = [tag for tag in cell.metadata.tags if not tag.startswith("nbval")]
    edition.metadata.otter = {"assignment_name": name}  # otter run refuses the notebook of another lesson
    return edition


def _solutions(notebook: Any, found: list[Exercise], lesson: lessons.Lesson) -> Any:
    """A notebook of the exercises and solutions alone, which runs by itself."""
    import nbformat

    edition = copy.deepcopy(notebook)
    heading = nbformat.v4.new_markdown_cell(f"# Solutions of lesson {lesson.number}\n\n{lesson.question}")
    heading.id = "solutions"
    edition.cells = [heading, *(copy.deepcopy(cell) for one in found for cell in one.cells)]
    codes = (cell for cell in edition.cells if cell.cell_type == "code")
    for number, cell in enumerate(codes, 1):
        cell.metadata.pop("jupyter", None)  # a solution is folded in the lesson, and open here
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    edition.metadata.otter = {"assignment_name": lesson.name}
    return edition


def _autograder(found: list[Exercise], name: str) -> bytes:
    """A zip file for `otter run`: its settings, and one test per exercise that has a check."""
    settings = {"lang": "python", "assignment_name": name, "show_hidden": True}
    members = {"otter_config.json": json.dumps(settings, indent=1)}
    for one in found:
        if one.answer:
            test = _test(one)
            text = f"OK_FORMAT = True\n\ntest = {pprint.pformat(test, sort_dicts=False, width=110)}\n"
            members[f"tests/{test['name']}.py"] = text
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), text)  # the same bytes each time
    return file.getvalue()


def _test(exercise: Exercise) -> dict[str, Any]:
    """A test in otter's OK format: the check with seeds that the notebook does not use."""
    return {
        "name": f"q{exercise.number.replace('.', '_')}",
        "points": 1,
        "all_or_nothing": True,
        "suites": [{"type": "doctest", "cases": list(_cases(exercise))}],
    }


def _cases(exercise: Exercise) -> Iterator[dict[str, Any]]:
    for seed in HIDDEN_SEEDS:
        lines = (
            ">>> from iptkit.course import exercises",
            f">>> feedback = exercises.{exercise.check}({exercise.answer}, seed={seed})",
            '>>> print("passed" if feedback.is_passed else feedback.message)',
            "passed",
        )
        yield {"code": "\n".join(lines), "hidden": True, "name": f"{exercise.number}, seed {seed}"}


def holds(path: str | Path, content: bytes) -> bool:
    """Whether a path is a file with this content."""
    path = Path(path)
    return path.is_file() and path.read_bytes() == content
