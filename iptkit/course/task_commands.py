"""The commands for tasks: `iptkit tasks list`, `show` and `check`."""

from __future__ import annotations

import warnings
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iptkit.course import output
from iptkit.course.options import Columns, DropDuplicates, Suite
from iptkit.course.output import Reply
from iptkit.storage import messages
from iptkit.tasks.examples import ALL_SETS, Task

if TYPE_CHECKING:
    from iptkit.tasks.own_tasks import OwnTask

SHOWN = ("id", "title", "category", "metric", "chance", "majority", "group", "source", "licence", "labels")
app = typer.Typer(no_args_is_help=True)


@app.command("list")
@output.replies
def list_tasks(
    suite: Suite = "core36", columns: Columns = "", drop_duplicates: DropDuplicates = None
) -> Reply:
    """List the tasks of a suite."""
    from iptkit.tasks import suites

    cards = suites.list_cards(suite, columns, drop_duplicates)
    width = max(len(card.id) for card in cards)
    lines = [f"{card.id:<{width}}  {card.category:<4}  {card.metric:<11}  {card.title}" for card in cards]
    return Reply(cards, "\n".join([*lines, f"{len(cards)} tasks"]))


@app.command("show")
@output.replies
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A name from `iptkit tasks list`.")],
    suite: Suite = "core36",
    examples: Annotated[int, typer.Option(min=0, help="Number of training examples to print.")] = 3,
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
) -> Reply:
    """Show a task's card, sizes and some of its examples."""
    from iptkit.tasks import suites

    (task,) = suites.load_suite(suite, only=[task_id], columns=columns, drop_duplicates=drop_duplicates)
    cards = suites.list_cards(suite, columns, drop_duplicates)
    about = next(card.about for card in cards if card.id == task.id)
    facts = {
        "title": task.title,
        "about": about,
        "category": task.category,
        "metric": f"{task.metric} (chance {task.chance:.2f}, commonest answer {task.majority:.2f})",
        "leakage group": task.group,
        "source": task.source,
        "licence": task.licence,
        "examples": _sizes(task),
    }
    lines = [task.id, *(f"  {name:<14}{value}" for name, value in facts.items())]
    for example in task.train[:examples]:
        lines += ["", *(f"  | {line}" for line in example.input.split("\n"))]
        lines.append(f"  -> {' / '.join(example.targets)}")
    value = {name: getattr(task, name) for name in SHOWN} | {"about": about, "sets": _counts(task)}
    return Reply(value | {"examples": task.train[:examples]}, "\n".join(lines))


def _counts(task: Task) -> dict[str, int]:
    return {name: len(getattr(task, name)) for name in ALL_SETS}


def _sizes(task: Task) -> str:
    return ", ".join(f"{name} {count}" for name, count in _counts(task).items())


@app.command("check")
@output.replies
def check_tasks(
    path: Annotated[Path, typer.Argument(help="A file of your own (.jsonl, .csv, ...), or a folder.")],
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
) -> Reply:
    """Check your own tasks: list problems with file and line, and how to fix them. Changes nothing."""
    from iptkit.tasks import own_tasks, suites, task_files

    how = own_tasks.How(columns, drop_duplicates)
    found = task_files.find(path)
    problems: dict[PurePath, list[str]] = {}
    near: list[str] = []
    lines: list[str] = []
    tests: dict[str, int] = {}  # examples in the test sets that the tasks have themselves
    for files in found:
        try:
            own = own_tasks.read(files, how)
            wrong = [*own.problems] or _few(own)
            if not wrong:
                tests[own.card.id] = len(own.kept.get("test", ()))
            near += own_tasks.near_lines(own) if own.near_choice != "drop" else []
        except (ValueError, FileNotFoundError) as error:  # unreadable; other files may be readable
            if len(found) == 1:
                raise
            wrong = [str(error)]
        if wrong:
            problems[files.path] = wrong
            lines += messages.first(wrong)
    value: dict[str, Any] = {"problems": {str(path): wrong for path, wrong in problems.items()}}
    if problems:
        total = sum(map(len, problems.values()))
        lines.append(f"{total} problem(s) in {len(problems)} of {len(found)} task(s); nothing was changed")
        return Reply(value, "\n".join(lines), status=1)
    if near:
        lines += [f"note: {line}" for line in messages.first(near)]
        lines.append('note: "near_duplicates": "drop" in NAME.card.json leaves them out, "keep" keeps them')
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        warnings.filterwarnings(
            "ignore", ".*case, blanks or composed letters", UserWarning
        )  # the note above says it
        loaded = suites.load_suite(path, columns=columns, drop_duplicates=drop_duplicates)  # also samples
    with warnings.catch_warnings(action="ignore"):  # they are the same
        full = suites.load_suite(path, columns=columns, drop_duplicates=drop_duplicates, full=True)
    for task, whole in zip(loaded, full, strict=True):
        kind = f"{task.category}, scored by {task.metric}"
        lines.append(f"{task.id}: fine ({kind}{', labels: ' if task.labels else ''}{', '.join(task.labels)})")
        needed = "100 per label" if task.category == "cls" else "100 examples"
        advice = f"three seeds of a study need about {needed}"
        if not task.train_new:
            advice = f"a study needs train_new too, and so about {needed} to train on"
        of_all = f" (of {tests[task.id]})" if tests[task.id] > len(task.test) else ""
        lines.append(f"  few-shot sets: {_sizes(task)}{of_all}; {advice}")
        lines.append(f"  iptkit tune: train {len(whole.train)}, dev {len(whole.dev)}, test {len(whole.test)}")
    told = [(issubclass(one.category, messages.Note), str(one.message)) for one in noted]
    lines += [f"{'note' if is_note else 'warning'}: {text}" for is_note, text in told]
    value |= {"near_duplicates": near, "warnings": [text for is_note, text in told if not is_note]}
    value["notes"] = [text for is_note, text in told if is_note]
    value["tasks"] = [
        {"id": t.id, "category": t.category, "metric": t.metric, "labels": t.labels, "sets": _counts(t)}
        for t in loaded
    ]
    return Reply(value, "\n".join(lines))


def _few(own: OwnTask) -> list[str]:
    """The problem of a task whose examples are right, but too few for its sets."""
    from iptkit.tasks import suites

    with warnings.catch_warnings(action="ignore"):
        try:
            suites.own_task(own)
        except ValueError as error:
            return [str(error)]
    return []
