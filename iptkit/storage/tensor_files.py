"""Safetensors files with a checksum, so that damage is noticed when they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from iptkit.storage import files, messages, reading


class DamagedError(ValueError):
    """A file does not hold what was written into it."""


def write(path: str | Path, tensors: dict[str, Any], about: dict[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically.

    Args:
      path: the file.
      tensors: tensors by name, on any device.
      about: JSON values that go into the header, with a checksum of everything.
    """
    from safetensors.torch import save_file

    written = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    text = json.dumps(about or {})
    with files.atomic(path) as draft:
        save_file(written, draft, {"about": text, "sha256": _checksum(written, text)})


def read(
    path: str | Path,
    must_be_checked: bool = False,
    way_out: str = "move it away or delete it and run the same command again",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a file that `write` made.

    Args:
      path: the file.
      must_be_checked: treat a file without a checksum as damaged.
      way_out: what to do with a damaged file, for the error.
    Returns: the tensors by name, and `about`.
    Raises: DamagedError naming a file that is cut short, was changed after it was written, or is no
      safetensors file; FileNotFoundError; ValueError naming a Git LFS pointer or a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    reading.check_begin(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        about = json.loads(header.get("about", "{}"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error})") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({messages.visible(str(error))}); {way_out}") from error
    if "sha256" in header or must_be_checked:
        if header.get("sha256") != _checksum(tensors, header.get("about", "{}")):
            raise DamagedError(f"{path} is damaged (its contents do not match their checksum); {way_out}")
    if not isinstance(about, dict):
        raise DamagedError(f"{path} is damaged (`about` in its header is no JSON object); {way_out}")
    return tensors, about


def _checksum(tensors: dict[str, Any], about: str) -> str:
    """SHA-256 of `about` and of the names, types, shapes and bytes of CPU tensors."""
    from torch import uint8

    found = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(uint8).numpy())
    return found.hexdigest()
