"""The command line: `iptkit init`, `run`, `study`, `fetch`, `doctor` and `tasks`.

The commands call the functions that the notebooks use. Heavy packages are imported only when a command runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import iptkit
from iptkit.storage import installation, messages
from iptkit.tasks.examples import Task


def _say(text: str, err: bool = False) -> None:
    """Print a text; characters that steer the terminal, or that it cannot show, are written as escapes."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    typer.echo(messages.visible(text).encode(encoding, "backslashreplace").decode(encoding), err=err)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Inside this context a first Ctrl-C raises KeyboardInterrupt; a second one ends the process immediately.

    Nothing is lost: files are written atomically, and drafts are removed at the next start.
    """

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(*_: object) -> None:
        os.write(2, b"\niptkit: stopped immediately; the same command resumes from the last checkpoint\n")
        os._exit(130)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, first)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, second)
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is first:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class CleanErrors(TyperGroup):
    """Shows errors of the user as a message without a traceback; IPTKIT_DEBUG=1 shows the traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn the errors that a user can mend into a message and an exit status."""
        try:
            with _interruptible(), warnings.catch_warnings():
                warnings.showwarning = functools.partial(_warn, warnings.showwarning)
                return super().invoke(ctx)
        except (ValueError, OSError, ImportError, AttributeError) as error:
            sentence = _sentence(error)
            if sentence is None or os.environ.get("IPTKIT_DEBUG"):
                raise
            _say(f"iptkit: {sentence}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            _say("\niptkit: stopped; the same command resumes after the last finished step", err=True)
            raise typer.Exit(130) from None


def _warn(show: Callable[..., None], message: object, category: type[Warning], *rest: Any) -> None:
    """Show a warning of the kit in one line, others as Python does."""
    if category is UserWarning:
        _say(f"iptkit: warning: {message}", err=True)
    else:
        show(message, category, *rest)


def _sentence(error: Exception) -> str | None:
    """The message for a user; None for a bug of the kit, and if the reader of our output is gone."""
    if isinstance(error, (ImportError, AttributeError)):
        return installation.problem(error)
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.EPIPE:  # `iptkit tasks list | head`
            return None
        names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{names or 'a file'}: {error.strerror}; use another place, or remove the obstacle"
    return str(error)


app = typer.Typer(
    cls=CleanErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prompt methods on frozen language models, from words to five trained parameters per task.",
)
tasks_app = typer.Typer(no_args_is_help=True, help="List, show and check tasks.")
app.add_typer(tasks_app, name="tasks")

Suite = Annotated[
    str, typer.Option(help='"core36", "encoder9", "ipt120", "tiny", or a file or folder of your own.')
]
Columns = Annotated[
    str,
    typer.Option(
        help="Which columns of your files hold what: input=sentence,target=label (also options=...; "
        "input=premise+hypothesis joins two)."
    ),
]
DropDuplicates = Annotated[
    bool | None,
    typer.Option(
        "--drop-duplicates", help="Leave out inputs that appear again, instead of refusing the task."
    ),
]


def _version(is_wanted: bool) -> None:
    if is_wanted:
        _say(f"iptkit {iptkit.__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of `iptkit` itself."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one without files of the same names.")],
) -> None:
    """Put the notebooks of the course and an example task into a folder of yours. Overwrites nothing."""
    from iptkit.course import starter

    written = starter.copy(folder)
    _say(f"{len(written)} files written to {folder}" if written else f"{folder} has all files already")
    _say(f"next: read {folder / 'README.md'}")


@app.command()
def run(
    scale: Annotated[
        str,
        typer.Option(envvar="IPTKIT_SCALE", help="smoke (minutes), lesson (half an hour) or full (hours)."),
    ] = "lesson",
    only: Annotated[str | None, typer.Option(help="Only these notebooks, for example 05,06.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: runs/SCALE.")] = None,
    notebooks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the notebooks; default: notebooks in the current folder, else those of iptkit.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cell_timeout: Annotated[int, typer.Option(min=1, help="Time limit for one cell in seconds.")] = 1800,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many notebooks run at a time, each on its share of the cores; default: 2 if that is "
            "faster and memory suffices (20 GiB, 13 of them free), else 1.",
        ),
    ] = None,
) -> None:
    """Run the notebooks and write a report. A stopped run resumes where it was."""
    from iptkit.course import pipeline

    names = None if only is None else only.split(",")
    if pipeline.run(scale, names, out, device, cell_timeout, notebooks, at_once).error:
        raise typer.Exit(1)


@app.command()
def study(
    scale: Annotated[
        str | None,
        typer.Option(
            envvar="IPTKIT_SCALE",
            help="smoke, lesson, lesson-deep, full, ipt120 or ipt120-long; default: full, or the suite's.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the rows; default: runs/SCALE-SUITE-SPLIT.jsonl."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    part: Annotated[
        str, typer.Option(help="subspace (prompt tuning, MSF, IST) or deep (P-Tuning v2, heads).")
    ] = "subspace",
    suite: Annotated[
        str | None, typer.Option(help="Tasks to use instead of the scale's: core36 or ipt120.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="random; for ipt120 also random20 to random80, cls, non_cls, leaky or no_siblings."
        ),
    ] = None,
    dims: Annotated[str | None, typer.Option(help="Intrinsic dimensions, for example 5,10,50.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds: 0, 1, ...")] = None,
    only_unseen: Annotated[
        bool,
        typer.Option("--only-unseen", help="Measure MSF and IST on unseen tasks only, to compare splits."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the rows of another study in that file.")
    ] = False,
    finished_only: Annotated[
        bool, typer.Option("--finished-only", help="Measure nothing; write the rows of finished jobs.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the jobs on a Ray cluster: local, auto or HOST:PORT."),
    ] = None,
    job_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores per job on the cluster; default: a whole node.")
    ] = None,
) -> None:
    """Run a study without notebooks. A stopped study resumes where it was."""
    from iptkit.course import pipeline
    from iptkit.studies import scales

    scale = scale or scales.of_suite(suite)
    named = suite if suite != scale else None
    parts = [scale, *([part] if part != "subspace" else []), *filter(None, (named, split))]
    parts += ["only-unseen"] if only_unseen else []
    target = out or Path("runs") / f"{'-'.join(parts)}.jsonl"
    rows = pipeline.study(
        scale,
        target,
        device,
        part,
        overwrite=overwrite,
        finished_only=finished_only,
        address=cluster,
        job_cpus=job_cpus,
        suite=suite,
        split=split,
        dims=_whole_numbers(dims),
        num_seeds=seeds,
        only_unseen=only_unseen,
    )
    _say(f"{rows} rows in {target}, and how they were made in {target.with_suffix('.about.json')}")


def _whole_numbers(given: str | None) -> tuple[int, ...]:
    """The whole numbers in a text, separated by commas."""
    parts = (given or "").split(",")
    if given is not None and not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--dims is {given!r}; give whole numbers separated by commas, such as 5,10,50")
    return tuple(int(part) for part in parts if part.strip())


@app.command()
def fetch() -> None:
    """Download everything, build the tasks, convert the models. After that no network is needed."""
    from iptkit.course import pipeline
    from iptkit.storage import paths

    pipeline.fetch()
    _say(f"everything is in {paths.cache_dir()}")


@app.command()
def doctor() -> None:
    """Show what is installed and cached, how fast this machine is, and what to do about anything missing."""
    from iptkit.course import doctor as examination

    table, todo = examination.examine()
    _say("\n".join(f"{name:<14}{value}" for name, value in table))
    _say("\n".join(["", "to do:", *(f"  {line}" for line in todo)]) if todo else "\nall is ready")


@tasks_app.command("list")
def list_tasks(
    suite: Suite = "core36", columns: Columns = "", drop_duplicates: DropDuplicates = None
) -> None:
    """List the tasks of a suite."""
    from iptkit.tasks import suites

    cards = suites.list_cards(suite, columns, drop_duplicates)
    width = max(len(card.id) for card in cards)
    for card in cards:
        _say(f"{card.id:<{width}}  {card.category:<4}  {card.metric:<11}  {card.title}")
    _say(f"{len(cards)} tasks")


@tasks_app.command("show")
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A name from `iptkit tasks list`.")],
    suite: Suite = "core36",
    examples: Annotated[int, typer.Option(min=0, help="Number of training examples to print.")] = 3,
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
) -> None:
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
    _say("\n".join([task.id, *(f"  {name:<14}{value}" for name, value in facts.items())]))
    for example in task.train[:examples]:
        _say("\n" + "\n".join(f"  | {line}" for line in example.input.split("\n")))
        _say(f"  -> {' / '.join(example.targets)}")


def _sizes(task: Task) -> str:
    return ", ".join(f"{name} {len(getattr(task, name))}" for name in ("train", "train_new", "dev", "test"))


@tasks_app.command("check")
def check_tasks(
    path: Annotated[Path, typer.Argument(help="A file of your own (.jsonl, .csv, ...), or a folder.")],
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
) -> None:
    """Check your own tasks: list problems with file and line, and how to fix them. Changes nothing."""
    from iptkit.tasks import own_tasks, suites, task_files

    how = own_tasks.How(columns, drop_duplicates)
    found = task_files.find(path)
    problems: dict[PurePath, list[str]] = {}
    near: list[str] = []
    tests: dict[str, int] = {}  # examples in the test sets that the tasks have themselves
    for files in found:
        try:
            own = own_tasks.read(files, how)
            wrong = [*own.problems]
            if not wrong:
                tests[own.card.id] = len(own.kept.get("test", ()))
            near += own_tasks.near_lines(own) if own.near_choice != "drop" else []
        except (ValueError, FileNotFoundError) as error:  # unreadable; other files may be readable
            if len(found) == 1:
                raise
            wrong = [str(error)]
        if wrong:
            problems[files.path] = wrong
            _say("\n".join(messages.first(wrong)))
    if problems:
        total = sum(map(len, problems.values()))
        _say(f"{total} problem(s) in {len(problems)} of {len(found)} task(s); nothing was changed")
        raise typer.Exit(1)
    if near:
        _say("\n".join(f"note: {line}" for line in messages.first(near)))
        _say('note: "near_duplicates": "drop" in NAME.card.json leaves them out, "keep" keeps them')
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        warnings.filterwarnings(
            "ignore", ".*case, blanks or composed letters", UserWarning
        )  # the note above says it
        loaded = suites.load_suite(path, columns=columns, drop_duplicates=drop_duplicates)  # also samples
    for task in loaded:
        kind = f"{task.category}, scored by {task.metric}"
        _say(f"{task.id}: fine ({kind}{', labels: ' if task.labels else ''}{', '.join(task.labels)})")
        needed = "100 per label" if task.category == "cls" else "100 examples"
        advice = f"three seeds of a study need about {needed}"
        if not task.train_new:
            advice = f"a study needs train_new too, and so about {needed} to train on"
        of_all = f" (of {tests[task.id]})" if tests[task.id] > len(task.test) else ""
        _say(f"  few-shot sets: {_sizes(task)}{of_all}; {advice}")
    for warning in noted:
        _say(f"warning: {warning.message}")
