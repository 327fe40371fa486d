"""What a result was made with: versions, commit, device, numbers' type, threads, seed, time."""

import hashlib
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time

import iptkit
from iptkit import paths

PACKAGES = ("torch", "transformers", "datasets", "numpy")
TOLD = ("timings.json", "claims.json")  # of data/, changes no result


def stamp(backbone=None, seed: int | None = None) -> None:
    """Print a small table of what this notebook ran with; the last cell of every notebook.

    Args:
      backbone: a loaded backbone, whose name, device and dtype are told.
      seed: the notebook's seed.
    """
    table = [*rows(), *_of_backbone(backbone), *([] if seed is None else [("seed", str(seed))])]
    table += [*_of_steps(), ("wall time", f"{time.time() - iptkit.STARTED:.0f} s since iptkit was imported")]
    print("\n".join(f"{name:<14}{value}" for name, value in table))


def rows() -> list[tuple[str, str]]:
    """Return name and value of what can be told without a model: versions, commit, machine, threads."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    table = [
        ("iptkit", f"{iptkit.__version__} ({_commit() or 'no git commit'})"),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("packages", versions),
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
    ]
    torch = sys.modules.get("torch")  # never the reason to import it
    if torch is not None:
        table.append(("threads", str(torch.get_num_threads())))
        if torch.cuda.is_available():
            table.append(("gpu", torch.cuda.get_device_name()))
    return table


def code() -> str:
    """Name the code that runs here: versions, and a digest of the kit's modules and of the data they read."""
    data = paths.data_dir()
    read = [file for file in data.rglob("*.json*") if file.parent.name != "results" and file.name not in TOLD]
    files = sorted(paths.PACKAGE.rglob("*.py")) + sorted(read)
    own = (
        file for file in files if not file.name.startswith(".")
    )  # a file manager's `._x.py` is none of ours
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in own)).hexdigest()[:8]
    versions = (f"{name} {_version(name).partition('+')[0]}" for name in PACKAGES)  # +cpu and +cu130 are one
    return f"iptkit {iptkit.__version__} (files {digest}), {', '.join(versions)}"


def matmul_speed(device: str = "cpu", seconds: float = 0.3) -> float:
    """Measure matrix products of a small model's sizes in the dtype that the lessons use there.

    Returns: TFLOP/s, the best of several short measurements.
    """
    import torch

    from iptkit import backbones

    place = torch.device(device)
    dtype = torch.bfloat16 if backbones.native_dtype(place) == "mixed" else torch.float32
    left, right = (torch.ones(size, dtype=dtype, device=place) for size in ((1024, 576), (576, 1536)))
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(4):
            product = left @ right
        product[0, 0].item()  # waits for a GPU
        fastest = min(fastest, time.perf_counter() - begun)
    return 4 * 2 * 1024 * 576 * 1536 / fastest / 1e12


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _commit() -> str | None:
    """Return the checkout's short commit, with "+" if files differ from it; None outside a checkout."""
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


def _of_backbone(backbone) -> list[tuple[str, str]]:
    if backbone is None:
        return []
    facts = ((name, getattr(backbone, name, None)) for name in ("name", "device", "dtype"))
    told = [str(value).removeprefix("torch.") for _, value in facts if value is not None]
    return [("model", ", ".join(told) or type(backbone).__name__)]


def _of_steps() -> list[tuple[str, str]]:
    """Tell how many steps of this notebook came from the step cache."""
    store = sys.modules.get("iptkit.store")
    if store is None or not store.HITS:
        return []
    loaded = sum(store.HITS.values())
    return [("steps", f"{loaded} from the step cache, {len(store.HITS) - loaded} computed")]
