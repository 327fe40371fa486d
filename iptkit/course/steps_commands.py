"""The commands for finished steps: `iptkit steps list`, `pack` and `unpack`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from iptkit.course import output
from iptkit.course.output import Reply
from iptkit.storage import paths

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@output.replies
def list_steps() -> Reply:
    """List the finished steps: name, size, seconds of work, and when each came into the step cache."""
    from iptkit.storage import step_archive

    found, folder = step_archive.stored(), paths.steps_dir()
    rows = [["step", "MB", "seconds", "date"]]
    for step in found:
        seconds = "damaged" if step.seconds is None else f"{step.seconds:.1f}"
        rows.append([step.name, _megabytes(step.bytes), seconds, step.date[:16].replace("T", " ")])
    total = f"{_count(len(found))}, {_megabytes(sum(step.bytes for step in found))} MB, in {folder}"
    text = "\n".join([output.table(rows), total]) if found else f"no finished steps in {folder}"
    return Reply({"folder": folder, "steps": found}, text)


@app.command()
@output.replies
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, NAME.tar or NAME.tar.gz.")],
    largest: Annotated[
        float | None, typer.Option(metavar="MB", help="Leave out steps above this many megabytes.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only steps of such names, such as 'prompts-*'; can be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> Reply:
    """Write the finished steps into one file, for another machine; checkpoints stay here."""
    from iptkit.storage import step_archive

    if os.path.lexists(paths.expanded(file)) and not overwrite:
        raise ValueError(f"{file} exists; choose another name, or replace it with --overwrite")
    packed = step_archive.pack(file, largest, names or ())
    lines = [f"{_count(len(packed.steps))}, {_megabytes(packed.bytes)} MB, in {packed.path}"]
    lines += [f"left out: {step_archive.told(packed.left_out)}"] if packed.left_out else []
    return Reply(packed, "\n".join(lines))


@app.command()
@output.replies
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `iptkit steps pack` wrote.")],
) -> Reply:
    """Add the finished steps of a file. It is checked first; steps that are here already stay."""
    from iptkit.storage import step_archive

    done = step_archive.unpack(file)
    lines = [f"{_count(len(done.added))}, {_megabytes(done.bytes)} MB, added to {done.folder}"]
    lines += [f"already there: {len(done.kept)}"] if done.kept else []
    return Reply(done, "\n".join(lines))


def _count(steps: int) -> str:
    return f"{steps} step" if steps == 1 else f"{steps} steps"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"
