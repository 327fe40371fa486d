"""What commands print: text, with --json one JSON value, with --quiet nothing but errors and warnings.

A command returns a `Reply` and has the decorator `replies`, which adds both options and prints. A command
whose purpose is a result has the decorator `answers` in its place: with --quiet it prints the bare result.
Whatever else the command or the library prints goes to stderr with --json, and nowhere with --quiet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from iptkit.storage import messages, paths

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors and warnings only.")]
Bare = Annotated[bool, typer.Option("--quiet", help="Print the bare result, errors and warnings only.")]


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a command has to say.

    Attributes:
      value: for --json: numbers, texts, lists, mappings, dataclasses and paths.
      text: for people.
      status: exit status of the command, 1 if it found problems; then --quiet prints the text, to stderr.
      bare: the result alone, for --quiet; None if the command has the decorator `replies`.
    """

    value: Any
    text: str
    status: int = 0
    bare: str | None = None


def replies(command: Callable[..., Reply]) -> Callable[..., None]:
    """The command with the options --json and --quiet, which prints its reply.

    Args:
      command: a function that typer can make a command of.
    """
    return _with_options(command, Quiet)


def answers(command: Callable[..., Reply]) -> Callable[..., None]:
    """The same as `replies` for a command whose purpose is to print a result: --quiet leaves `Reply.bare`.

    Args:
      command: a function that typer can make a command of.
    """
    return _with_options(command, Bare)


def _with_options(command: Callable[..., Reply], quiet_option: Any) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("as_json", AsJson), ("quiet", quiet_option))
    ]

    @functools.wraps(command)
    def printing(*given: Any, as_json: bool = False, quiet: bool = False, **named: Any) -> None:
        with contextlib.ExitStack() as stack:
            if quiet:
                stack.enter_context(paths.variables(IPTKIT_QUIET="1"))
            if as_json or quiet:
                stack.enter_context(contextlib.redirect_stdout(io.StringIO() if quiet else sys.stderr))
            reply = command(*given, **named)
        if as_json:
            say(json.dumps(plain(reply.value), indent=1, allow_nan=False))
        elif reply.status or not quiet:
            say(reply.text, err=quiet)
        elif reply.bare is not None:
            say(reply.bare)
        if reply.status:
            raise typer.Exit(reply.status)

    parameters = [*signature.parameters.values(), *more]
    changed = signature.replace(parameters=parameters, return_annotation=None)
    printing.__signature__ = changed  # type: ignore[attr-defined]
    printing.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return printing


def say(text: str, err: bool = False) -> None:
    """Print a text; characters that steer the terminal, or that it cannot show, are written as escapes."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    typer.echo(messages.visible(text).encode(encoding, "backslashreplace").decode(encoding), err=err)


def note(text: str) -> None:
    """Tell people on stderr what goes on, unless the command is quiet."""
    if not os.environ.get("IPTKIT_QUIET"):
        say(text, err=True)


def plain(value: Any) -> Any:
    """A value as JSON has it: no dataclasses, paths or tuples, and null for numbers that are not finite.

    >>> plain({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns; the first row is the heading.

    >>> print(table([["task", "score"], ["sums", "0.5"]]))
    task  score
    sums  0.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
