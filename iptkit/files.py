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

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """There is no room for a file; what is finished is kept."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` on success; on an error nothing changes.

    Raises: DiskFullError where there is no room for the file.
    """
    try:
        with _beside(path) as temporary:
            yield temporary
    except Exception as error:  # safetensors has an error of its own, with the system's in its text
        number = getattr(error, "errno", None)
        if number not in NO_SPACE and f"(os error {errno.ENOSPC})" not in str(error):
            raise
        raise DiskFullError(
            f"no space left for {path.name} in {path.parent}. What is finished is kept and nothing is half "
            "written: free space there, or set IPTKIT_STEPS (finished steps), IPTKIT_CACHE (downloads, "
            "models, tasks) or --out (results) to a folder with room, and run the same command again"
        ) from error


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
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, json.loads(
            (file.metadata() or {}).get("about", "{}")
        )  # noqa: SIM118


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
