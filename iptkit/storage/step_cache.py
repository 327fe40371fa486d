"""The cache of finished steps.

A *step* is one expensive piece of work (train all prompts, find a subspace). Its name holds a hash of
everything that determines it, its code included (see `revision`). So a changed setting or method never gets
an old result, and a course that was killed continues where it stopped. A stored step is used only if it
matches its checksum and the settings asked for; otherwise it is set aside with a warning and made again.

The code is our own because joblib.Memory and its like look at the source of one function: they miss a change
in a module that it calls.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import operator
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptkit.storage import digests, files, locks, paths, revision, tensor_files, versions

STEP_FORMAT = 3  # raise when the file of a stored step changes (3: it has a checksum)
DONE = "step.safetensors"
_ONLY_FINISHED = contextvars.ContextVar("only_finished", default=False)
_WITHOUT_WAITING = contextvars.ContextVar("without_waiting", default=False)
HITS: dict[str, bool] = {}  # step name -> was it in the cache; the stamp of a notebook counts them


class NotFinishedError(LookupError):
    """A step is not in the step cache (see `only_finished`)."""


@contextlib.contextmanager
def _inside(mark: contextvars.ContextVar[bool]) -> Iterator[None]:
    token = mark.set(True)
    try:
        yield
    finally:
        mark.reset(token)


def only_finished() -> contextlib.AbstractContextManager[None]:
    """Inside this context `step` makes nothing; a step that is not in the cache raises NotFinishedError."""
    return _inside(_ONLY_FINISHED)


def without_waiting() -> contextlib.AbstractContextManager[None]:
    """Inside this context `step` does not wait for another process that makes the same step.

    For jobs on a cluster, where the other process may belong to a job that was given up.
    """
    return _inside(_WITHOUT_WAITING)


def finished(make: Callable[[], Step]) -> Step | None:
    """The result of `make` if all its steps are in the step cache, else None."""
    with only_finished():
        try:
            return make()
        except NotFinishedError:
            return None


@dataclass
class Step:
    """A finished step.

    Attributes:
      name: the step's name, without the hash.
      tensors: its tensors by name.
      values: its JSON values by name.
      seconds: how long it took to make.
      was_cached: whether it came from the step cache.
      made_with: the versions it was made with.
      folder: name of its folder in the step cache: name and hash.
      parts: the steps that `concatenate` put together.
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

    If another process is making the step, wait and use its result (but see `without_waiting`). A stored step
    that is damaged or has other settings is set aside with a warning and made again.

    Args:
      name: the first part of the name of the step's folder; the hash follows it.
      config: everything that determines the step except the code of `make` (see `digests.digest`).
      make: called with a checkpoint path inside the step's folder; returns (tensors, JSON values). Files
        whose names end like that path are removed once the step is stored.
      root: folder of the step cache (default: paths.steps_dir()).
    Raises: NotFinishedError inside `only_finished`; what `locks.alone` raises.
    """
    code = revision.of(make)
    folder = Path(root or paths.steps_dir()) / f"{name}-{digests.digest([STEP_FORMAT, code, config])}"
    found = _found(folder, config)
    was_cached = found is not None
    if found is None and _ONLY_FINISHED.get():
        raise NotFinishedError(f"the step {name} is not in {folder.parent}")
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.nullcontext() if _WITHOUT_WAITING.get() else locks.alone(folder, f"the step {name}"):
            found = _found(folder, config, is_quiet=True)  # another process may have made it meanwhile
            was_cached = found is not None
            if found is None:
                files.set_aside(folder / DONE)
                files.sweep([folder])
                _make(folder, config, code, make)
                found = tensor_files.read(folder / DONE)  # the same tensors as a later call will read
        HITS[name] = was_cached
    tensors, about = found
    HITS.setdefault(name, True)
    made_with = about["made_with"]
    return Step(name, tensors, about["values"], about["seconds"], was_cached, made_with, folder.name)


def _found(folder: Path, config: Any, is_quiet: bool = False) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Tensors and header of a stored step; None if there is none, or it is damaged or has other settings.

    Args:
      folder: the step's folder.
      config: the settings asked for.
      is_quiet: do not warn, because an earlier call did.
    """
    try:
        tensors, about = tensor_files.read(folder / DONE, must_be_checked=True)
        if not {"values", "seconds", "config", "made_with"} <= about.keys():
            raise tensor_files.DamagedError(f"{folder / DONE} is no step: its header lacks fields")
        if digests.canonical(about["config"]) != digests.canonical(_plain(config)):
            raise tensor_files.DamagedError(
                f"{folder / DONE} was made with other settings than those asked for"
            )
    except FileNotFoundError:
        return None
    except tensor_files.DamagedError as error:
        if not is_quiet:
            advice = f"{error}. The step is made again, and the file is set aside as {DONE}"
            warnings.warn(f"{advice}{files.DAMAGED}", stacklevel=3)
        return None
    return tensors, about


def _plain(config: Any) -> Any:
    """A configuration as it looks when it is read back."""
    return json.loads(digests.canonical(config))


def _make(
    folder: Path, config: Any, code: str, make: Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """Make a step and store it in its folder."""
    begun, elapsed = time.time(), _elapsed(folder)
    tensors, values = make(folder / "checkpoint.safetensors")
    about = {"values": values, "seconds": elapsed + time.time() - begun}
    about |= {"config": _plain(config), "code": code, "made_with": dict(versions.rows())}
    tensor_files.write(folder / DONE, tensors, about)
    _remove_checkpoints(folder)


def _remove_checkpoints(folder: Path) -> None:
    for left in folder.glob("*checkpoint.safetensors*"):  # and those that were set aside
        left.unlink(missing_ok=True)


def sweep(root: str | Path | None = None) -> None:
    """Remove what killed processes left in the step cache: drafts, and checkpoints of finished steps."""
    for folder in Path(root or paths.steps_dir()).iterdir():
        files.sweep([folder])
        if (folder / DONE).exists():
            _remove_checkpoints(folder)


def concatenate(name: str, parts: Sequence[Step]) -> Step:
    """Join the parts of one piece of work, each for some of the seeds, into one step.

    A single part is returned unchanged. Tensors [S, ...] are concatenated along their first dimension,
    "losses" [steps, R] along the second. Lists in `values` are concatenated and numbers added.

    Args:
      name: name of the whole step.
      parts: one or more steps with the same tensors and values.
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


def _elapsed(folder: Path) -> float:
    """Seconds that killed processes spent on this step, up to their last checkpoint."""
    checkpoints, begun, elapsed = folder.glob("*checkpoint.safetensors"), folder / "begun", 0.0
    saved = max((file.stat().st_mtime for file in checkpoints), default=0.0)
    if saved and begun.exists():
        elapsed = max(0.0, saved - begun.stat().st_mtime)
    begun.touch()
    start = time.time() - elapsed  # shift the start so that the pause does not count
    os.utime(begun, (start, start))
    return elapsed
