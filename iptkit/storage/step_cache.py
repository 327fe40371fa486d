"""Results and finished steps on disk: JSON lines and safetensors, written whole or not at all.

A *step* is one expensive piece of work (train all prompts, find a subspace). It is named by a hash of
everything that determines it, its code included (see `revision`), so a changed setting or method never meets
an old result, and a course that was killed goes on where it was. What is stored is believed only if it fits
its checksum and is of the settings asked for; else it is set aside with a warning and made again.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import operator
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptkit.storage import files, paths, revision
from iptkit.storage.files import digest
from iptkit.storage.versions import rows

STEP_FORMAT = 3  # raise when the file of a stored step changes (3: it has a checksum)
DONE = "step.safetensors"
KINDS: dict[str, tuple[Any, str]] = {  # of what readers calculate with and group by, where a row has it
    **dict.fromkeys(("task", "group", "method", "split"), (str, "a text")),
    **dict.fromkeys(("d_I", "seed", "n_test"), (int, "a whole number")),
    "chance": (int | float, "a number"),
    "score": (int | float | None, "a number or null"),
}
_ONLY_FINISHED = contextvars.ContextVar("only_finished", default=False)
_BESIDE = contextvars.ContextVar("beside", default=False)
HITS: dict[str, bool] = {}  # step name -> was it in the cache (read by stamp)


class NotFinishedError(LookupError):
    """A step is not in the step cache, see `only_finished`."""


@contextlib.contextmanager
def _inside(mark: contextvars.ContextVar[bool]) -> Iterator[None]:
    token = mark.set(True)
    try:
        yield
    finally:
        mark.reset(token)


def only_finished() -> contextlib.AbstractContextManager[None]:
    """Inside, `step` makes nothing: what is not in the step cache is a NotFinishedError."""
    return _inside(_ONLY_FINISHED)


def beside_others() -> contextlib.AbstractContextManager[None]:
    """Inside, `step` waits for no other process that makes the same step: that one may be given up."""
    return _inside(_BESIDE)


def finished(make: Callable[[], Step]) -> Step | None:
    """What `make` finds in the step cache, or None where something of it is not there."""
    with only_finished():
        try:
            return make()
        except NotFinishedError:
            return None


@dataclass
class Step:
    """A finished step: `tensors`, JSON `values`, `seconds` and versions (`made_with`) of when it was made.

    `folder`: its place in the step cache, which names it with its hash. `parts`: of a joined one.
    """

    name: str
    tensors: dict[str, Any]
    values: dict[str, Any]
    seconds: float
    was_cached: bool
    made_with: dict[str, str]
    folder: str
    parts: tuple[Step, ...] = ()


def step(
    name: str,
    config: Any,
    make: Callable[[Path], tuple[dict[str, Any], dict[str, Any]]],
    root: str | Path | None = None,
) -> Step:
    """Return the finished step `name` for `config`, making it first if it is not in the step cache.

    Args:
      name: of the step's folder, before the hash.
      config: all that determines the step beside the code of `make` (see `digest`).
      make: called with a checkpoint path inside the step's folder; returns (tensors, JSON values). Files
        whose names end like it are removed when these are stored.
      root: step cache (default: paths.steps_dir()).
    A step that another process is making is waited for (but see `beside_others`), then taken as it is. A
    stored step that is damaged or of other settings is set aside with a warning and made again.
    Raises: NotFinishedError inside `only_finished`; what `files.alone` raises.
    """
    code = revision.of(make)
    folder = Path(root or paths.steps_dir()) / f"{name}-{digest([STEP_FORMAT, code, config])}"
    found = _found(folder, config)
    was_cached = found is not None
    if found is None and _ONLY_FINISHED.get():
        raise NotFinishedError(f"the step {name} is not in {folder.parent}")
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.nullcontext() if _BESIDE.get() else files.alone(folder, f"the step {name}"):
            found = _found(folder, config, is_told=True)  # another process may have made it meanwhile
            was_cached = found is not None
            if found is None:
                files.set_aside(folder / DONE)
                files.sweep([folder])
                _make(folder, config, code, make)
                found = files.read_tensors(folder / DONE)  # it looks exactly as it will the next time
        HITS[name] = was_cached
    tensors, about = found
    HITS.setdefault(name, True)
    made_with = about["made_with"]
    return Step(name, tensors, about["values"], about["seconds"], was_cached, made_with, folder.name)


def _found(folder: Path, config: Any, is_told: bool = False) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tensors of a stored step and what is said of them; None if it is not there or not to be believed.

    Args:
      is_told: do not warn, as that was done.
    """
    try:
        tensors, about = files.read_tensors(folder / DONE, must_be_checked=True)
        if not {"values", "seconds", "config", "made_with"} <= about.keys():
            raise files.DamagedError(f"{folder / DONE} is no step: it does not say what it is of")
        if files.canonical(about["config"]) != files.canonical(_plain(config)):
            raise files.DamagedError(f"{folder / DONE} is a step of other settings than those asked for")
    except FileNotFoundError:
        return None
    except files.DamagedError as error:
        if not is_told:
            told = f"{error}. It is not used: the step is made again, and the file set aside as {DONE}"
            warnings.warn(f"{told}{files.DAMAGED}", stacklevel=3)
        return None
    return tensors, about


