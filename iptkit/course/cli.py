"""The command line `iptkit`; `iptkit --help` lists its commands.

The commands call the functions that the notebooks use. Heavy packages are imported only when a command runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import iptkit
from iptkit.course import output, prompt_commands, steps_commands, task_commands
from iptkit.course.options import Device
from iptkit.course.output import Reply, say
from iptkit.storage import installation, messages, paths


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
            say(f"iptkit: {sentence}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            say("\niptkit: stopped; the same command resumes from the last checkpoint", err=True)
            raise typer.Exit(130) from None


def _warn(show: Callable[..., None], message: object, category: type[Warning], *rest: Any) -> None:
    """Show a warning of the kit in one line, others as Python does."""
    if issubclass(category, messages.Note):
        output.note(f"note: {message}")
    elif category is UserWarning:
        say(f"iptkit: warning: {message}", err=True)
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
app.add_typer(prompt_commands.app)
app.add_typer(task_commands.app, name="tasks", help="List, show and check tasks.")
app.add_typer(steps_commands.app, name="steps", help="List finished steps; take them to another machine.")


def _version(is_wanted: bool) -> None:
    if is_wanted:
        say(f"iptkit {iptkit.__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of `iptkit` itself."""


@app.command()
@output.replies
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one without files of the same names.")],
) -> Reply:
    """Put the notebooks, solutions and an example task into a folder of yours. Overwrites nothing.

    The exercises in the notebooks are without solutions; these are in a folder of their own.
    """
    from iptkit.course import starter

    written = starter.copy(folder)
    did = f"{len(written)} files written to {folder}" if written else f"{folder} has all files already"
    return Reply({"folder": folder, "written": written}, f"{did}\nnext: read {folder / 'README.md'}")


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
    device: Device = "auto",
    cell_timeout: Annotated[int, typer.Option(min=1, help="Time limit for one cell in seconds.")] = 1800,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many notebooks run at a time, each on its share of the cores; default: 2 if that is "
            "faster and memory suffices, else 1.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="First seed of the few-shot samples.")] = 0,
) -> None:
    """Run the notebooks and write their pages. A stopped run resumes where it was."""
    from iptkit.course import pipeline

    names = None if only is None else only.split(",")
    if pipeline.run(scale, names, out, device, cell_timeout, notebooks, at_once, seed).error:
        raise typer.Exit(1)


@app.command()
@output.replies
def editions(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for student/, solutions/, autograder/.")
    ],
    only: Annotated[str | None, typer.Option(help="Only these notebooks, for example 02,05.")] = None,
    notebooks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the notebooks; default: as for run.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of other content.")] = False,
) -> Reply:
    """Write the notebooks without solutions for students, the solutions, and tests for otter-grader."""
    from iptkit.course import editions as editions_of

    done = editions_of.write(out, None if only is None else only.split(","), notebooks, overwrite)
    return Reply(done, f"{done.exercises} exercises; {len(done.written)} files written to {out}")


