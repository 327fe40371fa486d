"""The versions that a result was made with: packages, code, processor."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys

import iptkit
from iptkit.storage import paths

PACKAGES = ("torch", "transformers", "datasets", "numpy")
NO_INPUT = ("timings.json", "claims.json")  # files of data/ that change no result


def rows() -> list[tuple[str, str]]:
    """Name and value of everything that is known without a model: versions, commit, machine, threads."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    table = [
        ("iptkit", f"{iptkit.__version__} ({_commit() or 'no git commit'})"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("packages", versions),
        ("processor", processor()),
    ]
    torch = sys.modules.get("torch")  # reported if it is imported, never imported for this
    if torch is not None:
        table.append(("threads", str(torch.get_num_threads())))
        if torch.cuda.is_available():
            table.append(("gpu", torch.cuda.get_device_name()))
    return table


@functools.cache
def processor() -> str:
    """The processor and its number of cores."""
    return f"{_processor()}, {os.cpu_count()} cores"


def of_packages() -> dict[str, str]:
    """The versions of iptkit and of the packages that its results depend on, by name."""
    return {"iptkit": iptkit.__version__} | {name: _version(name) for name in PACKAGES}


def code() -> str:
    """Text that identifies the running code: versions, a digest of the kit's modules and of their data."""
    data = paths.data_dir()
    read = [
        file for file in data.rglob("*.json*") if file.parent.name != "results" and file.name not in NO_INPUT
    ]
    files = sorted(paths.PACKAGE.rglob("*.py")) + sorted(read)
    own = (file for file in files if not file.name.startswith("."))  # a file manager may add `._x.py`
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in own)).hexdigest()[:8]
    versions = (f"{name} {_version(name).partition('+')[0]}" for name in PACKAGES)  # +cpu and +cu130 are one
    return f"iptkit {iptkit.__version__} (files {digest}), {', '.join(versions)}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _commit() -> str | None:
    """The checkout's short commit, with "+" if files differ from it; None outside a checkout."""
    if not (paths.PACKAGE.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=8", "--exclude=*"],
            text=True,
            cwd=paths.PACKAGE.parent,
            capture_output=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"commit {done.stdout.strip()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
