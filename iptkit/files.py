"""Files that are whole or absent: written beside their place, flushed, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from iptkit import progress

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """There is no room for a file; what is finished is kept."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` on success; on an error nothing changes.

    Raises: DiskFullError where there is no room for the file.
    """
    with room_for(path), _beside(path) as temporary:
        yield temporary


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Name `path` where what writes it inside finds no room. Raises: DiskFullError then."""
    try:
        yield
    except Exception as error:  # safetensors has an error of its own, with the system's in its text
        of_rust = type(error).__name__ == "SafetensorError"  # not a traceback of it, as papermill's error has
        told = of_rust and any(f"(os error {number})" in str(error) for number in NO_SPACE)
        if getattr(error, "errno", None) not in NO_SPACE and not told:
            raise
        raise DiskFullError(
            f"no space left for {path.name} in {path.parent}. What is finished is kept and nothing is half "
            "written: free space there, or set IPTKIT_STEPS (finished steps), IPTKIT_CACHE (downloads, "
            "models, tasks) or --out (results) to a folder with room, and run the same command again"
        ) from error


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Inside, no other process that asks for the same folder's lock goes on; it waits, and says so.

    The lock is the system's: a process that is killed leaves none.

    Args:
      folder: holds the file `lock`.
      what: is made there, for whoever waits.
    Raises: ValueError where the folder's file system knows no locks.
    """
    lock = FileLock(folder / "lock", fallback_to_soft=False)
    try:
        with room_for(folder / "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with progress.track(f"waiting for another process that makes {what}"):
                    lock.acquire()
    except DiskFullError:
        raise
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"{folder} cannot be locked ({error}), so two processes might make {what} at once; set "
            "IPTKIT_STEPS and IPTKIT_CACHE to folders on a file system with locks, such as a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Any], about: dict[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically; `about` (JSON) goes into the header."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file(
            {k: v.detach().contiguous().clone() for k, v in tensors.items()},
            temporary,
            {"about": json.dumps(about or {})},
        )


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a file made by `write_tensors`.

    Returns: its tensors by name, and what was said about them.
    Raises: ValueError naming a file that is cut short or no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {k: file.get_tensor(k) for k in file.keys()}, about  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}); move it away or delete it and run the same command again"
        ) from error


def writable_folder(folder: Path, option: str) -> Path:
    """The folder's absolute path; it is made if it is not there.

    Args:
      option: of the command line, that names it.
    Raises: ValueError if nothing can be written there.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"cannot write to the folder {folder} ({reason}); choose another one with {option}"
        ) from error
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def canonical(config: Any) -> str:
    """The JSON text of a configuration: dataclasses, dicts, lists, numbers, strings; keys sorted."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(config, sort_keys=True, default=plain)


def digest(config: Any) -> str:
    """8 hex digits that name a configuration."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:8]
