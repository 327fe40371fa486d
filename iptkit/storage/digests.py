"""Short names for configurations and checksums of files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def canonical(config: Any) -> str:
    """The JSON text of a configuration (dataclasses, dicts, lists, numbers, strings) with sorted keys."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(config, sort_keys=True, default=plain)


def digest(config: Any) -> str:
    """Eight hex digits that identify a configuration."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:8]


def sha256(path: str | Path) -> str:
    """The SHA-256 checksum of a file, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