@app.command()
@output.replies
def study(
    scale: Annotated[
        str | None,
        typer.Option(
            envvar="IPTKIT_SCALE",
            help="smoke, lesson, lesson-deep, full, ipt120 or paper; default: full, or the suite's.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the rows; default: runs/SCALE-SUITE-SPLIT.jsonl."),
    ] = None,
    device: Device = "auto",
    part: Annotated[
        str,
        typer.Option(
            help="subspace (prompt tuning, MSF, IST), deep (P-Tuning v2, heads), curves (learning curves, "
            "from which the budgets of a study are chosen) or encoders (P-Tuning v2 on many tasks)."
        ),
    ] = "subspace",
    suite: Annotated[
        str | None,
        typer.Option(help="Tasks to use instead of the scale's: core36, ipt120, crossfit or tiny."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="random; for ipt120 also random20 to random80, cls, non_cls, leaky, no_siblings, "
            "fold1 to fold6, fold1_20 to fold6_20, cls1 to cls5 or non_cls1 to non_cls3; for crossfit "
            "paper_random, paper_random20 to paper_random80, paper_cls or paper_non_cls."
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
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="For storing: what many rows have in common is written once, into the .about.json; "
            "studies.load_rows puts both together.",
        ),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run the jobs on a Ray cluster: local, auto or HOST:PORT."),
    ] = None,
    job_cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores per job on the cluster; default: a whole node.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Run nothing; say how many FLOPs and hours the jobs take.")
    ] = False,
    tflops: Annotated[
        float | None,
        typer.Option(metavar="N", help="With --estimate: also for a machine of N TFLOP/s, such as a GPU."),
    ] = None,
) -> Reply:
    """Run a study without notebooks. A stopped study resumes where it was."""
    from iptkit.course import pipeline
    from iptkit.studies import learning_curves, provenance, scales

    scale = scale or scales.of_suite(suite)
    changes: dict[str, Any] = {
        "suite": suite,
        "split": split,
        "dims": _whole_numbers(dims),
        "num_seeds": seeds,
        "only_unseen": only_unseen,
    }
    if tflops is not None and not (estimate and tflops > 0):
        raise ValueError(f"--tflops is {tflops}; give a number above 0, with --estimate")
    if estimate:
        given = {
            f"--part {part}": part != "subspace",
            "--out": out,
            "--finished-only": finished_only,
            "--cluster": cluster,
            "--job-cpus": job_cpus,
            "--overwrite": overwrite,
            "--compact": compact,
        }
        if refused := [name for name, value in given.items() if value]:
            raise ValueError(
                "--estimate is for the study 'subspace', and runs and writes nothing; leave out "
                f"{', '.join(refused)}"
            )
        return _estimated(scale, device, tflops, changes)
    named = suite if suite != scale else None
    parts = [scale, *([part] if part != "subspace" else []), *filter(None, (named, split))]
    parts += ["only-unseen"] if only_unseen else []
    target = paths.expanded(out) if out else Path("runs") / f"{'-'.join(parts)}.jsonl"
    rows = pipeline.study(
        scale,
        target,
        device,
        part,
        overwrite=overwrite,
        finished_only=finished_only,
        compact=compact,
        address=cluster,
        job_cpus=job_cpus,
        **changes,
    )
    about = target.with_suffix(".about.json")
    value = {"rows": rows, "file": target, "about": about}
    text = f"{rows} rows in {target}, and how they were made in {about}"
    if part == "curves":
        found, _ = provenance.read_rows(target)
        value |= {"chosen": learning_curves.choose(found), "relative": learning_curves.relative(found)}
        text = f"{learning_curves.table(found)}\n\n{text}"
    return Reply(value, text)


def _estimated(scale: str, device: str, tflops: float | None, changes: dict[str, Any]) -> Reply:
    """The reply of `iptkit study --estimate`."""
    from iptkit.course import estimates

    found = estimates.of_study(scale, device, **changes)
    return Reply(estimates.as_value(found, tflops), estimates.as_text(found, tflops))


def _whole_numbers(given: str | None) -> tuple[int, ...]:
    """The whole numbers in a text, separated by commas."""
    parts = (given or "").split(",")
    if given is not None and not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--dims is {given!r}; give whole numbers separated by commas, such as 5,10,50")
    return tuple(int(part) for part in parts if part.strip())


@app.command()
@output.replies
def fetch() -> Reply:
    """Download everything, build the tasks, convert the models. After that no network is needed."""
    from iptkit.course import pipeline
    from iptkit.storage import paths

    pipeline.fetch()
    cache = paths.cache_dir()
    return Reply({"cache": cache}, f"everything is in {cache}")


@app.command()
@output.replies
def doctor() -> Reply:
    """Show what is installed and cached, how fast this machine is, and what to do about anything missing."""
    from iptkit.course import doctor as examination

    table, todo = examination.examine()
    findings = [f"{name:<14}{value}" for name, value in table]
    duties = ["to do:", *(f"  {line}" for line in todo)] if todo else ["all is ready"]
    return Reply({"findings": table, "to do": todo}, "\n".join([*findings, "", *duties]))