def _plain(config: Any) -> Any:
    """A configuration as it looks after it was stored."""
    return json.loads(files.canonical(config))


def _make(
    folder: Path, config: Any, code: str, make: Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """Make a step and store it in its folder."""
    begun, elapsed = time.time(), _elapsed(folder)
    tensors, values = make(folder / "checkpoint.safetensors")
    about = {"values": values, "seconds": elapsed + time.time() - begun}
    about |= {"config": _plain(config), "code": code, "made_with": dict(rows())}
    files.write_tensors(folder / DONE, tensors, about)
    _remove_checkpoints(folder)


def _remove_checkpoints(folder: Path) -> None:
    for left in folder.glob("*checkpoint.safetensors*"):  # with those that were set aside
        left.unlink(missing_ok=True)


def sweep(root: str | Path | None = None) -> None:
    """Remove what killed processes left in the step cache: unfinished files, finished steps' checkpoints."""
    for folder in Path(root or paths.steps_dir()).iterdir():
        files.sweep([folder])
        if (folder / DONE).exists():
            _remove_checkpoints(folder)


def joined(name: str, parts: Sequence[Step]) -> Step:
    """Parts of one piece of work, each for some of the seeds, as one step; the only part as it is.

    Tensors [S, ...] are joined along their first dimension, "losses" [steps, R] along the second; lists of
    `values` one after the other, of numbers the sum.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    from torch import cat

    tensors = {k: cat([part.tensors[k] for part in parts], int(k == "losses")) for k in first.tensors}
    values = {k: functools.reduce(operator.add, (part.values[k] for part in parts)) for k in first.values}
    was_cached = all(part.was_cached for part in parts)
    seconds = sum(part.seconds for part in parts)
    made_with = parts[-1].made_with
    return Step(name, tensors, values, seconds, was_cached, made_with, first.folder, tuple(parts))


def forget(root: str | Path | None = None) -> None:
    """Remove the whole step cache (never the downloads)."""
    shutil.rmtree(root or paths.steps_dir(), ignore_errors=True)


def write_results(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write result rows as JSON lines, atomically."""
    with files.atomic(path) as temporary:
        temporary.write_text(as_lines(rows), encoding="utf-8")


def as_lines(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def read_results(path: str | Path, fields: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read rows written by `write_results`.

    Args:
      fields: what every row must have.
    Raises: FileNotFoundError with the way to make them; ValueError naming file and line of a broken row, or
      of one that lacks a field.
    """
    path = Path(path)
    found = files.read_json_lines(path, "make it with the command named in data/results/README.md", nan=True)
    lacking = [(number, [name for name in fields if name not in row]) for number, row in found]
    told = "; restore the file or make it again"
    problems = [f"{path}:{n}: the row lacks {', '.join(names)}{told}" for n, names in lacking if names]
    problems += [
        f"{path}:{number}: {name} is {row[name]!r:.80}, {wanted} is needed{told}"
        for number, row in found
        for name, (kinds, wanted) in KINDS.items()
        if name in row and not _is_one_of(kinds, row[name])
    ]
    files.refuse(path, problems)
    return [row for _, row in found]


def _is_one_of(kinds: Any, value: Any) -> bool:
    """Is it of these types, and as a number one that a float can hold?"""
    is_huge = isinstance(value, int) and abs(value) > 2**53
    return isinstance(value, kinds) and not isinstance(value, bool) and not is_huge


def _elapsed(folder: Path) -> float:
    """Seconds spent on this step by processes that were killed (up to their last checkpoint)."""
    checkpoints, begun, elapsed = folder.glob("*checkpoint.safetensors"), folder / "begun", 0.0
    saved = max((file.stat().st_mtime for file in checkpoints), default=0.0)
    if saved and begun.exists():
        elapsed = max(0.0, saved - begun.stat().st_mtime)
    begun.touch()
    start = time.time() - elapsed  # as if they had worked until now: the time between does not count
    os.utime(begun, (start, start))
    return elapsed
