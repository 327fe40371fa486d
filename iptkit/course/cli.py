"""The command line: `iptkit run`, `iptkit tasks`, `iptkit fetch`, `iptkit doctor`.

Thin wrappers of the same functions that the notebooks use; nothing heavy is imported before a command runs.
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
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

import iptkit
from iptkit.storage import installation, messages
from iptkit.tasks.examples import Task


def _say(text: str, err: bool = False) -> None:
    """Print a text; what would steer the terminal, or is not in its character set, stands as an escape."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    typer.echo(messages.visible(text).encode(encoding, "backslashreplace").decode(encoding), err=err)


@contextlib.contextmanager
def _interruptible():
    """Inside, a first Ctrl-C is a KeyboardInterrupt; a second one, also after it, ends the process at once.

    That loses nothing: files take their places whole, and what is left unfinished is swept at the next start.
    """

    def first(*_):
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(*_):
        os.write(2, b"\niptkit: stopped at once; the same command goes on from the last checkpoint\n")
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
    """Shows what a user did wrong as a message, without a traceback (IPTKIT_DEBUG=1 shows the traceback)."""

    def invoke(self, ctx):
        try:
            with _interruptible(), warnings.catch_warnings():
                warnings.showwarning = functools.partial(_warn, warnings.showwarning)
                return super().invoke(ctx)
        except (ValueError, OSError, ImportError, AttributeError) as error:
            said = _sentence(error)
            if said is None or os.environ.get("IPTKIT_DEBUG"):
                raise
            _say(f"iptkit: {said}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            _say("\niptkit: stopped; the same command goes on from the last finished step", err=True)
            raise typer.Exit(130) from None


def _warn(show, message, category, *rest) -> None:
    """A warning of ours in one line; others as Python shows them."""
    if category is UserWarning:
        _say(f"iptkit: warning: {message}", err=True)
    else:
        show(message, category, *rest)


def _sentence(error: Exception) -> str | None:
    """What an error tells a user; None for those of ours, and for a reader of our output that has gone."""
    if isinstance(error, (ImportError, AttributeError)):
        return installation.problem(error)
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno == errno.EPIPE:  # `iptkit tasks list | head`
            return None
        names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{names or 'a file'}: {error.strerror}; use another place, or change what stands in the way"
    return str(error)


app = typer.Typer(
    cls=CleanErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prompt methods on frozen language models, from words to five numbers per task.",
)
tasks_app = typer.Typer(no_args_is_help=True, help="List, show and check tasks.")
app.add_typer(tasks_app, name="tasks")

Suite = Annotated[
    str, typer.Option(help='"core36", "encoder9", "ipt120", "tiny", or a .jsonl file or folder of your own.')
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
def run(
    scale: Annotated[
        str,
        typer.Option(envvar="IPTKIT_SCALE", help="smoke (minutes), lesson (half an hour) or full (hours)."),
    ] = "lesson",
    only: Annotated[str | None, typer.Option(help="Numbers of notebooks, for example 05,06.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: runs/SCALE.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cell_timeout: Annotated[
        int, typer.Option(min=1, help="The longest that one cell may take, in seconds.")
    ] = 1800,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many notebooks run at a time, each on its share of the cores; default: 2 where that "
            "ends sooner, on two cores or more with enough memory (13 GiB of 20), else 1.",
        ),
    ] = None,
) -> None:
    """Run the notebooks and write a report; a stopped run goes on where it was."""
    from iptkit.course import pipeline

    wishes = None if only is None else only.split(",")
    if pipeline.run(scale, wishes, out, device, cell_timeout, None, at_once).error:
        raise typer.Exit(1)


@app.command()
def study(
    scale: Annotated[
        str | None,
        typer.Option(
            envvar="IPTKIT_SCALE",
            help="smoke, lesson, lesson-deep, full, ipt120 or ipt120-long; default: the suite's, or full.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File of the rows; default: in runs/, named after scale, suite and split."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    part: Annotated[
        str, typer.Option(help="subspace (prompt tuning, MSF, IST) or deep (P-Tuning v2, heads).")
    ] = "subspace",
    suite: Annotated[str | None, typer.Option(help="Other tasks than the scale's: core36, ipt120.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of the suite: random; ipt120 also random20 ... cls, non_cls, leaky, no_siblings."),
    ] = None,
    dims: Annotated[str | None, typer.Option(help="Intrinsic dimensions, for example 5,10,50.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many, counted from 0.")] = None,
    only_unseen: Annotated[
        bool, typer.Option("--only-unseen", help="MSF and IST on unseen tasks only, to compare splits.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the rows of another study in that file.")
    ] = False,
    finished_only: Annotated[
        bool, typer.Option("--finished-only", help="Measure nothing: write what is in the step cache.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the jobs on a Ray cluster: local, auto or HOST:PORT."),
    ] = None,
    job_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores for a job on the cluster; default: a whole node.")
    ] = None,
) -> None:
    """Measure a whole scale without notebooks; a stopped study goes on where it was."""
    from iptkit.course import pipeline
    from iptkit.studies import scales

    scale = scale or scales.of_suite(suite)
    named = suite if suite != scale else None
    parts = [scale, *([part] if part != "subspace" else []), *filter(None, (named, split))]
    parts += ["only-unseen"] if only_unseen else []
    target = out or Path("runs") / f"{'-'.join(parts)}.jsonl"
    changes = {"suite": suite, "split": split, "dims": _numbers(dims), "num_seeds": seeds}
    changes["only_unseen"] = only_unseen
    how = {"overwrite": overwrite, "finished_only": finished_only, "address": cluster, "job_cpus": job_cpus}
    rows = pipeline.study(scale, target, device, part, **how, **changes)
    _say(f"{rows} rows in {target}, where they come from in {target.with_suffix('.about.json')}")


def _numbers(given: str | None) -> tuple[int, ...]:
    """Numbers between commas."""
    parts = (given or "").split(",")
    if given is not None and not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--dims is {given!r}; give whole numbers with commas between them, such as 5,10,50")
    return tuple(int(part) for part in parts if part.strip())


@app.command()
def fetch() -> None:
    """Download everything, build the tasks, convert the models: all else then works without a network."""
    from iptkit.course import pipeline
    from iptkit.storage import paths

    pipeline.fetch()
    _say(f"all is in {paths.cache_dir()}")


@app.command()
def doctor() -> None:
    """Tell what is installed and cached, how fast this machine is, and what to do about what is missing."""
    from iptkit.course import doctor as examination

    table, todo = examination.examine()
    _say("\n".join(f"{name:<14}{value}" for name, value in table))
    _say("\n".join(["", "to do:", *(f"  {line}" for line in todo)]) if todo else "\nall is ready")


@tasks_app.command("list")
def list_tasks(suite: Suite = "core36") -> None:
    """List the tasks of a suite."""
    from iptkit.tasks import suites

    cards = suites.list_cards(suite)
    width = max(len(card.id) for card in cards)
    for card in cards:
        _say(f"{card.id:<{width}}  {card.category:<4}  {card.metric:<11}  {card.title}")
    _say(f"{len(cards)} tasks")


@tasks_app.command("show")
def show_task(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A name from `iptkit tasks list`.")],
    suite: Suite = "core36",
    examples: Annotated[int, typer.Option(min=0, help="How many training examples to print.")] = 3,
) -> None:
    """Show a task's card, sizes and some of its examples."""
    from iptkit.tasks import suites

    task = suites.load_task(task_id, suite=suite)
    about = next(card.about for card in suites.list_cards(suite) if card.id == task.id)
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
    path: Annotated[Path, typer.Argument(help="A .jsonl file of your own, or a folder of them.")],
) -> None:
    """Check your own tasks: the problems with file and line, and the way out. Nothing is changed."""
    from iptkit.tasks import jsonl, suites

    named = suites.jsonl_files(path)
    problems: dict[Path, list[str]] = {}
    for file in named:
        try:
            found = jsonl.check_jsonl(file)
        except (ValueError, FileNotFoundError) as error:  # it cannot be read; the others may be
            if len(named) == 1:
                raise
            found = [str(error)]
        if found:
            problems[file] = found
            _say("\n".join(messages.first(found)))
    if problems:
        total = sum(map(len, problems.values()))
        _say(f"{total} problem(s) in {len(problems)} of {len(named)} file(s); nothing was changed")
        raise typer.Exit(1)
    near = [pair for file in named for pair in jsonl.near_duplicates(file)]
    if near:
        _say("\n".join(f"note: {line}" for line in messages.first(near)))
        _say('note: "near_duplicates": "drop" in NAME.card.json leaves them out, "keep" says that they stay')
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*case, blanks or composed letters", UserWarning)  # as noted above
        loaded = suites.load_suite(path)  # sampled as well: a task may have too few examples
    for task in loaded:
        kind = f"{task.category}, scored by {task.metric}"
        _say(f"{task.id}: fine ({kind}{', labels: ' if task.labels else ''}{', '.join(task.labels)})")
        needed = "100 a label" if task.category == "cls" else "100 examples"
        _say(f"  few-shot sets: {_sizes(task)}; three seeds of a study need about {needed}")
    for warning in noted:
        _say(f"warning: {warning.message}")
