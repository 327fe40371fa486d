"""Writing files so that each is complete or absent: a draft next to its target, flushed, then renamed.

The name of a draft ends in TEMPORARY, and its process holds a lock on it. So `sweep` removes what a killed
process left behind and nothing that a living one is writing. The lock is the operating system's (flock),
which works across nodes that share a folder. On a system without it nothing is swept.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

HAS_LOCKS = sys.platform != "win32"
if sys.platform != "win32":
    import fcntl

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY = ".iptkit-tmp"
DAMAGED = ".damaged"


class DiskFullError(OSError):
    """There is no room for a file; everything that is finished is kept."""


@contextlib.contextmanager
def atomic(path: str | Path, is_flushed: bool = True) -> Iterator[Path]:
    """Yield the path of a draft that replaces `path` on success; after an error `path` is unchanged.

    Args:
      path: the file to write; its folder is created if it does not exist.
      is_flushed: make sure that the draft has reached the disk before it replaces the file. False is for
        files that nobody needs after a crash of the system.
    Raises: DiskFullError if there is no room for the file.
    """
    path = Path(path)
    with room_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as draft:
            yield draft
            if is_flushed:
                _flush(draft)
            draft.chmod(0o666 & ~_umask())
            os.replace(draft, path)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic(path) as draft:
        draft.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


@contextlib.contextmanager
def room_for(path: str | Path) -> Iterator[None]:
    """Turn an error about a full disk, raised inside, into a DiskFullError that names `path`."""
    path = Path(path)
    try:
        yield
    except Exception as error:  # safetensors raises its own error, with the system's error number in its text
        # the type, not the text alone: papermill's error quotes a notebook's traceback, which may hold it too
        is_safetensors = type(error).__name__ == "SafetensorError"
        is_full = is_safetensors and any(f"(os error {number})" in str(error) for number in NO_SPACE)
        if getattr(error, "errno", None) not in NO_SPACE and not is_full:
            raise
        raise DiskFullError(
            f"no space left for {path.name} in {path.parent}. What is finished is kept, and no file is left "
            "incomplete: free space there, or set IPTKIT_STEPS (finished steps), IPTKIT_CACHE (downloads, "
            "models, tasks) or --out (results) to a folder with room, and run the same command again"
        ) from error


@contextlib.contextmanager
def together(folder: str | Path, first: str, older: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder whose files move into `folder` once all of them are written.

    After an error `folder` is unchanged.

    Args:
      folder: where the files go; created if it does not exist.
      first: name of the file that moves first. It should describe the others.
      older: names of files in `folder` to remove if no new file of that name was written.
    Raises: DiskFullError if there is no room for one of them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with room_for(folder / first), scratch(folder, ".unfinished") as place:
        yield place
        made = sorted(place.iterdir(), key=lambda file: (file.name != first, file.name))
        for file in made:
            _flush(file)
        for name in {*older} - {file.name for file in made}:
            (folder / name).unlink(missing_ok=True)
        for file in made:
            os.replace(file, folder / file.name)


def set_aside(path: str | Path) -> Path:
    """Rename a damaged file so that a new one can take its place; returns its new path."""
    path = Path(path)
    aside = path.with_name(path.name + DAMAGED)
    with contextlib.suppress(FileNotFoundError):  # another process renamed it first
        os.replace(path, aside)
    return aside


def temporary_file(path: str | Path) -> contextlib.AbstractContextManager[Path]:
    """Create a file next to `path`, locked and removed at the end; yields its own path."""
    path = Path(path)
    prefix = f".{path.name[:100]}."

    def make() -> tuple[int, str]:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=TEMPORARY)
        if HAS_LOCKS:
            return handle, name
        os.close(handle)  # Windows neither renames nor removes an open file
        return -1, name

    return _held(make)


@contextlib.contextmanager
def scratch(folder: str | Path | None = None, name: str = "iptkit") -> Iterator[Path]:
    """Yield an empty folder that is removed at the end, or by `sweep` if its process is killed.

    Args:
      folder: the folder to create it in (default: the system's folder for temporary files).
      name: the first part of its name.
    """
    folder = None if folder is None else Path(folder)

    def make() -> tuple[int, str]:
        made = tempfile.mkdtemp(dir=folder, prefix=f"{name}-", suffix=TEMPORARY)
        return os.open(made, os.O_RDONLY) if HAS_LOCKS else -1, made

    with _held(make) as place:
        yield place


@contextlib.contextmanager
def _held(make: Callable[[], tuple[int, str]]) -> Iterator[Path]:
    """Lock a new temporary file or folder so that no other process sweeps it; remove it at the end.

    Args:
      make: creates it; returns an open handle (-1: none) and its path.
    """
    while True:
        handle, name = make()
        _lock(handle)
        temporary = Path(name)
        if temporary.exists():
            break
        os.close(handle)  # swept before it was locked
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def sweep(folders: Iterable[str | Path]) -> None:
    """Remove the drafts that killed processes of this user left in the folders (not in their subfolders)."""
    if sys.platform == "win32":
        return
    for folder in map(Path, folders):
        for left in folder.glob(f"*{TEMPORARY}"):
            is_folder = left.is_dir()
            try:
                handle = os.open(
                    left, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK
                )
            except OSError:  # already gone, or another user's
                continue
            with contextlib.suppress(OSError):  # locked: its process is alive
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_uid == os.getuid():
                    shutil.rmtree(left, ignore_errors=True) if is_folder else left.unlink(missing_ok=True)
            os.close(handle)


def _flush(file: Path) -> None:
    """Make sure that a file has reached the disk."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def _lock(handle: int) -> None:
    if sys.platform != "win32" and handle >= 0:
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
