"""Locks between processes: one that waits for its turn, one that refuses to.

The locks are the operating system's, so a process that is killed leaves none behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from iptkit.storage import files, progress


@contextlib.contextmanager
def alone(folder: str | Path, what: str) -> Iterator[None]:
    """Hold a folder's lock; if another process holds it, wait for that process and show that we wait.

    Args:
      folder: the folder to lock, by the file `lock` in it.
      what: what is made there, for the message of a process that waits.
    Raises: ValueError if the folder's file system has no locks.
    """
    folder = Path(folder)
    lock = FileLock(folder / "lock", fallback_to_soft=False)
    try:
        with files.room_for(folder / "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with progress.track(f"waiting for another process that makes {what}"):
                    lock.acquire()
    except files.DiskFullError:
        raise
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"{folder} cannot be locked ({error}), so two processes might make {what} at the same time; set "
            "IPTKIT_STEPS and IPTKIT_CACHE to folders on a file system with locks, such as a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def one_writer(path: str | Path, way_out: str) -> Iterator[None]:
    """Keep other processes that ask for the same path out; on a file system without locks, keep nobody out.

    Args:
      path: the file that is going to be written.
      way_out: what to do instead, for the error message of a process that is kept out.
    Raises: ValueError if another process holds the path.
    """
    path = Path(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    is_held = False
    try:
        lock.acquire(timeout=0)
        is_held = True
    except Timeout:
        raise ValueError(f"another process is writing {path}. Nothing was changed: {way_out}") from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if is_held:
            with contextlib.suppress(
                PermissionError
            ):  # Windows removes no open file; `release` does it there
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
